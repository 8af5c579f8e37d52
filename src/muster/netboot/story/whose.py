"""Which rows are one machine's: pure. An address is a machine's when DHCP said so, or else when the machine itself did."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from muster.netboot.story.ledger import Event

# What a machine says by itself (its hardware address in the path of a file) holds for one boot; a promise and a lease, too.
_AFTER_S, _BEFORE_S = 3600.0, 600.0


def of(mac: str, events: Sequence[Event]) -> list[Event]:
    """Return a machine's rows, in the order in which they come: its own, and those of addresses that it had then."""
    saying = who_say(events)
    return [e for e in events if mac in machines(e, saying)]


def machines(event: Event, saying: Mapping[str, Sequence[Event]]) -> set[str]:
    """Return the hardware addresses of the machine that a row is of: none, one, or two of its cards.

    ``saying``: as of :func:`who_say`.
    """
    said = {event.mac, whose(event.address, event.at, saying.get(event.address, ())) if _is_open(event) else ""}
    return said - {""}


def who_say(events: Iterable[Event]) -> defaultdict[str, list[Event]]:
    """Return the rows that say whose an address was, by address, in their order; the many that say nothing are left out."""
    saying: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.address and event.mac:
            saying[event.address].append(event)
    return saying


def whose(address: str, at: float, events: Iterable[Event]) -> str:
    """Return the hardware address that had an IP address at a time, by rows in ascending order; empty: nobody knows."""
    leased = is_leased = before = before_by_card = after = ""
    until = 0.0
    for event in events:
        if event.address != address or not event.mac or _is_failed(event):
            continue
        is_past = event.at <= at
        if event.kind == "released":
            if is_past and event.mac == leased:
                leased = ""
        elif event.kind == "reserved":
            if is_past:
                leased = is_leased = event.mac
                until = math.inf
        elif event.kind == "offered" or event.detail.get("mac_from") == "dhcp":
            # Of a machine with a reservation this says nothing new.
            if is_past and not (event.mac == leased and until == math.inf):
                leased = is_leased = event.mac
                until = event.at + _AFTER_S
        elif is_past and at - event.at <= _AFTER_S:
            if event.detail.get("mac_from") == "header":
                before_by_card = event.mac
            else:
                before = event.mac
        elif not is_past and event.at - at <= _BEFORE_S and not after:
            after = event.mac
    if at > until:
        leased = is_leased = ""
    # An address that DHCP gave and took back is nobody's, unless somebody says that it is his.
    return leased or before or before_by_card or ("" if is_leased else after)


def _is_open(event: Event) -> bool:
    """Whether the address says whose it is.

    An installer names its first network card, whichever it booted from.
    """
    return bool(event.address) and (not event.mac or event.detail.get("mac_from") == "header")


def _is_failed(event: Event) -> bool:
    return "failed" in event.detail
