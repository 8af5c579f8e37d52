from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from muster.cluster.file import Authority
from muster.kernel.clock import FakeClock
from muster.store.engine import Store
from tests.servers import puppetca
from tests.servers.puppetca import asked
from tests.unit.authority.hosts import CRL, enrolled

pytestmark = pytest.mark.anyio


async def test_with_infra_hosts_agents_get_the_short_list(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    settings = Authority(autosign=("all", "hostnames"), infra_hosts=("infra.example.net",), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        serials = {}
        # Its name is reserved: all is not enough.
        await ca.autosign.add_host("infra.example.net", by="test")
        for name in ("infra.example.net", "many.example.net"):
            _, der = await enrolled(ca, name)
            serials[name] = x509.load_der_x509_certificate(der).serial_number
        await ca.certificates.clean(list(serials), actor="test")
        assert puppetca.revoked_in((await asked(ca, "GET", CRL)).body) == {serials["infra.example.net"]}
        assert puppetca.revoked_in((await ca.lists.served(whole=True)).pem) == set(serials.values())


async def test_infra_hosts_switched_on_later_have_their_list_from_the_start(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    serials = {}
    async with puppetca.member(store, home, Authority(autosign=("all",), requests_per_minute=0)) as ca:
        for name in ("infra.example.net", "other.example.net", "many.example.net"):
            _, der = await enrolled(ca, name)
            serials[name] = x509.load_der_x509_certificate(der).serial_number
        await ca.certificates.clean(list(serials), actor="test")
    async with puppetca.member(store, home, Authority(infra_hosts=("infra.example.net",))) as ca:
        # No short list was ever made: the whole one says at least as much.
        assert puppetca.revoked_in((await asked(ca, "GET", CRL)).body) == set(serials.values())
        await ca.keep_up()
        answer = await asked(ca, "GET", CRL)
        assert puppetca.revoked_in(answer.body) == {serials["infra.example.net"]}
        assert puppetca.number_in(answer.body) == 2
        await ca.keep_up()
        assert (await ca.lists.served()).number == 2
    # As they are, they are not made anew by the next start.
    async with puppetca.member(store, home, Authority(infra_hosts=("infra.example.net",))) as ca:
        await ca.keep_up()
        assert (await ca.lists.served()).number == 2
    both = ("infra.example.net", "other.example.net")
    async with puppetca.member(store, home, Authority(infra_hosts=both)) as ca:
        await ca.keep_up()
        assert puppetca.revoked_in((await ca.lists.served()).pem) == {serials[n] for n in both}


async def test_members_that_know_different_infra_hosts_do_not_take_turns(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    old, new = (Authority(autosign=("all",), infra_hosts=(n,), requests_per_minute=0) for n in ("b.net", "a.net"))
    async with puppetca.member(store, home, old) as before, puppetca.member(store, home, new) as after:
        await enrolled(before, "a.net")
        await before.certificates.revoke("a.net", actor="test")
        for _ in range(3):
            for ca in (before, after):
                await ca.keep_up()
        # The one that started with the new hosts made it once.
        assert (await after.lists.served()).number == 2
        assert len(puppetca.revoked_in((await after.lists.served()).pem)) == 1


async def test_a_list_is_pushed_to_a_puppetserver_keeping_its_mode(store: Store, home: Path, tmp_path: Path) -> None:
    pushed, absent = tmp_path / "crl.pem", tmp_path / "absent" / "crl.pem"
    pushed.write_text("old")
    pushed.chmod(0o640)
    await puppetca.begin(store, home)
    settings = Authority(autosign=("all",), push_crl=(pushed,), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        await ca.keep_up()
        assert puppetca.number_in(pushed.read_text()) == 0
        await enrolled(ca, "a.example.net")
        await ca.certificates.revoke("a.example.net", actor="test")
        assert puppetca.number_in(pushed.read_text()) == 1
        assert pushed.stat().st_mode & 0o777 == 0o640
        # What another member revokes is seen, too; this one is asked for nothing.
        async with puppetca.member(store, home, Authority(autosign=("all",), requests_per_minute=0)) as other:
            await enrolled(other, "b.example.net")
            await other.certificates.revoke("b.example.net", actor="test")
        await ca.follow()
        assert ca.list_now is not None
        assert (ca.list_now.number, puppetca.number_in(pushed.read_text())) == (2, 2)
    async with puppetca.member(store, home, Authority(push_crl=(absent,))) as ca:
        # A directory that is not there is logged, and nothing fails.
        await ca.keep_up()
        assert not absent.exists()


@pytest.mark.parametrize("days", [1, 10, 30, 1825])
async def test_a_list_of_any_life_is_renewed_in_its_last_fifth_or_month_and_not_before(
    store: Store, home: Path, days: int
) -> None:
    settings = Authority(crl_ttl_days=days, requests_per_minute=0)
    await puppetca.begin(store, home, settings=settings)
    clock = FakeClock(datetime.now(UTC))
    ahead_s = min(30.0, days / 5) * 86_400
    async with puppetca.member(store, home, settings, clock=clock) as ca:
        await ca.keep_up()
        clock.advance(days * 86_400 - ahead_s - 600)
        await ca.keep_up()
        assert (await ca.lists.served()).number == 0
        clock.advance(1200)
        await ca.keep_up()
        await ca.keep_up()
        assert (await ca.lists.served()).number == 1


async def test_a_list_is_renewed_before_it_ends_and_its_number_grows(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    clock = FakeClock(datetime.now(UTC))
    async with puppetca.member(store, home, clock=clock) as ca:
        await ca.keep_up()
        assert (await ca.lists.served()).number == 0
        clock.advance(timedelta(days=1825 - 29).total_seconds())
        await ca.keep_up()
        await ca.keep_up()
        lists = await ca.lists.served()
        assert (lists.number, puppetca.number_in(lists.pem)) == (1, 1)
        ends = x509.load_pem_x509_crl(lists.pem.encode()).next_update_utc
        assert ends is not None
        assert ends > clock.now() + timedelta(days=1800)
