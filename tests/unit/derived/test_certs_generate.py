"""How Foreman makes the certificates of Ruby Smart Proxies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.certs_generate import OUTPUT
from muster.derived.output import Site
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.settings import parse
from tests.servers.stubs import options, ran
from tests.unit.derived.test_ruby_settings import CLUSTER, REST

PROGRAMS = ["foreman-proxy-certs-generate", "scp", "openssl"]


def scripts(rest: str = REST, **given: Any) -> dict[str, str]:
    cluster = parse(f"{CLUSTER}{rest}").parsed(ClusterFile)
    return {d.name: d.text for d in OUTPUT.rendered(modelled(cluster), cluster, Site(given=given))}


@pytest.mark.parametrize("generation", ["seed", "installer"])
def test_every_certificate_carries_the_address_and_each_alias(generation: str, tmp_path: Path) -> None:
    found = scripts(f"generation: {generation}\n{REST}")
    assert set(found) == {"proxy01.test/certs-generate.sh", "proxy02.test/certs-generate.sh"}
    for name, text in found.items():
        member = name.partition("/")[0]
        said = ran(text, tmp_path, PROGRAMS)
        (words,) = said.of("foreman-proxy-certs-generate")
        archive = f"/root/{member}-certs.tar"
        assert options(words) == {
            "--foreman-proxy-fqdn": [member],
            "--foreman-proxy-cname": ["cluster.test", "proxies.test"],
            "--certs-tar": [archive],
        }
        assert said.of("scp") == [["-p", archive, f"root@{member}:{archive}"]]
        assert said.of("openssl") == []


def test_a_certificate_of_the_sites_own_is_looked_at_before_it_is_used(tmp_path: Path) -> None:
    text = scripts(custom_certificates=Path("/root/certs"))["proxy02.test/certs-generate.sh"]
    said = ran(text, tmp_path, PROGRAMS)
    (words,) = said.of("foreman-proxy-certs-generate")
    found = options(words)
    assert found["--server-cert"] == ["/root/certs/proxy02.test.crt"]
    assert found["--server-key"] == ["/root/certs/proxy02.test.key"]
    assert found["--server-ca-cert"] == ["/root/certs/ca.crt"]
    assert [one[2] for one in said.of("openssl")] == ["proxy02.test", "cluster.test", "proxies.test"]
    refused = ran(text, tmp_path, PROGRAMS, failing=["openssl"])
    assert refused.status != 0
    assert refused.of("foreman-proxy-certs-generate") == []


@pytest.mark.parametrize("directory", ["/root/a b", "/root/$(id)", "/root/a;b", "/root/*", "/root/'"])
def test_a_directory_is_one_word_whatever_it_is_called(directory: str, tmp_path: Path) -> None:
    said = ran(scripts(custom_certificates=Path(directory))["proxy01.test/certs-generate.sh"], tmp_path, PROGRAMS)
    (words,) = said.of("foreman-proxy-certs-generate")
    assert options(words)["--server-ca-cert"] == [f"{directory}/ca.crt"]


def test_a_directory_that_would_end_a_line_is_refused() -> None:
    with pytest.raises(Rejected, match="control character"):
        scripts(custom_certificates=Path("/root/a\nb"))


def test_containers_have_bundles_instead() -> None:
    with pytest.raises(Misconfigured, match="muster render foremanctl"):
        scripts(f"generation: foremanctl\n{REST}")


def test_where_it_is_run_must_be_known() -> None:
    with pytest.raises(Misconfigured, match=r"set foreman\.url"):
        scripts("signer: proxy01.test\n")
