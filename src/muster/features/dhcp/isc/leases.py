"""Reads dhcpd.leases piece by piece, and keeps what it says where it is found at once.

dhcpd appends a block for each change, so the last one on a name or an address counts. Blocks as dhcpd itself writes them are
recognised by one pattern, which takes nothing that the grammar (:mod:`muster.features.dhcp.isc.statements`) would read
otherwise; whatever else there is, the grammar reads. What nobody asked of a lease stays the text that it was.

Source: dhcpd.leases(5); docs/facts/smart-proxy-protocol.md §8.6.
"""

from __future__ import annotations

import json
import re
from calendar import monthrange
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, overload

from muster.features.dhcp import shapes
from muster.features.dhcp.contract import Lease, Record, Records, Reservation, Subnet
from muster.features.dhcp.isc import options
from muster.features.dhcp.isc.grammar import Configuration, reservations
from muster.features.dhcp.isc.options import Host
from muster.features.dhcp.isc.statements import Statement, end_of_statement, statements
from muster.kernel.names import MACAddress

_NEVER = "2038/01/19 03:14:07"
_UNKNOWN = "1970/01/01 00:00:00"
_OVER = frozenset({"free", "expired", "backup", "released", "reset"})
_STAMPS = ("tstp", "tsfp", "atsfp", "cltt")
_STATEMENT_LIMIT = 1 << 16
# So many leases are encoded in a millisecond or two.
_STEP = 200

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_STAMP = r"\d{4}/(?:0[1-9]|1[0-2])/(?:0[1-9]|[12]\d|3[01]) (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d"
_TIME = rf"(?:\d {_STAMP}|never)"
_TEXT = r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"'
_PLAIN = r'[^"{}#;\\\n]*+'
# Lines that are one whole statement each, and none of those that are looked for.
_OTHERS = (
    r"(?:  (?!starts|ends|tstp|tsfp|atsfp|cltt|binding|next|hardware|uid|client-hostname)[a-z]"
    rf"{_PLAIN}(?:{_TEXT}{_PLAIN})*+;\n)*+"
)
_LEASE = re.compile(
    rf"lease ({_OCTET}(?:\.{_OCTET}){{3}}) \{{\n"
    rf"  starts \d {_STAMP};\n"
    rf"  ends (?:\d ({_STAMP})|never);\n"
    rf"(?:  (?:tstp|tsfp|atsfp|cltt) {_TIME};\n)*+"
    r"  binding state ([a-z]++);\n"
    r"(?:  next binding state [a-z]++;\n)?+"
    r"(?:  rewind binding state [a-z]++;\n)?+"
    rf"{_OTHERS}"
    r"(?:  hardware [a-z-]++ ([0-9a-f]{2}(?::[0-9a-f]{2}){5});\n)?+"
    rf"(?:  uid {_TEXT};\n)?+"
    rf"{_OTHERS}"
    rf"(?:  client-hostname {_TEXT};\n)?+"
    r"\}",
    re.ASCII,
)
_BETWEEN = re.compile(r"(?:\s++|#[^\n]*+\n)*+")
_ONE_STAMP = re.compile(rf"{_STAMP}\Z", re.ASCII)
_NEXT_BLOCK = re.compile(r"\n(?=(?:lease|host|group) )")
_quoted = json.encoder.encode_basestring


class ReadReservation(Reservation):
    """A reservation of dhcpd's files; equal to any :class:`Reservation` that says the same."""

    @cached_property
    def encoded(self) -> bytes:
        """As it stands in a list of JSON."""
        return shapes.encoded_anew(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reservation):
            return NotImplemented
        mine, theirs = ((r.name, r.ip, r.mac, r.subnet, r.deletable, r.options) for r in (self, other))
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]


class ReadLease(Lease):
    """A lease of dhcpd's file, read as far as somebody asks; equal to any :class:`Lease` that says the same."""

    __slots__ = ("_entry", "_within")
    _entry: _Entry
    _within: _Within

    @property
    def encoded(self) -> bytes:
        """As it stands in a list of JSON."""
        return self._within.encoded(self._entry)

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not there yet.
        if name == "ip":
            found: dict[str, Any] = {name: IPv4Address(self._entry[_ADDRESS])}
        elif name == "mac":
            found = {name: MACAddress(self._entry[_MAC])}
        elif name == "subnet":
            found = {name: self._within.subnet}
        elif name in ("starts", "ends", "options"):
            told = json.loads(self.encoded)
            rest = dict(list(told.items())[_FIXED:])
            found = {"starts": _moment(told["starts"]), "ends": _moment(told["ends"]), "options": rest}
        else:
            raise AttributeError(name)
        for key, value in found.items():
            object.__setattr__(self, key, value)
        return found[name]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lease):
            return NotImplemented
        mine, theirs = (
            (one.ip, one.mac, one.subnet, one.starts, one.ends, one.state, one.options) for one in (self, other)
        )
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]


# name, ip, mac, subnet, starts, ends, state, type: what is told of every lease before its options.
_FIXED = 8

# Address, hardware address, when it ends as ``2026/11/26 11:34:24`` (which sorts as time does), state, and the text of its
# block or, later, how it is told. A tuple of plain texts, since the collector of garbage looks at none of these: a hundred
# thousand objects would stop the whole process each time that it looks at all.
_Entry = tuple[str, str, str, str, str | bytes]
_ADDRESS: Final = 0
_MAC: Final = 1
_UNTIL: Final = 2
_STATE: Final = 3
_HELD: Final = 4


class _Shown(Sequence[Lease]):
    """Leases of one moment, made when they are asked for."""

    def __init__(self, within: _Within, entries: Sequence[_Entry]) -> None:
        self._within = within
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, which: int) -> Lease: ...

    @overload
    def __getitem__(self, which: slice) -> Sequence[Lease]: ...

    def __getitem__(self, which: int | slice) -> Lease | Sequence[Lease]:
        if isinstance(which, int):
            return self._within.made(self._entries[which])
        return [self._within.made(one) for one in self._entries[which]]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


class _Within:
    """What there is in one subnet."""

    def __init__(self, subnet: Subnet) -> None:
        self.subnet = subnet
        self.called = str(subnet)
        self.reservations: dict[MACAddress, Reservation] = {}
        self.reserved: dict[str, list[Reservation]] = {}
        self.leases: dict[str, _Entry] = {}
        # The address of the last lease of each hardware address.
        self.newest: dict[str, str] = {}
        # What a hardware address has besides that: a machine that names itself otherwise when it boots.
        self.older: dict[str, list[str]] = {}

    def reserve(self, one: Reservation) -> None:
        held = self.reservations.get(one.mac)
        if held is not None:
            self.unreserve(held)
        self.reservations[one.mac] = one
        self.reserved.setdefault(str(one.ip), []).append(one)

    def unreserve(self, one: Reservation) -> None:
        # Another host may have taken its hardware address.
        if self.reservations.get(one.mac) is not one:
            return
        del self.reservations[one.mac]
        left = [r for r in self.reserved[str(one.ip)] if r is not one]
        if left:
            self.reserved[str(one.ip)] = left
        else:
            del self.reserved[str(one.ip)]

    def lease(self, entry: _Entry) -> None:
        address, mac = entry[_ADDRESS], entry[_MAC]
        self.end(address)
        self.leases[address] = entry
        before = self.newest.get(mac)
        if before is not None:
            self.older.setdefault(mac, []).append(before)
        self.newest[mac] = address

    def end(self, address: str) -> None:
        entry = self.leases.pop(address, None)
        if entry is None:
            return
        mac = entry[_MAC]
        older = self.older.get(mac, [])
        if self.newest[mac] != address:
            older.remove(address)
        elif older:
            self.newest[mac] = older.pop()
        else:
            del self.newest[mac]
        if not older:
            self.older.pop(mac, None)

    def running(self, mac: str, now: str) -> _Entry | None:
        """Return the last lease of a hardware address that has not ended."""
        address = self.newest.get(mac)
        if address is None:
            return None
        addresses = (address, *reversed(self.older.get(mac, ())))
        return next((e for a in addresses if (e := self.leases[a])[_UNTIL] >= now), None)

    def shown(self, now: str) -> Sequence[Lease]:
        """Return the leases that have not ended, one of each hardware address."""
        running = [entry for entry in self.leases.values() if entry[_UNTIL] >= now]
        if self.older:
            running = [e for e in running if e[_MAC] not in self.older or self.running(e[_MAC], now) is e]
        return _Shown(self, running)

    def made(self, entry: _Entry) -> ReadLease:
        one = _new(ReadLease)
        # A frozen class is written past its own refusal; the slots' own way is the quickest.
        _set_within(one, self)
        _set_entry(one, entry)
        if entry[_STATE] != "active":
            object.__setattr__(one, "state", entry[_STATE])
        return one

    def encoded(self, entry: _Entry) -> bytes:
        """Return how a lease is told, and keep it in the place of its text."""
        held = entry[_HELD]
        if isinstance(held, bytes):
            return held
        address, mac, until, state, _ = entry
        starts, told = _told(held)
        text = _encoded(self, address, mac, starts, until, state, told)
        if self.leases.get(address) is entry:
            self.leases[address] = (address, mac, until, state, text)
        return text


class Leases:
    """What the two files say, as far as they were read.

    Args:
        configuration: its subnets, and the hosts that are there before the first block.

    Attributes:
        subnets: those of the configuration.
        skipped: how often so much stood there without an end that reading went on at the next block.

    Concurrency: whoever feeds it has it alone meanwhile; a piece is taken without a pause.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.subnets = tuple(configuration.subnets)
        self.skipped = 0
        self._within: Mapping[IPv4Network, _Within] = {s.network: _Within(s) for s in self.subnets}
        self._by_prefix: dict[str, Sequence[_Within]] = {}
        self._hosts: dict[str, list[Reservation]] = {}
        # Whatever has a fixed address has it, whether or not Foreman can be told of its host.
        self._fixed_of: dict[str, Sequence[str]] = {}
        self._fixed: Counter[str] = Counter()
        # What dhcpd gives nobody, because somebody it does not know answered there.
        self._abandoned: set[str] = set()
        self._rest = ""
        for declared in configuration.hosts:
            self._host(declared)

    @property
    def is_whole(self) -> bool:
        """Whether nothing waits for its end, comments aside."""
        between = _BETWEEN.match(self._rest)
        rest = self._rest[between.end() :] if between else self._rest
        return not rest or rest.startswith("#")

    def feed(self, text: str) -> None:
        """Take what comes next in dhcpd.leases; a block whose end is missing waits for it."""
        text = self._rest + text if self._rest else text
        at = 0
        while True:
            between = _BETWEEN.match(text, at)
            at = between.end() if between else at
            block = _LEASE.match(text, at)
            if block is not None:
                address, until, state, mac = block.groups()
                self._lease(address, mac, until or _NEVER, state, block)
                at = block.end()
                continue
            end = end_of_statement(text, at)
            if end < 0 and len(text) - at > _STATEMENT_LIMIT:
                # Something tore the file: without an end everything after would be part of this.
                following = _NEXT_BLOCK.search(text, at + 1)
                at = following.end() if following else len(text)
                self.skipped += 1
                continue
            if end < 0:
                break
            for one in statements(text[at:end])[0]:
                self._statement(one)
            at = end
        self._rest = text[at:]

    def records(self, subnet: Subnet, now: datetime) -> Records:
        """Return what there is in a subnet, in the files' order."""
        within = self._within.get(subnet.network)
        if within is None:
            return Records()
        return Records(list(within.reservations.values()), within.shown(_key(now)))

    def at(self, subnet: Subnet, ip: IPv4Address, now: datetime) -> Sequence[Record]:
        """Return what has an address, reservations first."""
        within = self._within.get(subnet.network)
        if within is None:
            return ()
        address, moment = str(ip), _key(now)
        found: list[Record] = list(within.reserved.get(address, ()))
        entry = within.leases.get(address)
        if entry is not None and entry[_UNTIL] >= moment and within.running(entry[_MAC], moment) is entry:
            found.append(within.made(entry))
        return found

    def of(self, subnet: Subnet, mac: MACAddress, now: datetime) -> Record | None:
        """Return the reservation of a hardware address, else the last of its leases, else None."""
        within = self._within.get(subnet.network)
        if within is None:
            return None
        reserved = within.reservations.get(mac)
        if reserved is not None:
            return reserved
        entry = within.running(mac, _key(now))
        return within.made(entry) if entry is not None else None

    def taken(self, subnet: Subnet, among: Collection[IPv4Address], now: datetime) -> set[IPv4Address]:
        """Return which addresses have a record, older leases of one hardware address among them: dhcpd keeps them all."""
        within = self._within.get(subnet.network)
        if within is None:
            return set()
        moment, leases, reserved = _key(now), within.leases, within.reserved
        return {
            ip
            for ip in among
            if (address := str(ip)) in reserved
            or self._fixed[address] > 0
            or address in self._abandoned
            or ((entry := leases.get(address)) is not None and entry[_UNTIL] >= moment)
        }

    def is_fixed(self, ip: IPv4Address) -> bool:
        """Whether a host has an address fixed, also one of which Foreman cannot be told."""
        return self._fixed[str(ip)] > 0

    def encode(self) -> Iterator[None]:
        """Encode every lease, so that a list of them is told at once; between two steps others may go on, here as well."""
        for within in self._within.values():
            for number, address in enumerate(list(within.leases)):
                entry = within.leases.get(address)
                if entry is not None:
                    within.encoded(entry)
                if number % _STEP == 0:
                    yield

    def let_go(self) -> None:
        """Forget everything, a little at a time: freeing it at once would stop all threads for as long."""
        for within in self._within.values():
            for held in (within.leases, within.newest, within.older, within.reservations, within.reserved):
                while held:
                    held.popitem()

    def _statement(self, one: Statement) -> None:
        kind = one.words[0]
        if kind == "lease" and len(one.words) == 2 and one.block is not None:
            self._read_lease(one.words[1], one.block)
        elif kind == "host" and (declared := options.host(one)) is not None:
            self._host(declared)
        elif kind == "group":
            for inner in one.block or ():
                if inner.words:
                    self._statement(inner)

    def _host(self, declared: Host) -> None:
        for held in self._hosts.pop(declared.name, ()):
            self._within[held.subnet.network].unreserve(held)
        self._fixed.subtract(self._fixed_of.pop(declared.name, ()))
        if declared.is_deleted:
            return
        self._fixed_of[declared.name] = tuple(str(ip) for ip in declared.ips)
        self._fixed.update(self._fixed_of[declared.name])
        for one in reservations(declared, self._subnet_of):
            kept = ReadReservation(one.name, one.ip, one.mac, one.subnet, one.options, one.deletable)
            self._within[one.subnet.network].reserve(kept)
            self._hosts.setdefault(declared.name, []).append(kept)

    def _read_lease(self, address: str, block: Sequence[Statement]) -> None:
        """Take a lease that dhcpd writes otherwise: with local times, or blocks within it."""
        try:
            address = str(IPv4Address(address))
        except ValueError:
            return
        state, mac = "", None
        starts, until = _UNKNOWN, _NEVER
        told: dict[str, str] = {}
        for one in block:
            words = one.words
            if not words or one.block is not None:
                continue
            first, rest = words[0], words[1:]
            if first in ("starts", "ends", *_STAMPS):
                if (time := _time(rest)) is None:
                    continue
                if first == "starts":
                    starts = time
                elif first == "ends":
                    until = time
                else:
                    told[first] = _shown(time)
            elif first == "binding" and len(words) == 3:
                state = words[2]
            elif first == "next" and len(words) == 4:
                told["next_state"] = words[3]
            elif first == "hardware" and len(words) == 3:
                told["hardware_type"], mac = words[1], options.hardware_address(words[2])
            elif first in ("uid", "client-hostname") and rest:
                told[first.replace("-", "_")] = " ".join(rest)
        self._lease(address, str(mac) if mac is not None else None, until, state or "active", (starts, told))

    def _lease(
        self,
        address: str,
        mac: str | None,
        until: str,
        state: str,
        said: re.Match[str] | tuple[str, Mapping[str, str]],
    ) -> None:
        within = self._around(address)
        if within is None:
            return
        self._abandoned.discard(address)
        if mac is None or state in _OVER:
            if state == "abandoned":
                self._abandoned.add(address)
            within.end(address)
            return
        held: str | bytes
        if isinstance(said, re.Match):
            held = said.group()
        else:
            held = _encoded(within, address, mac, said[0], until, state, said[1])
        within.lease((address, mac, until, state, held))

    def _subnet_of(self, ip: IPv4Address) -> Subnet | None:
        within = self._around(str(ip))
        return within.subnet if within is not None else None

    def _around(self, address: str) -> _Within | None:
        """Return the subnet that an address lies in."""
        prefix = address.rpartition(".")[0]
        near = self._by_prefix.get(prefix)
        if near is None:
            network = IPv4Network(f"{prefix}.0/24")
            near = self._by_prefix[prefix] = [w for n, w in self._within.items() if n.overlaps(network)]
        if len(near) == 1 and near[0].subnet.network.prefixlen <= 24:
            return near[0]
        if not near:
            return None
        ip = IPv4Address(address)
        return next((w for w in near if ip in w.subnet.network), None)


_new = object.__new__
_set_within, _set_entry = (ReadLease.__dict__[name].__set__ for name in ("_within", "_entry"))


def _told(text: str) -> tuple[str, dict[str, str]]:
    """Return when a lease starts and its options, of a block that the pattern took: each line is a statement."""
    starts = _UNKNOWN
    told: dict[str, str] = {}
    for line in _lines(text):
        first, _, rest = line.partition(" ")
        if first in _STAMPS:
            told[first] = _shown(_NEVER if rest == "never" else rest[2:])
        elif first == "starts":
            starts = rest[2:]
        elif first == "next":
            told["next_state"] = rest.rpartition(" ")[2]
        elif first == "hardware":
            told["hardware_type"] = rest.partition(" ")[0]
        elif first == "uid":
            told["uid"] = rest
        elif first == "client-hostname":
            told["client_hostname"] = rest
    return starts, told


def _lines(text: str) -> Iterator[str]:
    """Yield the lines between the braces without their indent and semicolon."""
    for line in text.split("\n")[1:-1]:
        yield line[2:-1]


def _encoded(
    within: _Within, address: str, mac: str, starts: str, until: str, state: str, told: Mapping[str, str]
) -> bytes:
    """Return a lease as :mod:`muster.features.dhcp.shapes` tells it, made of its texts."""
    rest = "".join([f',"{key}":{_quoted(value)}' for key, value in told.items()])
    return (
        f'{{"name":"lease-{mac.replace(":", "")}","ip":"{address}","mac":"{mac}","subnet":"{within.called}",'
        f'"starts":"{_shown(starts)}","ends":"{_shown(until)}","state":{_quoted(state)},"type":"lease"{rest}}}'
    ).encode("utf-8", "replace")


def _shown(time: str) -> str:
    return f"{time.replace('/', '-')} UTC"


def _key(now: datetime) -> str:
    return f"{now.astimezone(UTC):%Y/%m/%d %H:%M:%S}"


def _time(words: Sequence[str]) -> str | None:
    """Return a time as dhcpd writes it in UTC; None: it is none."""
    if words == ["never"]:
        return _NEVER
    if len(words) == 2 and words[0] == "epoch" and words[1].isascii() and words[1].isdigit() and len(words[1]) < 12:
        return _key(datetime.fromtimestamp(int(words[1]), UTC))
    text = " ".join(words[1:])
    return text if len(words) == 3 and _ONE_STAMP.match(text) else None


def _moment(text: str) -> datetime:
    """Return a moment as it is told; a day that its month does not have is the month's last."""
    year, month, day = max(1, int(text[:4])), int(text[5:7]), int(text[8:10])
    day = min(day, monthrange(year, month)[1])
    return datetime(year, month, day, int(text[11:13]), int(text[14:16]), int(text[17:19]), tzinfo=UTC)
