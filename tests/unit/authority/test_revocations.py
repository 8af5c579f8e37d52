from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509

from muster.authority.authority import PuppetCA
from muster.authority.revocations import Revocations
from muster.cluster.file import Authority
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.servers import puppetca
from tests.servers.certificates import CA

KEPT_S = 600.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        yield store


@pytest.fixture
async def ca(store: Store, tmp_path: Path) -> AsyncIterator[PuppetCA]:
    """A CA that signed a.example.net and b.example.net and revoked the second."""
    await puppetca.begin(store, tmp_path / "home")
    async with puppetca.member(store, tmp_path / "home", Authority(autosign=("all",))) as ca:
        for name in ("a.example.net", "b.example.net"):
            assert await ca.requests.submit(name, puppetca.agent(name).csr, source="192.0.2.9")
        await ca.certificates.revoke("b.example.net", actor="test")
        yield ca


async def certificate(ca: PuppetCA, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((await ca.certificates.pem(name)).encode())


class Away:
    """The revocations of a member, whose store can be taken away."""

    def __init__(self, store: Store, state: Path) -> None:
        self.clock = FakeClock()
        self.asked = Revocations(store, "proxy01", state, kept_s=KEPT_S, clock=self.clock)
        self._ledger = self.asked._ledger

    def leave(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def silent(*_: object) -> None:
            raise Unavailable("The store (test) did not answer")

        monkeypatch.setattr(self._ledger, "is_revoked", silent)
        monkeypatch.setattr(self._ledger, "chain", silent)


async def test_the_ledger_is_asked_each_time(store: Store, ca: PuppetCA, tmp_path: Path) -> None:
    found = Revocations(store, "proxy01", tmp_path / "state", kept_s=KEPT_S)
    a, b = await certificate(ca, "a.example.net"), await certificate(ca, "b.example.net")
    assert not await found.is_revoked(a)
    assert await found.is_revoked(b)
    await ca.certificates.revoke("a.example.net", actor="test")
    assert await found.is_revoked(a)


async def test_of_other_cas_certificates_nothing_is_said(store: Store, ca: PuppetCA, tmp_path: Path) -> None:
    found = Revocations(store, "proxy01", tmp_path / "state", kept_s=KEPT_S)
    serial = (await certificate(ca, "b.example.net")).serial_number
    assert not await found.is_revoked(CA("theirs").issue("b.example.net", serial=serial))


async def test_where_there_is_no_ca_yet_nothing_is_revoked(store: Store, tmp_path: Path) -> None:
    found = Revocations(store, "proxy01", tmp_path / "state", kept_s=KEPT_S)
    assert not await found.is_revoked(CA("theirs").issue("b.example.net"))


async def test_without_the_store_the_last_list_counts_for_a_while_and_then_nothing(
    store: Store, ca: PuppetCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the CA keeps its copies: beside its key, when it has no other place.
    away = Away(store, tmp_path / "home")
    await ca.follow()
    a, b = await certificate(ca, "a.example.net"), await certificate(ca, "b.example.net")
    away.leave(monkeypatch)
    away.clock.advance(KEPT_S - 1)
    assert not await away.asked.is_revoked(a)
    assert await away.asked.is_revoked(b)
    assert away.asked.note == "revocations are those of 599 s ago, because the store does not answer"
    away.clock.advance(2)
    with pytest.raises(Unavailable, match="longer than the last list is believed"):
        await away.asked.is_revoked(a)
    # Another CA's certificates were never asked for.
    assert not await away.asked.is_revoked(CA("theirs").issue("b.example.net"))
    away.asked.heard()
    assert away.asked.note == ""
    assert not await away.asked.is_revoked(a)


async def test_without_store_and_list_nobody_is_believed(
    store: Store, ca: PuppetCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(store, tmp_path / "elsewhere")
    away.leave(monkeypatch)
    with pytest.raises(Unavailable, match="this member has no list"):
        await away.asked.is_revoked(await certificate(ca, "a.example.net"))
