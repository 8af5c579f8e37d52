"""What the doctor can find out about the store, and about the disks of this host."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from muster.kernel.clock import Clock
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.findings import Check, Finding
from muster.kernel.secrets import Secret
from muster.store.place import Place, unverified
from muster.store.reading import Readable

Opened = Callable[[], AbstractAsyncContextManager[Readable]]

_FULL_BELOW_BYTES = 1 << 20
_LOW_BELOW_BYTES = 256 << 20
_CLOCK_TOLERANCE_S = 5.0


@dataclass(frozen=True)
class Space:
    """What a file system has left for an ordinary user.

    Attributes:
        files: how many more files it can hold; None: it does not count them.
    """

    free_bytes: int
    files: int | None = None


def space(directory: Path) -> Space:
    """Return what is left on the file system of a directory."""
    disk = os.statvfs(directory)
    return Space(disk.f_bavail * disk.f_frsize, disk.f_favail if disk.f_files else None)


def checks(
    opened: Opened,
    *,
    directories: Iterable[Path],
    clock: Clock,
    left: Callable[[Path], Space] = space,
    url: Secret | None = None,
) -> list[Check]:
    """Return the checks of the store and of the directories this host writes to; ``left`` says what a disk has."""

    async def store() -> Sequence[Finding]:
        return await _of_store(opened, clock)

    async def way() -> Sequence[Finding]:
        return of_way(url) if url is not None else []

    async def disks() -> Sequence[Finding]:
        return [f for d in dict.fromkeys(directories) if d.is_dir() for f in of_space(d, left(d))]

    return [Check("store", store), Check("way to the store", way), Check("disks", disks)]


async def _of_store(opened: Opened, clock: Clock) -> Sequence[Finding]:
    try:
        async with opened() as store, store.read() as unit:
            theirs = await unit.now()
    except Misconfigured as e:
        return [
            Finding(
                "STORE-SETTINGS",
                "store",
                str(e),
                "The store's settings or its password file cannot be used on this host.",
                "Correct store: in the cluster file, or the file it names; then: muster config check.",
            )
        ]
    except Unavailable as e:
        return [
            Finding(
                "STORE-DOWN",
                "store",
                str(e),
                *_why_down(str(e)),
            )
        ]
    return of_clock(theirs - clock.now().timestamp())


def _why_down(sentence: str) -> tuple[str, str]:
    """Return cause and remedy for what the driver said."""
    if "FATAL:" in sentence:
        return (
            "The database answers and refuses: the role, its password, the database's name or pg_hba.conf, or it is just "
            "starting or full. Members go on serving what needs no store.",
            "As the sentence says: store.password_file here and on members, or the role there; who reads the password file "
            "when it starts is started anew.",
        )
    return (
        "The database is stopped, unreachable or full, or no member ever started; members go on serving what needs no "
        "store.",
        "Start the database; members need no restart.",
    )


def of_way(url: Secret) -> list[Finding]:
    """Return which hosts of the store's URL could be anybody; empty when each is verified, or on this machine."""
    try:
        hosts = Place.parsed(url).unverified
    except Misconfigured:
        # The store's own check names it.
        return []
    return [
        Finding(
            "STORE-UNVERIFIED",
            host,
            f"The store's host {unverified(host)}",
            "The URL says no sslmode=verify-full: libpq then takes any certificate, or none and no encryption.",
            "Give PostgreSQL a certificate with that name, put its CA on every host, and add "
            "?sslmode=verify-full&sslrootcert=FILE to store.url; docs/admin/first-cluster.md has the commands.",
            "warning",
        )
        for host in hosts
    ]


def of_clock(ahead_s: float) -> list[Finding]:
    """Return what a store's clock that is so far ahead of this host's means."""
    if abs(ahead_s) <= _CLOCK_TOLERANCE_S:
        return []
    return [
        Finding(
            "STORE-CLOCK",
            "store",
            f"The store's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this host's",
            "One of the two hosts has no time service. Members agree on the store's time, so nothing fails yet.",
            "Compare timedatectl on both; let chrony or systemd-timesyncd set the clock.",
            "warning",
        )
    ]


def of_space(directory: Path, left: Space) -> list[Finding]:
    """Return what so little space means; empty when there is enough."""
    full = left.free_bytes < _FULL_BELOW_BYTES
    if not full and left.free_bytes >= _LOW_BELOW_BYTES and left.files != 0:
        return []
    what = "no room for another file" if left.files == 0 else f"{left.free_bytes / (1 << 20):.1f} MiB left"
    error = full or left.files == 0
    return [
        Finding(
            "DISK-FULL" if error else "DISK-LOW",
            str(directory),
            f"The file system of {directory} has {what}",
            "Logs, packages or other programs fill it; what is written there is refused or cut short."
            if error
            else "Logs, packages or other programs fill it.",
            f"See what does (du -xh {directory} | sort -h), free space or enlarge the file system.",
            "error" if error else "warning",
        )
    ]
