"""Rules common to all DHCP providers (``features/dhcp/service.py``): members that share a server and a store."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.edge.feature import Surroundings
from muster.edge.replies import Streamed
from muster.edge.routes import Access, RouteTable
from muster.features.dhcp import api
from muster.features.dhcp.claims import Claims
from muster.features.dhcp.contract import Lease, Reservation, Subnet
from muster.features.dhcp.free import FreeAddresses
from muster.features.dhcp.probes import NoProbes
from muster.features.dhcp.providers.memory import MemoryDHCP
from muster.features.dhcp.service import DHCP, opened
from muster.features.dhcp.settings import DHCPSettings
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.happenings import Happening
from muster.kernel.names import MACAddress
from muster.policy.metered import OperationMetrics
from muster.store.engine import Store
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

NET = "192.168.120.0"
SUBNET = Subnet(IPv4Network(f"{NET}/24"))
TABLE = RouteTable(api.MOUNT.routes)
MAC, OTHER = "52:54:00:aa:00:01", "52:54:00:aa:00:02"
NOW = datetime.now(UTC)


class SlowDHCP(MemoryDHCP):
    """A server whose changes are seen by nobody for a while; it checks nothing itself, as ISC's checks no addresses."""

    def __init__(self, subnets: Sequence[Subnet]) -> None:
        super().__init__(subnets)
        self.unseen: list[Reservation] = []

    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        await asyncio.sleep(0.01)
        self.unseen.append(reservation)

    def show(self) -> None:
        for one in self.unseen:
            self._reservations[one.mac] = one
        self.unseen.clear()


def lease(ip: str, mac: str) -> Lease:
    return Lease(IPv4Address(ip), MACAddress.parse(mac), SUBNET, NOW, NOW + timedelta(days=1))


def on(store: Store, server: MemoryDHCP, **settings: Any) -> DHCP:
    claims = Claims(store, held_s=1800, fresh_s=60)
    return DHCP(server, claims, FreeAddresses(claims, NoProbes(), pool=0), **settings)


def form(**given: Any) -> dict[str, Any]:
    return {"name": "h1.example.com", "ip": "192.168.120.5", "mac": MAC, **given}


def server(*subnets: Subnet) -> MemoryDHCP:
    return MemoryDHCP(subnets or [SUBNET, Subnet(IPv4Network("10.0.0.0/8"))])


async def test_what_becomes_of_a_machines_address_is_told_and_whose_one_is_is_known(store: Store) -> None:
    heard: list[Happening] = []
    dhcp = on(store, server(), tell=heard.append, called="memory")
    offered = await dhcp.unused(NET, MAC, "192.168.120.5", "192.168.120.5")
    assert str(offered) == "192.168.120.5"
    await dhcp.create(NET, form(filename="grubx64.efi", nextServer="192.168.120.1"))
    with pytest.raises(Conflict):
        await dhcp.create(NET, form(name="h2", mac=OTHER))
    assert await dhcp.unused(NET, OTHER, "192.168.120.5", "192.168.120.5") is None
    assert [await dhcp.whose(a) for a in ("192.168.120.5", "192.168.120.6", "203.0.113.1", "fe80::1")] == [
        MAC, None, None, None,
    ]  # fmt: skip
    await dhcp.delete_of(NET, MAC)
    ip, by = "192.168.120.5", {"provider": "memory"}
    loads = {"file": "grubx64.efi", "server": "192.168.120.1"}
    assert [(h.kind, h.mac, h.address, dict(h.detail)) for h in heard] == [
        ("offered", MAC, ip, {}),
        ("reserved", MAC, ip, {"name": "h1.example.com", **by, **loads}),
        ("reserved", OTHER, ip, {"name": "h2", **by, "failed": f"Record {NET}/{ip} already exists"}),
        ("offered", OTHER, "", {"failed": f"none is free in {ip} to {ip}"}),
        ("released", MAC, ip, {"name": "h1.example.com", **by}),
    ]


async def test_the_same_again_is_success_and_anything_else_a_conflict_in_foremans_words(store: Store) -> None:
    dhcp = on(store, server())
    await dhcp.create(NET, form())
    await dhcp.create(NET, form())
    await dhcp.create(NET, form(hostname="H1.example.com", type="reservation", related_macs=None))
    for change in ({"ip": "192.168.120.6"}, {"mac": OTHER}, {"filename": "x"}):
        with pytest.raises(Conflict) as raised:
            await dhcp.create(NET, form(**change))
        assert str(raised.value) == f"Record {NET}/{change.get('ip', '192.168.120.5')} already exists"
    assert len((await dhcp.records(NET)).reservations) == 1


async def test_of_many_members_that_reserve_one_address_at_once_one_does(store: Store) -> None:
    slow = SlowDHCP([SUBNET])
    members = [on(store, slow) for _ in range(3)]
    calls = (
        members[n % 3].create(NET, form(name=f"h{n}", mac=f"52:54:00:bb:00:{n:02x}")) for n in range(9)
    )  # fmt: skip
    results = await asyncio.gather(*calls, return_exceptions=True)
    # Though their server says nothing of it yet.
    assert [type(r) for r in results if r is not None] == [Conflict] * 8
    assert len(slow.unseen) == 1


async def test_of_many_members_that_give_one_machine_addresses_at_once_one_does(store: Store) -> None:
    shared = server()
    members = [on(store, shared) for _ in range(3)]
    calls = (members[n % 3].create(NET, form(name=f"h{n}", ip=f"192.168.120.{n + 1}")) for n in range(9))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(r) for r in results if r is not None] == [Conflict] * 8


async def test_what_was_deleted_on_one_member_is_made_again_on_another_at_once(store: Store) -> None:
    shared = server()
    one, other = on(store, shared), on(store, shared)
    await one.create(NET, form())
    await one.delete_of(NET, MAC)
    # As Foreman does when a host gets another network card.
    await other.create(NET, form(mac=OTHER))
    assert (await one.of(NET, OTHER)).ip == IPv4Address("192.168.120.5")


async def test_a_lease_of_another_machine_is_a_conflict_and_the_machine_s_own_is_none(store: Store) -> None:
    shared = server()
    shared.leases = [lease("192.168.120.20", OTHER), lease("192.168.120.21", MAC)]
    dhcp = on(store, shared)
    with pytest.raises(Conflict):
        await dhcp.create(NET, form(ip="192.168.120.20"))
    await dhcp.create(NET, form(ip="192.168.120.20", related_macs=[OTHER]))
    await dhcp.delete_of(NET, MAC)
    await dhcp.create(NET, form(ip="192.168.120.21"))
    await dhcp.delete_of(NET, MAC)
    await dhcp.create(NET, form(ip="192.168.120.22"))


async def test_ports_of_a_bond_share_an_address(store: Store) -> None:
    dhcp = on(store, server())
    await dhcp.create(NET, form())
    await dhcp.create(NET, form(name="h1-01", mac=OTHER, related_macs=[MAC]))
    assert [r.name for r in await dhcp.at(NET, "192.168.120.5")] == ["h1.example.com", "h1-01"]
    await dhcp.delete_at(NET, "192.168.120.5")
    with pytest.raises(NotFound, match=r"^No DHCP records for IP 192.168.120.0/192.168.120.5 found$"):
        await dhcp.at(NET, "192.168.120.5")


async def test_a_reservation_is_deleted_though_its_address_has_a_lease_besides(store: Store) -> None:
    shared = server()
    dhcp = on(store, shared)
    await dhcp.create(NET, form())
    shared.leases = [lease("192.168.120.5", MAC)]
    await dhcp.delete_at(NET, "192.168.120.5")
    assert not (await dhcp.records(NET)).reservations
    for delete in (dhcp.delete_at(NET, "192.168.120.5"), dhcp.delete_of(NET, MAC)):
        with pytest.raises(Rejected, match=r"^192.168.120.5 / 52:54:00:aa:00:01 is static - unable to delete$"):
            await delete


async def test_deleting_nothing_is_success(store: Store) -> None:
    dhcp = on(store, server())
    for network in (NET, "172.31.0.0"):
        await dhcp.delete_of(network, MAC)
        await dhcp.delete_at(network, "192.168.120.9")


async def test_vendor_options_are_refused_where_the_server_cannot_keep_them(store: Store) -> None:
    shared = server()
    shared.has_vendor_options = False
    with pytest.raises(Rejected, match=r"^DHCP implementation does not support Vendor Options$"):
        await on(store, shared).create(NET, form(**{"<Sun-Fire>root_path_name": "/vol"}))


async def test_an_unknown_subnet_is_404_and_on_creation_400(store: Store) -> None:
    dhcp = on(store, server())
    for call in (dhcp.records("172.31.0.0"), dhcp.at("172.31.0.0", "172.31.0.1"), dhcp.of("172.31.0.0", MAC),
                 dhcp.unused("172.31.0.0", None, None, None)):  # fmt: skip
        with pytest.raises(NotFound, match=r"^Subnet 172.31.0.0 could not found$"):
            await call
    with pytest.raises(Rejected, match=r"^No Subnet detected for: 172.31.0.0$"):
        await dhcp.create("172.31.0.0", form())


async def test_subnets_that_foreman_is_not_to_see_are_unknown(store: Store) -> None:
    dhcp = on(store, server(), subnets=[SUBNET.network])
    assert [s.network for s in await dhcp.subnets()] == [SUBNET.network]
    with pytest.raises(NotFound):
        await dhcp.records("10.0.0.0")


async def test_an_address_of_a_subnet_finds_it_and_none_of_its_records(store: Store) -> None:
    dhcp = on(store, server())
    await dhcp.create(NET, form())
    assert list(await dhcp.records("192.168.120.5")) == []
    with pytest.raises(NotFound):
        await dhcp.of("192.168.120.5", MAC)
    assert await dhcp.unused("192.168.120.5", None, "192.168.120.9", "192.168.120.9") == IPv4Address("192.168.120.9")


# Addresses for new hosts


async def test_a_machine_that_has_an_address_of_the_range_keeps_it(store: Store) -> None:
    shared = server()
    shared.leases = [lease("192.168.120.20", OTHER)]
    dhcp = on(store, shared)
    await dhcp.create(NET, form())
    for _ in range(2):
        assert await dhcp.unused(NET, MAC.upper(), None, None) == IPv4Address("192.168.120.5")
        assert await dhcp.unused(NET, OTHER, None, None) == IPv4Address("192.168.120.20")
    elsewhere = await dhcp.unused(NET, MAC, "192.168.120.30", "192.168.120.40")
    assert elsewhere is not None
    assert IPv4Address("192.168.120.30") <= elsewhere <= IPv4Address("192.168.120.40")


async def test_what_was_offered_is_not_offered_again_by_any_member_until_its_reservation_is_gone(store: Store) -> None:
    shared = server()
    one, other = on(store, shared), on(store, shared)
    span = ("192.168.120.5", "192.168.120.5")
    assert await one.unused(NET, None, *span) == IPv4Address(span[0])
    assert await other.unused(NET, None, *span) is None
    await other.create(NET, form())
    assert await one.unused(NET, None, *span) is None
    await one.delete_of(NET, MAC)
    assert await other.unused(NET, None, *span) == IPv4Address(span[0])


class OfferingDHCP(MemoryDHCP):
    """A server that finds addresses itself, always the same ones."""

    offers: Sequence[str] = ()

    async def offered(self, subnet: Subnet, first: IPv4Address, last: IPv4Address) -> IPv4Address | None:
        if not self.offers:
            return None
        now, *self.offers = self.offers
        return IPv4Address(now)


async def test_what_the_server_offers_is_promised_once(store: Store) -> None:
    offering = OfferingDHCP([SUBNET])
    dhcp = on(store, offering)
    offering.offers = ["192.168.120.7", "192.168.120.7", "192.168.120.8"]
    assert [await dhcp.unused(NET, None, None, None) for _ in range(2)] == [SUBNET.network[7], SUBNET.network[8]]
    assert await dhcp.unused(NET, None, None, None) is None
    offering.offers = ["192.168.120.8"] * 20
    with pytest.raises(Unavailable, match="Every address that the DHCP server offered"):
        await dhcp.unused(NET, None, None, None)


async def test_without_the_store_nothing_is_promised_and_records_are_told(store: Store, monkeypatch: Any) -> None:
    dhcp = on(store, server())
    await dhcp.create(NET, form())

    async def gone(*_: Any, **__: Any) -> None:
        raise Unavailable("The store did not answer")

    monkeypatch.setattr(store, "carry_out", gone)
    with pytest.raises(Unavailable):
        await dhcp.unused(NET, None, None, None)
    with pytest.raises(Unavailable):
        await dhcp.create(NET, form(name="h2", ip="192.168.120.6", mac=OTHER))
    assert (await dhcp.of(NET, MAC)).name == "h1.example.com"


async def test_the_feature_needs_a_store(tmp_path: Path) -> None:
    around = Surroundings("m", OperationMetrics(CollectorRegistry()), tmp_path, tmp_path, tmp_path)
    with pytest.raises(Misconfigured, match="needs the store"):
        async with opened(DHCPSettings(provider="memory"), around):
            pass


# Routes


async def call(dhcp: DHCP, method: str, target: str, body: str = "", **headers: str) -> tuple[int, bytes]:
    made = request(method, target, body=[body.encode()], headers={k.replace("_", "-"): v for k, v in headers.items()})
    found = TABLE.find(method, made.path)
    assert found is not None, target
    route, made.arguments = found
    assert route.access is Access.TRUSTED
    try:
        answer = await (route.streamed or route.endpoint)(dhcp, made)
    except MusterError as e:
        return e.status, str(e).encode()
    if isinstance(answer, Streamed):
        return answer.status, b"".join([piece async for piece in answer.pieces])
    return answer.status, answer.body


async def test_a_post_may_stand_for_a_deletion_in_this_feature(store: Store) -> None:
    dhcp = on(store, server())
    for path, body, headers in (
        (f"/{NET}/mac/{MAC}", "_method=DELETE", {}),
        (f"/{NET}/ip/192.168.120.5", "", {"x_http_method_override": "delete"}),
    ):
        assert await call(dhcp, "POST", f"/{NET}", f"name=h1&ip=192.168.120.5&mac={MAC}") == (200, b"")
        assert await call(dhcp, "POST", path, body, **headers) == (200, b"")
        assert not (await dhcp.records(NET)).reservations
    for path in (f"/{NET}/mac/{MAC}", f"/{NET}/ip/192.168.120.5"):
        assert (await call(dhcp, "POST", path))[0] == 404
    assert (await call(dhcp, "POST", f"/{NET}", "_method=PUT&name=h1"))[0] == 404


async def test_many_records_come_piece_by_piece_and_are_the_same_list(store: Store) -> None:
    shared = server()
    shared.leases = [
        lease(f"10.0.{n // 256}.{n % 256}", f"52:54:00:cc:{n // 256:02x}:{n % 256:02x}") for n in range(1201)
    ]
    dhcp = on(store, shared)
    status, body = await call(dhcp, "GET", f"/{NET}")
    assert (status, body.count(b'"type":"lease"')) == (200, 1201)
    headed = await api.records(dhcp, _of(f"/{NET}"))
    assert (headed.body, dict(headed.headers)[b"content-length"]) == (body, b"%d" % len(body))
    shared.leases.clear()
    assert await call(dhcp, "GET", f"/{NET}") == (200, b'{"reservations":[],"leases":[]}')


def _of(path: str) -> Any:
    made = request("HEAD", path)
    found = TABLE.find("HEAD", path)
    assert found is not None
    made.arguments = found[1]
    return made


async def test_a_range_without_an_address_is_null_and_the_log_says_why(store: Store, monkeypatch: Any) -> None:
    said: list[str] = []
    monkeypatch.setattr("muster.features.dhcp.service._log", type("Log", (), {"warning": staticmethod(said.append)}))
    dhcp = on(store, server())
    target = f"/{NET}/unused_ip?from=192.168.120.5&to=192.168.120.5"
    assert await call(dhcp, "GET", target) == (200, b'{"ip":"192.168.120.5"}')
    assert await call(dhcp, "GET", target) == (200, b'{"ip":null}')
    assert said == [
        "No free IPs in range 192.168.120.5..192.168.120.5 of 192.168.120.0/255.255.255.0: "
        "each has a record, answers, or was offered"
    ]
