"""The Puppet CA's promises when several members are it, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import insert, inspect, select, text

from muster.authority import own
from muster.authority.authority import PuppetCA
from muster.authority.autosign import Autosign
from muster.authority.ledger.ledger import Ledger
from muster.authority.x509 import csr
from muster.cluster.file import Authority
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Conflict, Denied, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.secrets import Secret
from muster.store import schema
from muster.store.engine import Store, opened
from muster.store.tables import certificates, documents, store_now
from tests.servers import puppetca
from tests.servers.postgresql import PostgreSQL
from tests.servers.puppetca import ADMINISTRATOR, asked

pytestmark = pytest.mark.anyio

V1 = "/puppet-ca/v1"
CRL = f"{V1}/certificate_revocation_list/ca"
EVERYBODY = Authority(autosign=("all",), allow_auto_renewal=True, requests_per_minute=0)
SOURCE = "192.0.2.1"


class Members:
    """Two members of one cluster, each with a store of its own as in two processes, and the ledger begun."""

    def __init__(self, url: str, directory: Path, first: PuppetCA, second: PuppetCA) -> None:
        self.url = url
        self.directory = directory
        self.first = first
        self.second = second

    @property
    def both(self) -> tuple[PuppetCA, PuppetCA]:
        return self.first, self.second


@contextlib.asynccontextmanager
async def members_of(url: str, directory: Path, settings: Authority = EVERYBODY) -> AsyncIterator[Members]:
    async with contextlib.AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(opened(Secret(url), connect_timeout_s=1.0, statement_timeout_s=5.0))
            for _ in range(2)
        ]
        if await Ledger(stores[0], "test").chain() is None:
            new = await puppetca.begin(stores[0], directory / "proxy01", settings=settings)
            puppetca.put_key(directory / "proxy02", puppetca.key_pem(new.key))
        open_members = [
            await stack.enter_async_context(puppetca.member(store, directory / name, settings, name=name))
            for store, name in zip(stores, ("proxy01", "proxy02"), strict=True)
        ]
        yield Members(url, directory, *open_members)


@pytest.fixture
async def members(url: str, tmp_path: Path) -> AsyncIterator[Members]:
    async with members_of(url, tmp_path) as both:
        yield both


def serial_of(pem: str) -> int:
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def enrolled(ca: PuppetCA, name: str) -> bytes:
    """Have a host enrol; return its certificate, DER."""
    await ca.requests.submit(name, puppetca.agent(name).csr, source=SOURCE)
    return x509.load_pem_x509_certificate((await ca.certificates.pem(name)).encode()).public_bytes(Encoding.DER)


async def attempted(work: Any) -> Any:
    try:
        return await work
    except MusterError as e:
        return e


# ------------------------------------------------------------------ by two at once


@pytest.mark.parametrize("settings", [EVERYBODY, Authority(requests_per_minute=0)], ids=["autosigned", "waiting"])
async def test_of_four_that_ask_for_one_name_at_once_one_gets_it(url: str, tmp_path: Path, settings: Authority) -> None:
    async with members_of(url, tmp_path, settings) as members:
        for round_ in range(5):
            name = f"n{round_}.example.net"
            outcomes = await asyncio.gather(
                *(
                    attempted(ca.requests.submit(name, puppetca.agent(name).csr, source=SOURCE))
                    for ca in members.both * 2
                )
            )
            won = [o for o in outcomes if isinstance(o, bool)]
            lost = [o for o in outcomes if isinstance(o, Rejected)]
            assert (len(won), len(lost)) == (1, 3), outcomes
            state = "signed" if settings.autosign else "requested"
            said = f"{name} already has a {state} certificate; ignoring certificate request"
            assert {str(o) for o in lost} == {said}


async def test_many_at_once_are_signed_whoever_goes_away_or_is_refused(members: Members) -> None:
    await enrolled(members.second, "n03.example.net")
    names = [f"n{n:02d}.example.net" for n in range(24)]
    csrs = {name: puppetca.agent(name).csr for name in names}
    going = {n: asyncio.create_task(attempted(members.first.requests.submit(n, csrs[n], source=SOURCE))) for n in names}
    other = asyncio.create_task(
        attempted(members.second.requests.submit("n07.example.net", csrs["n07.example.net"], source=SOURCE))
    )
    while not any(task.done() for task in going.values()):
        await asyncio.sleep(0)
    for name in ("n20.example.net", "n23.example.net"):
        going[name].cancel()
    outcomes = dict(zip(going, await asyncio.gather(*going.values(), return_exceptions=True), strict=True))
    assert [isinstance(o, Rejected) for o in (outcomes["n07.example.net"], await other)].count(True) == 1
    assert isinstance(outcomes["n03.example.net"], Rejected)
    signed = {n for n, o in outcomes.items() if o is True} | {"n03.example.net", "n07.example.net"}
    assert signed >= set(names) - {"n20.example.net", "n23.example.net"}
    for name in signed:
        made = x509.load_pem_x509_certificate((await members.second.certificates.pem(name)).encode())
        assert made.public_key() == x509.load_pem_x509_csr(csrs[name]).public_key() or name == "n03.example.net"


async def test_of_two_that_sign_one_request_one_does_and_the_other_is_told(url: str, tmp_path: Path) -> None:
    async with members_of(url, tmp_path, Authority(requests_per_minute=0)) as members:
        for round_ in range(5):
            name = f"n{round_}.example.net"
            await members.first.requests.submit(name, puppetca.agent(name).csr, source=SOURCE)
            outcomes = await asyncio.gather(*(attempted(ca.requests.sign(name, actor="test")) for ca in members.both))
            assert outcomes.count(None) == 1
            assert isinstance(next(o for o in outcomes if o is not None), Conflict | Rejected)
        async with opened(Secret(url)) as store, store.read() as uow:
            rows = (await uow.connection.execute(select(certificates.c.serial))).scalars().all()
        assert len(rows) == 5


async def test_two_members_may_sign_all_at_once(url: str, tmp_path: Path) -> None:
    async with members_of(url, tmp_path, Authority(requests_per_minute=0)) as members:
        names = [f"n{n:02}.example.net" for n in range(12)]
        for name in names:
            await members.first.requests.submit(name, puppetca.agent(name).csr, source=SOURCE)
        one, two = await asyncio.gather(*(ca.requests.sign_all(None, actor="test") for ca in members.both))
        assert sorted([*one.signed, *two.signed]) == names
        assert (one.refused, two.refused) == ((), ())


async def test_revocations_on_two_members_at_once_lose_nothing(members: Members) -> None:
    names = [f"n{n:02}.example.net" for n in range(20)]
    serials = {x509.load_der_x509_certificate(await enrolled(members.first, n)).serial_number for n in names}
    seen: list[int] = []
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            lists = await members.second.lists.served()
            assert puppetca.number_in(lists.pem) == lists.number
            seen.append(lists.number)
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        try:
            async with asyncio.TaskGroup() as revoking:
                for number, name in enumerate(names):
                    revoking.create_task(members.both[number % 2].certificates.revoke(name, actor="test"))
        finally:
            done.set()
    assert watching.exception() is None
    assert seen == sorted(seen)
    for ca in members.both:
        lists = await ca.lists.served()
        assert puppetca.revoked_in(lists.pem) == serials
        assert (lists.number, puppetca.number_in(lists.pem)) == (20, 20)


async def test_the_same_name_revoked_by_both_at_once_is_revoked_once(members: Members) -> None:
    await enrolled(members.first, "a.example.net")
    await asyncio.gather(*(ca.certificates.revoke("a.example.net", actor="test") for ca in members.both * 3))
    assert (await members.first.lists.served()).number == 1


async def test_a_token_used_by_two_at_once_works_once(url: str, tmp_path: Path) -> None:
    settings = Authority(autosign=("tokens",), requests_per_minute=0)
    async with members_of(url, tmp_path, settings) as members:
        for round_ in range(5):
            name = f"n{round_}.example.net"
            token = await members.first.autosign.give_token(name, ttl_s=60)
            outcomes = await asyncio.gather(
                *(
                    attempted(ca.requests.submit(name, puppetca.agent(name, challenge=token).csr, source=SOURCE))
                    for ca in members.both * 2
                )
            )
            assert outcomes.count(True) == 1, outcomes
            assert all(isinstance(o, Rejected) for o in outcomes if o is not True)
            await members.first.certificates.clean([name], actor="test")
            assert not await members.second.requests.submit(
                name, puppetca.agent(name, challenge=token).csr, source=SOURCE
            )


async def test_of_two_puppetservers_that_ask_about_a_token_one_hears_yes(url: str, tmp_path: Path) -> None:
    settings = Authority(autosign=("tokens",), requests_per_minute=0)
    async with members_of(url, tmp_path, settings) as members:
        token = await members.first.autosign.give_token("a.example.net", ttl_s=60)
        request = csr.read(puppetca.agent("a.example.net", challenge=token).csr)
        answers = await asyncio.gather(*(ca.autosign.takes_token(request) for ca in members.both * 3))
        assert sorted(answers) == [False] * 5 + [True]


async def test_the_key_for_tokens_is_made_once_whoever_begins(url: str, tmp_path: Path) -> None:
    settings = Authority(autosign=("tokens",))
    async with opened(Secret(url)) as store, opened(Secret(url)) as other:
        given = await asyncio.gather(
            *(Autosign(s, settings).give_token(f"n{n}.example.net", ttl_s=60) for n, s in enumerate((store, other) * 2))
        )
        for number, token in enumerate(given):
            request = csr.read(puppetca.agent(f"n{number}.example.net", challenge=token).csr)
            assert await Autosign(other, settings).leave(request) is not None


async def test_foremans_list_given_by_two_at_once_holds_both(members: Members) -> None:
    names = [f"n{n:02}.example.net" for n in range(10)]
    await asyncio.gather(*(ca.autosign.add_host(name, by="foreman") for name in names for ca in members.both))
    # In the order in which they came, which two at once decide anew each time.
    assert sorted(await members.second.autosign.hosts()) == names


async def test_an_authority_is_begun_once(url: str, tmp_path: Path) -> None:
    async with opened(Secret(url)) as store, opened(Secret(url)) as other:
        await store.ping()
        outcomes = await asyncio.gather(
            *(attempted(puppetca.begin(s, tmp_path / f"h{n}")) for n, s in enumerate((store, other)))
        )
        assert sum(isinstance(o, Conflict) for o in outcomes) == 1, outcomes
        assert await Ledger(store, "test").chain() == puppetca.new_ca().issuer.chain_pem


@contextlib.asynccontextmanager
async def audit_withheld(url: str, waiters: int) -> AsyncIterator[None]:
    """Hold up, in a PostgreSQL, whatever is about to write the audit until so many transactions wait.

    The audit is what each change writes last: by then it has looked at everything, and has committed nothing.
    """
    async with opened(Secret(url)) as store, store.write() as uow:
        await uow.connection.execute(text("LOCK TABLE audit IN EXCLUSIVE MODE"))
        yield
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        async with asyncio.timeout(5):
            while (await uow.connection.execute(waiting)).scalar_one() < waiters:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("first", ["submitted", "signed"])
async def test_a_request_that_waits_and_one_that_is_signed_do_not_pass_each_other(
    postgresql_server: PostgreSQL, tmp_path: Path, first: str
) -> None:
    url, name = postgresql_server.fresh_store(), "a.example.net"
    async with (
        members_of(url, tmp_path) as signing,
        members_of(url, tmp_path, Authority(requests_per_minute=0)) as keeping,
    ):
        cas = [keeping.first, signing.first] if first == "submitted" else [signing.first, keeping.first]
        # Both know the schema, so that nothing but what is asked waits.
        await asyncio.gather(*(ca.reached() for ca in cas))
        work = []
        async with audit_withheld(url, 2):
            for ca in cas:
                work.append(
                    asyncio.create_task(attempted(ca.requests.submit(name, puppetca.agent(name).csr, source=SOURCE)))
                )
                await asyncio.sleep(0.1)
        outcomes = await asyncio.gather(*work)
        assert [isinstance(o, bool) for o in outcomes] == [True, False], outcomes
        assert isinstance(outcomes[1], Rejected)
        state = "requested" if first == "submitted" else "signed"
        assert str(outcomes[1]) == f"{name} already has a {state} certificate; ignoring certificate request"
        assert [json.loads(s)["state"] for s in await keeping.first.certificates.statuses()] == [state]


async def test_cleaning_a_name_misses_no_certificate_that_is_issued_for_it_meanwhile(
    postgresql_server: PostgreSQL, tmp_path: Path
) -> None:
    url, name = postgresql_server.fresh_store(), "a.example.net"
    async with members_of(url, tmp_path) as members:
        before = x509.load_der_x509_certificate(await enrolled(members.first, name)).serial_number
        await members.second.reached()
        async with audit_withheld(url, 2):
            issuing = asyncio.create_task(own.host_files(members.first, name, [name]))
            await asyncio.sleep(0.1)
            cleaning = asyncio.create_task(members.second.certificates.clean([name], actor="test"))
        made, missing = await asyncio.gather(issuing, cleaning)
        assert missing == []
        assert puppetca.revoked_in((await members.first.lists.served()).pem) == {
            before,
            serial_of(made.certificate_pem),
        }
        assert await members.first.certificates.status(name) is None


async def test_a_certificate_that_is_issued_for_a_name_ends_its_request(url: str, tmp_path: Path) -> None:
    async with members_of(url, tmp_path, Authority(requests_per_minute=0)) as members:
        name = "a.example.net"
        await members.first.requests.submit(name, puppetca.agent(name).csr, source=SOURCE)
        await own.host_files(members.second, name, [name])
        assert [json.loads(s)["state"] for s in await members.first.certificates.statuses()] == ["signed"]


async def test_of_a_squatter_and_the_host_with_the_token_the_host_wins_on_every_member(
    url: str, tmp_path: Path
) -> None:
    settings = Authority(autosign=("tokens",), requests_per_minute=0)
    async with members_of(url, tmp_path, settings) as members:
        for round_ in range(8):
            name = f"n{round_}.example.net"
            token = await members.first.autosign.give_token(name, ttl_s=60)
            host = puppetca.agent(name, challenge=token)
            squatter = puppetca.agent(name)
            await asyncio.gather(
                attempted(members.first.requests.submit(name, squatter.csr, source="192.0.2.66")),
                attempted(members.second.requests.submit(name, host.csr, source="192.0.2.1")),
            )
            made = x509.load_pem_x509_certificate((await members.first.certificates.pem(name)).encode())
            assert made.public_key() == host.key.public_key()
            assert await members.first.certificates.statuses("requested") == []


async def test_requests_that_waited_too_long_are_thrown_away_once_by_two_members(url: str, tmp_path: Path) -> None:
    settings = Authority(requests_per_minute=0, pending_days=0.000_001)
    async with members_of(url, tmp_path, settings) as members:
        names = [f"n{n}.example.net" for n in range(20)]
        for name in names:
            await members.first.requests.submit(name, puppetca.agent(name).csr, source="192.0.2.1")
        await asyncio.sleep(0.1)
        await asyncio.gather(*(m.keep_up() for m in members.both))
        assert await members.first.certificates.statuses() == []
        for name in names:
            history = await Ledger(members.first._hand.ledger._store, "test").history(name, most=10)
            assert [e["event"] for e in history] == ["expired", "requested"]


async def test_names_many_at_once_on_both_members_wait_in_one_order(members: Members) -> None:
    names = [f"n{n:02}.example.net" for n in range(30)]
    outcomes = await asyncio.gather(
        *(attempted(members.first.requests.submit(n, puppetca.agent(n).csr, source=SOURCE)) for n in names),
        *(attempted(members.second.requests.submit(n, puppetca.agent(n).csr, source=SOURCE)) for n in reversed(names)),
    )
    assert outcomes.count(True) == len(names)
    assert all(isinstance(o, Rejected) for o in outcomes if o is not True)


# ------------------------------------------------------------------ seen everywhere at once


async def test_a_revocation_is_refused_on_the_other_member_at_once(members: Members) -> None:
    der = await enrolled(members.first, "a.example.net")
    assert (await asked(members.second, "GET", f"{V1}/expirations", by=der)).status == 200
    await members.first.certificates.revoke("a.example.net", actor="test")
    for path in (f"{V1}/expirations", f"{V1}/certificate/ca", CRL):
        assert (await asked(members.second, "GET", path, by=der)).status == 403
    answer = await asked(members.second, "GET", CRL)
    assert puppetca.revoked_in(answer.body) == {x509.load_der_x509_certificate(der).serial_number}


async def test_what_one_member_does_the_other_answers(url: str, tmp_path: Path) -> None:
    async with members_of(url, tmp_path, Authority(requests_per_minute=0)) as members:
        host = puppetca.agent("a.example.net")
        await members.first.requests.submit(host.name, host.csr, source=SOURCE)
        assert (await members.second.requests.pem(host.name)).encode() == host.csr
        await members.second.requests.sign(host.name, actor="test")
        assert await members.first.certificates.pem(host.name) == await members.second.certificates.pem(host.name)
        with pytest.raises(NotFound):
            await members.first.requests.pem(host.name)
        assert members.first.chain_pem == members.second.chain_pem


async def test_a_cleaned_name_is_revoked_gone_and_free_in_one_new_list(members: Members) -> None:
    names = [f"n{n}.example.net" for n in range(5)]
    ders = [await enrolled(members.first, name) for name in names]
    assert await members.second.certificates.clean([*names, "nobody.example.net", names[0]], actor="test") == [
        "nobody.example.net"
    ]
    lists = await members.first.lists.served()
    assert lists.number == 1
    assert puppetca.revoked_in(lists.pem) == {x509.load_der_x509_certificate(d).serial_number for d in ders}
    assert await members.first.certificates.status(names[0]) is None
    await enrolled(members.first, names[0])
    assert (await asked(members.second, "GET", f"{V1}/expirations", by=ders[0])).status == 403


async def test_every_unended_certificate_of_a_name_is_revoked(members: Members) -> None:
    der = await enrolled(members.first, "a.example.net")
    new = await members.second.certificates.renew(der)
    await members.first.certificates.remove("a.example.net", actor="test")
    third = await enrolled(members.second, "a.example.net")
    await members.first.certificates.revoke("a.example.net", actor="test")
    lists = await members.second.lists.served()
    expected = {x509.load_der_x509_certificate(d).serial_number for d in (der, third)} | {serial_of(new)}
    assert puppetca.revoked_in(lists.pem) == expected
    assert lists.number == 1


async def test_revoking_again_changes_nothing(members: Members) -> None:
    await enrolled(members.first, "a.example.net")
    await members.first.certificates.revoke("a.example.net", actor="test")
    before = await members.first.lists.served()
    await members.second.certificates.revoke("a.example.net", actor="test")
    assert await members.second.lists.served() == before


async def test_what_is_not_there_is_said(members: Members) -> None:
    ca = members.first
    for work in (ca.certificates.revoke, ca.requests.sign, ca.certificates.remove, ca.requests.reject):
        with pytest.raises(NotFound):
            await work("nobody.example.net", actor="test")
    assert await ca.certificates.clean(["nobody.example.net"], actor="test") == ["nobody.example.net"]
    assert (await ca.lists.served()).number == 0


async def test_everything_that_was_done_is_written_down(members: Members) -> None:
    der = await enrolled(members.first, "a.example.net")
    await members.second.certificates.renew(der)
    await members.second.certificates.revoke("a.example.net", actor="admin@proxy02")
    async with opened(Secret(members.url)) as store:
        history = await Ledger(store, "test").history("a.example.net", most=10)
    assert [(h["event"], h["member"]) for h in reversed(history)] == [
        ("signed", "proxy01"),
        ("renewed", "proxy02"),
        ("revoked", "proxy02"),
        ("revoked", "proxy02"),
    ]
    assert {h["actor"] for h in history if h["event"] == "revoked"} == {"admin@proxy02"}


# ------------------------------------------------------------------ renewal


async def test_a_superseded_certificate_gets_what_its_renewal_made_and_nothing_more(members: Members) -> None:
    der = await enrolled(members.first, "a.example.net")
    new = await members.first.certificates.renew(der)
    assert await members.second.certificates.renew(der) == new
    assert await members.first.certificates.pem("a.example.net") == new
    newest = await members.second.certificates.renew(
        x509.load_pem_x509_certificate(new.encode()).public_bytes(Encoding.DER)
    )
    assert newest != new
    assert await members.first.certificates.renew(der) == newest


async def test_a_certificate_that_was_replaced_for_another_key_is_not_renewed(members: Members) -> None:
    der = await enrolled(members.first, "a.example.net")
    await own.host_files(members.second, "a.example.net", ["a.example.net"])
    with pytest.raises(Denied, match="replaced meanwhile"):
        await members.second.certificates.renew(der)


async def test_a_superseded_certificate_of_a_revoked_name_gets_nothing(members: Members) -> None:
    der = await enrolled(members.first, "a.example.net")
    await members.first.certificates.renew(der)
    await members.second.certificates.revoke("a.example.net", actor="test")
    with pytest.raises(Denied, match="is revoked"):
        await members.first.certificates.renew(der)


async def test_a_revoked_certificate_is_not_renewed(members: Members) -> None:
    der = await enrolled(members.first, "a.example.net")
    await members.first.certificates.revoke("a.example.net", actor="test")
    with pytest.raises(Denied, match="is revoked"):
        await members.second.certificates.renew(der)


async def test_a_removed_certificate_is_not_renewed(members: Members) -> None:
    der = await enrolled(members.first, "a.example.net")
    await members.first.certificates.remove("a.example.net", actor="test")
    with pytest.raises(Denied):
        await members.second.certificates.renew(der)


async def test_of_renewals_at_once_one_is_made_and_all_are_given_it(members: Members) -> None:
    der = await enrolled(members.first, "a.example.net")
    outcomes = await asyncio.gather(*(ca.certificates.renew(der) for ca in members.both * 2))
    assert set(outcomes) == {await members.second.certificates.pem("a.example.net")}
    async with opened(Secret(members.url)) as store:
        history = await Ledger(store, "test").history("a.example.net", most=10)
    assert [h["event"] for h in history] == ["renewed", "signed"]


async def test_a_renewal_that_races_a_revocation_leaves_nothing_unrevoked(members: Members) -> None:
    for round_ in range(5):
        name = f"n{round_}.example.net"
        der = await enrolled(members.first, name)
        renewed, _ = await asyncio.gather(
            attempted(members.first.certificates.renew(der)),
            attempted(members.second.certificates.revoke(name, actor="test")),
        )
        revoked = puppetca.revoked_in((await members.first.lists.served()).pem)
        assert x509.load_der_x509_certificate(der).serial_number in revoked
        if isinstance(renewed, str):
            # Given after the revocation it would not be; given before, it was revoked with the rest of the name.
            assert serial_of(renewed) in revoked


# ------------------------------------------------------------------ the lists


async def test_a_list_is_made_anew_before_it_ends_by_whoever_notices_first(url: str, tmp_path: Path) -> None:
    settings = Authority(autosign=("all",), crl_ttl_days=60, requests_per_minute=0)
    clock = FakeClock(datetime.now(UTC))
    async with opened(Secret(url)) as store, opened(Secret(url)) as other:
        await puppetca.begin(store, tmp_path, settings=settings)
        async with (
            puppetca.member(store, tmp_path, settings, clock=clock) as first,
            puppetca.member(other, tmp_path, settings, name="proxy02", clock=clock) as second,
        ):
            serial = x509.load_der_x509_certificate(await enrolled(first, "a.example.net")).serial_number
            await first.certificates.revoke("a.example.net", actor="test")
            await asyncio.gather(first.keep_up(), second.keep_up())
            assert (await first.lists.served()).number == 1
            # A fifth of its sixty days is left.
            clock.advance(timedelta(days=49).total_seconds())
            await asyncio.gather(first.keep_up(), second.keep_up())
            lists = await second.lists.served()
            assert lists.number == 2
            assert puppetca.revoked_in(lists.pem) == {serial}
            ends = x509.load_pem_x509_crl(lists.pem.encode()).next_update_utc
            assert ends is not None
            assert ends > clock.now() + timedelta(days=59)


async def test_the_lists_time_grows_whatever_the_stores_clock_does(members: Members) -> None:
    await enrolled(members.first, "a.example.net")
    later = (await members.first.lists.served()).updated_at + 3600
    async with opened(Secret(members.url)) as store, store.write() as uow:
        await uow.connection.execute(text("UPDATE crls SET updated_at = :at"), {"at": later})
    await members.second.certificates.revoke("a.example.net", actor="test")
    assert (await members.first.lists.served()).updated_at > later


async def test_ancestors_lists_are_replaced_by_newer_ones_and_ours_never(url: str, tmp_path: Path) -> None:
    async with opened(Secret(url)) as store:
        await puppetca.take_over(store, tmp_path)
        pushed = tmp_path / "crl.pem"
        async with puppetca.member(store, tmp_path, Authority(push_crl=(pushed,))) as ca:
            before = await ca.lists.served()

            async def upload(name: str) -> str:
                body = (puppetca.RECORDED / "crl" / f"{name}.pem").read_bytes()
                outcome = await attempted(ca.lists.take(body, actor="test"))
                return "" if outcome is None else str(outcome)

            assert await upload("own-newer") == ""
            assert await ca.lists.served() == before
            assert await upload("root-newer") == ""
            after = await ca.lists.served()
            assert after.number == before.number
            assert after.pem != before.pem
            assert after.updated_at > before.updated_at
            # Our own list's number is the same, and the puppetserver beside us needs the new file nevertheless.
            assert pushed.read_text() == after.pem
            # The same again, byte for byte, changes nothing and is no mistake.
            assert await upload("root-newer") == ""
            assert await ca.lists.served() == after
            for bad in ("root-bad-signature", "root-expired", "root-future", "root-revokes-signer", "root-delta"):
                assert await upload(bad), bad
            assert await ca.lists.served() == after


# ------------------------------------------------------------------ without the store


async def test_without_the_store_the_bundle_and_the_last_list_are_served(
    postgresql_server: PostgreSQL, tmp_path: Path
) -> None:
    url = postgresql_server.fresh_store()
    async with members_of(url, tmp_path) as members:
        ca = members.first
        good, bad = await enrolled(ca, "good.example.net"), await enrolled(ca, "bad.example.net")
        await ca.certificates.revoke("bad.example.net", actor="test")
        listed = (await asked(ca, "GET", CRL)).body
        postgresql_server.stop()
        try:
            assert (await asked(ca, "GET", f"{V1}/certificate/ca")).body == ca.chain_pem
            answer = await asked(ca, "GET", CRL)
            assert (answer.status, answer.body) == (200, listed)
            assert (await asked(ca, "GET", CRL, by=good)).status == 200
            # What was revoked before the store went stays refused.
            assert (await asked(ca, "GET", CRL, by=bad)).status == 403
            assert (await asked(ca, "GET", "/status/v1/simple")).status == 503
            services = await asked(ca, "GET", "/status/v1/services")
            assert (services.status, json.loads(services.body)["ca"]["state"]) == (503, "error")
            host = puppetca.agent("new.example.net")
            for work in (
                ca.requests.submit(host.name, host.csr, source=SOURCE),
                ca.certificates.revoke("good.example.net", actor="test"),
                ca.certificates.renew(good),
                ca.certificates.statuses(),
            ):
                with pytest.raises(Unavailable):
                    await work
            # Who wants more than what everybody may is not believed from memory.
            with pytest.raises(Unavailable):
                await asked(ca, "GET", f"{V1}/expirations", by=good)
        finally:
            postgresql_server.start()
        assert await ca.requests.submit(host.name, host.csr, source=SOURCE)
        assert (await asked(ca, "GET", "/status/v1/simple")).status == 200
        await members.second.certificates.revoke("good.example.net", actor="test")
        assert (await ca.lists.served()).number == 2


async def test_a_member_started_without_the_store_serves_the_bundle_it_has_seen(
    postgresql_server: PostgreSQL, tmp_path: Path
) -> None:
    url = postgresql_server.fresh_store()
    async with opened(Secret(url), connect_timeout_s=1.0, statement_timeout_s=2.0) as store:
        await puppetca.begin(store, tmp_path / "seen")
        async with puppetca.member(store, tmp_path / "seen") as ca:
            bundle = ca.chain_pem
        puppetca.put_key(tmp_path / "new", puppetca.key_pem(puppetca.new_ca().key))
        postgresql_server.stop()
        try:
            async with puppetca.member(store, tmp_path / "seen") as ca:
                assert (await asked(ca, "GET", f"{V1}/certificate/ca")).body == bundle
                # This one never followed the list, so it kept none.
                with pytest.raises(Unavailable):
                    await asked(ca, "GET", CRL)
            with pytest.raises(Unavailable):
                async with puppetca.member(store, tmp_path / "new"):
                    pass
        finally:
            postgresql_server.start()
        async with puppetca.member(store, tmp_path / "new") as ca:
            assert (await asked(ca, "GET", CRL)).status == 200


async def test_a_member_started_without_the_store_serves_the_last_list_it_saw(
    postgresql_server: PostgreSQL, tmp_path: Path
) -> None:
    url = postgresql_server.fresh_store()
    async with members_of(url, tmp_path) as members:
        good, bad = await enrolled(members.first, "good.example.net"), await enrolled(members.first, "bad.example.net")
        await members.second.certificates.revoke("bad.example.net", actor="test")
        await members.first.follow()
        listed = await members.first.lists.served()
    postgresql_server.stop()
    try:
        async with (
            opened(Secret(url), connect_timeout_s=1.0, statement_timeout_s=2.0) as store,
            puppetca.member(store, tmp_path / "proxy01", EVERYBODY) as ca,
        ):
            assert await ca.lists.served() == listed
            assert (await asked(ca, "GET", CRL, by=good)).status == 200
            assert (await asked(ca, "GET", CRL, by=bad)).status == 403
            with pytest.raises(Unavailable):
                await ca.follow()
    finally:
        postgresql_server.start()
    async with members_of(url, tmp_path) as members:
        await members.second.certificates.revoke("good.example.net", actor="test")
        assert (await members.first.lists.served()).number == 2


async def test_a_store_without_a_ca_says_how_to_make_one(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="muster ca init or muster ca import makes one"):
        async with puppetca.member(store, tmp_path):
            pass


async def test_an_administrator_of_one_member_is_one_of_all(members: Members) -> None:
    admin = puppetca.certificate_of(puppetca.new_ca(), "proxy01.example.net", cli_auth=ADMINISTRATOR)
    for ca in members.both:
        assert (await asked(ca, "GET", f"{V1}/certificate_statuses/all", by=admin)).status == 200


# ------------------------------------------------------------------ the schema


def _at(revision: str) -> Callable[[Any], None]:
    def upgrade(connection: Any) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", "muster.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    return upgrade


async def test_a_store_of_the_version_before_gets_the_ledger_and_keeps_what_it_holds(
    empty_url: str, tmp_path: Path
) -> None:
    tables = {
        "authorities",
        "certificates",
        "requests",
        "revocations",
        "crls",
        "autosign_hosts",
        "autosign_tokens",
        "audit",
    }
    row = {"name": "kept", "version": 3, "content": {"a": 1}, "changed_at": store_now(), "changed_by": "0002"}

    # Prepared by hand, because opening would go straight to the newest.
    async with opened(Secret(empty_url), migrate=False) as before, before._begun(writing=True) as connection:
        await connection.run_sync(_at("0002"))
        found = set(await connection.run_sync(lambda c: inspect(c).get_table_names()))
        assert not found & tables
        await connection.execute(insert(documents).values(**row))

    async with opened(Secret(empty_url)) as store:
        await puppetca.begin(store, tmp_path)
        async with store.read() as uow:
            found = set(await uow.connection.run_sync(lambda c: inspect(c).get_table_names()))
            version = (await uow.connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one()
            kept = (await uow.connection.execute(select(documents.c.version))).scalar_one()
        assert tables <= found
        assert (version, kept) == (schema.HEAD, 3)
        assert schema.KNOWN.index("0003") == schema.KNOWN.index("0002") + 1
        async with puppetca.member(store, tmp_path, EVERYBODY) as ca:
            await enrolled(ca, "a.example.net")


async def test_a_name_has_one_live_certificate_by_the_databases_own_rule(members: Members) -> None:
    """Whatever a member does: the unique index on live names is what keeps two from one name."""
    await enrolled(members.first, "a.example.net")
    values = {
        "serial": "0" * 40,
        "certname": "a.example.net",
        "pem": "",
        "not_before": 0.0,
        "not_after": 0.0,
        "status": "{}",
        "issued_at": store_now(),
        "issued_by": "test",
    }
    async with opened(Secret(members.url)) as store:
        with pytest.raises(Conflict):
            async with store.write() as uow:
                await uow.connection.execute(insert(certificates).values(**values, state="live"))
        async with store.write() as uow:
            await uow.connection.execute(insert(certificates).values(**values, state="superseded"))
