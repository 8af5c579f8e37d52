"""Reservations in a dictionary: the contract without a server. It can be told to fail."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from muster.features.dhcp.contract import Lease, Record, Records, Reservation, Subnet, ordered, same, without_vendors
from muster.features.dhcp.settings import MemorySettings
from muster.kernel.errors import Conflict, MusterError, NotFound, Rejected, Unsupported
from muster.kernel.names import MACAddress

_ETHERNET = "ethernet"


class MemoryDHCP:
    """Keeps reservations until the process ends. One event loop.

    Attributes:
        failure: raised by every operation while set.
        leases: what is leased; tests put it there.
    """

    has_vendor_options = True

    def __init__(self, subnets: Sequence[Subnet], reservations: Sequence[Reservation] = ()) -> None:
        self._subnets = tuple(subnets)
        self._reservations = {r.mac: r for r in reservations}
        self.leases: list[Lease] = []
        self.failure: MusterError | None = None

    async def reached(self) -> None:
        self._may_fail()

    async def subnets(self) -> Sequence[Subnet]:
        self._may_fail()
        return self._subnets

    async def records(self, subnet: Subnet) -> Records:
        self._may_fail()
        return Records(
            [r for r in self._reservations.values() if r.subnet.network == subnet.network],
            [one for one in self.leases if one.subnet.network == subnet.network],
        )

    async def at(self, subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        return [r for r in await self.records(subnet) if r.ip == ip]

    async def of(self, subnet: Subnet, mac: MACAddress) -> Record | None:
        return next((r for r in await self.records(subnet) if r.mac == mac), None)

    async def taken(self, subnet: Subnet, among: Collection[IPv4Address]) -> Collection[IPv4Address]:
        return {r.ip for r in await self.records(subnet)} & set(among)

    async def offered(self, subnet: Subnet, first: IPv4Address, last: IPv4Address) -> IPv4Address | None:  # noqa: ARG002
        self._may_fail()
        raise Unsupported("memory finds no addresses itself")

    async def as_kept(self, reservation: Reservation) -> Reservation:
        self._may_fail()
        return reservation

    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        self._may_fail()
        held = self._reservations.get(reservation.mac)
        if held is not None and same(held, reservation):
            return
        # As ISC's server, whose hosts have one name each.
        if any(r.name.lower() == reservation.name.lower() for r in self._reservations.values()):
            raise Rejected(f"Failed to add DHCP reservation for {reservation}: Entry already exists")
        others = [r for r in self._reservations.values() if r.ip == reservation.ip and r.mac not in related]
        if held is not None or others:
            raise Conflict(f"{reservation} conflicts with {held or others[0]}")
        # No machine's vendor is known here.
        options = ordered({"hardware_type": _ETHERNET, **without_vendors(reservation.options)})
        self._reservations[reservation.mac] = replace(reservation, options=options)

    async def remove(self, reservation: Reservation) -> None:
        self._may_fail()
        held = self._reservations.get(reservation.mac)
        if held is None or held.ip != reservation.ip:
            raise NotFound(f"There is no reservation {reservation}")
        if not held.deletable:
            raise Rejected(f"{held} is static - unable to delete")
        del self._reservations[held.mac]

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def of(settings: MemorySettings) -> MemoryDHCP:
    """Return a provider with what the settings say."""
    subnets = [Subnet(s.network, s.options) for s in settings.subnets]

    def within(ip: IPv4Address) -> Subnet:
        return next(s for s in subnets if ip in s.network)

    provider = MemoryDHCP(
        subnets,
        [
            Reservation(str(r.name), r.ip, r.mac, within(r.ip), ordered(r.options), r.deletable)
            for r in settings.reservations
        ],
    )
    provider.leases = [
        Lease(one.ip, one.mac, within(one.ip), one.starts, one.ends, options=one.options) for one in settings.leases
    ]
    return provider
