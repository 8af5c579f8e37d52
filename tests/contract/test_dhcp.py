"""What every DHCP provider promises (``features/dhcp/contract.py``), asked of each on the server it is meant for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import Surroundings
from muster.features.dhcp import checks, next_servers
from muster.features.dhcp.contract import DHCPProvider, Lease, Reservation, Subnet, same
from muster.features.dhcp.providers import dnsmasq as provider_of_dnsmasq
from muster.features.dhcp.providers import isc, kea, memory, smart_proxy
from muster.features.dhcp.providers import libvirt as provider_of_libvirt
from muster.features.dhcp.settings import (
    DHCPSettings,
    DnsmasqSettings,
    ISCSettings,
    KeaSettings,
    LibvirtSettings,
    MemorySettings,
)
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.names import FQDN, MACAddress
from muster.kernel.secrets import Secret
from muster.policy.metered import OperationMetrics
from muster.store import engine
from tests.servers import dhcpd, dnsmasq, fed, libvirtd, member
from tests.servers import kea as keas
from tests.servers.available import KEA3
from tests.servers.dhcpd import DHCPServer
from tests.servers.dnsmasq import Dnsmasq
from tests.servers.kea import KeaServer
from tests.servers.libvirtd import Libvirtd
from tests.servers.member import CLUSTER_ADDRESS, TRUSTED, Member

pytestmark = pytest.mark.anyio

CALLER = "proxy00.example.com"
# Kea as Debian 12 has it, which keeps reservations in its configuration, and a newer one with its library of hosts.
PROVIDERS = ("isc", "isc, fed", "kea", "kea3", "dnsmasq", "libvirt", "memory", "smart_proxy")
NETWORK = IPv4Network("192.168.120.0/24")
SECOND = IPv4Network("192.168.122.0/30")
STATIC = MACAddress.parse("00:11:22:33:44:01")
LEASED = MACAddress.parse("52:54:00:00:00:20")
# What each server has before anything is done to it.
HELD: dict[str, Any] = {
    "subnets": [
        {"network": str(NETWORK), "options": {"routers": ["192.168.120.1"], "range": ["192.168.120.10", "192.168.120.100"]}},
        {"network": str(SECOND)},
    ],
    "reservations": [
        {"name": "static1.example.com", "ip": "192.168.120.150", "mac": str(STATIC), "options": {"hostname": "static1"}}
    ],
    "leases": [
        {"ip": "192.168.120.20", "mac": str(LEASED), "starts": "2026-11-22T06:34:24Z", "ends": "2038-01-19T03:14:07Z"}
    ],
}  # fmt: skip
CONF = """
subnet 192.168.120.0 netmask 255.255.255.0 { range 192.168.120.10 192.168.120.100; option routers 192.168.120.1; }
subnet 192.168.122.0 netmask 255.255.255.252 { }
host static1.example.com { hardware ethernet 00:11:22:33:44:01; fixed-address 192.168.120.150; option host-name "static1"; }
"""
LEASES = """
lease 192.168.120.20 {
  starts 0 2026/11/22 06:34:24;
  ends never;
  cltt 0 2026/11/22 06:34:24;
  binding state active;
  next binding state free;
  hardware ethernet 52:54:00:00:00:20;
}
"""
KEAS_SUBNETS: list[dict[str, Any]] = [
    {
        "id": 1, "subnet": str(NETWORK), "pools": [{"pool": "192.168.120.10 - 192.168.120.100"}],
        "option-data": [{"name": "routers", "data": "192.168.120.1"}],
        "reservations": [{"hw-address": str(STATIC), "ip-address": "192.168.120.150", "hostname": "static1.example.com"}],
    },
    {"id": 2, "subnet": str(SECOND)},
]  # fmt: skip
KEAS_LEASE = {"ip-address": "192.168.120.20", "hw-address": str(LEASED), "valid-lft": 0xFFFFFFFF}
# Of each provider's server its own: there are not enough addresses for all.
_numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))
DNSMASQ = """
dhcp-range=set:first,192.168.120.10,192.168.120.100,255.255.255.0
dhcp-range=192.168.122.0,static,255.255.255.252
dhcp-option=tag:first,option:router,192.168.120.1
dhcp-host=00:11:22:33:44:01,192.168.120.150,static1.example.com
"""
LIBVIRT = """
<network>
  <name>muster</name>
  <bridge name='virbr9' stp='off' delay='0'/>
  <dns enable='no'/>
  <ip address='192.168.120.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.120.10' end='192.168.120.100'/>
      <host mac='00:11:22:33:44:01' name='static1.example.com' ip='192.168.120.150'/>
    </dhcp>
  </ip>
</network>
"""
LIBVIRT_LEASES = '[{"ip-address": "192.168.120.20", "mac-address": "52:54:00:00:00:20", "expiry-time": 0}]'
DNSMASQ_LEASES = "0 52:54:00:00:00:20 192.168.120.20 * *\n"


@dataclass
class Subject:
    """A provider under test.

    Attributes:
        stop, start: take the server away and bring it back; what it had may be lost.
        offers: whether its server finds free addresses itself.
        tells_when_gone: whether it tells what there is while its server is away, because it reads the server's files.
        has_one_name: whether a host of its configuration has one name, which is its hostname as well.
        has_infiniband: whether its server takes hardware addresses of 20 octets.
        networks: its subnets.
        has_statics: whether its server knows what may not be removed.
        shares_addresses: whether the ports of one bond may have one address.
        tells_boot: whether a reservation says where its machine boots from.
    """

    name: str
    provider: DHCPProvider
    stop: Callable[[], object]
    start: Callable[[], object]
    offers: bool = False
    tells_when_gone: bool = False
    has_one_name: bool = False
    has_infiniband: bool = True
    networks: Sequence[IPv4Network] = (NETWORK, SECOND)
    has_statics: bool = True
    shares_addresses: bool = True
    tells_boot: bool = True

    async def subnet(self, network: IPv4Network = NETWORK) -> Subnet:
        return next(s for s in await self.provider.subnets() if s.network == network)

    async def fresh(self, **change: Any) -> Reservation:
        """Return a reservation of what no other test of the run has used."""
        number = next(_numbers[self.name])
        name = f"host{number}.example.com"
        boot = {"filename": "grub2/grubx64.efi", "nextServer": "192.168.120.1"}
        options = {"hostname": name, **(boot if self.tells_boot else {})}
        mac = MACAddress.parse(f"52:54:00:aa:{number // 256:02x}:{number % 256:02x}")
        one = Reservation(name, IPv4Address("192.168.120.160") + number, mac, await self.subnet(), options)
        return replace(one, **change)

    async def holds(self, one: Reservation) -> bool:
        """Whether the server has exactly this reservation at its address, whichever way it is asked for."""
        at = [r for r in await self.provider.at(one.subnet, one.ip) if isinstance(r, Reservation)]
        of = await self.provider.of(one.subnet, one.mac)
        among = [r for r in (await self.provider.records(one.subnet)).reservations if r.mac == one.mac]
        taken = await self.provider.taken(one.subnet, [one.ip, one.subnet.network[2]])
        assert len(at) == len(among) == 1
        assert set(taken) == {one.ip}
        return all(isinstance(r, Reservation) and same(r, one) for r in (*at, of, *among))

    async def lacks(self, one: Reservation) -> bool:
        """Whether the server has nothing of this reservation's, whichever way it is asked for."""
        found = [
            *await self.provider.at(one.subnet, one.ip),
            *(r for r in await self.provider.records(one.subnet) if one.mac == r.mac or one.ip == r.ip),
            *await self.provider.taken(one.subnet, [one.ip]),
        ]
        return not found and await self.provider.of(one.subnet, one.mac) is None


@pytest.fixture(scope="module")
def other_member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with member.running(
        tmp_path_factory.mktemp("member"),
        features={"dhcp": {"provider": "memory", "memory": HELD, "ping_free_ip": False}},
        foreman={"trusted_hosts": [TRUSTED, CALLER]},
    ) as running:
        yield running


@pytest.fixture(scope="module")
def dhcpd_server(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[DHCPServer]:
    needs("dhcpd")
    needs("namespaces")
    with dhcpd.running(tmp_path_factory.mktemp("dhcpd"), conf=CONF, leases=LEASES) as server:
        yield server


@pytest.fixture(scope="module")
def kea_server(needs: Callable[[str], None]) -> Iterator[KeaServer]:
    needs("kea")
    with keas.running(subnets=KEAS_SUBNETS) as server:
        server.done("lease4-add", KEAS_LEASE)
        yield server


@pytest.fixture(scope="module")
def dnsmasq_server(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dnsmasq]:
    needs("dnsmasq")
    needs("namespaces")
    with dnsmasq.running(tmp_path_factory.mktemp("dnsmasq"), conf=DNSMASQ, leases=DNSMASQ_LEASES) as server:
        yield server


@pytest.fixture(scope="module")
def kea3_server(needs: Callable[[str], None]) -> Iterator[KeaServer]:
    needs("kea3")
    with keas.running(subnets=KEAS_SUBNETS, libraries=[keas.LEASE_CMDS, keas.HOST_CMDS], root=KEA3) as server:
        server.done("lease4-add", KEAS_LEASE)
        yield server


@pytest.fixture(scope="module")
def libvirt_server(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    needs("libvirtd")
    needs("namespaces")
    with libvirtd.running(tmp_path_factory.mktemp("libvirtd"), LIBVIRT) as server:
        server.status.write_text(LIBVIRT_LEASES)
        yield server


@pytest.fixture(scope="module")
def members_of_dhcpd(
    dhcpd_server: DHCPServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Member, Member]]:
    """One that runs and has the files, and one that has them not, for which the provider under test is opened."""
    having, lacking = fed.made(tmp_path_factory.mktemp("fed") / "cluster", dhcpd_server, count=2)
    having.start()
    try:
        # Its store is made by now: two of one process, where no member has a process of its own, must not at once.
        assert having.ask("GET", "/dhcp/192.168.120.0/unused_ip").status == 200
        yield having, lacking
    finally:
        having.stop()


@pytest.fixture(params=PROVIDERS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    opening = {
        "isc": _isc, "isc, fed": _fed, "kea": _kea, "kea3": _kea, "dnsmasq": _dnsmasq, "libvirt": _libvirt,
        "memory": _memory, "smart_proxy": _smart_proxy,
    }  # fmt: skip
    async with opening[request.param](request) as found:
        yield found


@contextlib.asynccontextmanager
async def _memory(_: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    provider = memory.of(MemorySettings.model_validate(HELD))

    def stop() -> None:
        provider.failure = Unavailable("memory was told to fail")

    def start() -> None:
        provider.failure = None

    yield Subject("memory", provider, stop, start)


@contextlib.asynccontextmanager
async def _smart_proxy(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    other: Member = request.getfixturevalue("other_member")
    async with smart_proxy.opened(_to(other), _around(other)) as provider:
        yield Subject("smart_proxy", provider, other.stop, other.start, offers=True)


@contextlib.asynccontextmanager
async def _isc(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: DHCPServer = request.getfixturevalue("dhcpd_server")
    async with isc.opened(_of(server)) as provider:
        yield Subject("isc", provider, server.stop, server.start, tells_when_gone=True)


@contextlib.asynccontextmanager
async def _kea(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: KeaServer = request.getfixturevalue(f"{request.param}_server")
    async with engine.opened(Secret(f"sqlite:///{request.getfixturevalue('tmp_path')}/store.db")) as store:
        nobodys = Path("unused")
        around = Surroundings(CALLER, OperationMetrics(CollectorRegistry()), nobodys, nobodys, nobodys, store=store)
        async with kea.opened(KeaSettings.model_validate(server.settings), around) as provider:
            yield Subject(request.param, provider, server.stop, server.start, has_one_name=True)


@contextlib.asynccontextmanager
async def _dnsmasq(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: Dnsmasq = request.getfixturevalue("dnsmasq_server")
    async with provider_of_dnsmasq.opened(DnsmasqSettings.model_validate(server.settings)) as provider:
        yield Subject(
            "dnsmasq",
            provider,
            server.stop,
            server.start,
            tells_when_gone=True,
            has_one_name=True,
            has_infiniband=False,
        )


@contextlib.asynccontextmanager
async def _libvirt(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: Libvirtd = request.getfixturevalue("libvirt_server")
    async with provider_of_libvirt.opened(LibvirtSettings.model_validate(server.settings)) as provider:
        yield Subject(
            "libvirt", provider, server.stop, server.start, has_one_name=True, has_infiniband=False, networks=(NETWORK,),
            has_statics=False, shares_addresses=False, tells_boot=False,
        )  # fmt: skip


@contextlib.asynccontextmanager
async def _fed(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: DHCPServer = request.getfixturevalue("dhcpd_server")
    having, lacking = request.getfixturevalue("members_of_dhcpd")
    settings = _of(server, config="/nowhere/dhcpd.conf", leases="/nowhere/dhcpd.leases", files_on=[having.name])
    async with isc.opened(settings, fed.around(lacking, OperationMetrics(CollectorRegistry()))) as provider:
        yield Subject("isc", provider, server.stop, server.start, tells_when_gone=True)


def _of(server: DHCPServer, **settings: Any) -> ISCSettings:
    return ISCSettings.model_validate({**server.settings, "timeout_s": 3, **settings})


def _to(other: Member) -> SmartProxySettings:
    url = f"https://{other.https.address}:{other.https.port}"
    return SmartProxySettings(url=url, server_name=FQDN.parse(CLUSTER_ADDRESS), timeout_s=5)


def _around(other: Member) -> Surroundings:
    mine = other.other_member(CALLER)
    return Surroundings(CALLER, OperationMetrics(CollectorRegistry()), mine.certificate, mine.key, mine.ca)


async def test_subnets_are_told_with_their_options(subject: Subject) -> None:
    await subject.provider.reached()
    found = await subject.provider.subnets()
    # A dhcpd has its own segment's besides.
    found = [s for s in found if s.network in (NETWORK, SECOND)]
    assert [s.network for s in found] == list(subject.networks)
    assert found[0].options["routers"] == ["192.168.120.1"]
    assert found[0].options["range"] == ["192.168.120.10", "192.168.120.100"]
    assert str(found[0]) == "192.168.120.0/255.255.255.0"
    assert all(not s.options for s in found[1:])


async def test_what_others_made_is_seen(subject: Subject) -> None:
    subnet = await subject.subnet()
    static, leased = await subject.provider.of(subnet, STATIC), await subject.provider.of(subnet, LEASED)
    assert isinstance(static, Reservation)
    assert (static.name, str(static.ip), static.deletable) == (
        "static1.example.com",
        "192.168.120.150",
        not subject.has_statics,
    )
    assert static.options["hostname"] == (static.name if subject.has_one_name else "static1")
    assert isinstance(leased, Lease)
    assert (str(leased.ip), leased.state, f"{leased.ends:%Y-%m-%d %H:%M:%S}") == (
        "192.168.120.20", "active", "2038-01-19 03:14:07",
    )  # fmt: skip
    records = await subject.provider.records(subnet)
    assert static in records.reservations
    assert leased in records.leases
    assert list(await subject.provider.at(subnet, leased.ip)) == [leased]
    among = [leased.ip, static.ip, IPv4Address("192.168.120.21")]
    assert set(await subject.provider.taken(subnet, among)) == {leased.ip, static.ip}


async def test_all_of_many_are_looked_at(subject: Subject) -> None:
    subnet = await subject.subnet()
    taken = await subject.provider.taken(subnet, list(NETWORK.hosts()))
    assert {IPv4Address("192.168.120.20"), IPv4Address("192.168.120.150")} <= set(taken)
    assert IPv4Address("192.168.120.21") not in taken
    assert not await subject.provider.taken(subnet, [])


async def test_an_added_reservation_is_there(subject: Subject) -> None:
    one = await subject.fresh()
    assert await subject.lacks(one)
    await subject.provider.add(one)
    assert await subject.holds(one)


async def test_a_reservation_without_a_boot_loader_is_there(subject: Subject) -> None:
    one = await subject.fresh()
    one = replace(one, options={"hostname": one.name if subject.has_one_name else "bare.example.com"})
    await subject.provider.add(one)
    assert await subject.holds(one)


async def test_adding_twice_is_success_and_one_reservation(subject: Subject) -> None:
    one = await subject.fresh()
    await subject.provider.add(one)
    await subject.provider.add(one)
    assert await subject.holds(one)


@pytest.mark.parametrize("what", ["ip", "mac", "options"])
async def test_against_another_value_nothing_is_changed(subject: Subject, what: str) -> None:
    one, other = await subject.fresh(), await subject.fresh()
    await subject.provider.add(one)
    second = {
        "ip": replace(other, ip=one.ip),
        "mac": replace(other, mac=one.mac),
        "options": replace(
            one, options={**one.options, "filename": "other.0", "hostname": other.name}, name=other.name
        ),
    }[what]
    with pytest.raises(Conflict):
        await subject.provider.add(second)
    assert await subject.holds(one)


async def test_a_name_that_another_has_is_refused(subject: Subject) -> None:
    one, other = await subject.fresh(), await subject.fresh()
    await subject.provider.add(one)
    with pytest.raises(Rejected, match="Failed to add DHCP reservation for"):
        await subject.provider.add(replace(other, name=one.name))
    assert await subject.holds(one)
    assert await subject.lacks(other)


async def test_ports_of_one_bond_may_have_one_address(subject: Subject) -> None:
    one, other = await subject.fresh(), await subject.fresh()
    await subject.provider.add(one)
    bonded = replace(other, ip=one.ip)
    if not subject.shares_addresses:
        with pytest.raises(Conflict):
            await subject.provider.add(bonded, related=[one.mac, STATIC])
        return
    await subject.provider.add(bonded, related=[one.mac, STATIC])
    assert {r.mac for r in await subject.provider.at(one.subnet, one.ip)} == {one.mac, other.mac}


async def test_a_removed_reservation_is_gone_and_its_address_free(subject: Subject) -> None:
    one, other = await subject.fresh(), await subject.fresh()
    await subject.provider.add(one)
    await subject.provider.remove(one)
    assert await subject.lacks(one)
    again = replace(other, ip=one.ip)
    await subject.provider.add(again)
    assert await subject.holds(again)


async def test_removing_nothing_is_said(subject: Subject) -> None:
    with pytest.raises(NotFound):
        await subject.provider.remove(await subject.fresh())


async def test_what_is_static_stays(subject: Subject) -> None:
    subnet = await subject.subnet()
    static = await subject.provider.of(subnet, STATIC)
    assert isinstance(static, Reservation)
    if not subject.has_statics:
        return
    with pytest.raises(Rejected, match=r"static1.example.com \(192.168.120.150 / 00:11:22:33:44:01\) is static"):
        await subject.provider.remove(static)
    assert await subject.provider.of(subnet, STATIC) == static


async def test_two_that_add_the_same_both_succeed(subject: Subject) -> None:
    one = await subject.fresh()
    await asyncio.gather(subject.provider.add(one), subject.provider.add(one))
    assert await subject.holds(one)


async def test_a_20_octet_hardware_address_is_one(subject: Subject) -> None:
    one = await subject.fresh(mac=MACAddress.parse(":".join(f"{n:02x}" for n in range(20))))
    if not subject.has_infiniband:
        with pytest.raises(Rejected, match="6 octets"):
            await subject.provider.as_kept(one)
        return
    await subject.provider.add(one)
    assert await subject.holds(one)
    await subject.provider.remove(one)


async def test_a_server_offers_an_address_once_or_has_no_such_question(subject: Subject) -> None:
    subnet = await subject.subnet()
    first, last = IPv4Address("192.168.120.101"), IPv4Address("192.168.120.103")
    if not subject.offers:
        with pytest.raises(Unsupported):
            await subject.provider.offered(subnet, first, last)
        return
    offered = [await subject.provider.offered(subnet, first, last) for _ in range(4)]
    assert sorted(a for a in offered if a) == [first, first + 1, last]
    assert offered[3] is None
    static = IPv4Address("192.168.120.150")
    assert await subject.provider.offered(subnet, static, static) is None


async def test_a_server_that_is_gone_is_unavailable_and_needs_no_restart_of_ours(subject: Subject) -> None:
    subnet, one = await subject.subnet(), await subject.fresh()
    await subject.provider.add(held := await subject.fresh())
    # Not in a thread, with whose end a server would get its own.
    subject.stop()
    try:
        reads = (
            subject.provider.subnets, lambda: subject.provider.records(subnet), lambda: subject.provider.at(subnet, held.ip),
            lambda: subject.provider.of(subnet, held.mac), lambda: subject.provider.taken(subnet, [held.ip]),
        )  # fmt: skip
        changes = (
            subject.provider.reached, lambda: subject.provider.add(one), lambda: subject.provider.remove(held),
        )  # fmt: skip
        for call in changes:
            with pytest.raises(Unavailable):
                await call()
        if subject.offers:
            with pytest.raises(Unavailable):
                await subject.provider.offered(subnet, one.ip, one.ip)
        for read in reads:
            if subject.tells_when_gone:
                assert await read()
                continue
            with pytest.raises(Unavailable):
                await read()
    finally:
        subject.start()
    await subject.provider.add(one)
    assert await subject.holds(one)


# Of another proxy alone


async def test_a_proxy_without_the_feature_is_no_success(tmp_path_factory: pytest.TempPathFactory) -> None:
    with member.running(tmp_path_factory.mktemp("bare"), foreman={"trusted_hosts": [TRUSTED, CALLER]}) as bare:
        async with smart_proxy.opened(_to(bare), _around(bare)) as provider:
            one = Reservation("h", NETWORK[5], STATIC, Subnet(NETWORK))
            for call in (provider.reached(), provider.subnets(), provider.of(one.subnet, one.mac), provider.add(one),
                         provider.remove(one)):  # fmt: skip
                with pytest.raises(Unavailable):
                    await call


async def test_a_proxy_that_does_not_trust_us_says_so(
    other_member: Member, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mine = other_member.other_member("stranger.example.com")
    around = Surroundings("x", OperationMetrics(CollectorRegistry()), mine.certificate, mine.key, mine.ca)
    async with smart_proxy.opened(_to(other_member), around) as provider:
        for call in (provider.reached, provider.subnets):
            with pytest.raises(Misconfigured, match="answered 403 to GET /dhcp"):
                await call()


async def test_the_doctor_finds_a_subnet_that_the_other_proxy_has_not(other_member: Member, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(other_member.ca))
    mine = other_member.other_member(CALLER)
    context.load_cert_chain(mine.certificate, mine.key)

    async def found(*subnets: str) -> list[str]:
        given = {"provider": "smart_proxy", "smart_proxy": _to(other_member).model_dump(), "subnets": subnets}
        may_ping = tmp_path / "ping_group_range"
        may_ping.write_text("1\t0\n")
        asked = checks.checks(DHCPSettings.model_validate(given), lambda: context, may_ping=may_ping)
        return [f.sentence for check in asked for f in await check.run()]

    assert await found() == await found(str(NETWORK)) == []
    (sentence,) = await found(str(NETWORK), "10.0.0.0/8")
    assert "has no subnet 10.0.0.0/8" in sentence


async def test_the_doctor_names_what_is_wrong_with_dhcpd(dhcpd_server: DHCPServer, tmp_path: Path) -> None:
    may_ping = tmp_path / "ping_group_range"
    may_ping.write_text("0\t2147483647\n")

    async def found(subnets: Sequence[str] = (), **change: Any) -> dict[str, str]:
        given = {"isc": {**dhcpd_server.settings, "timeout_s": 2, **change}, "subnets": subnets}
        asked = checks.checks(DHCPSettings.model_validate(given), lambda: None, may_ping=may_ping)
        return {f.code: f.sentence for check in asked for f in await check.run()}

    assert await found([str(NETWORK)]) == {}
    assert "has no subnet 10.0.0.0/8" in (await found(["10.0.0.0/8"]))["DHCP-SUBNET-UNKNOWN"]
    assert "finds the secret of key" in (await found(key_secret="bm90IHRoZSBzZWNyZXQ="))["DHCP-KEY"]
    assert "knows no key other" in (await found(key_name="other"))["DHCP-KEY"]
    assert "cannot be reached" in (await found(omapi_port=1))["DHCP-DOWN"]
    assert set(await found(leases=str(tmp_path / "no"))) == {"DHCP-FILES"}
    assert set(await found(leases=str(tmp_path / "no"), config=str(tmp_path / "no"))) == {"DHCP-FILES-ABSENT"}
    odd = tmp_path / "dhcpd.conf"
    odd.write_text(dhcpd_server.conf.read_text() + '\ninclude "/nowhere/at/all.conf";\n')
    assert "/nowhere/at/all.conf" in (await found(config=str(odd)))["DHCP-CONF"]


async def test_a_static_host_of_the_same_machine_stays_when_ours_goes(
    needs: Callable[[str], None], tmp_path: Path
) -> None:
    needs("dhcpd")
    with dhcpd.running(tmp_path / "dhcpd", conf=CONF) as server:
        async with isc.opened(_of(server)) as provider:
            subject = Subject("isc", provider, server.stop, server.start)
            one = await subject.fresh()
            await provider.add(one)
        server.stop()
        static = f"host stat {{ hardware ethernet {one.mac}; fixed-address 192.168.122.1; }}"
        server.conf.write_text(f"{server.conf.read_text()}\n{static}\n")
        server.start()
        async with isc.opened(_of(server)) as provider:
            await provider.remove(one)
            assert await provider.of(one.subnet, one.mac) is None
        assert server.host_in_leases("stat") is None
        assert "deleted;" in (server.host_in_leases(one.name) or "")


async def test_what_a_file_shows_and_dhcpd_has_not_is_no_success(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("dhcpd")
    with dhcpd.running(tmp_path / "dhcpd", conf=CONF) as server:
        stale = tmp_path / "dhcpd.leases"
        async with isc.opened(_of(server)) as provider:
            one = await Subject("isc", provider, server.stop, server.start).fresh()
            other = await Subject("isc", provider, server.stop, server.start).fresh()
            await provider.add(one)
            stale.write_bytes(server.leases.read_bytes())
            await provider.remove(one)
        async with isc.opened(_of(server, leases=stale)) as provider:
            for call in (provider.add(one), provider.add(other), provider.remove(one)):
                with pytest.raises(Unavailable, match="dhcpd's own"):
                    await call


async def test_a_next_server_that_cannot_be_looked_up_now_may_be_later(
    needs: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("dhcpd")
    failures = [socket.gaierror(socket.EAI_AGAIN, "try again"), socket.gaierror(socket.EAI_NONAME, "no such name")]

    def looked_up(_name: str) -> list[IPv4Address]:
        if failures:
            raise failures.pop(0)
        return [IPv4Address("192.0.2.9"), IPv4Address("192.0.2.8")]

    monkeypatch.setattr(next_servers, "looked_up", looked_up)
    with dhcpd.running(tmp_path / "dhcpd", conf=CONF) as server:
        async with isc.opened(_of(server)) as provider:
            one = await Subject("isc", provider, server.stop, server.start).fresh()
            named = replace(one, options={**one.options, "nextServer": "tftp.example.com"})
            with pytest.raises(Unavailable, match="cannot be looked up now"):
                await provider.as_kept(named)
            with pytest.raises(Rejected, match="has no IPv4 address"):
                await provider.as_kept(named)
            kept = await provider.as_kept(named)
            assert kept.options["nextServer"] == "192.0.2.8"
