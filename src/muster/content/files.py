"""A plain file for an answer: whole or in part, under the client's conditions, read by threads of its own.

A file system that hangs holds up the threads of those who serve from it, and nobody else's.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from io import FileIO

from muster.content import conditions
from muster.content.validators import Digest
from muster.edge.replies import SERVER_HEADER, Header, Reply, Streamed, reply
from muster.edge.request import Request
from muster.kernel.errors import Unavailable

THREADS = 8
"""How many threads read at once for one directory."""

_PIECE_BYTES = 256 << 10


class Opened:
    """A plain file, open for reading; closed by :meth:`close`, however often, or when nobody has it any more.

    Attributes:
        size: in bytes, when it was opened.
        identity: changes when a file of the same name is replaced, rewritten or made shorter.
    """

    __slots__ = ("_raw", "identity", "size")

    def __init__(self, descriptor: int, found: os.stat_result) -> None:
        self._raw = FileIO(descriptor)
        self.size = found.st_size
        self.identity = identity(found)

    @classmethod
    def of(cls, descriptor: int) -> Opened | None:
        """Take a descriptor; None, and it is closed, when it is no plain file's.

        Raises:
            OSError: the file system refused; it is closed.
        """
        try:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode):
                return cls(descriptor, found)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def fileno(self) -> int:
        """Return the descriptor, which stays this file's until it is closed.

        Raises:
            ValueError: it is.
        """
        return self._raw.fileno()

    def read(self, count: int, at: int) -> bytes:
        """Return up to so many bytes from a position, fewer where the file ends.

        Raises:
            OSError: the file system refused.
        """
        return os.pread(self.fileno(), count, at)

    def close(self) -> None:
        self._raw.close()


def identity(found: os.stat_result) -> tuple[int, int, int, int]:
    """Return what tells a file from another, and from itself after a change, without reading it."""
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


async def opened(threads: Executor, opening: Callable[[], Opened | None]) -> Opened | None:
    """Open a file in a thread; it is closed again when nobody waits for it any more.

    Raises:
        OSError: as ``opening``.
    """
    coming = threads.submit(opening)
    try:
        return await asyncio.wrap_future(coming)
    except asyncio.CancelledError:
        coming.add_done_callback(_close_late)
        raise


def unread(request: Request) -> Reply | None:
    """Return the answer to a method that reads no file; None: it reads."""
    if request.method in ("GET", "HEAD"):
        return None
    return reply(405, b"", b"text/plain", (b"allow", b"GET, HEAD"))


def answered(
    file: Opened,
    request: Request,
    *,
    threads: Executor,
    called: str,
    content_type: bytes,
    digest: Digest | None = None,
    also: Iterable[Header] = (),
) -> Reply | Streamed:
    """Return the answer to ``GET`` or ``HEAD`` of a file, which is closed when the answer has ended, however it does.

    With the digest of its bytes the file has a validator, and the client's conditions count. ``called`` is what errors call
    the file, ``also`` headers that go with it.
    """
    try:
        found = framed(file.size, request, content_type=content_type, digest=digest, also=also)
        if isinstance(found, Reply):
            file.close()
            return found
        return Streamed(found.status, found.headers, _read(file, threads, called, found.first, found.count), file.close)
    except BaseException:
        file.close()
        raise


@dataclass(frozen=True, slots=True)
class Framed:
    """An answer without its body: so many bytes of a file from a position on; none for ``HEAD``."""

    status: int
    headers: list[Header]
    first: int
    count: int


def framed(
    size: int,
    request: Request,
    *,
    content_type: bytes,
    digest: Digest | None = None,
    also: Iterable[Header] = (),
) -> Reply | Framed:
    """Return what a file of so many bytes is answered with, or what is said instead. See :func:`answered`."""
    passed: list[Header] = [
        (b"content-type", content_type), (b"accept-ranges", b"bytes"), (b"x-content-type-options", b"nosniff"),
        *also, SERVER_HEADER,
    ]  # fmt: skip
    if digest is not None:
        passed.append((b"etag", digest.tag.encode()))
        if (instead := conditions.instead(request, digest, passed)) is not None:
            return instead
    part = conditions.part(request, digest, size)
    if isinstance(part, Reply):
        return part
    first, last = part if part is not None else (0, size - 1)
    passed.append((b"content-length", b"%d" % (last - first + 1)))
    if part is not None:
        passed.append((b"content-range", b"bytes %d-%d/%d" % (first, last, size)))
    return Framed(206 if part is not None else 200, passed, first, 0 if request.method == "HEAD" else last - first + 1)


async def _read(file: Opened, threads: Executor, called: str, at: int, count: int) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    while count:
        try:
            piece = await loop.run_in_executor(threads, file.read, min(count, _PIECE_BYTES), at)
        except OSError as e:
            raise Unavailable(f"reading {called} failed: {e.strerror or e}") from e
        if not piece:
            raise Unavailable(f"{called} became shorter while it was sent")
        at += len(piece)
        count -= len(piece)
        yield piece


def _close_late(coming: Future[Opened | None]) -> None:
    if not coming.cancelled() and coming.exception() is None and (file := coming.result()) is not None:
        file.close()
