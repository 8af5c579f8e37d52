"""What every DNS provider promises (``features/dns/contract.py``), asked of each on the server it is meant for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from xml.etree import ElementTree

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from prometheus_client import CollectorRegistry

from muster.cli.demo.bind import free_port
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import Surroundings
from muster.features.dns.contract import SRV, Data, DNSProvider, NoZone, Record, RecordType
from muster.features.dns.providers import infoblox, libvirt, nsupdate, nsupdate_gss, route53, smart_proxy
from muster.features.dns.providers import powerdns as powerdns_api
from muster.features.dns.providers.memory import MemoryDNS
from muster.features.dns.settings import (
    Algorithm,
    InfobloxSettings,
    LibvirtSettings,
    NSUpdateGSSSettings,
    NSUpdateSettings,
    PowerDNSSettings,
    Route53Settings,
)
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.names import FQDN, ServiceName
from muster.kernel.secrets import Secret
from muster.policy.metered import OperationMetrics
from tests.servers import bind, infoblox_stand_in, kerberos, libvirtd, member, powerdns, route53_stand_in
from tests.servers.bind import BindServer, Kerberos, Zone
from tests.servers.infoblox_stand_in import PASSWORD, USERNAME, Grid
from tests.servers.kerberos import Realm
from tests.servers.libvirtd import Libvirtd
from tests.servers.member import CLUSTER_ADDRESS, TRUSTED, Member
from tests.servers.powerdns import PowerDNSServer
from tests.servers.route53_stand_in import ACCESS_KEY, SECRET_KEY, Account, Values

Server = BindServer | PowerDNSServer
CALLER = "proxy00.example.com"
OURS, SERVICE = "muster@EXAMPLE.COM", "DNS/ns.example.com@EXAMPLE.COM"
# The way to keep records, and where it is not plain BIND, the server it keeps them on.
PROVIDERS = (
    "nsupdate",
    "nsupdate-views",
    "nsupdate-powerdns",
    "nsupdate_gss",
    "powerdns",
    "infoblox",
    "route53",
    "libvirt",
    "memory",
    "smart_proxy",
)
# libvirt's entries are addresses and names, of no zone and of no other type.
BESIDE_LIBVIRT = [p for p in PROVIDERS if p != "libvirt"]
of_every_type = pytest.mark.parametrize("subject", BESIDE_LIBVIRT, indirect=True)
BESIDE_MEMORY = [p for p in BESIDE_LIBVIRT if p != "memory"]
# They are told which zones there are; others ask a server, which may have another view, or none yet.
KNOW_THEIR_ZONES = ("powerdns", "route53", "memory")
BY_UPDATES = [p for p in BESIDE_LIBVIRT if p not in (*KNOW_THEIR_ZONES, "infoblox", "route53")]
ALGORITHMS = get_args(Algorithm)
KEYS = {"muster-test": "hmac-sha256", **{f"with-{a}": a for a in ALGORITHMS}}
ZONES = (
    Zone("example.com", ('text IN TXT "held"', "mail IN MX 10 mx")),
    Zone("child.example.com"),
    Zone("120.168.192.in-addr.arpa"),
    Zone("8.b.d.0.1.0.0.2.ip6.arpa"),
    Zone("readonly.test", ("host IN A 10.9.9.9",), updatable=False),
)
NETWORK = """
<network>
  <name>muster</name>
  <bridge name='virbr9' stp='off' delay='0'/>
  <ip address='192.168.120.1' netmask='255.255.255.0'/>
</network>
"""
_numbers = itertools.count(1)


def fresh(label: str = "host") -> FQDN:
    """Return a name that no other test of the run has used."""
    return FQDN.parse(f"{label}{next(_numbers)}.example.com")


def four() -> str:
    """Return an address that no other test of the run has used: libvirt keeps one name for each."""
    return str(IPv4Address("10.77.0.0") + next(_numbers))


def six() -> str:
    """Return one of IPv6."""
    return str(IPv6Address("2001:db8:77::") + next(_numbers))


def a(name: FQDN | str, address: str | None = None) -> Record:
    return Record(FQDN.parse(name), RecordType.A, ip_address(address or four()))


def alias(name: FQDN, target: str = "static.example.com") -> Record:
    return Record(name, RecordType.CNAME, FQDN.parse(target))


def srv(name: str, port: int) -> Record:
    return Record(ServiceName.parse(name), RecordType.SRV, SRV(10, 60, port, FQDN.parse("sip.example.com")))


@dataclass
class Subject:
    """A provider under test.

    Attributes:
        values: what the server itself holds under a name.
        stop, start: take the server away and bring it back.
    """

    name: str
    provider: DNSProvider
    values: Callable[[FQDN | ServiceName, RecordType], Any]
    stop: Callable[[], object]
    start: Callable[[], object]
    tells_absence: bool = True
    looks_up: bool = True
    keeps: frozenset[RecordType] = frozenset(RecordType)

    async def refuses(self, record: Record) -> bool:
        """Whether the record is of a type that the provider does not keep, and says so to every change."""
        if record.type in self.keeps:
            return False
        with pytest.raises(Rejected, match=f"Creation of {record.type.value} not implemented"):
            await self.provider.add(record)
        with pytest.raises(Rejected, match=f"Deletion of {record.type.value} not implemented"):
            await self.provider.remove(record.name, record.type)
        assert await self.provider.lookup(record.name, record.type) == frozenset()
        return True

    async def holds(self, *expected: Record) -> bool:
        """Whether the server holds exactly these records under the first one's name and type."""
        name, kind = expected[0].name, expected[0].type
        return bool(await self.values(name, kind) == {r.data for r in expected})

    async def is_empty(self, name: FQDN | ServiceName, kind: RecordType) -> bool:
        return not await self.values(name, kind)


@pytest.fixture(scope="module")
def named(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BindServer]:
    needs("bind")
    with bind.running(tmp_path_factory.mktemp("bind"), zones=ZONES, keys=KEYS) as server:
        yield server


@pytest.fixture(scope="module")
def viewed(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BindServer]:
    """A BIND that shows the zones to its key, and to everybody else one of them, with other records."""
    needs("bind")
    outside = (Zone("example.com", ("static IN A 192.0.2.99",)),)
    with bind.running(tmp_path_factory.mktemp("views"), zones=ZONES, others=outside) as server:
        yield server


@pytest.fixture(scope="module")
def powerdns_server(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDNSServer]:
    needs("powerdns")
    with powerdns.running(tmp_path_factory.mktemp("powerdns"), zones=ZONES, secondary=["readonly.test"]) as server:
        yield server


@pytest.fixture(scope="module")
def grid() -> Iterator[Grid]:
    """A stand-in for Infoblox, with the zones that others have."""
    with infoblox_stand_in.running() as grid:
        for zone in ZONES:
            grid.add("zone_auth", fqdn=zone.name)
        grid.add("record:txt", name="text.example.com")
        grid.add("record:mx", name="mail.example.com")
        yield grid


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    """A stand-in for Route 53, with the zones that others have."""
    with route53_stand_in.running() as account:
        for zone in ZONES:
            account.add(zone.name)
        sets = account.zones[0].sets
        sets["text.example.com.", "TXT", ""] = Values(300, ('"held"',))
        sets["mail.example.com.", "MX", ""] = Values(300, ("10 mx.example.com.",))
        yield account


@pytest.fixture(scope="module")
def libvirt_server(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    needs("libvirtd")
    needs("namespaces")
    with libvirtd.running(tmp_path_factory.mktemp("libvirtd"), NETWORK) as it:
        yield it


@pytest.fixture(scope="module")
def realm(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    needs("kerberos")
    with kerberos.running(tmp_path_factory.mktemp("realm")) as running, pytest.MonkeyPatch.context() as patch:
        # Kerberos' library has no other seam.
        patch.setenv("KRB5_CONFIG", str(running.configuration))
        running.principal(OURS, "muster.keytab")
        running.principal(SERVICE, "named.keytab")
        yield running


@pytest.fixture(scope="module")
def kerberized(
    realm: Realm, needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BindServer]:
    needs("bind")
    by = Kerberos(realm.directory / "named.keytab", OURS, realm.configuration)
    with bind.running(tmp_path_factory.mktemp("kerberized"), zones=ZONES, kerberos=by) as server:
        yield server


@pytest.fixture(scope="module")
def other_member(named: BindServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    settings = {"server": named.address, "port": named.port, "key_file": str(named.key_file)}
    with member.running(
        tmp_path_factory.mktemp("member"),
        features={"dns": {"nsupdate": settings, "policies": {}}},
        foreman={"trusted_hosts": [TRUSTED, CALLER]},
    ) as running:
        yield running


@pytest.fixture(params=PROVIDERS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    kind, _, server = request.param.partition("-")
    if kind == "nsupdate":
        fixture = {"": "named", "views": "viewed", "powerdns": "powerdns_server"}[server]
        opened = _nsupdate(request.getfixturevalue(fixture))
    else:
        ways = {
            "nsupdate_gss": _nsupdate_gss, "powerdns": _powerdns, "infoblox": _infoblox, "route53": _route53,
            "libvirt": _libvirt, "memory": _memory, "smart_proxy": _smart_proxy,
        }  # fmt: skip
        opened = ways[kind](request)
    async with opened as found:
        yield found


@contextlib.asynccontextmanager
async def _nsupdate(server: Server) -> AsyncIterator[Subject]:
    async with nsupdate.opened(_to(server, key_file=server.key_file), 300) as provider:
        yield Subject("nsupdate", provider, _on(server), server.stop, server.start)


@contextlib.asynccontextmanager
async def _nsupdate_gss(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: BindServer = request.getfixturevalue("kerberized")
    async with nsupdate_gss.opened(_by_kerberos(server, request.getfixturevalue("realm")), 300) as provider:
        yield Subject("nsupdate_gss", provider, _on(server), server.stop, server.start)


@contextlib.asynccontextmanager
async def _powerdns(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: PowerDNSServer = request.getfixturevalue("powerdns_server")
    async with powerdns_api.opened(_to_api(server), 300, None) as provider:
        yield Subject("powerdns", provider, _on(server), server.stop, server.start)


@contextlib.asynccontextmanager
async def _infoblox(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    grid: Grid = request.getfixturevalue("grid")
    settings = {"url": grid.url, "username": USERNAME, "password": PASSWORD, "timeout_s": 5}
    async with infoblox.opened(InfobloxSettings.model_validate(settings), 300, None) as provider:

        async def values(name: FQDN | ServiceName, kind: RecordType) -> Any:
            found = grid.objects.get(f"record:{kind.value.lower()}", [])
            return {infoblox._data(kind, one) for one in found if one["name"] == name.lower()}

        def stop() -> None:
            grid.broken = (503, b"")

        def start() -> None:
            grid.broken = None

        yield Subject("infoblox", provider, values, stop, start)


@contextlib.asynccontextmanager
async def _route53(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    account: Account = request.getfixturevalue("account")
    settings = {"url": account.url, "aws_access_key": ACCESS_KEY, "aws_secret_key": SECRET_KEY, "timeout_s": 5}
    async with route53.opened(Route53Settings.model_validate(settings), 300, believed_s=0) as provider:

        async def values(name: FQDN | ServiceName, kind: RecordType) -> Any:
            return {_parsed(kind, f" IN {kind.value} {text}") for text in account.values(name, kind.value)}

        def stop() -> None:
            account.broken = (503, b"")

        def start() -> None:
            account.broken = None

        yield Subject("route53", provider, values, stop, start)


@contextlib.asynccontextmanager
async def _libvirt(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: Libvirtd = request.getfixturevalue("libvirt_server")
    async with libvirt.opened(LibvirtSettings.model_validate(server.settings), None) as provider:

        async def values(name: FQDN | ServiceName, kind: RecordType) -> Any:
            # Both what is in force and what is kept, which are never to differ.
            live, kept = [
                await asyncio.to_thread(_in_network, server, name, kind, *how) for how in ((), ("--inactive",))
            ]
            assert live == kept
            return live

        keeps = frozenset({RecordType.A, RecordType.AAAA, RecordType.PTR})
        yield Subject("libvirt", provider, values, server.stop, server.start, keeps=keeps)


def _in_network(server: Libvirtd, name: str, kind: RecordType, *how: str) -> set[Data]:
    found: set[Data] = set()
    for host in ElementTree.fromstring(server.virsh("net-dumpxml", libvirtd.NETWORK, *how).stdout).iter("host"):  # noqa: S314
        ip, names = ip_address(host.get("ip", "")), [one.text or "" for one in host.iter("hostname")]
        if kind is RecordType.PTR and ip.reverse_pointer == name:
            found.add(FQDN.parse(names[0]))
        elif kind.value == {4: "A", 6: "AAAA"}[ip.version] and name.lower() in names:
            found.add(ip)
    return found


@contextlib.asynccontextmanager
async def _memory(_: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    provider = MemoryDNS(tuple(FQDN.parse(z.name) for z in ZONES))

    def stop() -> None:
        provider.failure = Unavailable("memory was told to fail")

    def start() -> None:
        provider.failure = None

    yield Subject("memory", provider, provider.lookup, stop, start)


@contextlib.asynccontextmanager
async def _smart_proxy(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: BindServer = request.getfixturevalue("named")
    other: Member = request.getfixturevalue("other_member")
    async with smart_proxy.opened(_to_member(other), _around(other)) as provider:
        yield Subject("smart_proxy", provider, _on(server), other.stop, other.start, False, False)


def _to(server: Server, **settings: Any) -> NSUpdateSettings:
    return NSUpdateSettings(server=server.address, port=server.port, timeout_s=3, **settings)


def _by_kerberos(server: BindServer, realm: Realm, **settings: Any) -> NSUpdateGSSSettings:
    given = {"tsig_keytab": realm.directory / "muster.keytab", "service": SERVICE, "timeout_s": 3, **settings}
    return NSUpdateGSSSettings(server=server.address, port=server.port, **given)


def _to_api(server: PowerDNSServer, **settings: Any) -> PowerDNSSettings:
    return PowerDNSSettings(rest_url=server.api, rest_api_key=Secret(powerdns.API_KEY), timeout_s=3, **settings)


def _to_member(other: Member) -> SmartProxySettings:
    url = f"https://{other.https.address}:{other.https.port}"
    return SmartProxySettings(url=url, server_name=FQDN.parse(CLUSTER_ADDRESS), timeout_s=5)


def _around(other: Member) -> Surroundings:
    mine = other.other_member(CALLER)
    return Surroundings(CALLER, OperationMetrics(CollectorRegistry()), mine.certificate, mine.key, mine.ca)


def _on(server: Server) -> Callable[[FQDN | ServiceName, RecordType], Any]:
    async def values(name: FQDN | ServiceName, kind: RecordType) -> set[Data]:
        return {_parsed(kind, line) for line in await asyncio.to_thread(server.dig, name, kind.value)}

    return values


def _parsed(kind: RecordType, line: str) -> Data:
    data = line.split(f" IN {kind.value} ", 1)[1]
    if kind in (RecordType.A, RecordType.AAAA):
        return ip_address(data)
    if kind is RecordType.SRV:
        priority, weight, port, target = data.split()
        return SRV(int(priority), int(weight), int(port), FQDN.parse(target))
    return FQDN.parse(data)


OF_EACH_TYPE = {
    "A": lambda: (a(n := fresh()), a(n)),
    "AAAA": lambda: (
        Record(n := fresh(), RecordType.AAAA, ip_address(six())),
        Record(n, RecordType.AAAA, ip_address(six())),
    ),
    "CNAME": lambda: (alias(n := fresh()), alias(n, "other.example.com")),
    "PTR": lambda: (
        Record(
            n := FQDN.parse(f"{next(_numbers) % 250}.120.168.192.in-addr.arpa"),
            RecordType.PTR,
            fresh("one"),
        ),
        Record(n, RecordType.PTR, fresh("two")),
    ),
}
pair_of_each_type = pytest.mark.parametrize("pair", OF_EACH_TYPE.values(), ids=OF_EACH_TYPE.keys())
Pair = Callable[[], tuple[Record, Record]]


@pair_of_each_type
async def test_an_added_record_is_there(subject: Subject, pair: Pair) -> None:
    record, _ = pair()
    if await subject.refuses(record):
        return
    await subject.provider.add(record)
    assert await subject.holds(record)


@pair_of_each_type
async def test_adding_twice_is_success_and_one_record(subject: Subject, pair: Pair) -> None:
    record, _ = pair()
    if await subject.refuses(record):
        return
    await subject.provider.add(record)
    await subject.provider.add(record)
    assert await subject.holds(record)


@pair_of_each_type
async def test_against_another_value_nothing_is_changed(subject: Subject, pair: Pair) -> None:
    record, other = pair()
    if await subject.refuses(record):
        return
    await subject.provider.add(record)
    with pytest.raises(Conflict, match=r"already in use|holds"):
        await subject.provider.add(other)
    assert await subject.holds(record)


@pair_of_each_type
async def test_a_removed_record_is_gone_and_the_name_is_free(subject: Subject, pair: Pair) -> None:
    record, other = pair()
    if await subject.refuses(record):
        return
    await subject.provider.add(record)
    await subject.provider.remove(record.name, record.type)
    assert await subject.is_empty(record.name, record.type)
    await subject.provider.add(other)
    assert await subject.holds(other)


@pair_of_each_type
async def test_of_two_racing_writers_one_wins(subject: Subject, pair: Pair) -> None:
    for _ in range(20 if pair is OF_EACH_TYPE["A"] else 3):
        record, other = pair()
        if await subject.refuses(record):
            return
        results = await asyncio.gather(
            subject.provider.add(record), subject.provider.add(other), return_exceptions=True
        )
        losers = [r for r in results if r is not None]
        assert [type(r) for r in losers] == [Conflict]
        assert await subject.holds(record if results[0] is None else other)


async def test_two_writers_of_the_same_record_both_succeed(subject: Subject) -> None:
    for _ in range(20):
        record = a(fresh())
        await asyncio.gather(subject.provider.add(record), subject.provider.add(record))
        assert await subject.holds(record)


async def test_a_race_of_adding_and_removing_ends_in_one_of_both(subject: Subject) -> None:
    for _ in range(10):
        record = a(fresh())
        await subject.provider.add(record)
        removal, addition = await asyncio.gather(
            subject.provider.remove(record.name, record.type), subject.provider.add(record), return_exceptions=True
        )
        assert (removal, addition) == (None, None)
        assert await subject.holds(record) or await subject.is_empty(record.name, record.type)


async def test_removing_nothing_is_said_where_it_can_be_told(subject: Subject) -> None:
    name = fresh("nothing")
    if not subject.tells_absence:
        await subject.provider.remove(name, RecordType.A)
        return
    with pytest.raises(NotFound, match="has no A record"):
        await subject.provider.remove(name, RecordType.A)


async def test_removing_one_type_leaves_the_others(subject: Subject) -> None:
    one = a(fresh())
    other = Record(one.name, RecordType.AAAA, ip_address(six()))
    await subject.provider.add(one)
    await subject.provider.add(other)
    await subject.provider.remove(one.name, RecordType.A)
    assert await subject.is_empty(one.name, RecordType.A)
    assert await subject.holds(other)


@of_every_type
async def test_a_cname_is_refused_beside_other_records(subject: Subject) -> None:
    record = a(fresh())
    await subject.provider.add(record)
    with pytest.raises(Conflict):
        await subject.provider.add(alias(FQDN(record.name)))
    assert await subject.holds(record)
    assert await subject.is_empty(record.name, RecordType.CNAME)


@of_every_type
async def test_a_cname_is_refused_at_a_zones_apex(subject: Subject) -> None:
    apex = FQDN.parse("Example.com")
    with pytest.raises(Conflict, match=r"already in use|holds .*\bSOA\b"):
        await subject.provider.add(alias(apex))
    assert await subject.is_empty(apex, RecordType.CNAME)


# Memory holds nothing but what Foreman manages.
@pytest.mark.parametrize("subject", BESIDE_MEMORY, indirect=True)
@pytest.mark.parametrize(("label", "type_name"), [("text", "TXT"), ("mail", "MX")])
async def test_a_cname_is_refused_beside_what_foreman_does_not_manage(
    subject: Subject, label: str, type_name: str
) -> None:
    name = FQDN.parse(f"{label}.example.com")
    with pytest.raises(Conflict, match=rf"already in use|holds {type_name} records"):
        await subject.provider.add(alias(name))
    assert await subject.is_empty(name, RecordType.CNAME)
    await subject.provider.add(a(name))
    await subject.provider.remove(name, RecordType.A)


# A server that follows an alias into another zone of its own answers with that zone's SOA: PowerDNS does.
@of_every_type
@pytest.mark.parametrize("target", ["host.readonly.test", "host.child.example.com", "missing.readonly.test"])
async def test_an_alias_into_another_zone_is_kept_in_its_own(subject: Subject, target: str) -> None:
    record = alias(fresh(), target)
    for _ in range(2):
        await subject.provider.add(record)
    with pytest.raises(Conflict):
        await subject.provider.add(a(record.name))
    assert await subject.holds(record)
    await subject.provider.remove(record.name, RecordType.CNAME)
    assert await subject.is_empty(record.name, RecordType.CNAME)


@of_every_type
async def test_other_records_are_refused_beside_a_cname(subject: Subject) -> None:
    record = alias(fresh())
    await subject.provider.add(record)
    with pytest.raises(Conflict):
        await subject.provider.add(a(record.name))
    assert await subject.holds(record)
    assert await subject.is_empty(record.name, RecordType.A)


@of_every_type
async def test_values_of_srv_gather_under_one_name(subject: Subject) -> None:
    name = f"_sip._tcp.{fresh()}"
    one, two = srv(name, 5060), srv(name, 5061)
    for record in (one, two, one):
        await subject.provider.add(record)
    assert await subject.holds(one, two)
    await subject.provider.remove(one.name, RecordType.SRV)
    assert await subject.is_empty(one.name, RecordType.SRV)


@of_every_type
async def test_names_compare_without_case(subject: Subject) -> None:
    record = alias(fresh())
    await subject.provider.add(record)
    await subject.provider.add(
        Record(FQDN.parse(record.name.upper()), RecordType.CNAME, FQDN.parse("STATIC.Example.Com"))
    )
    assert await subject.holds(record)


@of_every_type
async def test_a_name_outside_every_zone_is_rejected(subject: Subject) -> None:
    with pytest.raises(Rejected, match=r"serves no zone for host\.nozone\.test"):
        await subject.provider.add(a("host.nozone.test"))


@pytest.mark.parametrize("subject", KNOW_THEIR_ZONES, indirect=True)
async def test_removing_where_there_is_no_zone_is_done_for_certain(subject: Subject) -> None:
    with pytest.raises(NoZone, match=r"serves no zone for a\.nozone\.test"):
        await subject.provider.remove(FQDN.parse("a.nozone.test"), RecordType.A)


@pytest.mark.parametrize("subject", BY_UPDATES, indirect=True)
async def test_removing_where_even_the_zone_is_gone_is_told_apart(subject: Subject) -> None:
    # The zone gone.readonly.test is no more, and the one above it, which nobody may change, answers in its place.
    with pytest.raises(NoZone, match=r"no zone for a\.gone\.readonly\.test any more") as raised:
        await subject.provider.remove(FQDN.parse("a.gone.readonly.test"), RecordType.A)
    assert raised.value.status == 404
    # There the zone is, and the server does not let us: that must not pass for done.
    for name in ("nosuch.readonly.test", "host.readonly.test"):
        with pytest.raises(Rejected, match="REFUSED"):
            await subject.provider.remove(FQDN.parse(name), RecordType.A)
    # A refusal may be another view, or a server that has not loaded its zones.
    with pytest.raises(Rejected, match=r"serves no zone for a\.nozone\.test"):
        await subject.provider.remove(FQDN.parse("a.nozone.test"), RecordType.A)


async def test_what_is_looked_up_is_what_the_server_holds(subject: Subject) -> None:
    name = fresh()
    if not subject.looks_up:
        with pytest.raises(Unsupported, match="no call that looks a record up"):
            await subject.provider.lookup(name, RecordType.A)
        return
    assert await subject.provider.lookup(name, RecordType.A) == frozenset()
    record = a(name)
    await subject.provider.add(record)
    assert await subject.provider.lookup(name, RecordType.A) == {record.data}
    assert await subject.provider.lookup(name, RecordType.AAAA) == frozenset()
    service = srv(f"_ldap._tcp.{name}", 389)
    if await subject.refuses(service):
        return
    await subject.provider.add(service)
    assert await subject.provider.lookup(service.name, RecordType.SRV) == {service.data}


async def test_while_the_server_is_gone_every_call_says_so_and_afterwards_none(subject: Subject) -> None:
    record = a(fresh())
    await subject.provider.reached()
    await asyncio.to_thread(subject.stop)
    try:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await subject.provider.reached()
            with pytest.raises(Unavailable):
                await subject.provider.add(record)
            with pytest.raises(Unavailable):
                await subject.provider.remove(record.name, record.type)
    finally:
        await asyncio.to_thread(subject.start)
    await subject.provider.reached()
    await subject.provider.add(record)
    assert await subject.holds(record)


async def test_a_kept_connection_does_not_spoil_the_first_call_after_a_restart(subject: Subject) -> None:
    await subject.provider.add(a(fresh()))
    await asyncio.to_thread(subject.stop)
    await asyncio.to_thread(subject.start)
    record = a(fresh())
    await subject.provider.add(record)
    assert await subject.holds(record)


# What only dynamic updates have: keys, signatures, clocks, policies.


@contextlib.asynccontextmanager
async def updater(settings: NSUpdateSettings) -> AsyncIterator[DNSProvider]:
    async with nsupdate.opened(settings, 300) as provider:
        yield provider


async def _failure(settings: NSUpdateSettings, record: Record | None = None) -> MusterError:
    """Return how an addition fails; nothing that a message may not hold is in it."""
    async with updater(settings) as provider:
        with pytest.raises(MusterError) as caught:
            await provider.add(record or a(fresh("never")))
    for secret in (settings.key_secret, _secret_in(settings.key_file)):
        assert secret is None or secret.reveal() not in f"{caught.value} {caught.value!r} {provider!r}"
    return caught.value


def _secret_in(key_file: Path | None) -> Secret | None:
    return Secret(key_file.read_text().split('secret "')[1].split('"')[0]) if key_file else None


WRONG = Secret(base64.b64encode(b"w" * 32).decode())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_hmac_is_understood(algorithm: str, named: BindServer) -> None:
    record = a(fresh())
    async with updater(_to(named, key_file=named.key(f"with-{algorithm}"))) as provider:
        await provider.add(record)
        assert await provider.lookup(record.name, RecordType.A) == {record.data}


async def test_a_key_in_the_settings_does_as_well_as_a_file(named: BindServer) -> None:
    secret = _secret_in(named.key("with-hmac-sha512"))
    settings = _to(named, key_name="with-hmac-sha512", key_algorithm="hmac-sha512", key_secret=secret)
    async with updater(settings) as provider:
        await provider.add(a(fresh()))


async def test_an_unknown_key_is_named(named: BindServer) -> None:
    error = await _failure(_to(named, key_name="stranger", key_secret=WRONG))
    assert isinstance(error, Misconfigured)
    assert "does not know our key stranger" in str(error)
    assert "BADKEY" in str(error)


async def test_a_wrong_secret_is_named(named: BindServer) -> None:
    error = await _failure(_to(named, key_name="muster-test", key_secret=WRONG))
    assert isinstance(error, Misconfigured)
    assert "finds the secret of key muster-test" in str(error)
    assert "BADSIG" in str(error)


async def test_another_algorithm_than_the_servers_is_a_key_it_does_not_know(named: BindServer) -> None:
    secret = _secret_in(named.key_file)
    error = await _failure(_to(named, key_name="muster-test", key_algorithm="hmac-sha512", key_secret=secret))
    assert isinstance(error, Misconfigured)
    assert "BADKEY" in str(error)


@pytest.mark.parametrize("off_s", [-3600, 3600])
async def test_a_clock_that_is_off_is_named(off_s: int, named: BindServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # dnspython signs with time.time() and offers no other seam; there is no faketime on these machines.
    monkeypatch.setattr(dns.message, "time", SimpleNamespace(time=lambda: time.time() + off_s))
    error = await _failure(_to(named, key_file=named.key_file))
    assert isinstance(error, Misconfigured)
    assert "says our clock is off (TSIG BADTIME)" in str(error)
    assert str(error).endswith("Set the clocks")


async def test_an_update_that_policy_refuses_is_named(named: BindServer) -> None:
    error = await _failure(_to(named, key_file=named.key_file), a("new.readonly.test"))
    assert isinstance(error, Rejected)
    assert "REFUSED" in str(error)
    assert "does not let key muster-test" in str(error)
    assert named.dig("new.readonly.test", "A") == []


async def test_an_unsigned_update_is_refused(named: BindServer) -> None:
    error = await _failure(_to(named))
    assert isinstance(error, Rejected)
    assert "does not let an unsigned update change example.com" in str(error)


async def test_removing_where_policy_refuses_leaves_the_record(named: BindServer) -> None:
    async with updater(_to(named, key_file=named.key_file)) as provider:
        with pytest.raises(Rejected, match="REFUSED"):
            await provider.remove(FQDN.parse("host.readonly.test"), RecordType.A)
    assert named.dig("host.readonly.test", "A") == ["host.readonly.test. 300 IN A 10.9.9.9"]


async def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = await _failure(NSUpdateSettings(server="127.0.0.1", port=silent.getsockname()[1], timeout_s=0.3))
    assert isinstance(error, Unavailable)
    assert "did not answer within 0.3 s" in str(error)


async def test_a_closed_port_is_named() -> None:
    port = free_port("127.0.0.1")
    error = await _failure(NSUpdateSettings(server="127.0.0.1", port=port, timeout_s=2))
    assert isinstance(error, Unavailable)
    assert f"127.0.0.1#{port} cannot be reached" in str(error)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x0c" + b"\xff" * 12])
async def test_something_that_is_no_dns_server_is_named(reply: bytes) -> None:
    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answered, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await _failure(NSUpdateSettings(server="127.0.0.1", port=port, timeout_s=2))
    assert isinstance(error, Unavailable)
    assert f"127.0.0.1#{port}" in str(error)


Answered = Callable[[dns.message.Message], dns.message.Message]


@contextlib.asynccontextmanager
async def scripted(answered: Answered) -> AsyncIterator[int]:
    """Yield the port of a DNS server over TCP that answers as it is told."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                reply = answered(dns.message.from_wire(wire, keyring=False)).to_wire()
                writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _denying(rcode: dns.rcode.Rcode, to_updates: dns.rcode.Rcode) -> Answered:
    """Answer questions so, with the SOA of a zone further up, and updates otherwise."""

    def answered(question: dns.message.Message) -> dns.message.Message:
        reply = dns.message.Message(question.id)
        reply.flags = dns.flags.QR | dns.flags.AA
        reply.set_opcode(question.opcode())
        reply.question = question.question
        reply.set_rcode(to_updates if question.opcode() == dns.opcode.UPDATE else rcode)
        if reply.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            soa = "ns.test. root.test. 1 3600 600 86400 300"
            reply.authority.append(dns.rrset.from_text("test.", 300, "IN", "SOA", soa))
        return reply

    return answered


@pytest.mark.parametrize(
    ("to_questions", "to_updates", "error"),
    [
        (dns.rcode.REFUSED, dns.rcode.REFUSED, Rejected),
        (dns.rcode.SERVFAIL, dns.rcode.REFUSED, Unavailable),
        # A server that is no primary answers questions, too, and learns late.
        (dns.rcode.NXDOMAIN, dns.rcode.NOTAUTH, Rejected),
        (dns.rcode.NXDOMAIN, dns.rcode.NOTIMP, Rejected),
        (dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, Unavailable),
        # The name is there, with records of another type or names below it.
        (dns.rcode.NOERROR, dns.rcode.REFUSED, Rejected),
        (dns.rcode.NXDOMAIN, dns.rcode.REFUSED, NoZone),
    ],
)
async def test_only_a_denial_with_authority_makes_a_removal_done(
    to_questions: dns.rcode.Rcode, to_updates: dns.rcode.Rcode, error: type[MusterError]
) -> None:
    async with scripted(_denying(to_questions, to_updates)) as port:
        settings = NSUpdateSettings(server="127.0.0.1", port=port, timeout_s=2)
        async with updater(settings) as provider:
            with pytest.raises(MusterError) as raised:
                await provider.remove(FQDN.parse("a.gone.test"), RecordType.A)
    assert type(raised.value) is error


@pytest.mark.parametrize("rcode", [dns.rcode.NOERROR, dns.rcode.NXDOMAIN])
async def test_an_unsigned_answer_to_a_signed_question_is_not_believed(rcode: dns.rcode.Rcode) -> None:
    async with scripted(_denying(rcode, dns.rcode.REFUSED)) as port:
        key = {"key_name": "k", "key_secret": WRONG}
        settings = NSUpdateSettings.model_validate({"server": "127.0.0.1", "port": port, "timeout_s": 2, **key})
        async with updater(settings) as provider:
            for asking in (provider.lookup, provider.remove):
                with pytest.raises(Unavailable, match=r"something that is no answer .* requires a TSIG"):
                    await asking(FQDN.parse("a.gone.test"), RecordType.A)


async def test_a_soa_that_is_not_above_the_name_is_no_zone_for_it() -> None:
    async with scripted(_denying(dns.rcode.NXDOMAIN, dns.rcode.REFUSED)) as port:
        error = await _failure(NSUpdateSettings(server="127.0.0.1", port=port, timeout_s=2))
    assert isinstance(error, Rejected)
    assert "names no zone that never" in str(error)


@pytest.mark.parametrize("rcode", [dns.rcode.REFUSED, dns.rcode.NOTIMP])
async def test_where_a_server_does_not_answer_any_its_no_is_a_conflict_all_the_same(rcode: dns.rcode.Rcode) -> None:
    asked: list[str] = []
    async with scripted(lambda question: _without_any(question, rcode, asked)) as port:
        settings = NSUpdateSettings(server="127.0.0.1", port=port, timeout_s=2)
        error = await _failure(settings, alias(FQDN.parse("held.example.com")))
    assert isinstance(error, Conflict)
    assert "holds records of a type that cannot be asked for" in str(error)
    assert asked == ["SOA", "UPDATE", "CNAME", "ANY"]


def _without_any(question: dns.message.Message, rcode: dns.rcode.Rcode, asked: list[str]) -> dns.message.Message:
    """Answer as a primary server of example.com that has every name in use and does not say with what."""
    reply = dns.message.make_response(question)
    reply.flags |= dns.flags.AA
    kind = dns.rdatatype.to_text(question.question[0].rdtype)
    if question.opcode() == dns.opcode.UPDATE:
        kind = "UPDATE"
        reply.set_rcode(dns.rcode.YXDOMAIN)
    elif kind == "ANY":
        reply.set_rcode(rcode)
    elif kind == "SOA":
        soa = "ns.example.com. root.example.com. 1 3600 600 86400 300"
        reply.authority.append(dns.rrset.from_text("example.com.", 300, "IN", "SOA", soa))
    asked.append(kind)
    return reply


async def test_a_name_at_the_apex_of_a_child_zone_goes_to_the_child(named: BindServer) -> None:
    record = a("child.example.com", "192.168.120.77")
    async with updater(_to(named, key_file=named.key_file)) as provider:
        await provider.add(record)
        try:
            assert named.dig("child.example.com", "A") == ["child.example.com. 300 IN A 192.168.120.77"]
        finally:
            await provider.remove(record.name, RecordType.A)
        await provider.add(a("host.child.example.com", "192.168.120.10"))
    assert named.dig("host.child.example.com", "A") == ["host.child.example.com. 300 IN A 192.168.120.10"]


async def test_more_calls_than_connections_wait_their_turn(named: BindServer) -> None:
    records = [a(fresh(), f"192.168.120.{i}") for i in range(40)]
    async with updater(_to(named, key_file=named.key_file, connections=3)) as provider:
        await asyncio.gather(*(provider.add(r) for r in records))
        for record in records:
            assert await provider.lookup(record.name, RecordType.A) == {record.data}


# What only another Smart Proxy has: certificates and names, and features that it may lack.


@pytest.mark.parametrize("status", [404, 503])
async def test_another_proxy_without_dns_has_removed_nothing(status: int, other_member: Member) -> None:
    said = {404: b"Requested url was not found", 503: b"Feature dns is not configured on this member"}[status]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(said), said))
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        settings = SmartProxySettings(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with smart_proxy.opened(settings, _around(other_member)) as provider:
            with pytest.raises(Unavailable):
                await provider.remove(FQDN.parse("a.example.com"), RecordType.A)
            with pytest.raises(Unavailable):
                await provider.add(a("a.example.com"))


async def test_another_proxy_that_does_not_trust_us_is_an_error_with_its_words(other_member: Member) -> None:
    stranger = other_member.other_member("stranger.example.com")
    around = Surroundings(
        "stranger", OperationMetrics(CollectorRegistry()), stranger.certificate, stranger.key, stranger.ca
    )
    async with smart_proxy.opened(_to_member(other_member), around) as provider:
        with pytest.raises(MusterError, match=r"answered 403 .*Untrusted client stranger\.example\.com"):
            await provider.add(a(fresh()))


async def test_another_proxy_under_a_name_not_its_own_is_not_spoken_to(other_member: Member) -> None:
    settings = _to_member(other_member).model_copy(update={"server_name": FQDN.parse("elsewhere.example.com")})
    async with smart_proxy.opened(settings, _around(other_member)) as provider:
        with pytest.raises(Misconfigured, match="failed in TLS"):
            await provider.add(a(fresh()))
