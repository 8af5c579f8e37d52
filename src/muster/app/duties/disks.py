"""Is there room on the disks that services need?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from muster.app.duties.duty import Duty, Found, joined
from muster.balancer.model import signs_itself
from muster.cluster.file import ClusterFile
from muster.cluster.sections import Disk
from muster.store.place import Place

_PROBE_TIMEOUT_S = 1.0
# Below it SQLite's next write-ahead log, or the next certificate, may not fit.
_LEAST_ROOM_BYTES = 32 << 20


class Disks(Duty):
    """Takes services out whose disk is full."""

    name = "disks"

    def __init__(self, watched: Sequence[Disk]) -> None:
        self.watched = tuple(watched)
        self._looks: dict[Path, asyncio.Task[str]] = {}
        self._found = Found()

    async def beat(self) -> None:
        for disk in self.watched:
            # A network file system may hang: the beat must not, nor must looks at it pile up.
            if (pending := self._looks.get(disk.path)) is None or pending.done():
                self._looks[disk.path] = asyncio.create_task(asyncio.to_thread(_room_on, disk), name="disk")
        if self._looks:
            await asyncio.wait(self._looks.values(), timeout=_PROBE_TIMEOUT_S)
        looks = [self._looks[d.path] for d in self.watched]
        answers = [look.result() if look.done() else f"no answer within {_PROBE_TIMEOUT_S:g} s" for look in looks]
        down: dict[str, str] = {}
        notes = []
        for disk, answer in zip(self.watched, answers, strict=True):
            if not answer:
                continue
            sentence = f"disk {disk.path}: {answer}"
            down = joined((down, dict.fromkeys(disk.services, sentence)))
            if not disk.services:
                notes.append(sentence)
        self._found = Found(down, notes=notes)

    def found(self) -> Found:
        return self._found


def watched(cluster: ClusterFile, writes_to: Path) -> tuple[Disk, ...]:
    """Return the disks of the cluster file; when it says nothing of disks, those that a member itself writes to."""
    if cluster.disks is not None:
        return cluster.disks
    signing = ("puppetca",) if signs_itself(cluster) else ()
    # Without a store smartproxy answers most calls as ever, and members of one SQLite file would all leave at once; the
    # Puppet CA can do nothing.
    found = [Disk(path=writes_to, services=signing, min_free_bytes=_LEAST_ROOM_BYTES)]
    file = Place.parsed(cluster.store.url).file
    if file is not None:
        found.insert(0, Disk(path=file.parent, services=signing, min_free_bytes=_LEAST_ROOM_BYTES))
    return tuple(found)


def _room_on(disk: Disk) -> str:
    """Return what is wrong with a disk, empty when nothing is."""
    try:
        left = os.statvfs(disk.path)
    except OSError as e:
        return e.strerror or str(e)
    free = left.f_bavail * left.f_frsize
    if free < disk.min_free_bytes:
        return f"{free >> 20} MiB left, {disk.min_free_bytes >> 20} MiB are needed"
    return "no room for another file" if left.f_files and not left.f_favail else ""
