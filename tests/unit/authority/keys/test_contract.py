from __future__ import annotations

from pathlib import Path

import pytest

from muster.authority.keys import custody
from muster.cluster.file import AuthorityKey
from muster.kernel.errors import Conflict, Unavailable
from tests.servers import puppetca
from tests.unit.authority.keys.material import put


def test_a_key_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    ca = puppetca.new_ca()
    given = put(tmp_path / "given.pem", puppetca.key_pem(ca.key))
    file = tmp_path / "key.pem"
    with custody.named(AuthorityKey(file=file), file).adopted(ca.issuer, given) as adopted:
        put(file, b"another one's")
        with pytest.raises(Conflict, match="exists by now"), adopted.in_place():
            pytest.fail("the ledger was written")
    assert file.read_bytes() == b"another one's"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["given.pem", "key.pem"]


def test_a_key_goes_again_when_another_ca_was_first(tmp_path: Path) -> None:
    ca = puppetca.new_ca()
    given = put(tmp_path / "given.pem", puppetca.key_pem(ca.key))
    file = tmp_path / "key.pem"

    def race(lost: Exception) -> None:
        with custody.named(AuthorityKey(file=file), file).adopted(ca.issuer, given) as adopted, adopted.in_place():
            assert file.exists()
            raise lost

    with pytest.raises(Conflict):
        race(Conflict("another one was first"))
    assert not file.exists()
    # What a silent store did is unknown: the CA may be there, and this its only key.
    with pytest.raises(Unavailable):
        race(Unavailable("no answer"))
    assert file.exists()
