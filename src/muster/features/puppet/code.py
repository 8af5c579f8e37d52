"""Which code puppetserver has on this host: of each environment a digest of what stands in its files.

Members that compile have to compile the same. The server itself says what its code is in nothing but a catalog, and what
deployed the code wrote down what it meant to deploy, not what somebody changed since; when files were written says nothing,
since that differs between hosts with the same code (docs/facts/puppet-ca.md §10). So contents are read, once, and again
where a file is another one by its inode, size or times, which costs a call of stat(2) a file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from muster.kernel.names import shown

UNREADABLE, TOO_LARGE = "unreadable", "too large"
MOST_ENVIRONMENTS = 500

_NAME = re.compile(r"[A-Za-z0-9_]{1,200}\Z")
# What a deployment leaves behind that says when or by whom, and what is made of the code on each host: alike nowhere.
_LEFT_OUT = frozenset(
    {".git", ".svn", ".hg", ".r10k-deploy.json", ".g10k-deploy.json", ".latest_commit", ".resource_types"}
)
_MOST_FILES = 200_000
_MOST_BYTES = 4 << 30
_DEEPEST = 64
_PIECE_BYTES = 1 << 20
# So many files are looked at, and so many pieces read, before others get their turns.
_AT_ONCE = 128
_PAUSE_S = 0.002
# A file may change once more within one tick of the clock that stamps it.
_TICK_NS = 2_000_000_000


@dataclass(frozen=True)
class Code:
    """What was found.

    Attributes:
        state: ``read``; ``absent``, there is none on this host; ``unreadable``, that cannot be told.
        environments: by name a digest of 16 hexadecimal digits, or ``unreadable``, or ``too large``.
        shared: the same of what all environments use; empty where nothing is named.
        problems: what could not be read and why, a sentence each.
    """

    state: Literal["read", "absent", "unreadable"]
    environments: dict[str, str] = field(default_factory=dict)
    shared: str = ""
    problems: tuple[str, ...] = ()


class _TooLarge(Exception):
    """There is more than is read."""


class Reader:
    """Reads the code of one host again and again.

    Args:
        directories: those of environments (Puppet's ``environmentpath``); of a name that several have the first counts.
        shared: what else all environments use, as directories of modules.
        pause: called between files, so that others get their turns.
        now_ns: the clock by which files are new.

    Concurrency: in a thread, one call at a time.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        shared: Sequence[Path] = (),
        *,
        pause: Callable[[], None] = lambda: time.sleep(_PAUSE_S),
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._directories = tuple(directories)
        self._shared = tuple(shared)
        self._pause = pause
        self._now_ns = now_ns
        # By directory of what was read as one: what its files were like, and the digest of what stood in them.
        self._known: dict[str, tuple[bytes, bytes]] = {}
        self._seen: set[str] = set()
        self._files = 0
        self._bytes = 0
        self._steps = 0
        self.read_bytes = 0
        """What was read in all, not only looked at."""

    def read(self) -> Code:
        """Return what there is now. A file that is changed meanwhile may be in or not; the next call has it."""
        self._seen = set()
        try:
            return self._read()
        finally:
            self._known = {place: known for place, known in self._known.items() if place in self._seen}

    def _read(self) -> Code:
        problems: list[str] = []
        found: dict[str, str] = {}
        there = 0
        for directory in self._directories:
            try:
                entries = _listed(str(directory), is_needed=True)
            except FileNotFoundError:
                continue
            except OSError as e:
                return Code("unreadable", problems=(_unreadable(directory, e),))
            there += 1
            for entry in entries:
                if entry.name in found or not _NAME.match(entry.name) or _is_no_directory(entry):
                    continue
                if len(found) >= MOST_ENVIRONMENTS:
                    problems.append(
                        f"{directory} has more than {MOST_ENVIRONMENTS} environments; the others were not read"
                    )
                    break
                found[entry.name] = self._of([Path(entry.path)], problems)
        if not there:
            places = " nor ".join(map(str, self._directories))
            return Code("absent", problems=(f"There is no Puppet code on this host: no {places}",))
        return Code("read", found, self._of(self._shared, problems) if self._shared else "", tuple(problems))

    def _of(self, roots: Iterable[Path], problems: list[str]) -> str:
        """Return one digest of what stands below directories."""
        self._files = self._bytes = 0
        whole = hashlib.sha256()
        place: Path | str = ""
        try:
            for number, root in enumerate(roots):
                place = root
                # Of what is taken away later only that is missing.
                root.stat()
                for name, digest in self._parts(root):
                    whole.update(b"%d %s %s\n" % (number, name.hex().encode(), digest.hex().encode()))
        except _TooLarge:
            problems.append(f"{place} has more than {_MOST_FILES} files or {_MOST_BYTES >> 30} GiB, and was not read")
            return TOO_LARGE
        except OSError as e:
            problems.append(_unreadable(Path(os.fsdecode(e.filename)) if e.filename is not None else Path(place), e))
            return UNREADABLE
        return whole.hexdigest()[:16]

    def _parts(self, root: Path) -> Iterator[tuple[bytes, bytes]]:
        """Yield name and digest of each part of a directory: a part is a module, or another directory of the second level.

        Where one file of a part changed, all of it is read again, so that no more is kept of each than two digests.
        """
        loose: list[os.DirEntry[str]] = []
        for entry in _listed(str(root)):
            if not _is_directory(entry):
                loose.append(entry)
                continue
            single: list[os.DirEntry[str]] = []
            for inner in _listed(entry.path):
                if _is_directory(inner):
                    yield from self._part(inner.path, f"{entry.name}/{inner.name}", None)
                else:
                    single.append(inner)
            yield from self._part(entry.path, entry.name, single)
        yield from self._part(str(root), ".", loose)

    def _part(self, path: str, name: str, only: Sequence[os.DirEntry[str]] | None) -> Iterator[tuple[bytes, bytes]]:
        """Yield it, unless there is nothing in it; ``only`` are the files that count, None: everything."""
        files = sorted(self._walked(path, only))
        if not files:
            return
        stamps = hashlib.sha256()
        newest_ns = 0
        for file, at in files:
            newest_ns = max(newest_ns, at.st_ctime_ns, at.st_mtime_ns)
            stamp = (at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
            stamps.update(b"%s %s\n" % (_hex(file), repr(stamp).encode()))
        place = path if only is None else f"{path}/."
        self._seen.add(place)
        known = self._known.get(place)
        if known is not None and known[0] == stamps.digest():
            yield os.fsencode(name), known[1]
            return
        digest = hashlib.sha256()
        for file, _ in files:
            try:
                content = self._content(f"{path}/{file}")
            except FileNotFoundError:
                # Taken away meanwhile, as by a deployment.
                continue
            digest.update(b"%s %s\n" % (_hex(file), content.hex().encode()))
        self._known.pop(place, None)
        if newest_ns < self._now_ns() - _TICK_NS:
            self._known[place] = (stamps.digest(), digest.digest())
        yield os.fsencode(name), digest.digest()

    def _walked(self, top: str, only: Sequence[os.DirEntry[str]] | None) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the files below a directory, by their paths in it. What links lead to counts, not where they lead."""
        waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
        while waiting:
            where, above = waiting.pop()
            for entry in _listed(f"{top}/{where}") if only is None else only:
                self._step()
                if (at := _looked(entry)) is None:
                    continue
                # Directories count as well: by links they can be many without a file.
                self._files += 1
                self._bytes += at.st_size
                if self._files > _MOST_FILES or self._bytes > _MOST_BYTES:
                    raise _TooLarge
                own = (at.st_dev, at.st_ino)
                if stat.S_ISREG(at.st_mode):
                    yield where + entry.name, at
                elif stat.S_ISDIR(at.st_mode) and own not in above and len(above) < _DEEPEST:
                    # One that it is in already is a link that leads back.
                    waiting.append((f"{where}{entry.name}/", (*above, own)))

    def _content(self, path: str) -> bytes:
        """Return the digest of a file's content.

        Raises:
            OSError: it cannot be read.
        """
        digest = hashlib.sha256()
        # Since it was looked at it may have become something that waits for a writer.
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                return b""
            left = _MOST_BYTES
            while left > 0 and (piece := os.read(number, _PIECE_BYTES)):
                digest.update(piece)
                left -= len(piece)
                self.read_bytes += len(piece)
                self._step()
        finally:
            os.close(number)
        return digest.digest()

    def _step(self) -> None:
        self._steps += 1
        if self._steps % _AT_ONCE == 0:
            self._pause()


def _hex(name: str) -> bytes:
    # A name may be no text, and have any character.
    return os.fsencode(name).hex().encode()


def _listed(path: str, *, is_needed: bool = False) -> list[os.DirEntry[str]]:
    """Return what counts in a directory, by name; nothing when it was taken away since it was seen.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if e.name not in _LEFT_OUT), key=lambda e: os.fsencode(e.name))
    except FileNotFoundError:
        if is_needed:
            raise
        return []


def _looked(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return what there is, behind links; None: nothing.

    Raises:
        OSError: that cannot be told.
    """
    try:
        return entry.stat()
    except FileNotFoundError:
        return None
    except OSError as e:
        if e.errno == errno.ELOOP:
            return None
        raise


def _is_directory(entry: os.DirEntry[str]) -> bool:
    return (at := _looked(entry)) is not None and stat.S_ISDIR(at.st_mode)


def _is_no_directory(entry: os.DirEntry[str]) -> bool:
    """Whether there is certainly none: where that cannot be told, whoever reads it says why."""
    try:
        return not _is_directory(entry)
    except OSError:
        return False


def _unreadable(path: Path, error: OSError) -> str:
    return f"Puppet's code in {shown(str(path))} cannot be read: {error.strerror or error}"
