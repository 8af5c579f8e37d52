"""Reads dnsmasq's configuration as far as DHCP for IPv4 is concerned. Pure, but for the files it is given a reader of.

A line is a word, and mostly ``=`` and values with commas between. What is not known is left alone: dnsmasq has checked it.

Source: dnsmasq(8) of 2.90, ``dhcp-range``, ``dhcp-host``, ``dhcp-option``, ``dhcp-boot``, ``conf-file``, ``conf-dir``;
docs/facts/content-and-boot.md §5.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from muster.features.dhcp import asked
from muster.features.dhcp.contract import Subnet
from muster.kernel.errors import MusterError, Rejected
from muster.kernel.names import MACAddress, shown

_MOST_FILES = 1000
_DEEPEST = 8
# What Debian's unit tells dnsmasq to leave alone in its directory, which its configuration does not say.
DEBIANS_LEFTOVERS = (".dpkg-dist", ".dpkg-old", ".dpkg-new")
_COMMENT = re.compile(r"(?:\A|\s)#")
_QUOTED = re.compile(r'"[^"]*"')
_TIME = re.compile(r"(?:\d{1,10}[smhdw]?|infinite|deprecated)\Z", re.IGNORECASE)
# A hardware type may stand before it; a star is any octet.
_HARDWARE = re.compile(r"(?:[0-9a-f]{1,2}-)?((?:[0-9a-f]{1,2}|\*)(?::(?:[0-9a-f]{1,2}|\*)){1,15})\Z", re.IGNORECASE)
_TAGS = ("set:", "net:")
# A letter before a colon would make it something else than the tags, numbers and names below.
_OPTIONS: Mapping[str, str] = {
    "3": "router", "6": "dns-server", "15": "domain-name", "26": "mtu", "42": "ntp-server",
    "66": "tftp-server", "67": "bootfile-name", "255": "server-ip-address",
}  # fmt: skip
_LISTS: Mapping[str, str] = {"router": "routers", "dns-server": "domain_name_servers", "ntp-server": "ntp_servers"}
_OF_A_SUBNET = ("routers", "domain_name", "domain_name_servers", "ntp_servers", "interface_mtu")


@dataclass(frozen=True)
class Host:
    """A line that reserves an address, or says something else of a machine.

    Attributes:
        macs: its hardware addresses, those of 6 octets without a star; empty where it is told by something else.
        ip: None: it reserves none.
        name: None: it gives none.
    """

    macs: Sequence[MACAddress] = ()
    ip: IPv4Address | None = None
    name: str | None = None
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Option:
    """A DHCP option that is sent to whoever has all its tags.

    Attributes:
        name: dnsmasq's word for it.
    """

    name: str
    values: Sequence[str]
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Range:
    """Addresses that dnsmasq serves.

    Attributes:
        end: None: it leases none of them, only to hosts that have a line.
        network: None: the mask is the network card's, which is not said here.
    """

    start: IPv4Address
    end: IPv4Address | None
    network: IPv4Network | None
    tags: frozenset[str] = frozenset()


@dataclass
class Configuration:
    """What the files say.

    Attributes:
        files: all that were read, and the directories that were looked into.
        hosts_files, hosts_directories: where more hosts stand, ``options_…`` more options.
        boots_everybody: a line says where machines boot from, whatever tags they have.
        problems: a sentence each; everything else counts.
    """

    ranges: list[Range] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)
    hosts_files: list[Path] = field(default_factory=list)
    hosts_directories: list[Path] = field(default_factory=list)
    options_files: list[Path] = field(default_factory=list)
    options_directories: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    domain: str | None = None
    boots_everybody: str | None = None
    problems: list[str] = field(default_factory=list)


class Reading:
    """Reads a configuration through, with what it includes.

    Args:
        content: returns a file's text; raises :class:`~muster.kernel.errors.MusterError` where it cannot be read.
        listed: returns a directory's entries that are files, in any order; raises as well.
    """

    def __init__(self, content: Callable[[Path], str], listed: Callable[[Path], Collection[Path]]) -> None:
        self._content = content
        self._listed = listed
        self.found = Configuration()

    def directory(self, path: Path, endings: Sequence[str] = DEBIANS_LEFTOVERS, depth: int = 0) -> None:
        """Read what dnsmasq reads of a directory: ``endings`` are left alone, those with a star before them are all."""
        self.found.files.append(path)
        only = [e.lstrip("*") for e in endings if e.startswith("*")]
        but = [e for e in endings if e and not e.startswith("*")]
        try:
            entries = sorted(self._listed(path))
        except MusterError as e:
            self.found.problems.append(str(e))
            return
        for one in entries:
            ends = one.name.endswith
            if is_read(one.name) and not any(map(ends, but)) and (not only or any(map(ends, only))):
                self.file(one, depth)

    def file(self, path: Path, depth: int = 0) -> None:
        """Read one file, and what it includes."""
        if depth > _DEEPEST or len(self.found.files) >= _MOST_FILES:
            self.found.problems.append(
                f"{path} and what else is included are not read: {len(self.found.files)} files are"
            )
            return
        self.found.files.append(path)
        try:
            content = self._content(path)
        except MusterError as e:
            self.found.problems.append(str(e))
            return
        for line in lines(content):
            word, _, value = line.partition("=")
            try:
                self._take(word.strip().lower(), value.strip(), depth)
            except ValueError:
                self.found.problems.append(f"{path}: this was not understood: {shown(line)}")

    def _take(self, word: str, value: str, depth: int) -> None:
        found = self.found
        first, *others = value.split(",")
        match word:
            case "conf-file":
                self.file(Path(value), depth + 1)
            case "conf-dir":
                self.directory(Path(first), others, depth + 1)
            case "dhcp-range":
                if (one := span(value)) is not None:
                    found.ranges.append(one)
            case "dhcp-host":
                found.hosts.append(host(value))
            case "dhcp-option" | "dhcp-option-force":
                if (told := option(value)) is not None:
                    found.options.append(told)
            case "dhcp-hostsfile" | "dhcp-optsfile":
                (found.hosts_files if word == "dhcp-hostsfile" else found.options_files).append(Path(value))
            case "dhcp-hostsdir" | "dhcp-optsdir":
                (found.hosts_directories if word == "dhcp-hostsdir" else found.options_directories).append(Path(value))
            case "domain" if not others:
                found.domain = value
            case "dhcp-boot" if not first.startswith(("tag:", "net:")):
                found.boots_everybody = value


def is_read(name: str) -> bool:
    """Whether dnsmasq reads a file of a directory that is called so."""
    return not (name.startswith(".") or name.endswith("~") or (name.startswith("#") and name.endswith("#")))


def lines(content: str) -> Iterator[str]:
    """Yield what stands in a file without comments and empty lines."""
    for line in content.splitlines():
        # A # within quotes is none.
        bare = _QUOTED.sub(lambda quoted: "q" * len(quoted[0]), line)
        comment = _COMMENT.search(bare)
        text = (line if comment is None else line[: comment.start()]).strip()
        if text:
            yield text


def host(value: str) -> Host:
    """Return what a line says of a host: the value of ``dhcp-host``, or a line of a hosts file."""
    macs: list[MACAddress] = []
    tags: list[str] = []
    ip: IPv4Address | None = None
    name: str | None = None
    for part in (p.strip() for p in value.split(",")):
        if part.startswith(_TAGS):
            tags.append(part[4:])
        elif part.startswith(("id:", "tag:", "[")) or part == "ignore" or not part:
            continue
        elif (hardware := _HARDWARE.match(part)) is not None:
            macs += [found] if (found := mac(hardware[1])) is not None else []
        elif (address := _address(part)) is not None:
            ip = address
        elif not _TIME.match(part):
            name = part
    return Host(tuple(macs), ip, name, tuple(tags))


def mac(text: str) -> MACAddress | None:
    """Return a hardware address as Foreman has it; None: it is none."""
    try:
        return asked.mac(text)
    except Rejected:
        return None


def option(value: str) -> Option | None:
    """Return what a ``dhcp-option``, or a line of an options file, sends; None: nothing that is looked at here."""
    tags: set[str] = set()
    parts = [p.strip() for p in value.split(",")]
    while parts and parts[0].startswith(("tag:", "net:")):
        tags.add(parts.pop(0)[4:])
    if not parts:
        return None
    name = parts.pop(0)
    if name.startswith("option:"):
        name = name.removeprefix("option:")
    elif name not in _OPTIONS:
        return None
    return Option(_OPTIONS.get(name, name), tuple(p.strip('"') for p in parts), frozenset(tags))


def span(value: str) -> Range | None:
    """Return what a ``dhcp-range`` serves; None: it is of IPv6.

    Raises:
        ValueError: it has no address.
    """
    tags: set[str] = set()
    addresses: list[IPv4Address] = []
    words: list[str] = []
    for part in (p.strip() for p in value.split(",")):
        if part.startswith((*_TAGS, "tag:")):
            tags.add(part[4:])
        elif ":" in part:
            return None
        elif (address := _address(part)) is not None:
            addresses.append(address)
        else:
            words.append(part.lower())
    start = addresses[0] if addresses else None
    if start is None:
        raise ValueError(value)
    leases_none = bool({"static", "proxy"} & set(words))
    end = None if leases_none or len(addresses) < 2 else addresses[1]
    masks = addresses[1:] if leases_none else addresses[2:]
    network = IPv4Network(f"{start}/{masks[0]}", strict=False) if masks else None
    return Range(start, end, network, frozenset(tags))


def subnets(configuration: Configuration, known: Collection[IPv4Network]) -> tuple[list[Subnet], list[str]]:
    """Return the subnets, in the files' order, and what is wrong with them, a sentence each.

    ``known``: networks that a range without a mask may be of.
    """
    found: dict[IPv4Network, dict[str, Any]] = {}
    problems: list[str] = []
    for one in configuration.ranges:
        network = one.network or next((n for n in known if one.start in n), None)
        if network is None:
            problems.append(
                f"dhcp-range {one.start} has no mask: write it there, or name its network under features: dhcp: subnets:"
            )
            continue
        if clash := next((n for n in found if n != network and n.overlaps(network)), None):
            problems.append(f"dhcp-range {one.start} is of {network}, which overlaps {clash}")
            continue
        told = _sent(configuration, one.tags)
        if one.end is not None:
            told["range"] = [str(one.start), str(one.end)]
        found[network] = {**found.get(network, {}), **told}
    return [Subnet(network, options) for network, options in found.items()], problems


def _sent(configuration: Configuration, tags: frozenset[str]) -> dict[str, Any]:
    """Return what is sent to machines of a range, by Foreman's names."""
    sent: dict[str, Any] = {}
    # What is for some goes before what is for all.
    for one in sorted(configuration.options, key=lambda o: bool(o.tags)):
        # 0.0.0.0 is dnsmasq itself, wherever that is.
        values = [v for v in one.values if v != "0.0.0.0"]
        if not one.tags <= tags or not values:
            continue
        if one.name in _LISTS:
            sent[_LISTS[one.name]] = values
        elif one.name == "domain-name":
            sent["domain_name"] = values[0]
        elif one.name == "mtu" and values[0].isascii() and values[0].isdigit() and len(values[0]) <= 9:
            sent["interface_mtu"] = int(values[0])
    if configuration.domain is not None:
        sent.setdefault("domain_name", configuration.domain)
    return {name: sent[name] for name in _OF_A_SUBNET if name in sent}


def _address(text: str) -> IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None
