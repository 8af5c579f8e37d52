"""A backup, read: all of it is verified before anybody acts on any of it.

It may be anybody's, for age says to whom something was encrypted and not by whom. Nothing is unpacked; files, few and small,
are held in memory, and the store's tables are read again, part by part, when they are written.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from muster.app.backup import sealed
from muster.app.backup.entries import Entry, Sum, entries
from muster.app.backup.files import CLUSTER_FILE, LARGEST_BYTES
from muster.app.backup.made import TABLE_ENTRY, part_name
from muster.app.backup.manifest import LARGEST_BYTES as LARGEST_MANIFEST
from muster.app.backup.manifest import MANIFEST, SUMS, Manifest, Sums, read
from muster.kernel.errors import Misconfigured
from muster.kernel.names import shown
from muster.store import copies

_MOST_FILES = 10_000
_LARGEST_FILES = 256 << 20
# A part has so many bytes, or one row that is larger.
_LARGEST_PART = 256 << 20


@dataclass(frozen=True)
class Archive:
    """A backup that is whole and as it was made.

    Attributes:
        files: content by name.
    """

    path: Path
    manifest: Manifest
    sums: Sums
    files: Mapping[str, bytes] = field(repr=False)
    _by: Sequence[Any] = field(repr=False)
    _file: BinaryIO = field(repr=False)

    def parts(self) -> Generator[tuple[str, list[copies.Row]], None, None]:
        """Yield the store's rows, by table, some at a time.

        Raises:
            Misconfigured: the file is not what it was a moment ago, or a row is none of its table.
        """
        self._file.seek(0)
        with sealed.opened(self._file, self._by, str(self.path)) as stream:
            for entry in entries(stream, str(self.path)):
                found = TABLE_ENTRY.fullmatch(entry.name)
                if found is None:
                    continue
                content = entry.content(_LARGEST_PART)
                if Sum(len(content), hashlib.sha256(content).hexdigest()) != self.sums.sum_of(entry.name):
                    raise Misconfigured(f"{self.path} was changed while it was read")
                yield found[1], copies.read(content, found[1])


@contextmanager
def opened(path: Path, identity: Path) -> Iterator[Archive]:
    """Yield a backup, verified from its first byte to its last, and held open so that it stays the same file.

    Raises:
        Misconfigured: it cannot be read or opened, was cut off, or is not as it was made.
    """
    by = sealed.identities(identity)
    with _file(path) as file:
        with sealed.opened(file, by, str(path)) as stream:
            manifest, sums, files = _read(stream, str(path))
        yield Archive(path, manifest, sums, files, by, file)


def _file(path: Path) -> BinaryIO:
    try:
        # Who opens a pipe would wait for somebody to write into it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        raise Misconfigured(f"Reading backup {path} failed: {e.strerror or e}") from e
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Misconfigured(f"{path} is no file; a backup is read twice, so it cannot come from a pipe")
    return os.fdopen(fd, "rb")


def _read(stream: sealed.Opened, where: str) -> tuple[Manifest, Sums, dict[str, bytes]]:
    manifest: Manifest | None = None
    sums: Sums | None = None
    found: dict[str, Sum] = {}
    files: dict[str, bytes] = {}
    named: set[str] = set()
    size = 0
    last_part = ("", 0)
    for entry in entries(stream, where):
        if sums is not None:
            raise Misconfigured(f"{where} holds {shown(entry.name)} behind its sums")
        if manifest is None:
            if entry.name != MANIFEST:
                raise Misconfigured(f"{where} is no backup: it begins with {shown(entry.name)}, not with {MANIFEST}")
            content = entry.content(LARGEST_MANIFEST)
            manifest = read(Manifest, content, MANIFEST, where)
            named = {f.name for f in manifest.files}
            found[entry.name] = _sum(content)
        elif entry.name == SUMS:
            sums = read(Sums, entry.content(LARGEST_MANIFEST), SUMS, where)
        elif part := TABLE_ENTRY.fullmatch(entry.name):
            before = last_part[1] if last_part[0] == part[1] else 0
            if part[1] not in manifest.tables or entry.name != part_name(part[1], before + 1):
                raise Misconfigured(f"{where} holds {shown(entry.name)}, which is not next of what its manifest names")
            last_part = (part[1], before + 1)
            found[entry.name] = _summed(entry, where)
        else:
            size += entry.size
            if entry.name not in named:
                raise Misconfigured(f"{where} holds {shown(entry.name)}, which its manifest does not name")
            if len(files) >= _MOST_FILES or size > _LARGEST_FILES:
                raise Misconfigured(f"{where} holds more files than a cluster has")
            files[entry.name] = entry.content(LARGEST_BYTES)
            found[entry.name] = _sum(files[entry.name])
    if manifest is None or sums is None:
        raise Misconfigured(f"{where} ends before its sums: it was not made to its end")
    _refuse_difference(manifest, sums, found, files, where)
    return manifest, sums, files


def _refuse_difference(
    manifest: Manifest, sums: Sums, found: Mapping[str, Sum], files: Mapping[str, bytes], where: str
) -> None:
    if absent := sorted({f.name for f in manifest.files} - files.keys()):
        raise Misconfigured(f"{where} lacks {shown(absent[0])}, which its manifest names")
    if CLUSTER_FILE not in files:
        raise Misconfigured(f"{where} has no cluster file")
    if differing := sorted(n for n in found.keys() | sums.entries.keys() if found.get(n) != sums.sum_of(n)):
        raise Misconfigured(f"{where} is not as it was made: {shown(differing[0])} differs from its sums")
    if not sums.rows.keys() <= set(manifest.tables):
        raise Misconfigured(f"{where} is not as it was made: its sums name tables that its manifest does not")


def _sum(content: bytes) -> Sum:
    return Sum(len(content), hashlib.sha256(content).hexdigest())


def _summed(entry: Entry, where: str) -> Sum:
    if entry.size > _LARGEST_PART:
        raise Misconfigured(f"{where} holds {shown(entry.name)} with {entry.size} bytes; {_LARGEST_PART} are the most")
    digest = hashlib.sha256()
    for piece in entry.pieces():
        digest.update(piece)
    return Sum(entry.size, digest.hexdigest())
