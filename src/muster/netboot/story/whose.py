"""Which rows are one machine's: pure. An address is a machine's when DHCP said so, or else when the machine itself did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from muster.netboot.story.ledger import Event

# What a machine says by itself (its hardware address in the path of a file) holds for one boot.
_AFTER_S, _BEFORE_S = 3600.0, 600.0
_DHCP = frozenset({"offered", "reserved"})


def of(mac: str, events: Sequence[Event]) -> list[Event]:
    """Return a machine's rows, in the order in which they come: its own, and those of addresses that it had then."""
    return [e for e in events if e.mac == mac or (not e.mac and e.address and whose(e.address, e.at, events) == mac)]


def whose(address: str, at: float, events: Iterable[Event]) -> str:
    """Return the hardware address that had an IP address at a time, by rows in ascending order; empty: nobody knows."""
    leased = is_leased = before = after = ""
    for event in events:
        if event.address != address or not event.mac:
            continue
        is_past = event.at <= at
        if _is_failed(event):
            continue
        if event.kind == "released":
            if is_past and event.mac == leased:
                leased = ""
        elif event.kind in _DHCP or event.detail.get("mac_from") == "dhcp":
            if is_past:
                leased = is_leased = event.mac
        elif is_past and at - event.at <= _AFTER_S:
            before = event.mac
        elif not is_past and event.at - at <= _BEFORE_S and not after:
            after = event.mac
    # An address that DHCP gave and took back is nobody's, unless somebody says that it is his.
    return leased or before or ("" if is_leased else after)


def _is_failed(event: Event) -> bool:
    return "failed" in event.detail
