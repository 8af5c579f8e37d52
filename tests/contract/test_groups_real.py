"""Groups of real servers: two BINDs, and ISC's dhcpd beside Kea. What one missed it has in the end, and both are equal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.edge.feature import Surroundings
from muster.features.dhcp.service import DHCP
from muster.features.dhcp.service import opened as dhcp_opened
from muster.features.dhcp.settings import DHCPSettings
from muster.features.dns.service import DNS
from muster.features.dns.service import opened as dns_opened
from muster.features.dns.settings import DNSSettings
from muster.kernel.errors import Conflict, MusterError, NotFound, Unavailable
from muster.kernel.secrets import Secret
from muster.policy.groups.journal import decided, repairs
from muster.policy.metered import OperationMetrics
from muster.store import engine
from muster.store.engine import Store
from tests.servers import bind, dhcpd, kea
from tests.servers.bind import BindServer, Zone
from tests.servers.dhcpd import DHCPServer
from tests.servers.kea import KeaServer

pytestmark = pytest.mark.anyio

ZONE = "example.com"
NETWORK = "192.0.2.0"
# Short, so that a server that is back is asked soon.
POLICIES = {"deadline_s": 5, "retry": {"attempts": 1}, "breaker": {"failures": 3, "open_s": 0.1, "most_s": 0.2}}
# A limit for what never comes, no promise.
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def servers(
    needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BindServer, BindServer]]:
    needs("bind")
    one, other = tmp_path_factory.mktemp("ns1"), tmp_path_factory.mktemp("ns2")
    with bind.running(one, zones=[Zone(ZONE)]) as first, bind.running(other, zones=[Zone(ZONE)]) as second:
        yield first, second


@contextlib.asynccontextmanager
async def stored(directory: Path) -> AsyncIterator[Store]:
    async with engine.opened(Secret(f"sqlite:///{directory}/store.db")) as store:
        yield store


def around(store: Store, name: str) -> Surroundings:
    file = Path("unused")
    return Surroundings(name, OperationMetrics(CollectorRegistry()), file, file, file, store=store)


@contextlib.asynccontextmanager
async def member(
    store: Store, servers: tuple[BindServer, BindServer], mode: str, name: str = "a"
) -> AsyncIterator[tuple[DNS, Surroundings]]:
    providers = {
        f"ns{n}": {"nsupdate": {"server": s.address, "port": s.port, "key_file": str(s.key_file)}}
        for n, s in enumerate(servers, 1)
    }
    group = {"mode": mode, "providers": providers}
    settings = DNSSettings.model_validate({"policies": POLICIES, "group": group})
    surroundings = around(store, name)
    async with dns_opened(settings, surroundings) as dns:
        yield dns, surroundings


async def in_time(what: str, check: Callable[[], Awaitable[object]]) -> None:
    """Return when it is so; ``what`` says it."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await check():
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"not so within {PATIENCE_S:g} s: {what}")


async def none_left(store: Store) -> bool:
    for repair in await repairs(store):
        # Without its pause; one that was made meanwhile is not there.
        with contextlib.suppress(NotFound):
            await decided(store, repair.id, drop=False)
    return not await repairs(store)


def zone(server: BindServer) -> list[str]:
    return [line for line in server.transfer(ZONE) if " SOA " not in line]


async def test_a_dns_server_that_was_killed_while_two_members_wrote_has_the_same_zone_in_the_end(
    servers: tuple[BindServer, BindServer], tmp_path: Path
) -> None:
    one, other = servers
    async with (
        stored(tmp_path) as store,
        member(store, servers, "all", "a") as (first, seen),
        member(store, servers, "all", "b") as (second, _),
    ):
        acknowledged: dict[str, str | None] = {}

        async def write(dns: DNS, word: str) -> None:
            for n in range(12):
                name, value = f"{word}{n % 4}.{ZONE}", f"192.0.2.{n + 1}"
                if acknowledged.get(name) is None:
                    await dns.create(name, value, "A")
                    acknowledged[name] = value
                else:
                    await dns.delete(name, "A")
                    acknowledged[name] = None

        async def kill() -> None:
            await in_time("some were written", lambda: asyncio.sleep(0, len(acknowledged) >= 4))
            await asyncio.to_thread(other.stop)

        await asyncio.gather(write(first, "a"), write(second, "b"), kill())
        there = {n: v for n, v in acknowledged.items() if v is not None}
        assert [one.dig(n, "A") for n in there] == [[f"{n}. 86400 IN A {v}"] for n, v in there.items()]
        assert await repairs(store)
        # The first one is the only one now, and refuses as ever.
        await first.create(f"late.{ZONE}", "192.0.2.99", "A")
        with pytest.raises(Conflict):
            await second.create(f"late.{ZONE}", "192.0.2.98", "A")
        _, behind = seen.chains.features["dns"].standings()
        await in_time("it is known", lambda: asyncio.sleep(0, seen.chains.features["dns"].standings()[1].pending))
        assert behind.provider == "ns2"
        await asyncio.to_thread(other.start)
        await in_time("all is repaired", lambda: none_left(store))
        assert zone(one) == zone(other)
        assert f"late.{ZONE}. 86400 A 192.0.2.99" in zone(other)


async def test_a_group_of_first_goes_on_at_the_next_server_and_stays_there(
    servers: tuple[BindServer, BindServer], tmp_path: Path
) -> None:
    one, other = servers
    async with stored(tmp_path) as store, member(store, servers, "first") as (dns, seen):
        await dns.create(f"f1.{ZONE}", "192.0.2.1", "A")
        await asyncio.to_thread(one.stop)
        try:
            await dns.create(f"f2.{ZONE}", "192.0.2.2", "A")
            await dns.reached()
        finally:
            await asyncio.to_thread(one.start)
        await dns.create(f"f3.{ZONE}", "192.0.2.3", "A")
        roles = [(s.provider, s.role) for s in seen.chains.features["dns"].standings()]
        assert roles == [("ns1", "in reserve"), ("ns2", "asked")]
        assert [bool(one.dig(f"f{n}.{ZONE}", "A")) for n in (1, 2, 3)] == [True, False, False]
        assert [bool(other.dig(f"f{n}.{ZONE}", "A")) for n in (1, 2, 3)] == [False, True, True]


CONF = f"subnet {NETWORK} netmask 255.255.255.0 {{ }}"
SUBNET = {"id": 1, "subnet": f"{NETWORK}/24", "pools": [{"pool": "192.0.2.10 - 192.0.2.50"}]}


@pytest.fixture(scope="module")
def dhcp_servers(
    needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DHCPServer, KeaServer]]:
    for name in ("dhcpd", "kea"):
        needs(name)
    directory = tmp_path_factory.mktemp("dhcpd")
    with dhcpd.running(directory, conf=CONF) as isc, kea.running(subnets=[SUBNET]) as other:
        yield isc, other


@contextlib.asynccontextmanager
async def dhcp_member(store: Store, servers: tuple[DHCPServer, KeaServer]) -> AsyncIterator[DHCP]:
    isc, other = servers
    group: dict[str, Any] = {
        "mode": "all",
        "providers": {
            "isc": {"provider": "isc", "isc": isc.settings},
            "kea": {"provider": "kea", "kea": {**other.settings, "timeout_s": 3}},
        },
    }
    settings = DHCPSettings.model_validate({"ping_free_ip": False, "policies": POLICIES, "group": group})
    async with dhcp_opened(settings, around(store, "a")) as dhcp:
        yield dhcp


def form(number: int) -> dict[str, str]:
    return {
        "name": f"h{number}.example.com", "hostname": f"h{number}.example.com", "ip": f"192.0.2.{100 + number}",
        "mac": f"52:54:00:bb:00:{number:02x}", "network": NETWORK,
    }  # fmt: skip


def in_kea(server: KeaServer) -> set[str]:
    content = server.done("config-get")["Dhcp4"]
    return {r["ip-address"] for s in content["subnet4"] for r in s["reservations"]}


def in_dhcpd(server: DHCPServer, number: int) -> bool:
    block = server.host_in_leases(f"h{number}.example.com")
    return block is not None and "deleted;" not in block


async def test_a_reservation_is_at_both_dhcp_servers_also_at_one_that_was_away(
    dhcp_servers: tuple[DHCPServer, KeaServer], tmp_path: Path
) -> None:
    isc, other = dhcp_servers
    async with stored(tmp_path) as store, dhcp_member(store, dhcp_servers) as dhcp:
        await dhcp.create(NETWORK, form(1))
        assert in_dhcpd(isc, 1)
        assert in_kea(other) == {"192.0.2.101"}
        await asyncio.to_thread(other.stop)
        await dhcp.create(NETWORK, form(2))
        await dhcp.delete_at(NETWORK, "192.0.2.101")
        assert (in_dhcpd(isc, 1), in_dhcpd(isc, 2)) == (False, True)
        assert {r.provider for r in await repairs(store)} == {"kea"}
        assert [r.name for r in (await dhcp.records(NETWORK)).reservations] == ["h2.example.com"]
        await asyncio.to_thread(other.start)
        await in_time("Kea has both", lambda: none_left(store))
        assert in_kea(other) == {"192.0.2.102"}
        await dhcp.delete_of(NETWORK, "52:54:00:bb:00:02")
        assert in_kea(other) == set()
        assert not in_dhcpd(isc, 2)


async def test_when_both_are_away_nothing_is_promised(servers: tuple[BindServer, BindServer], tmp_path: Path) -> None:
    one, other = servers
    async with stored(tmp_path) as store, member(store, servers, "all") as (dns, _):
        await asyncio.to_thread(one.stop)
        await asyncio.to_thread(other.stop)
        try:
            with pytest.raises(Unavailable, match="at every provider of the group: ns1: "):
                await dns.create(f"never.{ZONE}", "192.0.2.1", "A")
            with pytest.raises(MusterError):
                await dns.reached()
        finally:
            await asyncio.to_thread(one.start)
            await asyncio.to_thread(other.start)
        assert await repairs(store) == []
        assert one.dig(f"never.{ZONE}", "A") == []
