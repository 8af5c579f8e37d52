"""How groups and subnets travel as JSON, written and read (docs/facts/externalipam.md §2)."""

from __future__ import annotations

import ipaddress
from typing import Any

from muster.features.externalipam.contract import Group, Subnet
from muster.kernel.errors import Unavailable
from muster.kernel.names import shown


def of_group(one: Group) -> dict[str, Any]:
    """Return a group; one without an id has none there either."""
    told = {"name": one.name, "description": one.description}
    return told if one.id is None else {"id": one.id, **told}


def of_subnet(one: Subnet) -> dict[str, Any]:
    """Return a subnet; its mask is the length of its prefix, as a text."""
    network = one.network
    return {
        "id": one.id,
        "subnet": str(network.network_address),
        "mask": str(network.prefixlen),
        "description": one.description,
    }


def to_group(content: Any, whose: str) -> Group:
    """Return a group of an IPAM's answer, which has ``id``, ``name`` and ``description``.

    Raises:
        Unavailable: it is none; ``whose`` says what of.
    """
    match content:
        case {"name": str(name)} if name:
            return Group(name, text(content.get("description")), identity(content.get("id")))
    raise Unavailable(f"{whose} is no group: {shown(content)}")


def to_subnet(content: Any, whose: str, *, space: str, group: str) -> Subnet:
    """Return a subnet of an answer that has ``subnet`` and ``mask``, as phpIPAM and Smart Proxies have them.

    Raises:
        Unavailable: it is none.
    """
    match content:
        case {"subnet": str(address), "mask": (str() | int()) as mask}:
            try:
                network = ipaddress.ip_network(f"{address}/{mask}")
            except ValueError:
                pass
            else:
                return Subnet(
                    network, space, text(content.get("description")), identity(content.get("id")) or "", group
                )
    raise Unavailable(f"{whose} is no subnet: {shown(content)}")


def text(value: Any) -> str:
    """Return a text for people, empty for anything else."""
    return value if isinstance(value, str) else ""


def identity(value: Any) -> str | int | None:
    """Return what an IPAM calls one of its things; None when it says nothing that can be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return value if isinstance(value, str) and value.isascii() and value.isalnum() and len(value) <= 64 else None
