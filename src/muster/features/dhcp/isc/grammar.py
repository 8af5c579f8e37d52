"""Reads dhcpd.conf: its subnets as Foreman reads them, and the hosts that somebody wrote into it.

Source: dhcpd.conf(5); docs/facts/smart-proxy-protocol.md §8.2 and §8.6. Options of what a host or a subnet stands in are not
inherited, and a range inside a pool is not the subnet's: Foreman is told what it is told by the Ruby proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.isc import options
from muster.features.dhcp.isc.options import Host
from muster.features.dhcp.isc.statements import Statement, statements, unquoted
from muster.kernel.errors import Misconfigured
from muster.kernel.names import shown

MAX_FILES = 256
MAX_CHARACTERS = 32 << 20
MAX_INCLUDES = 8
"""Of files that include each other; with them all, so much is read and no more."""

_MAX_PROBLEMS = 20
# What hosts and subnets may stand in; whatever else has braces holds none.
_AROUND = frozenset({"group", "pool", "shared-network", "subnet"})


@dataclass(frozen=True)
class Configuration:
    """What a dhcpd.conf says.

    Attributes:
        subnets: in the file's order; none overlaps another.
        hosts: in the file's order.
        files: it and what it includes, those that could not be read as well.
        problems: sentences on what could not be read; everything else was.
    """

    subnets: Sequence[Subnet] = ()
    hosts: Sequence[Host] = ()
    files: Sequence[Path] = ()
    problems: Sequence[str] = ()


def configuration(path: Path, read: Callable[[Path], str]) -> Configuration:
    """Return what a dhcpd.conf says.

    Args:
        path: of the main file; names of included files are relative to its directory.
        read: returns a file's content, or raises ``Misconfigured``.

    Raises:
        Misconfigured: the main file could not be read.
    """
    files = _Files(path, read)
    top = files.content(path)
    found = _Found(files)
    found.look(top, None)
    return Configuration(found.subnets, found.hosts, tuple(files.read), tuple(files.problems[:_MAX_PROBLEMS]))


@dataclass(frozen=True)
class Reduced:
    """What a dhcpd.conf says, as a file of its own.

    Attributes:
        text: all that :func:`configuration` reads of it and of what it includes, in one file, and nothing else: no keys,
            no secrets, no comments.
        files: as of :class:`Configuration`.
    """

    text: str
    files: Sequence[Path]


def reduced(path: Path, read: Callable[[Path], str]) -> Reduced:
    """Return what a dhcpd.conf says, for somebody who has not the file; arguments and errors as :func:`configuration`."""
    files = _Files(path, read)
    top = files.content(path)
    return Reduced("".join(f"{line}\n" for line in _written(top, None)), tuple(files.read))


def _written(found: Sequence[Statement], around: str | None) -> Iterator[str]:
    """Yield the lines of what is looked for in a block of that kind, as :class:`_Found` looks for it."""
    for one in found:
        if not one.words:
            continue
        kind = one.words[0]
        line = " ".join(one.words)
        if one.block is None:
            if (around == "host" and options.is_of_host(one.words)) or (
                around == "subnet" and (kind == "range" or options.is_of_subnet(one.words))
            ):
                yield f"{line};"
        elif around != "host" and (kind == "host" or (kind in _AROUND and (kind != "subnet" or around != "subnet"))):
            yield f"{line} {{"
            yield from _written(one.block, kind)
            yield "}"


def reservations(host: Host, within: Callable[[IPv4Address], Subnet | None]) -> Iterator[Reservation]:
    """Yield the reservations that a host declaration makes: one for each of its addresses that lies in a subnet."""
    if host.mac is None:
        return
    for ip in host.ips:
        if (subnet := within(ip)) is not None:
            yield Reservation(host.name, ip, host.mac, subnet, host.options, deletable=host.is_dynamic)


class _Files:
    """Reads files, counts what was read, and keeps what is wrong with them."""

    def __init__(self, main: Path, read: Callable[[Path], str]) -> None:
        self._main = main
        self._read = read
        self._left = MAX_CHARACTERS
        self._within: list[Path] = []
        self.read: dict[Path, None] = {}
        self.problems: list[str] = []

    def content(self, path: Path) -> Sequence[Statement]:
        """Return a file's statements, with those of the files that it includes in their places.

        Raises:
            Misconfigured: it cannot be read, or is too much.
        """
        if path in self._within:
            raise Misconfigured(f"{path} includes itself")
        if len(self._within) > MAX_INCLUDES or len(self.read) >= MAX_FILES:
            raise Misconfigured(
                f"{path} is one too many: {MAX_FILES} files, {MAX_INCLUDES} within each other, are read"
            )
        self.read[path] = None
        text = self._read(path)
        self._left -= len(text)
        if self._left < 0:
            raise Misconfigured(f"{path} is too large: with what was read before more than {MAX_CHARACTERS} characters")
        found, wrong = statements(text)
        self.problems += [f"{path}: {clause}" for clause in wrong]
        self._within.append(path)
        try:
            return list(self._whole(found))
        finally:
            self._within.pop()

    def _whole(self, found: Sequence[Statement]) -> Iterator[Statement]:
        for one in found:
            if one.block is not None:
                # The rest holds nothing that is looked for, and conditions may be long.
                is_looked_into = bool(one.words) and (one.words[0] in _AROUND or one.words[0] == "host")
                yield Statement(one.words, tuple(self._whole(one.block))) if is_looked_into else one
            elif len(one.words) == 2 and one.words[0] == "include":
                yield from self._included(unquoted(one.words[1]))
            else:
                yield one

    def _included(self, name: str) -> Sequence[Statement]:
        try:
            if "\0" in name:
                raise Misconfigured(f"{self._within[-1]} includes {shown(name)}, which no file can be called")
            return self.content(self._main.parent / name)
        except Misconfigured as e:
            self.problems.append(str(e))
            return ()


class _Found:
    """Subnets and hosts found so far."""

    def __init__(self, files: _Files) -> None:
        self._files = files
        self.subnets: list[Subnet] = []
        self.hosts: list[Host] = []

    def look(self, found: Sequence[Statement], around: str | None) -> None:
        for one in found:
            if one.block is None or not one.words:
                continue
            kind = one.words[0]
            if kind == "host":
                declared = options.host(one)
                if declared is not None:
                    self.hosts.append(declared)
            elif kind in _AROUND and (kind != "subnet" or around != "subnet"):
                if kind == "subnet":
                    self._subnet(one)
                self.look(one.block, kind)

    def _subnet(self, declared: Statement) -> None:
        words, block = declared.words, declared.block or ()
        said = shown(" ".join(words))
        try:
            if len(words) != 4 or words[2].lower() != "netmask":
                raise ValueError("a network and its mask are expected")
            network = IPv4Network(f"{IPv4Address(words[1])}/{IPv4Address(words[3])}")
        except ValueError as e:
            self._files.problems.append(f"{said}: {e}")
            return
        if any(network.overlaps(s.network) for s in self.subnets):
            self._files.problems.append(f"{said}: overlaps another subnet")
            return
        told = options.of_subnet(block)
        for one in block:
            if one.block is None and one.words[0] == "range" and (span := _range(one.words[1:], network)) is not None:
                told["range"] = span
        self.subnets.append(Subnet(network, told))


def _range(words: Sequence[str], network: IPv4Network) -> list[str] | None:
    """Return first and last address; None: it is no range of this network."""
    try:
        ends = [IPv4Address(word) for word in words if word != "dynamic-bootp"]
    except ValueError:
        return None
    if not 1 <= len(ends) <= 2 or ends[0] > ends[-1] or any(end not in network for end in ends):
        return None
    return [str(ends[0]), str(ends[-1])]
