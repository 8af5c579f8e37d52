"""A stand-in for the cluster's tree of boot files, with one member: in memory, and in a directory that is served from.

What the real one does, and where the two must not differ, is said in ``muster/netboot/contract.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from muster.edge.feature import Surroundings
from muster.features.httpboot import manifest as httpboot
from muster.features.tftp import manifest as tftp
from muster.kernel.errors import NotFound, Rejected, Unavailable
from muster.netboot.contract import (
    LIMIT_WRITTEN_BYTES,
    PASSED_BYTES,
    BootPath,
    Change,
    Entry,
    Fetch,
    Link,
    Put,
    Remove,
    RemoveBelow,
)


@dataclass
class BootTreeStandIn:
    """The stand-in.

    Attributes:
        changed: every set of changes that was asked for, with whose boot it was.
        fetched: every URL that was asked for, with how long was waited.
        outcome: what becomes of fetches: how far the next ones are when the wait has ended.
        is_away: whether the store does not answer.
        is_behind: whether this member is behind, and does not come.
        lacks: what this member's directory has not although the tree has.
        elsewhere: what other members have of that, by path.
    """

    root: Path
    changed: list[tuple[tuple[Change, ...], str]] = field(default_factory=list)
    fetched: list[tuple[str, str, float]] = field(default_factory=list)
    outcome: Fetch | None = None
    is_away: bool = False
    is_behind: bool = False
    lacks: set[str] = field(default_factory=set)
    elsewhere: dict[str, bytes] = field(default_factory=dict)
    _version: int = 0
    _files: dict[str, bytes] = field(default_factory=dict)
    _entries: dict[str, Entry] = field(default_factory=dict)
    _fetches: list[Fetch] = field(default_factory=list)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def contents(self) -> dict[str, str]:
        """Return the tree: the texts of files, and ``-> TARGET`` of links, by path."""
        return {
            path: f"-> {entry.target}" if entry.kind == "link" else self._files[path].decode()
            for path, entry in sorted(self._entries.items())
        }

    async def read(self, path: BootPath) -> bytes:
        entry = self._entries.get(str(path))
        if entry is None or entry.kind != "file":
            raise NotFound(f"There is no boot file {path}")
        if entry.size > LIMIT_WRITTEN_BYTES:
            raise Rejected(f"{path} is larger than a file that is read whole")
        return self._files[str(path)]

    async def listed(self, directory: str = "") -> Sequence[Entry]:
        self._refuse_if_away()
        return [e for _, e in sorted(self._entries.items()) if e.path.is_below(directory)]

    async def lookup(self, path: BootPath) -> Entry | None:
        self._refuse_if_away()
        return self._entries.get(str(path))

    async def change(self, changes: Sequence[Change], *, about: str = "") -> None:
        self._refuse_if_away()
        async with self._lock:
            files, entries = dict(self._files), dict(self._entries)
            try:
                for change in changes:
                    self._carry_out(change)
                    # Somebody else may want to be in between.
                    await asyncio.sleep(0)
            except BaseException:
                self._files, self._entries = files, entries
                raise
            self.changed.append((tuple(changes), about))
            self._version += 1
            self._write()

    async def fetch(self, path: BootPath, url: str, *, wait_s: float, about: str = "") -> Fetch:
        self._refuse_if_away()
        self.fetched.append((str(path), url, wait_s))
        found = replace(self.outcome or Fetch(path, url, "done", "proxy01", 3, 3, "", 1.0, 2.0), path=path, url=url)
        self._fetches.insert(0, found)
        if found.state == "done":
            await self.change([Put(path, b"img")], about=about)
        return found

    async def fetches(self) -> Sequence[Fetch]:
        self._refuse_if_away()
        return list(self._fetches)

    async def passed(self, entry: Entry, first: int, count: int) -> AsyncGenerator[bytes, None]:
        if str(entry.path) not in self.elsewhere:
            raise NotFound("no other member has it")
        content = self.elsewhere[str(entry.path)][first : first + count]
        for at in range(0, count, PASSED_BYTES):
            yield content[at : at + PASSED_BYTES]

    async def current(self) -> None:
        if self.is_behind:
            raise Unavailable("This member's boot files are behind the cluster's")

    def _refuse_if_away(self) -> None:
        if self.is_away:
            raise Unavailable("The store did not answer")

    def _carry_out(self, change: Change) -> None:
        match change:
            case Put(path, content):
                if len(content) > LIMIT_WRITTEN_BYTES:
                    raise Rejected(f"{path} is too large")
                self._stand(Entry(path, "file", self._version, hashlib.sha256(content).hexdigest(), len(content)))
                self._files[str(path)] = content
            case Link(path, target):
                whole = os.path.normpath(os.path.join("/", "root", path.parent, target))  # noqa: PTH118 - no file's
                if target.startswith("/") or not whole.startswith("/root/"):
                    raise Rejected(f"{path} would lead out of the tree")
                self._stand(Entry(path, "link", self._version, target=target))
            case Remove(path):
                self._forget(str(path))
            case RemoveBelow(directory, suffix, directly):
                for entry in list(self._entries.values()):
                    is_meant = entry.path.is_below(str(directory)) and entry.path.name.endswith(suffix)
                    if is_meant and (not directly or entry.path.parent == str(directory)):
                        self._forget(str(entry.path))

    def _stand(self, entry: Entry) -> None:
        path = str(entry.path)
        if any(e.path.is_below(path) for e in self._entries.values()):
            raise Rejected(f"{path} is a directory")
        above = entry.path.parent
        while above:
            if above in self._entries:
                raise Rejected(f"{above} is no directory")
            above = above.rpartition("/")[0]
        self._forget(path)
        self._entries[path] = entry

    def _forget(self, path: str) -> None:
        self._entries.pop(path, None)
        self._files.pop(path, None)

    def _write(self) -> None:
        """Make the directory what the tree is; what others put there is left alone at its top only."""
        kept = {entry.path.text.split("/", maxsplit=1)[0] for changes, _ in self.changed for entry in _named(changes)}
        for top in kept:
            found = self.root / top
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)
        for path, entry in self._entries.items():
            if path in self.lacks:
                continue
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if entry.kind == "link":
                place.symlink_to(entry.target)
            else:
                place.write_bytes(self._files[path])


def _named(changes: Sequence[Change]) -> Sequence[Put | Link]:
    return [c for c in changes if isinstance(c, Put | Link)]


@contextlib.contextmanager
def in_members(tree: BootTreeStandIn) -> Iterator[None]:
    """Let members that start in the block have the stand-in for their tree."""

    def opened_with(feature: Any) -> Any:
        def opened(settings: Any, around: Surroundings) -> Any:
            return feature.opened(settings, replace(around, boot=tree))

        return replace(feature, opened=opened)

    rooms: tuple[ModuleType, ...] = (tftp, httpboot)
    before = [room.FEATURE for room in rooms]
    for room, feature in zip(rooms, before, strict=True):
        room.FEATURE = opened_with(feature)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for room, feature in zip(rooms, before, strict=True):
            room.FEATURE = feature  # type: ignore[attr-defined]
