"""What hosts that join find below /pub: the same bytes on every member, whatever else is there."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from muster.client import bootstrap
from muster.cluster.file import ClusterFile
from muster.content.joining import Joining, authorities
from muster.content.pub import Pub
from muster.derived import muster_client
from muster.edge.replies import Reply
from muster.kernel.errors import Unavailable
from muster.kernel.settings import parse
from muster.pki.authority import ClusterCA, ca_paths
from tests.unit.balancer.test_model import HEAD
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

PROGRAM = Path(bootstrap.__file__).read_bytes()


def ca(directory: Path) -> Path:
    return ca_paths(ClusterCA.create(directory, "joining", now=datetime.now(UTC)).directory)[0]


async def got(pub: Pub, name: str, **headers: Any) -> Reply:
    answer = await pub.answer(f"/{name}", request("GET", f"/pub/{name}", headers=headers))
    assert isinstance(answer, Reply)
    return answer


async def test_the_program_is_there_with_its_digest_and_without_a_directory() -> None:
    with contextlib.closing(Pub(None, Joining({}, ()))) as pub:
        found = await got(pub, "muster-bootstrap")
        assert (found.status, found.body) == (200, PROGRAM)
        headers = dict(found.headers)
        assert headers[b"content-type"].startswith(b"text/")
        assert headers[b"content-length"] == b"%d" % len(PROGRAM)
        digest = hashlib.sha256(PROGRAM).hexdigest()
        assert headers[b"etag"] == f'"sha256:{digest}"'.encode()
        assert (await got(pub, "muster-bootstrap.sha256")).body == f"{digest}  muster-bootstrap\n".encode()
        again = await got(pub, "muster-bootstrap", **{"if-none-match": headers[b"etag"].decode()})
        assert (again.status, again.body) == (304, b"")
        assert (await pub.answer("/bootstrap.py", request("GET", "/pub/bootstrap.py"))).status == 404


async def test_what_is_built_in_comes_before_a_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "muster-bootstrap").write_bytes(b"another")
    with contextlib.closing(Pub(tmp_path, Joining({"muster-client.json": "{}\n"}, ()))) as pub:
        assert (await got(pub, "muster-bootstrap")).body == PROGRAM
        told = await got(pub, "muster-client.json")
        assert (told.body, dict(told.headers)[b"content-type"]) == (b"{}\n", b"application/json")


def test_the_cas_are_in_the_same_order_each_once_and_followed_when_they_change(tmp_path: Path) -> None:
    one, other = ca(tmp_path / "one"), ca(tmp_path / "other")
    both = tmp_path / "both.pem"
    both.write_bytes(other.read_bytes() + one.read_bytes() + other.read_bytes())
    found = Joining({}, (one, other)).text("muster-ca.pem")
    assert found == Joining({}, (both,)).text("katello-server-ca.crt")
    assert found is not None
    assert len(x509.load_pem_x509_certificates(found.body)) == 2
    # As the client reads them.
    assert len(bootstrap.authorities(found.body, "it")) == 2
    joining = Joining({}, (both,))
    assert joining.text("muster-ca.pem") == found
    both.write_bytes(one.read_bytes())
    alone = joining.text("muster-ca.pem")
    assert alone is not None
    assert x509.load_pem_x509_certificates(alone.body) == x509.load_pem_x509_certificates(one.read_bytes())
    both.unlink()
    with pytest.raises(Unavailable, match=r"both\.pem"):
        joining.text("muster-ca.pem")


def test_foremans_ca_is_one_of_them_where_ruby_members_show_what_it_issued() -> None:
    # The second member of the head is one.
    site = 'foreman: {url: "https://foreman.test", ca_file: /etc/foreman-ca.pem}\n'
    ours = parse((HEAD + site).replace(", kind: foreman", ""))
    own = Path("/etc/muster/ca.pem")
    assert authorities(ours.parsed(ClusterFile), own) == (own,)
    assert authorities(parse(HEAD + site).parsed(ClusterFile), own) == (own, Path("/etc/foreman-ca.pem"))


def test_its_form_is_the_one_that_the_client_knows() -> None:
    assert muster_client.FORM == bootstrap.FORM
    assert f"/pub/{muster_client.NAME}" == bootstrap.DOCUMENT
