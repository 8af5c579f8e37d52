from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muster.authority.checks import checks
from muster.authority.ledger.ledger import Ledger
from muster.authority.x509 import profile
from muster.authority.x509.profile import Issuer
from muster.cluster.file import Authority
from muster.kernel.clock import FakeClock
from muster.kernel.findings import Finding
from muster.store.engine import Store
from tests.servers import puppetca

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("days", "before"), [(10, "2"), (1825, "30")])
async def test_a_list_is_found_late_when_half_of_the_time_to_renew_it_is_over(
    store: Store, home: Path, days: int, before: str
) -> None:
    settings = Authority(crl_ttl_days=days)
    await puppetca.begin(store, home, settings=settings)
    clock = FakeClock(datetime.now(UTC))

    @contextlib.asynccontextmanager
    async def same() -> AsyncIterator[Store]:
        yield store

    (check,) = checks(settings, home, same, clock)

    async def found() -> list[str]:
        return [f.cause for f in await check.run() if f.code == "CA-LIST-ENDS"]

    assert await found() == []
    late_s = float(before) * 86_400 / 2
    clock.advance(timedelta(days=days).total_seconds() - late_s - 600)
    assert await found() == []
    clock.advance(1200)
    (cause,) = await found()
    assert cause.startswith(f"Members renew it {before} days before its end")


async def found(store: Store, home: Path, settings: Authority | None = None) -> list[Finding]:
    @contextlib.asynccontextmanager
    async def same() -> AsyncIterator[Store]:
        yield store

    (check,) = checks(settings or Authority(), home, same, FakeClock(NOW))
    return list(await check.run())


NOW = datetime.now(UTC)
ROOT = "Puppet Root CA"


async def with_root_list(store: Store, home: Path, *, ends: timedelta, lives: timedelta = timedelta(days=900)) -> None:
    """Have a CA below a root whose list ends then."""
    root = puppetca.new_ca(ROOT)
    ledger = Ledger(store, "test")
    await puppetca.begin(store, home)
    start = NOW + ends - lives
    pem = profile.pem_of(profile.signed_list(root.issuer, root.key, [], number=1, now=start, ttl=lives))
    await ledger.replace_ancestors(pem, expected="", actor="test")


@pytest.mark.parametrize(
    ("ends", "severity"),
    [(29, None), (27, "warning"), (3, "warning"), (-1, "error")],
)
async def test_an_ancestors_list_is_found_weeks_before_its_end(
    store: Store, home: Path, ends: int, severity: str | None
) -> None:
    await with_root_list(store, home, ends=timedelta(days=ends))
    findings = [f for f in await found(store, home) if f.code == "CA-ANCESTOR-LIST-ENDS"]
    assert [f.severity for f in findings] == ([severity] if severity else [])
    for one in findings:
        assert one.sentence.startswith(f"The revocation list of {ROOT}, above the Puppet CA, end")
        assert "PUT /puppet-ca/v1/certificate_revocation_list" in one.remedy


@pytest.mark.parametrize(("ends", "late"), [(20, False), (7, True), (3, True)])
async def test_an_ancestors_short_lived_list_is_late_in_its_last_quarter(
    store: Store, home: Path, ends: int, late: bool
) -> None:
    await with_root_list(store, home, ends=timedelta(days=ends), lives=timedelta(days=30))
    assert any(f.code == "CA-ANCESTOR-LIST-ENDS" for f in await found(store, home)) is late


async def test_an_ancestors_certificate_is_named_when_it_ends(store: Store, home: Path) -> None:
    root = puppetca.new_ca(ROOT)
    own = puppetca.new_ca()
    ending = profile.self_signed(ROOT, root.key, now=NOW, ttl=timedelta(days=20))
    chain = own.issuer.chain_pem + profile.pem_of(ending)
    await puppetca.begin(store, home, puppetca.NewCA(Issuer.read(chain), own.key))
    findings = [f for f in await found(store, home) if f.code == "CA-EXPIRES-SOON"]
    assert [(f.place, f.sentence) for f in findings] == [
        (ROOT, f"The certificate of {ROOT}, above the Puppet CA, ends on {NOW + timedelta(days=20):%Y-%m-%d}")
    ]


async def test_an_administrator_without_a_certificate_is_found(store: Store, home: Path) -> None:
    settings = Authority(administrators=("admin.example.net", "other.example.net"), requests_per_minute=0)
    await puppetca.begin(store, home)
    async with puppetca.member(store, home, settings) as ca:

        async def lacking() -> list[str]:
            return [f.place for f in await found(store, home, settings) if f.code == "CA-ADMINISTRATOR"]

        assert await lacking() == ["admin.example.net", "other.example.net"]
        await ca.requests.submit("admin.example.net", puppetca.agent("admin.example.net").csr, source="192.0.2.1")
        assert await lacking() == ["admin.example.net", "other.example.net"]
        await ca.requests.sign("admin.example.net", actor="test")
        assert await lacking() == ["other.example.net"]
