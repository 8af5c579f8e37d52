"""What dnsmasq has, by its files: subnets and hosts of its configuration, hosts that are written here, leases.

Files are read again when they changed. That a directory has others is seen by its own time; what somebody edits in place is
seen within ``poll_s``, or ten times as long as reading takes.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Generic, TypeVar

from muster.features.dhcp.contract import Lease, Record, Records, Reservation, Subnet, ordered
from muster.features.dhcp.dnsmasq import configuration, leases, written
from muster.features.dhcp.dnsmasq.configuration import Configuration, Host, Option, Reading, is_read
from muster.features.dhcp.dnsmasq.leases import Leased
from muster.features.dhcp.dnsmasq.written import Port
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.files import read_bounded
from muster.kernel.names import MACAddress

SENTINEL = "muster-read"
"""A file among the hosts that says nothing, and that dnsmasq alone reads: so it shows that dnsmasq does."""
REMOVED = ".removed-"
"""Before the name of a file that is removed, until dnsmasq has forgotten it. dnsmasq reads none that begins with a dot."""

_LIMIT_BYTES = 16 << 20
_MOST_FILES = 200_000
# A directory may change once more within one tick of the clock that stamps it.
_TICK_S = 0.05
_PAUSE_OF_READINGS = 10
# A lease tells when it ends, not when it began.
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_Stamp = tuple[int, int, int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Places:
    """Where dnsmasq's files are.

    Attributes:
        config: files and directories.
        hosts, options: the directories that are written here.
        known: networks that a range without a mask may be of.
    """

    config: Sequence[Path]
    leases: Path
    hosts: Path
    options: Path
    known: Sequence[IPv4Network] = ()


@dataclass(frozen=True)
class HostsFile:
    """A file of hosts.

    Attributes:
        ports: what it says where it is one of ours; empty: it is not.
    """

    hosts: Sequence[Host]
    ports: Sequence[Port] = ()


@dataclass
class Held:
    """All of it in one moment.

    Attributes:
        fixed: addresses of hosts that Foreman cannot be told of.
        problems: what is wrong with the configuration, a sentence each; everything else counts.
    """

    subnets: Sequence[Subnet] = ()
    reservations: list[Reservation] = field(default_factory=list)
    leased: Sequence[Leased] = ()
    fixed: set[IPv4Address] = field(default_factory=set)
    problems: Sequence[str] = ()
    configuration: Configuration = field(default_factory=Configuration)
    by_mac: dict[MACAddress, Reservation] = field(default_factory=dict)
    by_ip: dict[IPv4Address, list[Reservation]] = field(default_factory=dict)
    by_name: dict[str, list[Reservation]] = field(default_factory=dict)

    def records(self, subnet: Subnet, now: datetime) -> Records:
        """Return what there is in a subnet."""
        reservations = [r for r in self.reservations if r.subnet.network == subnet.network]
        return Records(reservations, list(self._leases(subnet, now)))

    def at(self, subnet: Subnet, ip: IPv4Address, now: datetime) -> Sequence[Record]:
        """Return what has an address, reservations first."""
        reservations = [r for r in self.by_ip.get(ip, ()) if r.subnet.network == subnet.network]
        return [*reservations, *(one for one in self._leases(subnet, now) if one.ip == ip)]

    def of(self, subnet: Subnet, mac: MACAddress, now: datetime) -> Record | None:
        """Return the reservation of a hardware address, else its lease that ends last, else None."""
        found = self.by_mac.get(mac)
        if found is not None and found.subnet.network == subnet.network:
            return found
        return max((one for one in self._leases(subnet, now) if one.mac == mac), key=lambda one: one.ends, default=None)

    def taken(self, among: Collection[IPv4Address], now: datetime) -> set[IPv4Address]:
        """Return which addresses have a record."""
        leased = {one.ip for one in self.leased if one.ends > now}
        return {ip for ip in among if ip in leased or ip in self.by_ip or ip in self.fixed}

    def is_leased_to_nobody_known(self, ip: IPv4Address, now: datetime) -> bool:
        """Whether a machine has an address that Foreman cannot be told of."""
        return any(one.ip == ip and one.mac is None and one.ends > now for one in self.leased)

    def _leases(self, subnet: Subnet, now: datetime) -> Iterator[Lease]:
        for one in self.leased:
            if one.ends <= now or one.mac is None or one.ip not in subnet.network:
                continue
            # A host that has taken what is reserved for it is leased that, too.
            if any(r.mac == one.mac for r in self.by_ip.get(one.ip, ())):
                continue
            options = {} if one.name is None else {"client_hostname": one.name}
            yield Lease(one.ip, one.mac, subnet, _BEGINNING, one.ends, options=options)


class _Files(Generic[T]):
    """Files of one kind, read when they changed."""

    def __init__(self, read: Callable[[str], T]) -> None:
        self._read = read
        self._known: dict[Path, tuple[_Stamp, T]] = {}

    def of(self, path: Path) -> T | None:
        """Return what a file says; None: it is gone.

        Raises:
            Misconfigured: it cannot be read.
        """
        stamp = _stamp(path)
        if stamp is None:
            self._known.pop(path, None)
            return None
        known = self._known.get(path)
        if known is not None and known[0] == stamp and _is_old(stamp[2]):
            return known[1]
        try:
            content = read_bounded(path, what="dnsmasq's file", limit_bytes=_LIMIT_BYTES).decode("utf-8", "replace")
        except Misconfigured:
            if _stamp(path) is None:
                return None
            raise
        self._known[path] = stamp, self._read(content)
        return self._known[path][1]

    def only(self, paths: Collection[Path]) -> None:
        """Forget all others."""
        kept = set(paths)
        for path in [p for p in self._known if p not in kept]:
            del self._known[path]


class Reader:
    """Reads all of it.

    Concurrency: threads; one of them reads at a time.
    """

    def __init__(self, places: Places, poll_s: float = 1.0) -> None:
        self.places = places
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._hosts = _Files(_hosts)
        self._options = _Files(_options)
        self._held: Held | None = None
        self._seen: dict[Path, _Stamp | None] = {}
        self._anew_at = 0.0
        self._leases_seen: _Stamp | None = None

    def read(self) -> Held:
        """Return what stands in the files now.

        Raises:
            Misconfigured, Unavailable: one of them cannot be read.
        """
        with self._lock:
            held = self._held
            if held is None or time.monotonic() > self._anew_at or self._has_changed():
                began = time.monotonic()
                held = self._anew()
                ended = time.monotonic()
                # A tenth of the time at most goes to what somebody may have edited in place.
                self._anew_at = ended + max(self._poll_s, _PAUSE_OF_READINGS * (ended - began))
            stamp = _stamp(self.places.leases)
            if stamp != self._leases_seen or held is not self._held or not _is_old(0 if stamp is None else stamp[2]):
                # What is written meanwhile is news.
                had = self._held is not None and bool(self._held.leased)
                held.leased = leases.read(self.places.leases, is_emptied=had)
                self._leases_seen = stamp
            self._held = held
            return held

    def _has_changed(self) -> bool:
        return any(_stamp(path) != seen or (seen and not _is_old(seen[2])) for path, seen in self._seen.items())

    def _anew(self) -> Held:
        found = self._configuration()
        directories = [self.places.hosts, self.places.options, *found.hosts_directories, *found.options_directories]
        self._seen = {path: _stamp(path) for path in (*found.files, *directories)}
        subnets, problems = configuration.subnets(found, self.places.known)
        held = Held(subnets, configuration=found, problems=[*found.problems, *problems])
        options = _by_tag([*found.options, *self._all_options(found)])
        static = [HostsFile(found.hosts)]
        ours: list[HostsFile] = []
        paths: list[Path] = []
        for path in self._hosts_files(found):
            paths.append(path)
            if (one := self._hosts.of(path)) is not None:
                (ours if one.ports and path.parent == self.places.hosts else static).append(one)
        self._hosts.only(paths)
        for one in static:
            for host in one.hosts:
                name = [host.name or _named(mac) for mac in host.macs]
                ports = [Port(mac, n, n) for mac, n in zip(host.macs, name, strict=True)]
                _keep(held, host, ports, options, deletable=False)
        for one in ours:
            _keep(held, one.hosts[0], one.ports, options, deletable=True)
        return held

    def _configuration(self) -> Configuration:
        def content(path: Path) -> str:
            return read_bounded(path, what="dnsmasq's file", limit_bytes=_LIMIT_BYTES).decode("utf-8", "replace")

        reading = Reading(content, _listed)
        there = [path for path in self.places.config if path.exists()]
        if not there:
            raise Misconfigured(f"There is no configuration of dnsmasq: {', '.join(map(str, self.places.config))}")
        for path in there:
            if path.is_dir():
                reading.directory(path)
            else:
                reading.file(path)
        return reading.found

    def _hosts_files(self, found: Configuration) -> Iterator[Path]:
        for directory in dict.fromkeys((self.places.hosts, *found.hosts_directories, *found.hosts_files)):
            if not directory.is_dir():
                # A file, or nothing yet.
                yield directory
                continue
            for path in _listed(directory):
                is_ours = directory == self.places.hosts
                if (is_read(path.name) or (is_ours and path.name.startswith(REMOVED))) and path.name != SENTINEL:
                    yield path

    def _all_options(self, found: Configuration) -> Iterator[Option]:
        paths = [*found.options_files]
        for directory in dict.fromkeys((self.places.options, *found.options_directories)):
            if directory.is_dir():
                removed = REMOVED if directory == self.places.options else "\0"
                paths += [p for p in _listed(directory) if is_read(p.name) or p.name.startswith(removed)]
        for path in paths:
            yield from self._options.of(path) or ()
        self._options.only(paths)


def _keep(
    held: Held,
    host: Host,
    ports: Sequence[Port],
    options: dict[str, dict[str, str]],
    *,
    deletable: bool,
) -> None:
    if host.ip is None:
        return
    subnet = next((s for s in held.subnets if host.ip in s.network), None)
    if subnet is None or not ports:
        held.fixed.add(host.ip)
        return
    told: dict[str, Any] = {}
    for tag in host.tags:
        told |= options.get(tag, {})
    for port in ports:
        if port.mac in held.by_mac:
            # dnsmasq may have either, so both addresses are in use.
            held.fixed.add(host.ip)
            continue
        whole = ordered({"hostname": port.hostname, "hardware_type": "ethernet", **told})
        one = Reservation(port.name, host.ip, port.mac, subnet, whole, deletable)
        held.reservations.append(one)
        held.by_mac[port.mac] = one
        held.by_ip.setdefault(host.ip, []).append(one)
        held.by_name.setdefault(port.name.lower(), []).append(one)


def _by_tag(options: Sequence[Option]) -> dict[str, dict[str, str]]:
    """Return where machines boot from by the one tag they must have."""
    found: dict[str, dict[str, str]] = {}
    # Ruby's plugin tells the server by option 66 alone.
    names = {"tftp-server": "nextServer", "server-ip-address": "nextServer", "bootfile-name": "filename"}
    for word, name in names.items():
        for one in options:
            if one.name == word and len(one.tags) == 1 and one.values:
                found.setdefault(next(iter(one.tags)), {})[name] = one.values[0]
    return found


def _named(mac: MACAddress) -> str:
    return mac.replace(":", "-")


def _hosts(content: str) -> HostsFile:
    found = written.ports(content)
    if found is not None:
        return HostsFile([found[0]], found[1])
    return HostsFile([configuration.host(line) for line in configuration.lines(content)])


def _options(content: str) -> Sequence[Option]:
    return [found for line in configuration.lines(content) if (found := configuration.option(line)) is not None]


def _listed(directory: Path) -> list[Path]:
    found: list[Path] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if len(found) >= _MOST_FILES:
                    raise Misconfigured(f"{directory} has more than {_MOST_FILES} files")
                if entry.is_file():
                    found.append(directory / entry.name)
    except OSError as e:
        raise Misconfigured(f"Reading dnsmasq's directory {directory} failed: {e.strerror or e}") from e
    return sorted(found)


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise Unavailable(f"Looking at {path} failed: {e.strerror or e}") from e
    # A directory's size says nothing.
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return found.st_dev, found.st_ino, max(found.st_mtime_ns, found.st_ctime_ns), size


def _is_old(changed_ns: int) -> bool:
    """Whether a change after this one would have another time."""
    return not 0 <= time.time_ns() - changed_ns < _TICK_S * 1e9
