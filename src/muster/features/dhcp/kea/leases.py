"""Leases as Kea tells them.

Kea knows when a lease was last extended and for how long. One that its client has given back, or that has ended and was
cleared up, stays in its answers; one whose client found the address in use is *declined*: nobody's, and the address taken.

Source: Kea Administrator Reference Manual, "lease4-get", "States of leases"; docs/facts/kea.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any

from muster.features.dhcp.contract import Lease, Subnet
from muster.features.dhcp.kea.reservations import mac

_ACTIVE, _DECLINED = 0, 1
_STATES = {_ACTIVE: "active", _DECLINED: "declined"}
_FOR_EVER = 0xFFFFFFFF
NEVER = datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)
"""When a lease ends that never does, as Foreman is told."""


def lease(one: Mapping[str, Any], subnet: Subnet, now: datetime) -> Lease | None:
    """Return a lease; None: it is free, has ended, or its machine has no hardware address that Foreman knows.

    Raises:
        KeyError, TypeError, ValueError: it is none of Kea's.
    """
    if not is_taken(one, now):
        return None
    found = mac(one.get("hw-address") or "")
    if found is None:
        return None
    starts = datetime.fromtimestamp(int(one["cltt"]), UTC)
    options = {"client_hostname": str(hostname)} if (hostname := one.get("hostname")) else {}
    state = _STATES[int(one.get("state", 0))]
    return Lease(IPv4Address(one["ip-address"]), found, subnet, starts, _ends(one), state, options)


def is_taken(one: Mapping[str, Any], now: datetime) -> bool:
    """Whether a lease holds its address.

    Raises:
        KeyError, TypeError, ValueError: it is none of Kea's.
    """
    return int(one.get("state", 0)) in _STATES and _ends(one) > now


def _ends(one: Mapping[str, Any]) -> datetime:
    valid_s = int(one["valid-lft"])
    if valid_s == _FOR_EVER:
        return NEVER
    try:
        return datetime.fromtimestamp(int(one["cltt"]) + valid_s, UTC)
    except (OverflowError, OSError):
        return NEVER
