"""What the parameters of External IPAM mean: parsed whole, in linear time (docs/facts/externalipam.md §2)."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote, unquote_plus

from muster.features.externalipam.contract import IPAddress, IPNetwork
from muster.kernel.errors import Rejected
from muster.kernel.names import MACAddress, ip_address, refuse_unless_text, shown

_PREFIX = re.compile(r"(?:0|[1-9][0-9]{0,2})\Z")
_GROUP = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,255}\Z")


def address(text: str) -> IPAddress:
    """Return an address, which names no interface.

    Raises:
        Rejected: it is none.
    """
    if "%" in text:
        raise Rejected(f"Invalid IP address {shown(text)}")
    return ip_address(text)


def network(text: str, prefix: str) -> IPNetwork:
    """Return the network of that address and prefix length.

    Raises:
        Rejected: one of them is none, or the network has another address.
    """
    first = address(text)
    if not _PREFIX.match(prefix) or int(prefix) > first.max_prefixlen:
        raise Rejected(f"Invalid prefix length {shown(prefix)} of a subnet")
    found = ipaddress.ip_network(f"{first}/{prefix}", strict=False)
    if found.network_address != first:
        raise Rejected(f"{first}/{prefix} is no subnet; the one that holds this address is {found}")
    return found


def within(ip: str, subnet: IPNetwork) -> IPAddress:
    """Return an address of a network.

    Raises:
        Rejected: it is no address, or none of the network's.
    """
    found = address(ip)
    if found not in subnet:
        raise Rejected(f"{found} is no address of {subnet}")
    return found


def mac(text: str | None) -> MACAddress | None:
    """Return a hardware address, None when none is given.

    Raises:
        Rejected: it is none.
    """
    return MACAddress.parse(text) if text else None


def group(text: str | None) -> str:
    """Return a group's name, empty when none is given.

    Raises:
        Rejected: it cannot be one.
    """
    if not text:
        return ""
    if not _GROUP.match(text):
        raise Rejected(f"Invalid group {shown(text)}")
    return text


def group_in_path(raw_path: bytes, decoded: str) -> str:
    """Return the group that a path names: there Foreman writes a space as a plus, and a plus as ``%2B``.

    Args:
        raw_path: the path as it was sent.
        decoded: its segment, percent-decoded.

    Raises:
        Rejected: it cannot be one.
    """
    for segment in raw_path.decode("latin-1").split("/"):
        if unquote(segment, errors="surrogateescape") == decoded:
            decoded = unquote_plus(segment, errors="surrogateescape")
            break
    refuse_unless_text(decoded, "the path's group")
    return group(decoded)
