"""Races of members over addresses (``features/dhcp/claims.py``): slow servers, lost answers, cancelled calls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from muster.features.dhcp import claims as claims_module
from muster.features.dhcp.claims import Claims, new_holder
from muster.features.dhcp.contract import Lease, Record, Records, Reservation, Subnet, Unreached
from muster.features.dhcp.free import FreeAddresses
from muster.features.dhcp.probes import NoProbes
from muster.features.dhcp.providers.memory import MemoryDHCP
from muster.features.dhcp.service import DHCP
from muster.kernel.errors import Conflict, MusterError, Unavailable
from muster.kernel.names import MACAddress
from muster.store.engine import Store
from muster.store.reading import Query
from muster.store.writing import Change

pytestmark = pytest.mark.anyio
NET = "192.168.120.0"
SUBNET = Subnet(IPv4Network(f"{NET}/24"))
M = [f"52:54:00:aa:00:{n:02x}" for n in range(20)]
IP = "192.168.120.5"


def on(store: Store, server: MemoryDHCP, **more: Any) -> DHCP:
    claims = Claims(store, held_s=1800, fresh_s=60)
    return DHCP(server, claims, FreeAddresses(claims, NoProbes(), pool=0, **more))


def form(n: int, ip: str = IP, **given: Any) -> dict[str, Any]:
    return {"name": f"h{n}.example.com", "ip": ip, "mac": M[n], **given}


async def locks(store: Store) -> list[dict[str, Any]]:
    async with store.read() as uow:
        return await uow.rows(Query("SELECT key, holder, until FROM dhcp_changes"))


class Unseen(MemoryDHCP):
    """As ISC's: shows what it acknowledged only later, and minds no address twice."""

    def __init__(self, subnets: Sequence[Subnet], wait: float = 0.0) -> None:
        super().__init__(subnets)
        self.unseen: list[Reservation] = []
        self.wait = wait
        self.fails_after = False

    async def records(self, subnet: Subnet) -> Records:
        await asyncio.sleep(self.wait)
        return await super().records(subnet)

    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        await asyncio.sleep(self.wait)
        self.unseen.append(reservation)
        if self.fails_after:
            raise Unavailable("no answer; whether it was made is unknown")

    def show(self) -> None:
        for one in self.unseen:
            self._reservations[one.mac] = one
        self.unseen.clear()

    @property
    def all(self) -> list[Reservation]:
        return [*self._reservations.values(), *self.unseen]

    def holders(self, ip: str = IP) -> list[str]:
        return [r.mac for r in self.all if str(r.ip) == ip]


async def test_an_address_is_not_offered_while_it_is_being_reserved(store: Store) -> None:
    added, go_on = asyncio.Event(), asyncio.Event()

    class Server(MemoryDHCP):
        async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
            await super().add(reservation, related=related)
            added.set()
            await go_on.wait()

    server = Server([SUBNET])
    one, other = on(store, server), on(store, server)
    # The address is in the pool.
    holder = new_holder()
    await one._claims.probing([IPv4Address(IP)], holder)
    await one._claims.probed(holder, silent=[IPv4Address(IP)], answered=())
    asked, answered = asyncio.Event(), asyncio.Event()
    truly = server.taken

    async def taken(subnet: Subnet, among: Collection[IPv4Address]) -> Collection[IPv4Address]:
        found = await truly(subnet, among)
        asked.set()
        await answered.wait()
        return found

    server.taken = taken  # type: ignore[method-assign]
    offer = asyncio.create_task(other.unused(NET, None, IP, IP))
    await asked.wait()
    creating = asyncio.create_task(one.create(NET, form(1)))
    await added.wait()
    answered.set()
    given = None
    try:
        given = await offer
    finally:
        go_on.set()
        await creating
    assert str(given) != IP, f"{given} was told to a new host, and is reserved on the server"


async def test_of_changes_that_take_longer_than_they_may_at_most_one_is_made(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fiftieth of the real.
    monkeypatch.setattr(claims_module, "CHANGED_WITHIN_S", 0.6)
    monkeypatch.setattr(claims_module, "HELD_S", 0.9)
    server = Unseen([SUBNET], wait=0.4)
    one, other = on(store, server), on(store, server)

    async def later() -> None:
        await asyncio.sleep(0.7)
        await other.create(NET, form(2))

    results = await asyncio.gather(one.create(NET, form(1)), later(), return_exceptions=True)
    assert len(server.holders()) <= 1, (server.holders(), results)
    assert [r for r in results if r is not None], "both were told that it is theirs"


async def test_what_was_perhaps_reserved_is_not_reserved_for_another_machine_at_once(store: Store) -> None:
    server = Unseen([SUBNET])
    one, other = on(store, server), on(store, server)
    server.fails_after = True
    with pytest.raises(Unavailable):
        await one.create(NET, form(1))
    server.fails_after = False
    with pytest.raises(MusterError):
        await other.create(NET, form(2))
    assert len(server.holders()) == 1, server.holders()


async def test_nor_when_its_call_was_cancelled_while_the_server_added_it(store: Store) -> None:
    server = Unseen([SUBNET])
    one, other = on(store, server), on(store, server)
    reached = asyncio.Event()
    truly = server.add

    async def add(reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        await truly(reservation, related=related)
        reached.set()
        await asyncio.sleep(60)

    server.add = add  # type: ignore[method-assign]
    task = asyncio.create_task(one.create(NET, form(1)))
    await reached.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await locks(store) == []
    server.add = truly  # type: ignore[method-assign]
    with pytest.raises(MusterError):
        await other.create(NET, form(2))
    assert len(server.holders()) == 1, server.holders()


async def test_a_cancelled_call_leaves_no_lock(store: Store) -> None:
    server = MemoryDHCP([SUBNET])
    dhcp = on(store, server)
    await dhcp.create(NET, form(0, "192.168.120.9"))
    left = []
    for n in range(1, 150):
        task = asyncio.create_task(dhcp.create(NET, form(n % 19 + 1, f"192.168.120.{n + 20}")))
        await asyncio.sleep(n * 0.0001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.01)
        if rows := await locks(store):
            left.append((n, [r["key"] for r in rows]))
            async with store.write() as uow:
                await uow.changed(Change("DELETE FROM dhcp_changes"), {})
        server._reservations.clear()
    assert not left, (len(left), left[:3])


async def test_a_bond_s_second_port_stays_reserved_when_its_first_goes(store: Store) -> None:
    server = Unseen([SUBNET])
    one, other = on(store, server), on(store, server)
    await one.create(NET, form(1, related_macs=[M[2]]))
    server.show()
    await one.create(NET, form(2, related_macs=[M[1]]))
    await one.delete_of(NET, M[1])
    with pytest.raises(Conflict):
        await other.create(NET, form(3))
    assert server.holders() == [M[2]], server.holders()


async def test_a_late_deletion_drops_nobody_else_s_claim(store: Store) -> None:
    server = Unseen([SUBNET])
    one, other = on(store, server), on(store, server)
    await one.create(NET, form(1))
    server.show()
    asked, go_on = asyncio.Event(), asyncio.Event()
    truly = server.at
    is_first = True

    async def at(subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        nonlocal is_first
        found = await truly(subnet, ip)
        if is_first:
            is_first = False
            asked.set()
            await go_on.wait()
        return found

    server.at = at  # type: ignore[method-assign]
    late = asyncio.create_task(other.delete_at(NET, IP))
    await asked.wait()
    await one.delete_of(NET, M[1])
    await one.create(NET, form(2))
    go_on.set()
    await late
    with pytest.raises(Conflict):
        await other.create(NET, form(3))
    assert server.holders() == [M[2]], server.holders()


async def test_dropping_old_rows_and_claiming_them_do_not_wait_for_each_other(store: Store) -> None:
    claims = [Claims(store, held_s=1800, fresh_s=60) for _ in range(3)]
    rows = [IPv4Address("10.0.0.0") + n for n in range(3000, 0, -1)]
    failures: list[str] = []
    for _ in range(6):
        async with store.write() as uow:
            # Written from the last to the first, and ended two minutes ago.
            await uow.changed(Change("DELETE FROM dhcp_claims"), {})
            await uow.change(
                Change(
                    "INSERT INTO dhcp_claims (address, state, mac, holder, at, until)"
                    " VALUES (:a, 'free', '', '', 0, {now} - 120)"
                ),
                [{"a": int(a)} for a in rows],
            )

        async def tried(what: Any) -> None:
            try:
                await what
            except MusterError as e:
                failures.append(f"{type(e).__name__}: {e}")

        chunks = [rows[i : i + 256] for i in range(0, 3000, 256)]
        await asyncio.gather(
            *(tried(claims[n % 3].probing(c, new_holder())) for n, c in enumerate(chunks)),
            *(tried(c.forget()) for c in claims),
        )
    assert not failures, (len(failures), failures[:2])


def lease(ip: str, mac: str) -> Lease:
    now = datetime.now(UTC)
    return Lease(IPv4Address(ip), MACAddress.parse(mac), SUBNET, now, now + timedelta(days=1))


async def test_what_was_promised_is_not_told_to_whoever_got_a_lease_of_it(store: Store) -> None:
    server = MemoryDHCP([SUBNET])
    dhcp = on(store, server)
    told = await dhcp.unused(NET, M[1], IP, IP)
    assert str(told) == IP
    # dhcpd gives it to another machine meanwhile.
    server.leases = [lease(IP, M[2])]
    assert await dhcp.unused(NET, M[2], None, None) != told


async def test_what_was_told_to_a_machine_that_had_it_is_promised_as_well(store: Store) -> None:
    server = MemoryDHCP([SUBNET])
    dhcp = on(store, server)
    server.leases = [lease(IP, M[2])]
    told = await dhcp.unused(NET, M[2], IP, IP)
    assert str(told) == IP
    # Its lease has ended before Foreman made the reservation.
    server.leases = []
    assert await dhcp.unused(NET, M[1], IP, IP) != told


async def test_nor_as_often_as_a_busy_cluster_does_it(store: Store) -> None:
    """200 rows that ended, handfuls of 16 claimed by 3 members while each drops old rows."""
    claims = [Claims(store, held_s=1800, fresh_s=60) for _ in range(3)]
    failures: list[str] = []
    chance = random.Random(1)

    async def tried(what: Any) -> None:
        try:
            await what
        except MusterError as e:
            cause: BaseException | None = e
            while cause is not None and not type(cause).__module__.startswith("psycopg"):
                cause = cause.__cause__ or cause.__context__
            failures.append(f"{what.__name__}: {type(cause).__name__}")

    for _ in range(30):
        rows = [int(IPv4Address("10.0.0.0")) + n for n in range(200)]
        chance.shuffle(rows)
        async with store.write() as uow:
            await uow.changed(Change("DELETE FROM dhcp_claims"), {})
            await uow.change(
                Change(
                    "INSERT INTO dhcp_claims (address, state, mac, holder, at, until)"
                    " VALUES (:a, 'free', '', '', 0, {now} - 120)"
                ),
                [{"a": a} for a in rows],
            )
        some = [[IPv4Address(a) for a in chance.sample(rows, 16)] for _ in range(9)]
        await asyncio.gather(
            *(tried(claims[n % 3].probing(c, new_holder())) for n, c in enumerate(some)),
            *(tried(c.forget()) for c in claims),
        )
    assert not failures, {f: failures.count(f) for f in failures}


async def test_what_was_perhaps_reserved_is_not_deleted_before_anybody_has_seen_it(store: Store) -> None:
    server = Unseen([SUBNET])
    one, other = on(store, server), on(store, server)
    server.fails_after = True
    with pytest.raises(Unavailable):
        await one.create(NET, form(1))
    for delete in (other.delete_of(NET, M[1]), other.delete_at(NET, IP)):
        with pytest.raises(Unavailable, match="was being reserved a moment ago"):
            await delete
    server.show()
    await other.delete_of(NET, M[1])
    await other.delete_of(NET, M[1])
    assert server.holders() == []


async def test_a_server_that_could_not_even_be_asked_leaves_the_address_free(store: Store) -> None:
    class Away(MemoryDHCP):
        async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
            raise Unreached("connection refused")

    with pytest.raises(Unreached):
        await on(store, Away([SUBNET])).create(NET, form(1))
    await on(store, MemoryDHCP([SUBNET])).create(NET, form(2))
