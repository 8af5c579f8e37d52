"""ISC's dhcpd: subnets, leases and hosts from its files, hosts made and removed over OMAPI.

The files are on this member's host, mounted on it, or told by a member that has them (``isc/replica.py``). dhcpd writes a
host into its leases file, and that to the disk, before it acknowledges it, so whoever reads the file to its end sees what
any member has made.

dhcpd gives one address to several hosts, and removes a host of dhcpd.conf as willingly as one of its own; neither is done
here. It drops a statement that it does not understand, and says nothing: so what was made is read back, and undone where it
is less than was wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from ipaddress import IPv4Address

from muster.edge.feature import Surroundings
from muster.features.dhcp import next_servers
from muster.features.dhcp.contract import Record, Records, Reservation, Subnet, same
from muster.features.dhcp.isc import followed, omapi, written
from muster.features.dhcp.isc.followed import Followed
from muster.features.dhcp.isc.omapi import OMAPI, Key, NameTaken
from muster.features.dhcp.next_servers import NextServers, is_address
from muster.features.dhcp.settings import ISCSettings
from muster.kernel.errors import Conflict, MusterError, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.log import logger
from muster.kernel.names import MACAddress, shown

_log = logger("features")

# How long dhcpd's file may take to be here; it is written already, so this is a network's file system.
_SEEN_WITHIN_S = 3.0
_BROUGHT_AT_START_S = 1.0


class ISCDHCP:
    """One dhcpd."""

    has_vendor_options = True

    def __init__(self, files: Followed, server: OMAPI, names: NextServers) -> None:
        self._files = files
        self._server = server
        self._names = names

    async def reached(self) -> None:
        await self._server.reached()
        await self._files.reached()
        self._files.may_be_believed()

    async def subnets(self) -> Sequence[Subnet]:
        await self._files.reached()
        return self._files.subnets

    async def records(self, subnet: Subnet) -> Records:
        await self._files.settled()
        return self._files.records(subnet)

    async def at(self, subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        await self._files.settled()
        return self._files.at(subnet, ip)

    async def of(self, subnet: Subnet, mac: MACAddress) -> Record | None:
        await self._files.settled()
        return self._files.of(subnet, mac)

    async def taken(self, subnet: Subnet, among: Collection[IPv4Address]) -> Collection[IPv4Address]:
        await self._files.settled()
        self._files.may_be_believed()
        return self._files.taken(subnet, among)

    async def offered(self, subnet: Subnet, first: IPv4Address, last: IPv4Address) -> IPv4Address | None:  # noqa: ARG002
        raise Unsupported("dhcpd finds no addresses for others")

    async def as_kept(self, reservation: Reservation) -> Reservation:
        """Return it with its next server's address: dhcpd keeps no name of one."""
        return await self._names.resolved(reservation)

    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        await self._files.settled()
        self._files.may_be_believed()
        held = self._files.of(reservation.subnet, reservation.mac)
        if isinstance(held, Reservation):
            if same(held, reservation):
                await self._has(held)
                return
            raise Conflict(f"{reservation} conflicts with {held}")
        others = [r for r in self._files.at(reservation.subnet, reservation.ip) if isinstance(r, Reservation)]
        for other in others:
            if other.mac not in related:
                raise Conflict(f"{reservation} conflicts with {other}")
        if not others and self._files.is_fixed(reservation.ip):
            raise Conflict(f"{reservation.ip} is fixed for a host in dhcpd's own configuration")
        text = written.statements(reservation.options, _no_name)
        try:
            is_new = await self._server.create(reservation.name, reservation.ip, reservation.mac, text)
        except NameTaken as e:
            raise Rejected(f"Failed to add DHCP reservation for {reservation}: Entry already exists") from e
        await self._read_back(reservation, is_new=is_new)

    async def _read_back(self, wanted: Reservation, *, is_new: bool) -> None:
        """Return when the files show the reservation as it was wanted.

        Raises:
            Rejected: dhcpd has dropped a part of it; it is removed again.
            Conflict: it was there, and is another one.
        """
        found = await self._shown(wanted)
        if found is None:
            raise Unavailable(
                f"dhcpd has made {wanted}, and {_SEEN_WITHIN_S:g} s later its leases file does not show it here: whether it "
                "is kept is unknown. Is that file dhcpd's own, and its disk not full?"
            )
        if _has(found, wanted):
            return
        if not is_new:
            raise Conflict(f"{wanted} conflicts with {found}, which was made a moment ago")
        with suppress(NotFound):
            await self._server.delete(wanted.mac, name=wanted.name)
        raise Rejected(
            f"dhcpd took {wanted} and kept {shown(dict(found.options))} of its options; it was removed again"
        )

    async def _shown(self, wanted: Reservation) -> Reservation | None:
        def held() -> Reservation | None:
            found = self._files.of(wanted.subnet, wanted.mac)
            return found if isinstance(found, Reservation) and found.ip == wanted.ip else None

        await self._files.settled(until=lambda: held() is not None, within_s=_SEEN_WITHIN_S)
        return held()

    async def remove(self, reservation: Reservation) -> None:
        held = await self.of(reservation.subnet, reservation.mac)
        if not isinstance(held, Reservation) or held.ip != reservation.ip:
            raise NotFound(f"There is no reservation {reservation}")
        if not held.deletable:
            raise Rejected(f"{held} is static - unable to delete")
        self._files.may_be_believed()
        subnet, mac = held.subnet, held.mac
        try:
            # By its name as well: dhcpd.conf may have got a host of the same machine.
            await self._server.delete(mac, name=held.name)
        except NotFound:
            is_known = False
        else:
            is_known = True
        gone = await self._files.settled(
            until=lambda: not isinstance(self._files.of(subnet, mac), Reservation), within_s=_SEEN_WITHIN_S
        )
        if not gone:
            raise Unavailable(
                f"dhcpd {'has removed' if is_known else 'has no'} {held}, and {_SEEN_WITHIN_S:g} s later its leases file "
                "shows it here: whether it comes back is unknown. Is that file dhcpd's own, and its disk not full?"
            )
        if not is_known:
            raise NotFound(f"There is no reservation {held}")

    async def _has(self, held: Reservation) -> None:
        """Return when dhcpd itself has what its files show.

        Raises:
            Unavailable: it has not.
        """
        found = await self._server.host_by(held.name)
        if found is None or found.mac != held.mac:
            raise Unavailable(f"dhcpd has no {held}, though its leases file shows it here. Is that file dhcpd's own?")


def _has(found: Reservation, wanted: Reservation) -> bool:
    """Whether dhcpd kept what decides about booting; what it does not know of other vendors it was not told."""
    told: Mapping[str, object] = wanted.options
    return all(found.options.get(name) == told.get(name) for name in ("hostname", "filename", "nextServer"))


def _no_name(name: str) -> IPv4Address | None:
    """What is written has an address for each next server already."""
    return IPv4Address(name) if is_address(name) else None


def key_of(settings: ISCSettings) -> Key | None:
    """Return the key that the settings have, None where they have none."""
    if settings.key_name is None or settings.key_secret is None:
        return None
    return Key(settings.key_name, settings.key_secret, settings.key_algorithm)


@asynccontextmanager
async def _files(settings: ISCSettings, around: Surroundings | None) -> AsyncIterator[Followed]:
    if around is None or not settings.files_on or around.member in settings.files_on:
        async with followed.opened(settings.config, settings.leases, poll_s=settings.poll_s) as files:
            yield files
        return
    # Members that have the files need no HTTP client.
    from muster.features.dhcp.isc import replica

    async with replica.opened(settings.files_on, around) as fed:
        # They come at once, unless nobody tells; then the member need not wait for them.
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_BROUGHT_AT_START_S):
                await fed.brought()
        async with followed.opened(fed.conf, fed.leases, poll_s=settings.poll_s, fed=fed) as files:
            yield files


@asynccontextmanager
async def opened(settings: ISCSettings, around: Surroundings | None = None) -> AsyncIterator[ISCDHCP]:
    """Yield the provider; its files are read before, unless they cannot be yet.

    ``around`` is the member that opens it; None: one that has the files.

    Raises:
        Misconfigured: the key is none, or who is said to have the files is no member.
    """
    async with (
        _files(settings, around) as files,
        omapi.opened(
            settings.server,
            settings.omapi_port,
            key_of(settings),
            timeout_s=settings.timeout_s,
            connections=settings.connections,
        ) as server,
    ):
        try:
            await server.reached()
        except MusterError as e:
            # It may come later; readiness shows it.
            _log.warning(f"dhcpd is not there yet: {e}")
        with next_servers.opened("dhcpd") as names, _told(files, around):
            yield ISCDHCP(files, server, names)


def _told(files: Followed, around: Surroundings | None) -> AbstractContextManager[None]:
    return nullcontext() if around is None else around.lags.told("dhcp", "isc", around.provider, files.lag)
