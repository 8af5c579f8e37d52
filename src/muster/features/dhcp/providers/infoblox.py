"""Infoblox: networks, fixed addresses or host records, and leases over its web API. Unproven: see ``UNPROVEN``.

Every question goes to the grid, so nothing of it is stale. What is changed counts on the grid's members when their DHCP
service is restarted, which the grid is asked for after each change, as Ruby's plugin does; it does not wait in the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from ipaddress import IPv4Address

from muster.edge import wapi
from muster.edge.wapi import WAPI, Fields
from muster.features.dhcp import next_servers
from muster.features.dhcp.contract import Lease, Record, Records, Reservation, Subnet, Unreached, ordered, same
from muster.features.dhcp.infoblox import objects
from muster.features.dhcp.infoblox.objects import Kind
from muster.features.dhcp.next_servers import NextServers
from muster.features.dhcp.settings import InfobloxSettings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Conflict, MusterError, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.log import logger
from muster.kernel.names import MACAddress

_log = logger("features")
_KINDS: tuple[Kind, ...] = ("fixedaddress", "host")


class InfobloxDHCP:
    """One network view of one grid."""

    has_vendor_options = False

    def __init__(self, grid: WAPI, settings: InfobloxSettings, names: NextServers, clock: Clock) -> None:
        self._grid = grid
        self._settings = settings
        self._names = names
        self._clock = clock

    async def reached(self) -> None:
        await self._grid.all("networkview", ("name",), name=self._settings.network_view)

    async def subnets(self) -> Sequence[Subnet]:
        view = self._settings.network_view
        networks = await self._grid.all("network", objects.NETWORK, network_view=view)
        ranges = await self._grid.all("range", objects.RANGE, network_view=view)
        return objects.subnets(networks, ranges)

    async def records(self, subnet: Subnet) -> Records:
        network = str(subnet.network)
        return Records(await self._reservations(subnet, network=network), await self._leases(subnet, network=network))

    async def at(self, subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        reservations = await self._reservations(subnet, ipv4addr=str(ip))
        leases = await self._leases(subnet, address=str(ip))
        return [*reservations, *(one for one in leases if all(r.mac != one.mac for r in reservations))]

    async def of(self, subnet: Subnet, mac: MACAddress) -> Record | None:
        reservations = await self._reservations(subnet, mac=str(mac))
        if reservations:
            return reservations[0]
        leases = await self._leases(subnet, hardware=str(mac))
        return max(leases, key=lambda one: one.ends, default=None)

    async def taken(self, subnet: Subnet, among: Collection[IPv4Address]) -> Collection[IPv4Address]:
        if not among:
            return ()
        # Of every kind, also those that Foreman cannot be told of.
        found = await self._grid.all(
            "ipv4address",
            objects.USED,
            network=str(subnet.network),
            network_view=self._settings.network_view,
            status="USED",
        )
        return objects.used(found) & set(among)

    async def offered(self, subnet: Subnet, first: IPv4Address, last: IPv4Address) -> IPv4Address | None:  # noqa: ARG002
        # Its next_available_ip names the same one again until it is used, and knows no part of a range.
        raise Unsupported("Infoblox keeps no promise of an address")

    async def as_kept(self, reservation: Reservation) -> Reservation:
        """Return it with one name and its next server's address."""
        if len(reservation.mac.split(":")) != 6:
            raise Rejected(f"Infoblox keeps hardware addresses of 6 octets, not {reservation.mac}")
        reservation = await self._names.resolved(reservation)
        kept = {name: reservation.options.get(name) for name in ("filename", "nextServer")}
        return replace(reservation, options=ordered({"hostname": reservation.name, **kept}))

    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        held = await self.of(reservation.subnet, reservation.mac)
        if isinstance(held, Reservation):
            if not same(held, reservation):
                raise Conflict(f"{reservation} conflicts with {held}")
            await self._restart()
            return
        for other in await self._reservations(reservation.subnet, ipv4addr=str(reservation.ip)):
            if other.mac not in related:
                raise Conflict(f"{reservation} conflicts with {other}")
        kind, content = objects.wanted(
            reservation,
            self._settings.record_type,
            network_view=self._settings.network_view,
            dns_view=self._settings.dns_view,
        )
        await self._grid.create(kind, content)
        await self._restart()

    async def remove(self, reservation: Reservation) -> None:
        held = await self.of(reservation.subnet, reservation.mac)
        if not isinstance(held, Reservation) or held.ip != reservation.ip:
            raise NotFound(f"There is no reservation {reservation}")
        if not held.deletable:
            raise Rejected(f"{held} is static - unable to delete")
        await self._grid.delete(await self._object(held))
        await self._restart()

    async def _object(self, held: Reservation) -> Fields:
        """Return the grid's object of a reservation.

        Raises:
            Rejected: it is of more than this address.
            NotFound: it is gone.
        """
        view, ip = self._settings.network_view, str(held.ip)
        if self._settings.record_type == "fixedaddress":
            found = await self._grid.all(
                "fixedaddress", ("ipv4addr", "mac"), network_view=view, ipv4addr=ip, mac=str(held.mac)
            )
            if not found:
                raise NotFound(f"There is no reservation {held}")
            return found[0]
        hosts = await self._grid.all("record:host", objects.OF_HOST, network_view=view, ipv4addr=ip, name=held.name)
        one = objects.only(hosts, held.ip)
        if one is None:
            raise Rejected(f"{held} is one of several addresses of its host record - unable to delete")
        return one

    async def _reservations(self, subnet: Subnet, **wanted: str) -> list[Reservation]:
        found: list[Reservation] = []
        for kind in _KINDS:
            for one in await self._grid.all(
                objects.WAPI_NAME[kind],
                objects.FIXED if kind == "fixedaddress" else objects.HOST,
                network_view=self._settings.network_view,
                **wanted,
            ):
                told = objects.reservation(one, kind, subnet, deletable=kind == self._settings.record_type)
                if told is not None and told.ip in subnet.network:
                    found.append(told)
        return found

    async def _leases(self, subnet: Subnet, **wanted: str) -> list[Lease]:
        now: datetime = self._clock.now()
        found = await self._grid.all("lease", objects.LEASE, network_view=self._settings.network_view, **wanted)
        told = (objects.lease(one, subnet, now) for one in found)
        return [one for one in told if one is not None and one.ip in subnet.network]

    async def _restart(self) -> None:
        """Have the grid's members take up what was changed, where they do not know it yet.

        Raises:
            Unavailable: they could not be told; the change stands in the grid, and does not count yet.
        """
        if not self._settings.restart:
            return
        try:
            grids = await self._grid.all("grid", ("name",))
            for grid in grids[:1]:
                how: Mapping[str, str] = {
                    "restart_option": "RESTART_IF_NEEDED",
                    "service_option": "DHCP",
                    "member_order": "SIMULTANEOUSLY",
                }
                await self._grid.call(grid, "restartservices", how)
        except MusterError as e:
            raise Unavailable(
                f"The grid has the change, and could not be told to restart its DHCP service, so it does not count yet: {e}"
            ) from e


@asynccontextmanager
async def opened(settings: InfobloxSettings, *, clock: Clock | None = None) -> AsyncIterator[InfobloxDHCP]:
    """Yield the provider.

    Raises:
        Misconfigured: the password or the CA's file cannot be read.
    """
    async with wapi.opened(settings, unreached=Unreached) as grid:
        with next_servers.opened("Infoblox") as names:
            yield InfobloxDHCP(grid, settings, names, clock or SystemClock())
