"""Kea: everything asked of the server itself, reservations kept the way that it offers.

Which way that is, it is asked whenever its configuration is another one (:mod:`muster.features.dhcp.kea.ways`). Nothing is
told from memory: a Kea that does not answer has told nothing.

Reservations of machines that Kea knows by something else than a hardware address (client-id, duid, flex-id) and those of no
subnet are seen as addresses that are taken; what Foreman can be told of them it is told.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from muster.edge.feature import Surroundings
from muster.features.dhcp import next_servers
from muster.features.dhcp.contract import Record, Records, Reservation, Subnet
from muster.features.dhcp.kea import commands, reservations, writer
from muster.features.dhcp.kea.commands import Credentials, Kea
from muster.features.dhcp.kea.configuration import Configuration, Draft
from muster.features.dhcp.kea.hosts import Hosts
from muster.features.dhcp.kea.in_force import Current
from muster.features.dhcp.kea.leased import Leased
from muster.features.dhcp.kea.reservations import Host
from muster.features.dhcp.kea.unwritten import Unwritten
from muster.features.dhcp.kea.ways import Way, tells_leases, way, without_leases
from muster.features.dhcp.kea.writer import Writer
from muster.features.dhcp.next_servers import NextServers
from muster.features.dhcp.settings import KeaSettings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.files import read_bounded
from muster.kernel.log import logger
from muster.kernel.names import MACAddress
from muster.kernel.secrets import Secret
from muster.pki.context import RenewedContext
from muster.store.leases import Leases

_log = logger("features")


class KeaDHCP:
    """One kea-dhcp4."""

    # Kea has options of vendors in spaces of its own, defined by hand; Foreman's are Sun's alone.
    has_vendor_options = False

    def __init__(
        self, kea: Kea, current: Current, change: Writer, unwritten: Unwritten, names: NextServers, clock: Clock
    ) -> None:
        self._current = current
        self._unwritten = unwritten
        self._writer = change
        self._names = names
        self._hosts = Hosts(kea, unwritten)
        self._leased = Leased(kea, clock)

    async def reached(self) -> None:
        await self._now()

    async def subnets(self) -> Sequence[Subnet]:
        on, _, _ = await self._now()
        return [s.subnet for s in on.subnets]

    async def records(self, subnet: Subnet) -> Records:
        on, how, has_leases = await self._now()
        if how is Way.CONFIGURATION:
            found: Iterable[Host] = [*on.of(subnet).hosts, *on.of_all]
        else:
            found = await self._hosts.all(on, subnet)
        return Records(_told(found, subnet), await self._leased.all(subnet) if has_leases else ())

    async def at(self, subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        on, how, has_leases = await self._now()
        found = on.among([ip]) if how is Way.CONFIGURATION else await self._hosts.at(on, ip)
        if not found:
            await self._settled(how)
        lease = await self._leased.at(subnet, ip) if has_leases else None
        return [*_told(found, subnet), *([] if lease is None else [lease])]

    async def of(self, subnet: Subnet, mac: MACAddress) -> Record | None:
        on, how, has_leases = await self._now()
        found = on.among([mac]) if how is Way.CONFIGURATION else await self._hosts.of(on, mac)
        if told := _told(found, subnet):
            return told[0]
        await self._settled(how)
        return await self._leased.of(subnet, mac) if has_leases else None

    async def taken(self, subnet: Subnet, among: Collection[IPv4Address]) -> Collection[IPv4Address]:
        """As the contract's.

        Raises:
            Misconfigured: Kea does not say what it has leased.
        """
        on, how, has_leases = await self._now()
        if not has_leases:
            raise without_leases()
        if how is Way.CONFIGURATION:
            found = {ip for ip in among if ip in on.by}
        else:
            found = await self._hosts.taken(on, subnet, among)
        return found | await self._leased.taken(among)

    async def offered(self, subnet: Subnet, first: IPv4Address, last: IPv4Address) -> IPv4Address | None:  # noqa: ARG002
        raise Unsupported("Kea finds no addresses for others")

    async def as_kept(self, reservation: Reservation) -> Reservation:
        """Return it with its next server's address and what Kea keeps; options of vendors stay, to be refused."""
        found = await self._names.resolved(reservation)
        vendors = {name: value for name, value in found.options.items() if name.startswith("<")}
        return replace(found, options={**reservations.kept(found), **vendors})

    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        on, how, has_leases = await self._now()
        try:
            held = on.of(reservation.subnet)
        except NotFound as e:
            # Of what is to be added it is no success.
            raise Rejected(f"{e}; {reservation} not made") from e
        if held.unheeded:
            raise Misconfigured(
                f"Kea would heed no reservation in {reservation.subnet}: {held.unheeded} in its configuration"
            )
        if any(first <= reservation.ip <= last for first, last in held.unheeded_pools):
            raise Rejected(
                f"Kea would give {reservation.ip} to others: it is of a pool, and reservations-out-of-pool is true in Kea's "
                "configuration"
            )
        if has_leases and await self._leased.by_nobody_known(reservation.ip):
            raise Conflict(f"{reservation} conflicts with a lease of a machine without a hardware address")
        if how is not Way.CONFIGURATION:
            await self._hosts.add(on, reservation, related)
            return
        draft = Draft(on)
        draft.add(reservation, related)
        if draft.is_empty:
            await self._unwritten.settled(own=True)
        else:
            await self._writer.change(lambda anew: anew.add(reservation, related))

    async def remove(self, reservation: Reservation) -> None:
        on, how, _ = await self._now()
        try:
            if how is not Way.CONFIGURATION:
                await self._hosts.remove(on, reservation)
            else:
                Draft(on).remove(reservation)
                await self._writer.change(lambda anew: anew.remove(reservation))
        except NotFound:
            # Whoever has removed it has perhaps not lived to have that written.
            if how is not Way.DATABASE:
                await self._unwritten.settled(own=True)
            raise

    async def _settled(self, how: Way) -> None:
        """Return when nothing will be there again because Kea starts again: what is not there may be told as removed.

        Without the store nothing is told as removed either, by the service, which asks it for what is being reserved.
        """
        if how is Way.DATABASE:
            return
        try:
            marks = await self._unwritten.marks(own=False)
        except Unavailable as e:
            _log.info(f"Whether Kea has written all that was changed is unknown: {e}")
            return
        if marks:
            await self._unwritten.written(marks)

    async def _now(self) -> tuple[Configuration, Way, bool]:
        """Return the configuration, how reservations are kept, and whether leases are told."""
        now = await self._current.now()
        return now.configuration, way(now), tells_leases(now)


def _told(hosts: Iterable[Host], subnet: Subnet) -> list[Reservation]:
    return [found for one in hosts if (found := one.reservation(subnet)) is not None]


def credentials_of(settings: KeaSettings) -> Credentials | None:
    """Return whom Kea is to take us for, None where the settings have nobody.

    Raises:
        Misconfigured: the password's file cannot be read, or is empty.
    """
    if settings.user is None or settings.password_file is None:
        return None
    content = read_bounded(settings.password_file, what="password file of Kea", limit_bytes=4096)
    lines = content.decode("utf-8", "replace").splitlines()
    if not lines or not lines[0].strip():
        raise Misconfigured(f"The password file of Kea {settings.password_file} is empty")
    return Credentials(settings.user, Secret(lines[0].strip()))


def context_of(
    settings: KeaSettings, certificate: Path | None, key: Path | None, ca: Path | None
) -> Callable[[], ssl.SSLContext] | None:
    """Return what is asked for TLS: with the settings' files, else a member's own; None: there is no TLS.

    Raises:
        Misconfigured: a file cannot be used.
    """
    if not settings.url.startswith("https:"):
        return None
    if settings.certificate_file is not None:
        certificate, key = settings.certificate_file, settings.key_file
    return RenewedContext(settings.ca_file or ca, certificate, key)


@asynccontextmanager
async def opened(settings: KeaSettings, around: Surroundings, clock: Clock | None = None) -> AsyncIterator[KeaDHCP]:
    """Yield the provider; a Kea that is not there yet may come.

    Raises:
        Misconfigured: a file that the settings name cannot be used.
    """
    if around.store is None:
        raise Misconfigured("DHCP provider kea needs the store: members take turns by it")
    holder = f"{around.member}-{secrets.token_hex(8)}"
    with next_servers.opened("Kea") as names:
        async with commands.opened(
            settings.url,
            credentials=credentials_of(settings),
            context=context_of(settings, around.certificate, around.key, around.ca),
            timeout_s=settings.timeout_s,
        ) as kea:
            current = Current(kea)
            unwritten = Unwritten(kea, around.store, around.provider)
            async with writer.opened(kea, current, Leases(around.store), unwritten, holder, around.provider) as change:
                await _say(current)
                yield KeaDHCP(kea, current, change, unwritten, names, clock or SystemClock())


async def _say(current: Current) -> None:
    try:
        now = await current.now()
        _log.info(f"Reservations are kept {way(now).value}")
        if not tells_leases(now):
            raise without_leases()
    except MusterError as e:
        # It may come later; readiness shows it.
        _log.warning(f"Kea cannot be used as it is now: {e}")
