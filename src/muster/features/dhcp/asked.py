"""What Foreman's parameters mean, checked whole, in the Ruby proxy's words.

Source: docs/facts/smart-proxy-protocol.md §8.1 and §8.4, recorded in ``tests/wire/recorded/smart-proxy/dhcp.jsonl``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from muster.features.dhcp.contract import Options, Reservation, Subnet, ordered
from muster.kernel.errors import Rejected
from muster.kernel.names import FQDN, MACAddress, host_or_address, shown

# One digit is enough for an octet. Hyphens are not what Foreman sends.
_MAC = re.compile(r"[0-9a-f]{1,2}(?::[0-9a-f]{1,2}){5}(?:(?::[0-9a-f]{1,2}){14})?\Z", re.IGNORECASE)
# What no DHCP server's configuration gives another meaning: no quotes, no backslash, nothing that is not shown.
_TEXT = re.compile(r"[ !#-\[\]-~]{0,255}\Z")
_KEY = re.compile(r"(?:<[A-Za-z0-9._-]{1,64}>)?[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")
_MOST_OPTIONS = 64
# Not options: they stand in fields of their own, say what is asked for, or are words that a record has itself.
_FIELDS = frozenset(
    (
        *("name", "hostname", "mac", "ip", "network", "nextServer", "filename", "related_macs"),
        *("type", "subnet", "deleteable", "hardware_type", "_method"),
    )
)


@dataclass(frozen=True)
class Wanted:
    """A reservation that Foreman wants, in whatever subnet."""

    name: str
    ip: IPv4Address
    mac: MACAddress
    options: Options
    related: frozenset[MACAddress]

    def within(self, subnet: Subnet) -> Reservation:
        """Return the reservation.

        Raises:
            Rejected: no host of that subnet can have the address.
        """
        if self.ip not in subnet.network or self.ip in _of_no_host(subnet.network):
            raise Rejected(f"{self.ip} is no address of a host in {subnet}")
        return Reservation(self.name, self.ip, self.mac, subnet, self.options)


def address(text: str | None) -> IPv4Address:
    """Return an address, which stands there as four plain numbers.

    Raises:
        Rejected: it is none.
    """
    try:
        return IPv4Address(text or "")
    except ipaddress.AddressValueError:
        raise Rejected(f"Invalid IP Address {shown(text or '')}") from None


def mac(text: str | None) -> MACAddress:
    """Return a hardware address of 6 or 20 octets, in lower case, each octet with two digits.

    Raises:
        Rejected: it is none.
    """
    if not _MAC.match(text or ""):
        raise Rejected(f"Invalid MAC {shown(text or '')}")
    return MACAddress.parse(":".join(octet.zfill(2) for octet in (text or "").split(":")))


def wanted(given: Mapping[str, Any]) -> Wanted:
    """Return the reservation that a form describes.

    Raises:
        Rejected: it describes none. Order of checks: hardware address, address, name, everything else.
    """
    found_mac, found_ip = mac(_text(given, "mac")), address(_text(given, "ip"))
    name, host = _text(given, "name"), _text(given, "hostname")
    if not (name or host):
        raise Rejected("Must provide hostname")
    options: dict[str, Any] = {"hostname": str(FQDN.parse(host or name or ""))}
    if filename := _text(given, "filename"):
        options["filename"] = _plain(filename, "filename")
    if next_server := _text(given, "nextServer"):
        options["nextServer"] = _next_server(next_server)
    return Wanted(
        str(FQDN.parse(name or host or "")),
        found_ip,
        found_mac,
        ordered(options | _others(given)),
        _related(given),
    )


def span(subnet: Subnet, first: str | None, last: str | None) -> tuple[IPv4Address, IPv4Address]:
    """Return the first and the last address that may be found in a subnet for a new host.

    Raises:
        Rejected: the range is none, lies elsewhere, or has no address that a host can have.
    """
    network = subnet.network
    if first is not None and last is not None:
        low, high = address(first), address(last)
        if low not in network or high not in network:
            raise Rejected("Range does not belong to provided subnet")
        if low > high:
            raise Rejected(f"{low} can't be lower IP address than {high} - change the order?")
    else:
        low = address(first) if first is not None else network.network_address
        high = address(last) if last is not None else network.broadcast_address
    low, high = max(low, network.network_address + 1), min(high, network.broadcast_address - 1)
    if low > high:
        raise Rejected("Zero or negative number of indices")
    return low, high


def _of_no_host(network: IPv4Network) -> tuple[IPv4Address, ...]:
    # RFC 3021: of a point-to-point link both are hosts'.
    return () if network.prefixlen >= 31 else (network.network_address, network.broadcast_address)


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise Rejected(f"Invalid parameter {name}: one text is expected, not a {type(value).__name__}")
    return value


def _plain(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _TEXT.match(value):
        raise Rejected(f"Invalid {name}: up to 255 printable ASCII characters are expected, no quotes or backslashes")
    return value


def _next_server(value: str) -> str:
    try:
        found = host_or_address(value)
    except Rejected:
        found = ":"
    if ":" in found:
        raise Rejected(f"Invalid next server {shown(value)}: neither a host name nor an IPv4 address")
    return found


def _related(given: Mapping[str, Any]) -> frozenset[MACAddress]:
    value = given.get("related_macs")
    if value is None:
        return frozenset()
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Rejected("Invalid parameter related_macs: a list of hardware addresses is expected")
    return frozenset(mac(one) for one in value)


def _others(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands there besides: carried as it is, where it is nothing but short plain texts."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in _FIELDS or value is None:
            continue
        if not _KEY.match(name) or len(found) >= _MOST_OPTIONS:
            raise Rejected(f"Invalid parameter {shown(name)}: no option is called so, or there are too many")
        if isinstance(value, dict):
            found[name] = {key: _inner(key, one, name) for key, one in value.items()}
        else:
            found[name] = _plain(value, name)
    return found


def _inner(key: str, value: Any, name: str) -> str:
    if not _KEY.match(key):
        raise Rejected(f"Invalid parameter {shown(f'{name}[{key}]')}: no option is called so")
    return _plain(value, f"{name}[{key}]")
