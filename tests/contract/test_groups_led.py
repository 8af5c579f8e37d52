"""Groups on real servers that fail, hang, or answer some members only: a leader, a way that is broken, two proxies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.edge.feature import Surroundings
from muster.features.dhcp.service import opened as dhcp_opened
from muster.features.dhcp.settings import DHCPSettings
from muster.features.dns.service import DNS
from muster.features.dns.service import opened as dns_opened
from muster.features.dns.settings import DNSSettings
from muster.kernel.errors import Conflict, MusterError, NotFound, Unavailable
from muster.pki import bundles
from muster.pki.bundles import BundlePaths
from muster.policy.groups import grouped
from muster.policy.groups.journal import repairs
from muster.policy.metered import OperationMetrics
from muster.store.engine import Store
from tests.contract.test_groups_real import CONF, NETWORK, POLICIES, ZONE, form, in_dhcpd, in_time, stored
from tests.servers import bind, dhcpd, member
from tests.servers.bind import BindServer, Zone
from tests.servers.dhcpd import DHCPServer
from tests.servers.member import CLUSTER_ADDRESS, TRUSTED, Member

pytestmark = pytest.mark.anyio

CALLER = "proxy00.example.com"


@pytest.fixture
def servers(needs: Callable[[str], None], tmp_path: Path) -> Iterator[tuple[BindServer, BindServer]]:
    needs("bind")
    one, other = tmp_path / "ns1", tmp_path / "ns2"
    for directory in (one, other):
        directory.mkdir()
    with bind.running(one, zones=[Zone(ZONE)]) as first, bind.running(other, zones=[Zone(ZONE)]) as second:
        yield first, second


def nsupdate(server: BindServer) -> dict[str, Any]:
    return {"nsupdate": {"server": server.address, "port": server.port, "key_file": str(server.key_file)}}


@contextlib.asynccontextmanager
async def opened(
    store: Store | None, mode: str, providers: Mapping[str, Any], name: str = "a", mine: BundlePaths | None = None
) -> AsyncIterator[tuple[DNS, Surroundings]]:
    file = Path("unused")
    bundle = (mine.certificate, mine.key, mine.ca) if mine is not None else (file, file, file)
    settings = DNSSettings.model_validate({"policies": POLICIES, "group": {"mode": mode, "providers": providers}})
    around = Surroundings(name, OperationMetrics(CollectorRegistry()), *bundle, store=store)
    async with dns_opened(settings, around) as dns:
        yield dns, around


def names(server: BindServer) -> list[str]:
    return sorted(line.split(".")[0] for line in server.transfer(ZONE) if " A 192.0.2." in line)


@contextlib.asynccontextmanager
async def asked_whether_they_answer(*members: DNS) -> AsyncIterator[None]:
    """Ask as a member does every few seconds, which is how a leader is followed."""

    async def asking(dns: DNS) -> None:
        while True:
            with contextlib.suppress(MusterError):
                await dns.reached()
            await asyncio.sleep(0.2)

    tasks = [asyncio.create_task(asking(dns)) for dns in members]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_no_change_is_lost_or_made_twice_when_the_leader_of_two_members_goes_away(
    how: str, servers: tuple[BindServer, BindServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped, "ANSWERS_WITHIN_S", 1.0, raising=False)
    one, other = servers
    providers = {"ns1": nsupdate(one), "ns2": nsupdate(other)}
    acknowledged: dict[str, int] = {}
    unknown: set[str] = set()

    async def write(dns: DNS, word: str) -> None:
        for n in range(12):
            name = f"{word}{n}"
            for attempt in range(200):
                try:
                    await dns.create(f"{name}.{ZONE}", f"192.0.2.{n + 1}", "A")
                except Unavailable:
                    unknown.add(name)
                    await asyncio.sleep(0.1)
                else:
                    acknowledged[name] = attempt
                    break
            await asyncio.sleep(0.02)

    pid = one._bind.process.pid if one._bind.process is not None else 0

    async def go_away() -> None:
        await in_time("some were written", lambda: asyncio.sleep(0, len(acknowledged) >= 4))
        os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)

    async with (
        stored(tmp_path) as store,
        opened(store, "leader", providers, "a") as (first, seen),
        opened(store, "leader", providers, "b") as (second, also),
        asked_whether_they_answer(first, second),
    ):
        try:
            await asyncio.gather(write(first, "a"), write(second, "b"), go_away())
        finally:
            if how == "hung":
                os.kill(pid, signal.SIGCONT)
        for around in (seen, also):
            roles = {s.provider: (s.role, s.epoch) for s in around.chains.features["dns"].standings()}
            assert roles["ns2"] == ("asked", 2)
    if how == "killed":
        await asyncio.to_thread(one.stop)
        await asyncio.to_thread(one.start)
    there = names(one) + names(other)
    assert len(acknowledged) == 24
    assert set(there) == set(acknowledged)
    # What had no answer may have been made before it was asked for again; nothing else is at both.
    assert {n for n in there if there.count(n) > 1} <= unknown
    assert set(names(one)) - unknown < set(acknowledged)


async def test_a_member_whose_way_to_a_server_is_broken_does_not_keep_it_from_its_repairs(
    servers: tuple[BindServer, BindServer], tmp_path: Path
) -> None:
    one, other = servers
    whole = {"ns1": nsupdate(one), "ns2": nsupdate(other)}
    # Nobody listens there, as behind a firewall that lets the other member through.
    nowhere = {"server": "127.0.0.251", "port": 9, "key_file": str(other.key_file)}
    broken = {"ns1": nsupdate(one), "ns2": {"nsupdate": nowhere}}
    async with stored(tmp_path) as store, opened(store, "all", broken, "a") as (cut_off, _):
        await cut_off.create(f"early.{ZONE}", "192.0.2.1", "A")
        await in_time("it tries", lambda: tried(store))
        async with opened(store, "all", whole, "b"):
            await in_time("the other member gives it to ns2", lambda: is_empty(store))
            await cut_off.create(f"late.{ZONE}", "192.0.2.2", "A")
            await in_time("that one, too", lambda: is_empty(store))
    assert names(one) == names(other) == ["early", "late"]


async def tried(store: Store) -> bool:
    return any(r.attempts for r in await repairs(store))


async def is_empty(store: Store) -> bool:
    return not await repairs(store)


@pytest.fixture
def dhcp_server(needs: Callable[[str], None], tmp_path: Path) -> Iterator[DHCPServer]:
    needs("dhcpd")
    directory = tmp_path / "dhcpd"
    directory.mkdir()
    with dhcpd.running(directory, conf=CONF) as server:
        yield server


@pytest.fixture
def proxies(
    servers: tuple[BindServer, BindServer], dhcp_server: DHCPServer, tmp_path: Path
) -> Iterator[tuple[Member, Member]]:
    """Two proxies before one DNS server and one DHCP server, that know nothing of each other."""
    dhcp = {"provider": "isc", "isc": dhcp_server.settings, "ping_free_ip": False}
    features = {"dns": {**nsupdate(servers[0]), "policies": {}}, "dhcp": dhcp}
    found = []
    for word in ("one", "other"):
        (tmp_path / word).mkdir()
        trusted = {"version": "5.0", "trusted_hosts": [TRUSTED, CALLER]}
        found.append(member.made(tmp_path / word, features=features, foreman=trusted))
    one, other = found
    # Both trust the same callers.
    other.authority = one.authority
    bundles.write(other.issue(), other.pki)
    try:
        for proxy in found:
            proxy.start()
        yield one, other
    finally:
        for proxy in found:
            proxy.stop()


def through(proxy: Member) -> dict[str, Any]:
    url = f"https://{proxy.https.address}:{proxy.https.port}"
    return {"provider": "smart_proxy", "smart_proxy": {"url": url, "server_name": CLUSTER_ADDRESS, "timeout_s": 3}}


async def test_a_group_of_first_asks_one_proxy_after_the_other_before_one_dns_server(
    proxies: tuple[Member, Member], servers: tuple[BindServer, BindServer]
) -> None:
    one, other = proxies
    server, _ = servers
    providers = {"p1": through(one), "p2": through(other)}

    async with opened(None, "first", providers, CALLER, one.other_member(CALLER)) as (dns, seen):

        def asked() -> list[str]:
            return [s.provider for s in seen.chains.features["dns"].standings() if s.role == "asked"]

        await dns.create(f"a.{ZONE}", "192.0.2.1", "A")
        with pytest.raises(Conflict):
            await dns.create(f"a.{ZONE}", "192.0.2.9", "A")
        assert asked() == ["p1"]
        await asyncio.to_thread(one.stop)
        # What the first one did, and whose answer may have been lost, is done already.
        await dns.create(f"a.{ZONE}", "192.0.2.1", "A")
        await dns.create(f"b.{ZONE}", "192.0.2.2", "A")
        with pytest.raises(Conflict):
            await dns.create(f"b.{ZONE}", "192.0.2.9", "A")
        await dns.delete(f"a.{ZONE}", "A")
        await dns.delete(f"a.{ZONE}", "A")
        assert names(server) == ["b"]
        assert asked() == ["p2"]
        await asyncio.to_thread(other.stop)
        with pytest.raises(Unavailable, match=r"at every provider of the group: p2: .*; p1: "):
            await dns.create(f"c.{ZONE}", "192.0.2.3", "A")
        await asyncio.to_thread(one.start)
        await in_time("the breaker lets it through", lambda: created(dns, "c", "192.0.2.3"))
        assert asked() == ["p1"]
        assert names(server) == ["b", "c"]


async def created(dns: DNS, name: str, address: str) -> bool:
    try:
        await dns.create(f"{name}.{ZONE}", address, "A")
    except Unavailable:
        return False
    return True


async def test_a_group_of_first_asks_one_proxy_after_the_other_before_one_dhcp_server(
    proxies: tuple[Member, Member], dhcp_server: DHCPServer, tmp_path: Path
) -> None:
    one, other = proxies
    group = {"mode": "first", "providers": {"p1": through(one), "p2": through(other)}}
    settings = DHCPSettings.model_validate({"ping_free_ip": False, "policies": POLICIES, "group": group})
    mine = one.other_member(CALLER)
    async with stored(tmp_path) as store:
        metrics = OperationMetrics(CollectorRegistry())
        around = Surroundings(CALLER, metrics, mine.certificate, mine.key, mine.ca, store=store)
        async with dhcp_opened(settings, around) as dhcp:
            await dhcp.create(NETWORK, form(1))
            with pytest.raises(Conflict):
                await dhcp.create(NETWORK, {**form(2), "ip": "192.0.2.101"})
            offered = await dhcp.unused(NETWORK, None, "192.0.2.101", "192.0.2.110")
            assert str(offered) == "192.0.2.102"
            await asyncio.to_thread(one.stop)
            await dhcp.create(NETWORK, form(1))
            await dhcp.create(NETWORK, form(2))
            # The other proxy knows nothing of what the first one offered; here it is remembered.
            found = await dhcp.unused(NETWORK, None, "192.0.2.101", "192.0.2.110")
            assert str(found) == "192.0.2.103"
            await dhcp.delete_at(NETWORK, "192.0.2.101")
            with pytest.raises(NotFound):
                await dhcp.at(NETWORK, "192.0.2.101")
            assert (in_dhcpd(dhcp_server, 1), in_dhcpd(dhcp_server, 2)) == (False, True)
            await dhcp.reached()
