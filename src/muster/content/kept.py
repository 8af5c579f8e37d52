"""Content that is kept on this member's disk, each file under the SHA-256 of its bytes, within a limit.

``ROOT/sha256/ab/abcdef…``: a name tells its bytes, so nothing is ever changed in place, and of two who keep the same bytes
either may win. What is being written is ``ROOT/.new-…``, locked by who writes it: where that process is gone the file goes,
too, when the directory is opened the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from muster.content import files, validators
from muster.content.files import Opened
from muster.content.validators import Digest
from muster.edge.replies import Header, Reply, Streamed
from muster.edge.request import Request
from muster.kernel import log
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.files import give_to_owner, make_directory, sync_directory

_log = log.logger("content")
T = TypeVar("T")

_NAME = re.compile(r"[0-9a-f]{64}\Z")
_NEW = re.compile(r"\.new-[0-9a-f]{16}\Z")
_PREFIXES = tuple(f"{n:02x}" for n in range(256))
_PIECE_BYTES = 1 << 20
# Hashing a large file takes seconds; what is served meanwhile waits for no thread.
_HASHERS = 2
# Of files whose bytes were looked at; what is forgotten is looked at again.
_REMEMBERED = 1 << 16
# So many, and whoever is cancelled waits for no more.
_REMOVED_AT_ONCE = 256
# How exactly it is known when a file was last opened.
_TOUCHED_S = 1.0
# For how long a call that ends without success waits until nothing is left of it.
_PATIENCE_S = 2.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# The disk, or the file system by its checksums, says that the bytes are gone.
_LOST = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})


class Differs(MusterError):
    """What came is not what was expected; nothing of it is kept."""

    status = 502
    retryable = True


class Oversized(MusterError):
    """What came is larger than such a file may be; nothing of it is kept."""

    status = 502


class Full(Unavailable):
    """There is no room for it, by the limit or on the disk; nothing of it is kept."""


class Kept:
    """One directory of files by digest. Use :meth:`close`.

    Concurrency: any number of calls and of processes that read; one process adds, reclaims and drops, any number of calls
    at once. A file system that hangs holds up these threads, and nobody else's.

    Attributes:
        limit_bytes: how many the files may have together, those that are being written included.
    """

    def __init__(self, root: Path, *, limit_bytes: int, clock: Clock | None = None) -> None:
        self.limit_bytes = limit_bytes
        self._root = root
        self._files = root / "sha256"
        self._clock = clock if clock is not None else SystemClock()
        self._threads = ThreadPoolExecutor(files.THREADS, "kept")
        self._hashers = ThreadPoolExecutor(_HASHERS, "kept-hash")
        # Held while a file comes or goes, so that what is counted is what is there.
        self._lock = threading.Lock()
        self._size = 0
        self._promised = 0
        self._known: dict[str, tuple[tuple[int, ...], bool]] = {}
        self._looking: dict[tuple[str, tuple[int, ...]], Future[bool]] = {}
        self._counting = self._threads.submit(self._begin)

    def close(self) -> None:
        """Wait for nothing that still reads or writes."""
        for pool in (self._threads, self._hashers):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def size_bytes(self) -> int:
        """How many bytes this process knows to be kept; 0 until they are counted, see :meth:`counted`."""
        return self._size

    @property
    def promised_bytes(self) -> int:
        """How many bytes more what is being written will take."""
        return self._promised

    async def counted(self) -> int:
        """Return how many bytes are kept, as soon as those of before are counted.

        Raises:
            Unavailable: the disk refused; the next call tries again.
        """
        counting = self._counting
        try:
            await asyncio.shield(asyncio.wrap_future(counting))
        except OSError as e:
            if self._counting is counting:
                self._counting = self._threads.submit(self._begin)
            raise Unavailable(f"Counting what {self._root} holds failed: {e.strerror or e}") from e
        return self._size

    async def add(
        self,
        pieces: AsyncIterator[bytes],
        *,
        algorithm: str = "sha256",
        digest: str | None,
        size: int | None = None,
        largest: int,
    ) -> str:
        """Keep the bytes and return their SHA-256; what is kept already is replaced by the same.

        ``digest``, by ``algorithm``, and ``size`` are what is expected; None: whatever comes, up to ``largest`` bytes. When
        this returns the file is whole, and survives a power cut. When it raises, also because it was cancelled or the
        pieces broke off, nothing is left, save a file that was whole in that moment. Whoever gave the pieces ends them.

        Raises:
            Rejected: the digest expected is none.
            Differs: other bytes came, or more or fewer.
            Oversized: more than ``largest`` came, or would; the rest was not asked for.
            Full: there is no room.
            Unavailable: the disk refused.
        """
        wanted = validators.digest(algorithm, digest) if digest is not None else None
        if size is not None and size > largest:
            raise Oversized(f"Keeping {_called(wanted)} is refused: its {size} bytes are more than {largest}")
        await self.counted()
        new = _New(self._root, algorithm if wanted is not None else "sha256")
        with self._room() as take:
            if size is not None:
                take(size)
            try:
                came = 0
                waiting: list[bytes] = []
                async for piece in pieces:
                    came += len(piece)
                    if came > largest:
                        raise Oversized(f"Keeping {_called(wanted)} was ended: more than {largest} bytes came")
                    if size is not None and came > size:
                        raise Differs(f"Of {_called(wanted)} {size} bytes were expected, and more came")
                    if size is None:
                        take(len(piece))
                    waiting.append(piece)
                    # So much is worth the way to a thread.
                    if came - new.size >= _PIECE_BYTES:
                        await self._done("Writing", new.write, waiting)
                        waiting = []
                await self._done("Writing", new.write, waiting)
                if size is not None and came < size:
                    raise Differs(f"Of {_called(wanted)} {size} bytes were expected, and {came} came")
                if wanted is not None and new.digest != wanted:
                    raise Differs(f"{_called(wanted)} was expected, and {came} bytes of {_called(new.digest)} came")
                await self._done("Writing", self._place, new)
            except BaseException:
                await self._abandoned(new)
                raise
        return new.sha256

    async def add_bytes(self, body: bytes) -> str:
        """Keep a small body and return its SHA-256; as :meth:`add`.

        Raises:
            Full: there is no room.
            Unavailable: the disk refused.
        """

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield body

        return await self.add(pieces(), digest=None, size=len(body), largest=len(body))

    async def open(self, sha256: str, *, removes_damaged: bool = False) -> Opened | None:
        """Return a file whose bytes are what its name says; None: there is none, or they are not.

        All of its bytes are looked at when this process opens it for the first time, and again when it has changed; what a
        disk loses after that, :meth:`verify` finds. Whoever gets it closes it. ``removes_damaged``: so that it is brought
        again; where another process than this one adds, that one counts it still.

        Raises:
            Rejected: the name is no SHA-256.
            Unavailable: the disk refused.
        """
        name = validators.digest("sha256", sha256).value
        try:
            found = await files.opened(self._threads, partial(_found, self._at(name), is_touched=True))
            if found is None:
                return None
            try:
                if await self._is_whole(name, found):
                    return found
            except BaseException:
                found.close()
                raise
            found.close()
            if removes_damaged:
                await self._done("Removing", self._remove_damaged, name, found.identity)
            return None
        except OSError as e:
            raise self._refused("Reading", e) from e

    async def path(self, sha256: str) -> Path | None:
        """Return where a file is, for who needs a path; as :meth:`open`, and it may be reclaimed or damaged later.

        Raises:
            Rejected: the name is no SHA-256.
            Unavailable: the disk refused.
        """
        found = await self.open(sha256)
        if found is None:
            return None
        found.close()
        return self._at(sha256)

    async def has(self, *sha256: str) -> bool:
        """Whether all of these are there, which counts as used; what their bytes are is looked at when they are opened.

        Raises:
            Rejected: a name is no SHA-256.
            Unavailable: the disk refused.
        """
        names = [validators.digest("sha256", one).value for one in sha256]
        return await self._done("Looking", lambda: all(_is_there(self._at(name)) for name in names))

    async def read(self, sha256: str) -> bytes | None:
        """Return the bytes of a small file; as :meth:`open`.

        Raises:
            Rejected: the name is no SHA-256.
            Unavailable: the disk refused.
        """
        found = await self.open(sha256)
        return await self.taken(found) if found is not None else None

    async def taken(self, found: Opened) -> bytes:
        """Return the bytes of a small file that is open, and close it.

        Raises:
            Unavailable: the disk refused, or the file has become shorter since.
        """
        try:
            body = await self._done("Reading", found.read, found.size, 0)
        finally:
            found.close()
        if len(body) != found.size:
            raise Unavailable(f"A file in {self._root} became shorter while it was read")
        return body

    async def answer(
        self,
        sha256: str,
        request: Request,
        *,
        content_type: bytes,
        digest: Digest | None = None,
        also: Iterable[Header] = (),
    ) -> Reply | Streamed | None:
        """Answer a call from a file; None: there is none, or its bytes are not what its name says.

        ``digest`` is what the validator says of it, by default its SHA-256; ``also`` are headers that go with it.

        Raises:
            Rejected: the name is no SHA-256.
            Unavailable: the disk refused.
        """
        if (refused := files.unread(request)) is not None:
            return refused
        found = await self.open(sha256)
        if found is None:
            return None
        return self.answered(found, sha256, request, content_type=content_type, digest=digest, also=also)

    def answered(
        self,
        found: Opened,
        sha256: str,
        request: Request,
        *,
        content_type: bytes,
        digest: Digest | None = None,
        also: Iterable[Header] = (),
    ) -> Reply | Streamed:
        """Answer ``GET`` or ``HEAD`` from a file that is open, which is closed with the answer; as :meth:`answer`."""
        return files.answered(
            found, request, threads=self._threads, called="a file that is kept here", content_type=content_type,
            digest=digest or Digest("sha256", sha256), also=also,
        )  # fmt: skip

    async def reclaim(self, keep: Callable[[str], bool] | Container[str], *, older_than_s: float) -> int:
        """Remove what is not to be kept and was not added, opened or found for so long; return how many bytes that freed.

        Who reads such a file goes on reading it. A ``keep`` that is called is called in a thread.

        Raises:
            Unavailable: the disk refused; what was removed is.
        """
        await self.counted()
        is_kept = keep if callable(keep) else keep.__contains__
        freed = 0
        for prefix in _PREFIXES:
            freed += await self._done("Removing", self._reclaimed, prefix, is_kept, older_than_s)
        return freed

    async def shrink(self, to_bytes: int, keep: Callable[[str], bool] | Container[str]) -> int:
        """Remove what was added or opened longest ago until so many bytes are kept; return how many bytes that freed.

        What is to be kept stays, also where more bytes are left, then; so does what is opened meanwhile. Who reads a file
        that goes goes on reading it. A ``keep`` that is called is called in a thread, just before each removal.

        Raises:
            Unavailable: the disk refused; what was removed is.
        """
        is_kept = keep if callable(keep) else keep.__contains__
        freed = 0
        while await self.counted() > to_bytes:
            oldest: list[tuple[int, str]] = []
            for prefix in _PREFIXES:
                oldest += await self._done("Looking", self._uses, prefix)
            oldest.sort()
            removed = 0
            for first in range(0, len(oldest), _REMOVED_AT_ONCE):
                if self._size <= to_bytes:
                    break
                some = oldest[first : first + _REMOVED_AT_ONCE]
                removed += await self._done("Removing", self._shrunk, some, to_bytes, is_kept)
            freed += removed
            # What was opened meanwhile is looked at again, unless nothing else would go.
            if not removed:
                break
        return freed

    async def held(self, keep: Callable[[str], bool] | Container[str]) -> int:
        """Return how many bytes that takes which is to be kept. A ``keep`` that is called is called in a thread.

        Raises:
            Unavailable: the disk refused.
        """
        await self.counted()
        is_kept = keep if callable(keep) else keep.__contains__
        return sum([await self._done("Looking", self._held, prefix, is_kept) for prefix in _PREFIXES])

    async def drop(self, sha256: str) -> bool:
        """Remove a file, whatever it is for; false: there was none.

        Raises:
            Rejected: the name is no SHA-256.
            Unavailable: the disk refused.
        """
        name = validators.digest("sha256", sha256).value
        await self.counted()
        return await self._done("Removing", self._removed, name) is not None

    async def verify(
        self, *, bytes_per_s: float, progress: Callable[[int, int], None] = lambda _done, _of: None
    ) -> AsyncGenerator[str, None]:
        """Read every file, at this pace at most, and yield the names of those whose bytes are not what they say.

        ``progress`` hears after each piece how many bytes were read, and of how many.

        Raises:
            Unavailable: the disk refused.
        """
        of, done = await self.counted(), 0
        for prefix in _PREFIXES:
            for name in await self._done("Reading", self._names, prefix):
                found = await self._looked_at(name)
                if found is None:
                    continue
                digest, at = hashlib.sha256(), 0
                is_lost = False
                try:
                    while at < found.size and not is_lost:
                        count = await self._hashed(digest, found, at)
                        is_lost = not count
                        at, done = at + count, done + count
                        progress(done, max(of, done))
                        await self._clock.sleep(count / bytes_per_s)
                finally:
                    found.close()
                is_whole = not is_lost and digest.hexdigest() == name
                # Somebody may have put a whole one in its place by now.
                if await self._done("Reading", self._is_still, name, found.identity):
                    self._remember(name, found.identity, is_whole)
                    if not is_whole:
                        yield name

    async def _looked_at(self, name: str) -> Opened | None:
        try:
            return await files.opened(self._threads, partial(_found, self._at(name), is_touched=False))
        except OSError as e:
            raise self._refused("Reading", e) from e

    async def _hashed(self, digest: hashlib._Hash, file: Opened, at: int) -> int:
        """Add a piece to the digest and return its length; 0: there is none where there should be."""

        def hashed() -> int:
            piece = file.read(_PIECE_BYTES, at)
            digest.update(piece)
            return len(piece)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._hashers, hashed)
        except OSError as e:
            if e.errno in _LOST:
                return 0
            raise self._refused("Reading", e) from e

    async def _is_whole(self, name: str, file: Opened) -> bool:
        """Whether the bytes are what the name says, as this process knows, or by looking at all of them.

        Raises:
            OSError: the disk refused.
        """
        known = self._known.get(name)
        if known is not None and known[0] == file.identity:
            return known[1]
        # Whoever comes meanwhile waits for the same look.
        key = name, file.identity
        looking = self._looking.get(key)
        if looking is None:
            # A descriptor of its own: the first who asked may go away.
            looking = self._looking[key] = self._hashers.submit(_is_whole, os.dup(file.fileno()), name, file.identity)
        try:
            is_whole = await asyncio.shield(asyncio.wrap_future(looking))
        finally:
            if looking.done() and self._looking.get(key) is looking:
                del self._looking[key]
        self._remember(name, file.identity, is_whole)
        return is_whole

    def _remember(self, name: str, identity: tuple[int, ...], is_whole: bool) -> None:
        before = self._known.pop(name, None)
        self._known[name] = (identity, is_whole)
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        if not is_whole and before != (identity, False):
            _log.warning(f"{self._at(name)} is damaged: its bytes are not what its name says; it is not served")

    @contextlib.contextmanager
    def _room(self) -> Iterator[Callable[[int], None]]:
        """Yield what sets bytes aside until the block ends, or raises Full."""
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            held = self._size + self._promised
            if held + count > self.limit_bytes:
                raise Full(
                    f"Keeping {count} bytes more in {self._root} failed: {held} of {self.limit_bytes} bytes are taken, "
                    "and nothing was kept"
                )
            taken += count
            self._promised += count

        try:
            yield take
        finally:
            self._promised -= taken

    async def _done(self, tried: str, job: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, job, *arguments)
        except OSError as e:
            raise self._refused(tried, e) from e

    def _refused(self, tried: str, e: OSError) -> Unavailable:
        if e.errno in _FULL:
            return Full(f"{tried} a file in {self._root} failed: {e.strerror}; nothing was kept, make room there")
        return Unavailable(f"{tried} a file in {self._root} failed: {e.strerror or e}")

    async def _abandoned(self, new: _New) -> None:
        """Leave nothing of a file that was being written; a disk that hangs is not waited for."""
        new.is_wanted = False
        # Closed: then the next process removes it.
        with contextlib.suppress(RuntimeError):
            await asyncio.wait({asyncio.wrap_future(self._threads.submit(new.abandon))}, timeout=_PATIENCE_S)

    # What follows runs in threads.

    def _at(self, name: str) -> Path:
        return self._files / name[:2] / name

    def _begin(self) -> None:
        """Remove what processes that are gone have left, and count the rest.

        Raises:
            OSError: the disk refused.
        """
        for path in _listed(self._root):
            if _NEW.match(path.name):
                _remove_left(self._root / path.name)
        count = 0
        for prefix in _PREFIXES:
            for entry in self._entries(prefix):
                with contextlib.suppress(FileNotFoundError):
                    count += entry.stat(follow_symlinks=False).st_size
        self._size = count

    def _entries(self, prefix: str) -> Iterator[os.DirEntry[str]]:
        for entry in _listed(self._files / prefix):
            if _NAME.match(entry.name) and entry.name.startswith(prefix) and entry.is_file(follow_symlinks=False):
                yield entry

    def _names(self, prefix: str) -> list[str]:
        return sorted(entry.name for entry in self._entries(prefix))

    def _place(self, new: _New) -> None:
        at = self._at(new.sha256)
        for directory in (self._files, at.parent):
            _make(directory, like=self._root)
        new.sync()
        with self._lock:
            before = _size(at)
            new.rename(at)
            self._size += new.size - before
        sync_directory(at.parent)

    def _reclaimed(self, prefix: str, is_kept: Callable[[str], bool], older_than_s: float) -> int:
        freed = 0
        for entry in self._entries(prefix):
            if not is_kept(entry.name):
                before_ns = time.time_ns() - int(older_than_s * 1e9)
                freed += self._removed(entry.name, before_ns) or 0
        return freed

    def _held(self, prefix: str, is_kept: Callable[[str], bool]) -> int:
        return sum(_size(self._at(entry.name)) for entry in self._entries(prefix) if is_kept(entry.name))

    def _uses(self, prefix: str) -> list[tuple[int, str]]:
        """Return when each file was used last, with its name."""
        found = []
        for entry in self._entries(prefix):
            with contextlib.suppress(FileNotFoundError):
                found.append((_used_ns(entry.stat(follow_symlinks=False)), entry.name))
        return found

    def _shrunk(self, oldest: list[tuple[int, str]], to_bytes: int, is_kept: Callable[[str], bool]) -> int:
        freed = 0
        for used_ns, name in oldest:
            if self._size <= to_bytes:
                break
            if not is_kept(name):
                freed += self._removed(name, used_ns + 1) or 0
        return freed

    def _removed(self, name: str, before_ns: int | None = None) -> int | None:
        """Remove a file and return its size; None: there is none, or it was not last used before that."""
        at = self._at(name)
        with self._lock, contextlib.suppress(FileNotFoundError):
            found = at.lstat()
            if before_ns is None or _used_ns(found) < before_ns:
                at.unlink()
                self._size -= found.st_size
                return found.st_size
        return None

    def _remove_damaged(self, name: str, identity: tuple[int, ...]) -> None:
        at = self._at(name)
        # A disk that does not let it go keeps what nobody is given.
        with self._lock, contextlib.suppress(OSError):
            if files.identity(at.lstat()) == identity:
                at.unlink()
                self._size -= identity[-1]

    def _is_still(self, name: str, identity: tuple[int, ...]) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return files.identity(self._at(name).lstat()) == identity
        return False


class _New:
    """A file that is being written and has no name yet that anybody reads. Its methods run in threads, one after another.

    Attributes:
        size: how many bytes were written.
        is_wanted: false: it gets no name any more.
    """

    def __init__(self, root: Path, algorithm: str) -> None:
        self.size = 0
        self.is_wanted = True
        self._root = root
        self._path = root / f".new-{secrets.token_hex(8)}"
        self._algorithm = algorithm
        self._key = hashlib.sha256()
        self._hashes = {"sha256": self._key}
        if algorithm not in self._hashes:
            self._hashes[algorithm] = hashlib.new(algorithm)
        self._fd: int | None = None
        # Whoever is cancelled waits for no thread; what comes after it, in another one, does.
        self._lock = threading.Lock()

    @property
    def sha256(self) -> str:
        return self._key.hexdigest()

    @property
    def digest(self) -> Digest:
        """By the algorithm that was asked for."""
        return Digest(self._algorithm, self._hashes[self._algorithm].hexdigest())

    def write(self, pieces: list[bytes]) -> None:
        with self._lock:
            if not self.is_wanted:
                return
            if self._fd is None:
                self._fd = self._opened()
            some = b"".join(pieces)
            for one in self._hashes.values():
                one.update(some)
            left = memoryview(some)
            while left:
                left = left[os.write(self._fd, left) :]
            self.size += len(some)

    def sync(self) -> None:
        with self._lock:
            if self._fd is not None:
                os.fsync(self._fd)

    def rename(self, at: Path) -> None:
        with self._lock:
            if self._fd is None or not self.is_wanted:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path))
            self._path.rename(at)
            self._close()

    def abandon(self) -> None:
        """Leave nothing, unless it has got its name."""
        with self._lock:
            if self._fd is not None:
                # Before the lock goes, so that nobody finds it.
                with contextlib.suppress(OSError):
                    self._path.unlink()
                self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _opened(self) -> int:
        _make(self._root)
        while True:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                # A file system without locks has nothing removed, then.
                with contextlib.suppress(OSError):
                    fcntl.flock(fd, fcntl.LOCK_EX)
                # Between the two lines somebody may have taken it for one that was left.
                if os.fstat(fd).st_nlink:
                    give_to_owner(self._path, like=self._root, mode=0o600)
                    return fd
            except BaseException:
                os.close(fd)
                self._path.unlink(missing_ok=True)
                raise
            os.close(fd)


def _called(wanted: Digest | None) -> str:
    return f"{wanted.algorithm}:{wanted.value}" if wanted is not None else "a file"


def _found(at: Path, *, is_touched: bool) -> Opened | None:
    """Open a file; ``is_touched``: it counts as used.

    Raises:
        OSError: the file system refused.
    """
    try:
        found = Opened.of(_descriptor(at))
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    if found is not None and is_touched:
        with contextlib.suppress(OSError):
            _touch(found.fileno(), os.fstat(found.fileno()))
    return found


def _is_there(at: Path) -> bool:
    """Whether there is a file; it counts as used.

    Raises:
        OSError: the file system refused.
    """
    try:
        found = at.lstat()
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    if not stat.S_ISREG(found.st_mode):
        return False
    try:
        _touch(at, found)
    except FileNotFoundError:
        # Reclaimed in this moment.
        return False
    except OSError:
        pass
    return True


def _touch(file: int | Path, found: os.stat_result) -> None:
    """Say that a file was used; file systems are mounted to note it once a day, or never."""
    now = time.time_ns()
    if now - found.st_atime_ns > _TOUCHED_S * 1e9:
        os.utime(file, ns=(now, found.st_mtime_ns))


def _descriptor(at: Path) -> int:
    # Not waiting for whoever might write into a pipe; a link is none of ours.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        # Looking at a file is not using it.
        return os.open(at, flags | os.O_NOATIME)
    except PermissionError:
        # It is another account's.
        return os.open(at, flags)


def _is_whole(descriptor: int, name: str, identity: tuple[int, ...]) -> bool:
    """Whether the bytes are what the name says, and stayed so while they were read; the descriptor is closed.

    Raises:
        OSError: the file system refused.
    """
    file = Opened.of(descriptor)
    if file is None:
        return False
    with contextlib.closing(file):
        digest, at = hashlib.sha256(), 0
        try:
            while piece := file.read(_PIECE_BYTES, at):
                digest.update(piece)
                at += len(piece)
        except OSError as e:
            if e.errno in _LOST:
                return False
            raise
        return digest.hexdigest() == name and files.identity(os.fstat(file.fileno())) == identity


def _make(directory: Path, *, like: Path | None = None) -> None:
    if not directory.is_dir():
        make_directory(directory, mode=0o700, like=like)
        sync_directory(directory.parent)


def _listed(directory: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            yield from found
    except (FileNotFoundError, NotADirectoryError):
        return


def _used_ns(found: os.stat_result) -> int:
    return max(found.st_mtime_ns, found.st_atime_ns)


def _size(at: Path) -> int:
    try:
        return at.lstat().st_size
    except FileNotFoundError:
        return 0


def _remove_left(path: Path) -> None:
    """Remove a file that was being written, when nobody writes it any more."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # Who writes it holds the lock; who died does not.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(fd)
