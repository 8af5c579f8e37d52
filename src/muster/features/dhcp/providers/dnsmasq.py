"""dnsmasq: subnets, hosts and leases from its files, reservations as files that it reads.

The files have to be on this member's host: dnsmasq tells nobody over the network what it has. It reads a new file by itself;
what was removed it forgets only when it is reloaded or started anew. An acknowledged change is one that dnsmasq has read
(:mod:`muster.features.dhcp.dnsmasq.told`).

dnsmasq gives one address to one line, and drops a second line of it without an answer, so that is not left to it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from muster.features.dhcp import next_servers
from muster.features.dhcp.contract import Record, Records, Reservation, Subnet, ordered, same
from muster.features.dhcp.dnsmasq import told, written
from muster.features.dhcp.dnsmasq.held import REMOVED, Held, Places, Reader
from muster.features.dhcp.dnsmasq.told import Server
from muster.features.dhcp.dnsmasq.written import Port, Written
from muster.features.dhcp.next_servers import NextServers
from muster.features.dhcp.settings import DnsmasqSettings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.files import sync_directory, write_atomically
from muster.kernel.log import logger
from muster.kernel.names import MACAddress

_log = logger("features")
_READ_WITHIN_S = 15.0


class DnsmasqDHCP:
    """One dnsmasq on this host."""

    has_vendor_options = False

    def __init__(self, reader: Reader, server: Server, names: NextServers, clock: Clock, *, tells_boot: bool) -> None:
        self._reader = reader
        self._server = server
        self._names = names
        self._clock = clock
        self._tells_boot = tells_boot

    async def reached(self) -> None:
        self._server.reached()
        await self._held()

    async def subnets(self) -> Sequence[Subnet]:
        return (await self._held()).subnets

    async def records(self, subnet: Subnet) -> Records:
        return (await self._held()).records(subnet, self._clock.now())

    async def at(self, subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        return (await self._held()).at(subnet, ip, self._clock.now())

    async def of(self, subnet: Subnet, mac: MACAddress) -> Record | None:
        return (await self._held()).of(subnet, mac, self._clock.now())

    async def taken(self, subnet: Subnet, among: Collection[IPv4Address]) -> Collection[IPv4Address]:  # noqa: ARG002
        return (await self._held()).taken(among, self._clock.now())

    async def offered(self, subnet: Subnet, first: IPv4Address, last: IPv4Address) -> IPv4Address | None:  # noqa: ARG002
        raise Unsupported("dnsmasq finds no addresses for others")

    async def as_kept(self, reservation: Reservation) -> Reservation:
        """Return it with its next server's address, and without what dnsmasq is not told."""
        if self._tells_boot:
            reservation = await self._names.resolved(reservation)
        kept = written.of(reservation, is_tagged=self._tells_boot)
        options = {"hostname": kept.ports[0].hostname, "filename": kept.filename, "nextServer": _text(kept.next_server)}
        return replace(reservation, options=ordered(options))

    async def add(self, reservation: Reservation, *, related: Collection[MACAddress] = ()) -> None:
        wanted = written.of(reservation, is_tagged=self._tells_boot)
        async with self._server.alone():
            held = await self._held()
            found = held.by_mac.get(reservation.mac)
            if found is not None:
                if not same(found, reservation):
                    raise Conflict(f"{reservation} conflicts with {found}")
                await asyncio.to_thread(self._restore, wanted.name)
                # Of a line that was changed, dnsmasq takes nothing before; whether an earlier call came so far nobody knows.
                is_of_a_bond = len(held.by_ip[found.ip]) > 1
                await (self._server.has_reloaded() if is_of_a_bond else self._server.has_read())
                return
            others = self._others(held, reservation, related)
            if wanted.filename is not None and held.configuration.boots_everybody is not None:
                raise Misconfigured(
                    f"dnsmasq's configuration has dhcp-boot={held.configuration.boots_everybody}, which goes before what a "
                    f"reservation says: make it dhcp-boot=tag:!{written.TAG},{held.configuration.boots_everybody}"
                )
            if any(r.ip != reservation.ip for r in held.by_name.get(reservation.name.lower(), ())):
                raise Rejected(f"Failed to add DHCP reservation for {reservation}: Entry already exists")
            if others:
                wanted = replace(wanted, ports=(*_ports(others), *wanted.ports))
            is_news_alone = await asyncio.to_thread(self._write, wanted) and not others
            await (self._server.has_read() if is_news_alone else self._server.has_reloaded())

    def _others(self, held: Held, wanted: Reservation, related: Collection[MACAddress]) -> Sequence[Reservation]:
        """Return the other ports of the bond that has the address already.

        Raises:
            Conflict: something else has it.
        """
        others = held.by_ip.get(wanted.ip, ())
        for other in others:
            is_same_boot = all(other.options.get(o) == wanted.options.get(o) for o in ("filename", "nextServer"))
            if other.mac not in related or not other.deletable or (self._tells_boot and not is_same_boot):
                raise Conflict(f"{wanted} conflicts with {other}")
        if wanted.ip in held.fixed:
            raise Conflict(f"{wanted.ip} is fixed for a host in dnsmasq's own configuration")
        if held.is_leased_to_nobody_known(wanted.ip, self._clock.now()):
            raise Conflict(f"{wanted.ip} is leased to a machine without a hardware address")
        return others

    async def remove(self, reservation: Reservation) -> None:
        async with self._server.alone():
            held = await self._held()
            found = held.by_mac.get(reservation.mac)
            if found is None or found.ip != reservation.ip:
                raise NotFound(f"There is no reservation {reservation}")
            if not found.deletable:
                raise Rejected(f"{found} is static - unable to delete")
            others = [r for r in held.by_ip[found.ip] if r.mac != found.mac]
            if others:
                left = replace(written.of(found, is_tagged=self._tells_boot), ports=_ports(others))
                await asyncio.to_thread(self._replace, left)
            else:
                await asyncio.to_thread(self._set_aside, str(found.ip))
            await self._server.has_reloaded()
            await asyncio.to_thread(self._forget, str(found.ip))

    async def _held(self) -> Held:
        try:
            async with asyncio.timeout(_READ_WITHIN_S):
                return await asyncio.to_thread(self._reader.read)
        except TimeoutError:
            raise Unavailable(f"Reading dnsmasq's files has not ended for {_READ_WITHIN_S:g} s") from None

    def _write(self, wanted: Written) -> bool:
        """Write the files of an address; return whether all that dnsmasq reads of it is new to it."""
        places = self._reader.places
        file, options = places.options / wanted.name, wanted.options()
        is_new = not (places.hosts / wanted.name).exists()
        # A file of options may be left of a member that died between the two.
        left = _content(file)
        if left is not None and left != options:
            is_new = False
        if options is None:
            _unlink(file)
        elif options != left:
            write_atomically(file, options)
        # Last: dnsmasq gives the address from here on.
        write_atomically(places.hosts / wanted.name, wanted.hosts(is_tagged=self._tells_boot))
        return is_new

    def _set_aside(self, name: str) -> None:
        """Rename the files of an address, so that dnsmasq will not read them again, and everybody sees that it has them."""
        for directory in (self._reader.places.hosts, self._reader.places.options):
            _rename(directory / name, directory / f"{REMOVED}{name}")

    def _replace(self, left: Written) -> None:
        """Write what is left of an address, beside what dnsmasq has of it still."""
        hosts = self._reader.places.hosts
        aside = hosts / f"{REMOVED}{left.name}"
        _unlink(aside)
        try:
            os.link(hosts / left.name, aside)
        except OSError as e:
            raise Unavailable(f"Linking {aside} failed: {e.strerror or e}") from e
        self._write(left)

    def _restore(self, name: str) -> None:
        """Give the files of an address that were set aside their names again."""
        for directory in (self._reader.places.options, self._reader.places.hosts):
            _rename(directory / f"{REMOVED}{name}", directory / name)

    def _forget(self, name: str) -> None:
        for directory in (self._reader.places.hosts, self._reader.places.options):
            _unlink(directory / f"{REMOVED}{name}")


def _ports(reservations: Sequence[Reservation]) -> tuple[Port, ...]:
    return tuple(Port(r.mac, r.name, str(r.options["hostname"])) for r in reservations)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as e:
        raise Unavailable(f"Removing {path} failed: {e.strerror or e}") from e


def _rename(path: Path, to: Path) -> None:
    try:
        path.replace(to)
        sync_directory(to.parent)
    except FileNotFoundError:
        return
    except OSError as e:
        raise Unavailable(f"Renaming {path} failed: {e.strerror or e}") from e


def _content(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as e:
        raise Unavailable(f"Reading {path} failed: {e.strerror or e}") from e


def _text(address: IPv4Address | None) -> str | None:
    return None if address is None else str(address)


def places_of(settings: DnsmasqSettings, known: Sequence[IPv4Network] = ()) -> Places:
    """Return where the files are by the settings; ``known``: networks that a range without a mask may be of."""
    hosts, options = settings.target_dir / "dhcphosts", settings.target_dir / "dhcpopts"
    return Places(settings.config, settings.lease_file, hosts, options, known)


@asynccontextmanager
async def opened(
    settings: DnsmasqSettings, known: Sequence[IPv4Network] = (), *, clock: Clock | None = None
) -> AsyncIterator[DnsmasqDHCP]:
    """Yield the provider; its files are read before.

    Raises:
        Misconfigured: dnsmasq's files cannot be read, or there is no directory to write hosts in.
    """
    places = places_of(settings, known)
    reader = Reader(places, settings.poll_s)
    for problem in (await asyncio.to_thread(reader.read)).problems:
        _log.warning(f"{problem}; all else of dnsmasq's configuration is known")
    async with told.opened(
        settings.target_dir,
        places.hosts,
        settings.pid_file,
        by_signal=settings.reload == "signal",
        timeout_s=settings.timeout_s,
    ) as server:
        try:
            server.reached()
        except MusterError as e:
            # It may come later; readiness shows it.
            _log.warning(f"dnsmasq is not there yet: {e}")
        with next_servers.opened("dnsmasq") as names:
            tells_boot = settings.boot == "reservation"
            yield DnsmasqDHCP(reader, server, names, clock or SystemClock(), tells_boot=tells_boot)
