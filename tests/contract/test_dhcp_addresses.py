"""Addresses for new hosts (``features/dhcp/free.py``): several members on one store, whose hosts answer as they are told."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

import pytest

from muster.features.dhcp import free
from muster.features.dhcp.claims import Claims
from muster.features.dhcp.contract import Subnet
from muster.features.dhcp.free import BATCH, FreeAddresses, Span
from muster.features.dhcp.probes import Probed
from muster.kernel.errors import Unavailable
from muster.store.engine import Store

pytestmark = pytest.mark.anyio

NETWORK = IPv4Network("192.0.2.0/24")


@dataclass
class Network:
    """Hosts that nobody knows of, and a DHCP server that knows some.

    Attributes:
        present: at these something answers.
        recorded: these have a record.
        unreachable: these cannot be asked about.
        asked: everything that was probed, in order.
    """

    present: set[IPv4Address] = field(default_factory=set)
    recorded: set[IPv4Address] = field(default_factory=set)
    unreachable: set[IPv4Address] = field(default_factory=set)
    asked: list[IPv4Address] = field(default_factory=list)
    wait_s: float = 0.01

    async def probed(self, addresses: Collection[IPv4Address]) -> Probed:
        self.asked += addresses
        await asyncio.sleep(self.wait_s)
        asked = frozenset(addresses) - self.unreachable
        reason = "Network is unreachable" if asked != frozenset(addresses) else ""
        return Probed(asked & self.present, asked - self.present, reason)

    async def taken(self, among: Collection[IPv4Address]) -> Collection[IPv4Address]:
        return self.recorded & set(among)

    def span(self, first: int = 1, last: int = 254) -> Span:
        start = NETWORK.network_address
        return Span(Subnet(NETWORK), start + first, start + last, self.taken)


def member(store: Store, network: Network, *, pool: int = 0, held_s: float = 1800) -> FreeAddresses:
    return FreeAddresses(Claims(store, held_s=held_s, fresh_s=60), network, pool=pool)


@asynccontextmanager
async def kept(store: Store, network: Network, *, pool: int) -> AsyncIterator[FreeAddresses]:
    async with free.opened(Claims(store, held_s=1800, fresh_s=60), network, pool=pool) as addresses:
        yield addresses


def at(*numbers: int) -> set[IPv4Address]:
    return {NETWORK.network_address + n for n in numbers}


async def test_no_address_is_given_twice_however_many_members_are_asked_at_once(store: Store) -> None:
    network = Network()
    members = [member(store, network) for _ in range(3)]
    given = await asyncio.gather(*(members[n % 3].one(network.span(), "") for n in range(60)))
    assert None not in given
    assert len(set(given)) == 60


async def test_a_whole_range_is_given_out_and_then_there_is_none(store: Store) -> None:
    network = Network(present=at(3), recorded=at(4))
    members = [member(store, network) for _ in range(3)]
    given = await asyncio.gather(*(members[n % 3].one(network.span(1, 20), "") for n in range(24)))
    assert {a for a in given if a} == at(*(n for n in range(1, 21) if n not in (3, 4)))
    assert given.count(None) == 24 - 18
    assert await members[0].one(network.span(1, 20), "") is None


async def test_one_address_is_a_range_and_then_held_back(store: Store) -> None:
    network = Network()
    assert await member(store, network).one(network.span(10, 10), "") in at(10)
    assert await member(store, network).one(network.span(10, 10), "") is None


async def test_many_hosts_that_nobody_knows_of_cost_one_wait_a_batch(store: Store) -> None:
    network = Network(present=at(*range(1, 200)))
    found = await member(store, network).one(network.span(), "")
    assert found is not None
    assert found not in network.present
    # Each once, and more with each wait.
    assert len(network.asked) == len(set(network.asked))
    assert len(network.asked) >= BATCH


async def test_what_is_silent_besides_is_in_the_pool_of_all(store: Store) -> None:
    network = Network()
    await member(store, network).one(network.span(), "")
    probed = list(network.asked)
    assert len(probed) == BATCH
    given = [await member(store, network).one(network.span(), "") for _ in range(BATCH - 1)]
    assert network.asked == probed
    assert set(given) < set(probed)


async def test_what_got_a_record_since_it_was_probed_is_not_offered(store: Store) -> None:
    network = Network()
    first = await member(store, network).one(network.span(1, 8), "")
    assert first is not None
    network.recorded = set(network.asked) - {first}
    assert await member(store, network).one(network.span(1, 8), "") is None


async def test_what_gets_a_record_while_it_is_probed_is_not_offered(store: Store) -> None:
    network = Network(wait_s=0.2)
    asked = asyncio.create_task(member(store, network).one(network.span(1, 2), ""))
    while not network.asked:
        await asyncio.sleep(0.01)
    network.recorded = at(1)
    assert await asked in at(2)


async def test_whoever_finds_all_probed_by_others_waits_for_them(store: Store) -> None:
    network = Network(wait_s=0.3)
    members = [member(store, network) for _ in range(2)]
    assert set(await asyncio.gather(*(m.one(network.span(1, 2), "") for m in members))) == at(1, 2)


async def test_that_everything_answers_is_said_in_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free, "_WITHIN_S", 0.05)
    network = Network(present=at(*range(256)), wait_s=0.05)
    with pytest.raises(Unavailable, match=r"^No address of 192.0.2.1..192.0.2.254 was found free within"):
        await member(store, network).one(network.span(), "")


async def test_a_range_of_millions_is_walked_without_being_written_down(store: Store) -> None:
    network = Network()
    whole = IPv4Network("10.0.0.0/8")
    span = Span(Subnet(whole), whole[1], whole[-2], network.taken)
    begun = time.monotonic()
    given = await asyncio.gather(*(member(store, network).one(span, "") for _ in range(8)))
    assert len(set(given)) == 8
    # No figure: only that nobody goes through sixteen million addresses.
    assert time.monotonic() - begun < 20


async def test_two_members_walk_in_different_orders(store: Store) -> None:
    network = Network()
    span = network.span()
    claims = Claims(store, held_s=1, fresh_s=1)
    orders = [list(FreeAddresses(claims, network, pool=0)._walk(span)) for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == [NETWORK[n] for n in range(1, 255)]
    assert orders[0] != orders[1]
    for size in (1, 2, 3, 97):
        walk = list(FreeAddresses(claims, network, pool=0, chance=random.Random(size))._walk(network.span(5, 4 + size)))
        assert sorted(walk) == [NETWORK[n] for n in range(5, 5 + size)]


async def test_a_pool_is_kept_behind_the_calls(store: Store) -> None:
    network = Network()
    async with kept(store, network, pool=4) as addresses:
        for _ in range(BATCH):
            assert await addresses.one(network.span(), "") is not None
        claims = Claims(store, held_s=1, fresh_s=1)
        async with asyncio.timeout(10):
            while sum(c.state == "free" for c in (await claims.live(NETWORK[0], NETWORK[-1])).values()) < 4:
                await asyncio.sleep(0.02)
        probed = len(network.asked)
        assert await addresses.one(network.span(), "") is not None
        assert len(network.asked) <= probed + 4


async def test_what_cannot_be_asked_about_is_not_offered_and_that_is_said(store: Store) -> None:
    network = Network(unreachable=at(*range(256)))
    words = r"^Addresses of .* cannot be probed from this member \(Network is unreachable\).*ping_free_ip: false offers them"
    with pytest.raises(Unavailable, match=words):
        await member(store, network).one(network.span(), "")
    network.unreachable = at(*range(1, 7))
    given = [await member(store, network).one(network.span(1, 8), "") for _ in range(2)]
    assert set(given) == at(7, 8)


async def test_a_keeper_goes_on_after_whatever_happens(store: Store) -> None:
    network, failures = Network(), [OSError(24, "Too many open files"), RuntimeError("a bug")]
    real = network.probed

    async def failing(addresses: Collection[IPv4Address]) -> Probed:
        if failures:
            raise ExceptionGroup("probing", [failures.pop()])
        return await real(addresses)

    claims = Claims(store, held_s=1800, fresh_s=60)
    async with free.opened(claims, network, pool=4) as addresses:
        assert await addresses.one(network.span(), "") is not None
        network.probed = failing  # type: ignore[method-assign]
        for _ in range(BATCH - 1):
            assert await addresses.one(network.span(), "") is not None
        async with asyncio.timeout(30):
            while len(network.asked) == BATCH:
                addresses._wanted.set()
                await asyncio.sleep(0.05)
    assert not failures


async def test_a_range_that_is_full_is_not_gone_through_all_the_time(store: Store) -> None:
    network, times = Network(recorded=at(*range(256))), 0
    real = network.taken

    async def counted(among: Collection[IPv4Address]) -> Collection[IPv4Address]:
        nonlocal times
        times += 1
        return await real(among)

    span = Span(network.span().subnet, NETWORK[1], NETWORK[254], counted)
    async with kept(store, network, pool=4) as addresses:
        assert await addresses.one(span, "") is None
        for _ in range(10):
            addresses._wanted.set()
            await asyncio.sleep(0.05)
        before = times
        for _ in range(10):
            addresses._wanted.set()
            await asyncio.sleep(0.05)
        assert times == before
