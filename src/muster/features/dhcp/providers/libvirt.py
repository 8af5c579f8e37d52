"""A network of libvirt, whose dnsmasq serves virtual machines: read and changed by virsh (``edge/virsh.py``).

libvirt itself refuses a second reservation of an address, of a hardware address and of a name. It keeps no boot loader for
one host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address

from muster.edge.virsh import Virsh
from muster.features.dhcp.contract import Lease, Record, Records, Reservation, Subnet, Unreached, ordered, same
from muster.features.dhcp.libvirt import network
from muster.features.dhcp.libvirt.network import Network
from muster.features.dhcp.settings import LibvirtSettings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Conflict, MusterError, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.log import logger
from muster.kernel.names import MACAddress

_log = logger("features")
_SAID: Mapping[str, type[MusterError]] = {
    "existing dhcp host entry": Conflict,
    "couldn't locate a matching dhcp host": NotFound,
}


class LibvirtDHCP:
    """One network."""

    has_vendor_options = False

    def __init__(self, settings: LibvirtSettings, clock: Clock) -> None:
        self._virsh = Virsh(settings, _SAID, Unreached)
        self._clock = clock

    async def reached(self) -> None:
        await self._virsh.reached()

    async def subnets(self) -> Sequence[Subnet]:
        return (await self._network()).subnets

    async def records(self, subnet: Subnet) -> Records:
        found, leases = await self._both()
        return Records(
            [r for r in found.reservations if r.subnet.network == subnet.network],
            [one for one in leases if one.subnet.network == subnet.network],
        )

    async def at(self, subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        return [r for r in await self.records(subnet) if r.ip == ip]

    async def of(self, subnet: Subnet, mac: MACAddress) -> Record | None:
        return next((r for r in await self.records(subnet) if r.mac == mac), None)

    async def taken(self, subnet: Subnet, among: Collection[IPv4Address]) -> Collection[IPv4Address]:  # noqa: ARG002
        found, leases = await self._both()
        # Its own address, too, which is the router's.
        held = {r.ip for r in found.reservations} | {one.ip for one in leases} | found.fixed | found.own
        return held & set(among)

    async def offered(self, subnet: Subnet, first: IPv4Address, last: IPv4Address) -> IPv4Address | None:  # noqa: ARG002
        raise Unsupported("libvirt finds no addresses for others")

    async def as_kept(self, reservation: Reservation) -> Reservation:
        """Return it with one name, and no word of booting: that is the network's own."""
        network.hardware(reservation.mac)
        return replace(reservation, options=ordered({"hostname": reservation.name}))

    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:  # noqa: ARG002
        network.hardware(reservation.mac)
        found = await self._network()
        for held in found.reservations:
            if held.mac == reservation.mac and same(held, reservation):
                return
            if reservation.ip == held.ip or reservation.mac == held.mac:
                raise Conflict(f"{reservation} conflicts with {held}")
            if reservation.name.lower() == held.name.lower():
                raise Rejected(f"Failed to add DHCP reservation for {reservation}: Entry already exists")
        if reservation.ip in found.fixed:
            raise Conflict(f"{reservation.ip} is fixed for another host of the network")
        try:
            await self._update("add-last", reservation)
        except Conflict:
            # Another member may have made the same meanwhile.
            held_now = [r for r in (await self._network()).reservations if r.mac == reservation.mac]
            if not any(same(r, reservation) for r in held_now):
                raise

    async def remove(self, reservation: Reservation) -> None:
        found = await self._network()
        held = [r for r in found.reservations if r.mac == reservation.mac and r.ip == reservation.ip]
        if not held:
            raise NotFound(f"There is no reservation {reservation}")
        await self._update("delete", held[0])

    async def _update(self, how: str, reservation: Reservation) -> None:
        # In force now, and kept.
        await self._virsh.ask("net-update", how, "ip-dhcp-host", network.host(reservation), "--live", "--config")

    async def _network(self) -> Network:
        return network.defined(await self._virsh.ask("net-dumpxml"))

    async def _both(self) -> tuple[Network, Sequence[Lease]]:
        found = await self._network()
        told = network.leases(await self._virsh.ask("net-dhcp-leases"), found.subnets, self._clock.now())
        # A host that has taken what is reserved for it is leased that, too.
        reserved = {(r.ip, r.mac) for r in found.reservations}
        return found, [one for one in told if (one.ip, one.mac) not in reserved]


@asynccontextmanager
async def opened(settings: LibvirtSettings, *, clock: Clock | None = None) -> AsyncIterator[LibvirtDHCP]:
    """Yield the provider.

    Raises:
        Misconfigured: there is no virsh, no such network, or no right to it.
    """
    provider = LibvirtDHCP(settings, clock or SystemClock())
    try:
        await provider.reached()
    except Unavailable as e:
        # It may come later; readiness shows it.
        _log.warning(f"libvirt's network is not there yet: {e}")
    yield provider
