"""Reads dnsmasq's leases: a line a lease, with its end, hardware address, address, name and client identifier.

dnsmasq writes the whole file anew, in its place, whenever a lease changes: whoever reads it meanwhile gets a part.

Source: seen with 2.90; docs/facts/content-and-boot.md §5.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

from muster.features.dhcp.dnsmasq.configuration import mac
from muster.kernel.errors import Unavailable
from muster.kernel.names import MACAddress

_NEVER = datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)
_LIMIT_BYTES = 64 << 20
# Whoever writes has done so within this; a busy dnsmasq never pauses for long.
_QUIET_S = 0.03
_EMPTY_S = 1.0
_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Leased:
    """One line.

    Attributes:
        mac: None: it has none that Foreman knows.
        ends: aware; 2038-01-19 03:14:07 UTC where it never does.
        name: as the machine called itself; None: it did not.
    """

    ip: IPv4Address
    mac: MACAddress | None
    ends: datetime
    name: str | None


def parsed(content: str) -> list[Leased]:
    """Return the leases of IPv4; what is none is left out."""
    found: list[Leased] = []
    for line in content.splitlines():
        words = line.split()
        if words and words[0] == "duid":
            # Those of IPv6 follow.
            break
        if len(words) < 4 or not (words[0].isascii() and words[0].isdigit() and len(words[0]) <= 12):
            continue
        try:
            ip, seconds = IPv4Address(words[2]), int(words[0])
            ends = datetime.fromtimestamp(seconds, UTC) if seconds else _NEVER
        except (ValueError, OverflowError, OSError):
            continue
        # A type of hardware may stand before it, as in 06-....
        hardware = words[1].rpartition("-")[2]
        found.append(Leased(ip, mac(hardware), min(ends, _NEVER), None if words[3] == "*" else words[3]))
    return found


def read(path: Path, *, is_emptied: bool = False) -> Sequence[Leased]:
    """Return what the file says when nobody writes it; blocks for 2 s at most.

    ``is_emptied``: whether it is known to have said something, so that a file without a line is rather one whose writer has
    not come to write it yet; it is believed after a second.

    Raises:
        Unavailable: it cannot be read, or somebody writes it all the time.
    """
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while True:
            with path.open("rb") as f:
                before = os.fstat(f.fileno())
                content = f.read(_LIMIT_BYTES + 1)
                after = os.fstat(f.fileno())
            same = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size) and len(
                content
            ) == after.st_size
            # A clock that was set back is no reason to wait for ever.
            quiet_s = _EMPTY_S if is_emptied and not content else _QUIET_S
            is_quiet = not 0 <= time.time() - after.st_mtime < quiet_s
            if same and is_quiet and (not content or content.endswith(b"\n")):
                break
            if time.monotonic() > deadline:
                raise Unavailable(f"{path} is being written, or ends in the middle of a line; try again")
            time.sleep(_QUIET_S / 3)
    except FileNotFoundError:
        # dnsmasq makes it at its start; before, it has leased nothing.
        return ()
    except OSError as e:
        raise Unavailable(f"Reading dnsmasq's leases {path} failed: {e.strerror or e}") from e
    if len(content) > _LIMIT_BYTES:
        raise Unavailable(f"Reading dnsmasq's leases {path} failed: larger than {_LIMIT_BYTES} bytes")
    return parsed(content.decode("utf-8", "replace"))
