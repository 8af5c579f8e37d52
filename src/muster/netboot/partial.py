"""A file that is still coming: what has come of it outlives the connection and the process, and is counted as it comes.

Beside it lies a note that says whose bytes these are. Neither is ever where anything is served from.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from muster.kernel import files
from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.reasons import spoken

T = TypeVar("T")

_PIECE_BYTES = 1 << 20
_LIMIT_NOTE_BYTES = 16 << 10
_CLOSED_WITHIN_S = 5.0
_NOTE = ".note"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Full(Rejected):
    """There is no room for it on the disk; nothing of it was left there."""


@dataclass(frozen=True)
class Note:
    """Whose bytes a partial file has.

    Attributes:
        of: the URL, without a password, or the digest.
        if_range: what the rest may be asked for with; empty: nothing tells that the file is the same still.
        total: bytes in all; None: nobody said.
        etag, modified_at: as the origin said of the whole; an answer with the rest need not say it again.
        boot: which run of the machine wrote them: after a power cut a file may have its length, and not its bytes.
    """

    of: str
    if_range: str = ""
    total: int | None = None
    etag: str = ""
    modified_at: float = 0.0
    boot: str = ""


class Partial:
    """A file that is coming. Use :func:`opened`.

    Attributes:
        path: where it is.
        note: whose it is; read it after :func:`opened`.

    Concurrency: one task. The disk is touched in a thread of its own.
    """

    def __init__(self, path: Path, note: Note, descriptor: int, thread: ThreadPoolExecutor) -> None:
        self.path, self.note = path, note
        self._descriptor, self._thread = descriptor, thread
        self._written = 0
        self._held = bytearray()
        self._digest = hashlib.sha256()
        self._is_gone = False

    @property
    def size(self) -> int:
        """How many bytes have come."""
        return self._written + len(self._held)

    async def anew(self, note: Note) -> None:
        """Begin a file of which nothing is here; what was is gone.

        Raises:
            Full: there is less room than it needs.
            Unavailable: the disk refused.
        """
        self._held.clear()
        note = replace(note, boot=_boot())
        await self._do(lambda: self._truncate(note))
        self.note = note

    async def write(self, piece: bytes) -> None:
        """Take what follows.

        Raises:
            Full: there is no more room.
            Unavailable: the disk refused.
        """
        self._held += piece
        if len(self._held) >= _PIECE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what is held."""
        if self._held:
            held = bytes(self._held)
            self._held.clear()
            await self._do(lambda: self._append(held))

    async def whole(self) -> str:
        """Return the SHA-256 of all, hexadecimal, which survives a power cut from now on.

        Raises:
            Full, Unavailable: as :meth:`write`.
        """
        await self.flush()
        await self._do(lambda: os.fsync(self._descriptor))
        return self._digest.hexdigest()

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (OSError, Unavailable) as e:
            refused = e if isinstance(e, OSError) else e.__cause__
            if isinstance(refused, OSError) and refused.errno in _FULL:
                self._is_gone = True
                forget(self.path)
                raise Full(f"there is no more room for it in {self.path.parent}: {refused.strerror}") from e
            raise e if isinstance(e, Unavailable) else Unavailable(f"writing {self.path} failed: {spoken(e)}") from e

    def _truncate(self, note: Note) -> None:
        # The bytes first: a note never speaks of another's.
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._written, self._digest = 0, hashlib.sha256()
        free = shutil.disk_usage(self.path.parent).free
        if note.total is not None and note.total > free:
            self._is_gone = True
            forget(self.path)
            raise Full(f"it has {note.total} bytes, and in {self.path.parent} there is room for {free}")
        files.write_atomically(_note(self.path), json.dumps(asdict(note)), mode=0o600)

    def _append(self, held: bytes) -> None:
        view = memoryview(held)
        while view:
            count = os.write(self._descriptor, view)
            self._digest.update(view[:count])
            self._written += count
            view = view[count:]

    def _go_on(self) -> None:
        """Read what is here already, when it is of the same."""
        note = _read(self.path)
        if note is None or note.of != self.note.of or note.boot != _boot():
            os.ftruncate(self._descriptor, 0)
            return
        self.note = note
        while piece := os.read(self._descriptor, _PIECE_BYTES):
            self._digest.update(piece)
            self._written += len(piece)

    def _close(self) -> None:
        try:
            if self._held and not self._is_gone:
                self._append(bytes(self._held))
        except OSError:
            # It is asked for again.
            pass
        finally:
            os.close(self._descriptor)


@contextlib.asynccontextmanager
async def opened(path: Path, of: str) -> AsyncIterator[Partial]:
    """Hold the partial file at a path, with what has come already of the same; its directory is made.

    What has come is not asked for again, whatever ends the block.

    Raises:
        Unavailable: the disk refused, or another process holds it.
    """
    # Of its own, and never waited for without end: a file system that hangs holds up this file, and nothing else.
    thread = ThreadPoolExecutor(1, thread_name_prefix="boot file")
    try:
        opening = thread.submit(_open, path)
        try:
            descriptor = await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_late)
            raise
        partial = Partial(path, Note(of), descriptor, thread)
        try:
            await partial._do(partial._go_on)
            yield partial
        finally:
            closing = thread.submit(partial._close)
            await asyncio.wait({asyncio.wrap_future(closing)}, timeout=_CLOSED_WITHIN_S)
    finally:
        thread.shutdown(wait=False)


def forget(path: Path) -> None:
    """Remove a partial file and its note; there need be neither."""
    for one in (path, _note(path)):
        with contextlib.suppress(OSError):
            one.unlink()


def settle(path: Path) -> None:
    """Remove the note beside a file that is whole: it is partial no more."""
    with contextlib.suppress(OSError):
        _note(path).unlink()


def sweep(directory: Path, *, older_than_s: float) -> int:
    """Remove the partial files that nobody went on with for so long, and notes beside nothing; return how many."""
    removed = 0
    with contextlib.suppress(OSError):
        for path in sorted(directory.iterdir()):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime < older_than_s:
                    continue
                if not path.name.endswith(_NOTE):
                    forget(path)
                elif not path.with_name(path.name.removesuffix(_NOTE)).exists():
                    path.unlink()
                else:
                    continue
                removed += 1
    return removed


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise Unavailable(f"opening {path} failed: {e.strerror or e}") from e
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever serves it may be of another account.
        os.fchmod(descriptor, 0o644)
    except OSError as e:
        os.close(descriptor)
        raise Unavailable(f"{path} is written by another process of this member") from e
    return descriptor


def _close_late(opening: Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _note(path: Path) -> Path:
    return path.with_name(path.name + _NOTE)


def _read(path: Path) -> Note | None:
    """Return what the note beside a partial file says; None: there is none that can be read."""
    try:
        with _note(path).open("rb") as f:
            found = json.loads(f.read(_LIMIT_NOTE_BYTES))
        return Note(
            str(found["of"]), str(found["if_range"]), None if found["total"] is None else int(found["total"]),
            str(found["etag"]), float(found["modified_at"]), str(found["boot"]),
        )  # fmt: skip
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _boot() -> str:
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return ""
