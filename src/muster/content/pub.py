"""A directory of plain files, as Apache serves ``/pub``: no lists of what is in it, nothing outside it."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import os
import stat
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import unquote_to_bytes

from muster.content import headers as headers_of
from muster.content import ranges
from muster.edge.replies import SERVER_HEADER, Header, Reply, Streamed, not_found, reply
from muster.edge.request import Request
from muster.kernel.errors import Unavailable

_PIECE_BYTES = 256 << 10
_THREADS = 8


class Pub:
    """Serves one directory. Links lead where they lead as long as that is below it.

    A file system that hangs holds up these threads, and nobody else's. Use :meth:`close`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = ThreadPoolExecutor(_THREADS, "pub")

    def close(self) -> None:
        """Wait for nothing that still reads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, path: str, request: Request) -> Reply | Streamed:
        """Answer for a path below the directory, as :func:`muster.content.paths.forwarded` returns it."""
        if request.method not in ("GET", "HEAD"):
            return reply(405, b"", b"text/plain", (b"allow", b"GET, HEAD"))
        name = os.fsdecode(unquote_to_bytes(path.partition("?")[0]))
        found = await asyncio.get_running_loop().run_in_executor(self._threads, self._opened, name)
        if found is None:
            return not_found()
        file, size = found
        try:
            headers: list[Header] = [
                (b"content-type", _type(path)), (b"accept-ranges", b"bytes"), (b"x-content-type-options", b"nosniff"),
                SERVER_HEADER,
            ]  # fmt: skip
            # What is served has no validator, so If-Range names none of it.
            field = headers_of.field(request.sent_headers, b"range") if b"if-range" not in request.headers else None
            try:
                part = ranges.asked(field, size)
            except ranges.Unsatisfiable:
                os.close(file)
                return reply(416, b"", b"text/plain", (b"content-range", b"bytes */%d" % size))
            first, last = part if part is not None else (0, size - 1)
            headers.append((b"content-length", b"%d" % (last - first + 1)))
            if part is not None:
                headers.append((b"content-range", b"bytes %d-%d/%d" % (first, last, size)))
            wanted = 0 if request.method == "HEAD" else last - first + 1
            status = 206 if part is not None else 200
            return Streamed(status, headers, self._read(file, first, wanted), partial(os.close, file))
        except BaseException:
            os.close(file)
            raise

    def _opened(self, path: str) -> tuple[int, int] | None:
        """Return descriptor and size of a plain file below the root; None when there is none."""
        # A directory is none; and what Apache keeps from clients by default, somebody may have relied on.
        if "\0" in path or path.endswith("/") or "/.ht" in path:
            return None
        # Links that lead in a circle are a RuntimeError.
        with contextlib.suppress(OSError, RuntimeError):
            root = self._root.resolve(strict=True)
            where = (root / path.lstrip("/")).resolve(strict=True)
            if not where.is_relative_to(root):
                return None
            # Not waiting for whoever might write into a pipe.
            file = os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
            found = os.fstat(file)
            if stat.S_ISREG(found.st_mode):
                return file, found.st_size
            os.close(file)
        return None

    async def _read(self, file: int, at: int, count: int) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        while count:
            try:
                piece = await loop.run_in_executor(self._threads, os.pread, file, min(count, _PIECE_BYTES), at)
            except OSError as e:
                raise Unavailable(f"reading a file below /pub failed: {e.strerror or e}") from e
            if not piece:
                raise Unavailable("a file below /pub became shorter while it was sent")
            at += len(piece)
            count -= len(piece)
            yield piece


def _type(path: str) -> bytes:
    if path.endswith(".rpm"):
        return b"application/x-rpm"
    return (mimetypes.guess_type(path)[0] or "application/octet-stream").encode()
