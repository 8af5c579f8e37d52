from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muster.authority.copies import Copies
from muster.authority.hand import Hand
from muster.authority.ledger.ledger import Ledger
from muster.authority.ledger.lookup import Published
from muster.authority.lists import RevocationLists
from muster.authority.x509 import profile
from muster.authority.x509.profile import Issuer
from muster.cluster.file import Authority
from muster.kernel.clock import SystemClock
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.servers import puppetca
from tests.servers.puppetca import NewCA

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)


def published(ca: NewCA, number: int = 3) -> Published:
    own = profile.signed_list(ca.issuer, ca.key, [(7, NOW)], number=number, now=NOW, ttl=timedelta(days=9))
    return Published(number, profile.pem_of(own), "", "", 1.25, (NOW + timedelta(days=9)).timestamp())


def test_lists_come_back_as_they_were_kept(tmp_path: Path) -> None:
    ca = puppetca.new_ca()
    copies = Copies(tmp_path / "new" / "directory")
    assert copies.lists(ca.issuer) is None
    for lists in (published(ca), published(ca, 4)):
        assert copies.keep_lists(lists)
        assert Copies(tmp_path / "new" / "directory").lists(ca.issuer) == lists


def test_lists_that_are_damaged_or_another_cas_are_none(tmp_path: Path) -> None:
    ca = puppetca.new_ca()
    copies, path = Copies(tmp_path), tmp_path / "lists.json"
    copies.keep_lists(published(puppetca.new_ca("Puppet CA: other")))
    assert copies.lists(ca.issuer) is None
    copies.keep_lists(published(ca))
    good = json.loads(path.read_text())
    for damaged in (
        "",
        "junk",
        "[]",
        "{}",
        path.read_text()[:-9],
        json.dumps({**good, "number": 4}),
        json.dumps({**good, "own_pem": "junk"}),
        json.dumps({**good, "own_pem": 1}),
        json.dumps({**good, "more": 1}),
    ):
        path.write_text(damaged)
        assert copies.lists(ca.issuer) is None, damaged


def test_a_disk_that_refuses_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    copies = Copies(tmp_path / "file" / "below")
    copies.keep_bundle("bundle")
    assert copies.bundle() is None
    assert not copies.keep_lists(published(puppetca.new_ca()))


def test_a_bundle_that_is_kept_is_not_written_again(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    copies.keep_bundle("one\r\n")
    before = (tmp_path / "ca_crt.pem").stat()
    copies.keep_bundle("one\r\n")
    after = (tmp_path / "ca_crt.pem").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    copies.keep_bundle("two\n")
    assert copies.bundle() == "two\n"


async def begin_with_carriage_returns(store: Store, home: Path) -> str:
    """Begin a ledger with a bundle as an import may bring it; return the bundle."""
    new, settings = puppetca.new_ca(), Authority()
    bundle = new.issuer.chain_pem.replace("\n", "\r\n")
    puppetca.put_key(home, puppetca.key_pem(new.key))
    ledger = Ledger(store, "maker")
    lists = RevocationLists(Hand(ledger, settings, Issuer.read(bundle), new.key, SystemClock()))
    await ledger.create(bundle, build=lists.build)
    return bundle


async def test_a_bundle_has_the_same_bytes_with_the_store_and_without(tmp_path: Path, home: Path) -> None:
    (tmp_path / "disk").mkdir()
    url = Secret(f"sqlite:///{tmp_path}/disk/store.db")
    async with opened(url) as store:
        bundle = await begin_with_carriage_returns(store, home)
        async with puppetca.member(store, home) as ca:
            assert ca.chain_pem == bundle
        assert (home / "ca_crt.pem").read_bytes() == bundle.encode()
    (tmp_path / "disk").rename(tmp_path / "away")
    async with opened(url, statement_timeout_s=1) as store, puppetca.member(store, home) as ca:
        assert ca.chain_pem.encode() == bundle.encode()
        answer = await puppetca.asked(ca, "GET", "/puppet-ca/v1/certificate/ca")
        assert answer.body == bundle
