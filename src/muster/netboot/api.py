"""What members ask each other about boot files: their bytes, by digest, and the tree."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from muster.edge import ranges
from muster.edge.replies import SERVER_HEADER, TEXT, Header, Reply, Streamed, json_reply, reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.kernel.errors import NotFound, Rejected, Unavailable
from muster.kernel.names import shown
from muster.kernel.pace import Pace

AT_ONCE = 2
"""How many files one member gives to others at a time; who comes then hears 503, and asks another one, or again."""
BYTES_PER_S = 64 << 20
"""How fast it does, all of them together: its own clients boot meanwhile."""

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_PIECE_BYTES = 256 << 10


class Blobs:
    """What a member gives to others. :meth:`close` at the end.

    Args:
        find: returns where the bytes of a digest lie, None when they are not here; asked in a thread.
        tree: returns what the member says of its tree, for JSON.

    Concurrency: one loop; ``at_once`` files are given at a time.
    """

    def __init__(
        self,
        find: Callable[[str], Path | None],
        tree: Callable[[], Awaitable[Any]],
        *,
        at_once: int = AT_ONCE,
        bytes_per_s: float = BYTES_PER_S,
    ) -> None:
        self._find, self._tree = find, tree
        self._left, self._pace = at_once, Pace(bytes_per_s)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="boot files for members")

    def close(self) -> None:
        """Let its threads go."""
        self._threads.shutdown(wait=False)

    async def tree(self) -> Any:
        """Return what the member says of its tree."""
        return await self._tree()

    async def blob(self, request: Request) -> Reply | Streamed:
        """Return the bytes of a digest, whole or in part.

        Raises:
            Rejected: that is no digest.
            NotFound: they are not here.
            Unavailable: the disk refused.
        """
        digest = request.arguments["digest"]
        if not _DIGEST.match(digest):
            raise Rejected(f"{shown(digest)} is no SHA-256 digest")
        if not self._left:
            return reply(503, b"", TEXT)
        self._left -= 1
        given: list[int] = []
        is_over = False

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._left += 1
                while given:
                    self._close(given.pop())

        try:
            size = await self._open(digest, given)
            part = _part(request, size)
            if isinstance(part, Reply):
                end()
                return part
            first, last = part or (0, size - 1)
            headers: list[Header] = [
                (b"content-type", b"application/octet-stream"), (b"accept-ranges", b"bytes"),
                (b"content-length", b"%d" % (last - first + 1)), SERVER_HEADER,
            ]  # fmt: skip
            if part is not None:
                headers.append((b"content-range", b"bytes %d-%d/%d" % (first, last, size)))
            status = 206 if part is not None else 200
            if request.method == "HEAD":
                end()
                return Reply(status, b"", headers)
            return Streamed(status, headers, self._read(given[0], first, last - first + 1), end)
        except BaseException:
            end()
            raise

    async def _open(self, digest: str, given: list[int]) -> int:
        """Return the size of the file, whose descriptor is in ``given`` from then on, also when nobody waits any more."""

        def opened() -> int | None:
            path = self._find(digest)
            if path is None:
                return None
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                os.close(descriptor)
                return None
            given.append(descriptor)
            return found.st_size

        opening = self._threads.submit(opened)
        try:
            size = await asyncio.shield(asyncio.wrap_future(opening))
        except OSError as e:
            raise Unavailable(f"Opening boot file {digest[:12]} failed: {e.strerror or e}") from e
        except asyncio.CancelledError:
            opening.add_done_callback(lambda _: self._close(given.pop()) if given else None)
            raise
        if size is None:
            raise NotFound(f"Boot file {digest[:12]} is not here")
        return size

    def _close(self, descriptor: int) -> None:
        try:
            # Behind what a thread still reads.
            self._threads.submit(os.close, descriptor)
        except RuntimeError:
            os.close(descriptor)

    async def _read(self, descriptor: int, at: int, count: int) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        while count:
            wanted = min(count, _PIECE_BYTES)
            await self._pace.take(wanted)
            try:
                piece = await loop.run_in_executor(self._threads, os.pread, descriptor, wanted, at)
            except OSError as e:
                raise Unavailable(f"Reading a boot file failed: {e.strerror or e}") from e
            if not piece:
                raise Unavailable("A boot file became shorter while it was given")
            at, count = at + len(piece), count - len(piece)
            yield piece


async def blob_streamed(blobs: Blobs, request: Request) -> Reply | Streamed:
    return await blobs.blob(request)


async def blob_asked(blobs: Blobs, request: Request) -> Reply:
    """Answer HEAD."""
    return cast(Reply, await blobs.blob(request))


async def tree(blobs: Blobs, _: Request) -> Reply:
    return json_reply(await blobs.tree())


def _part(request: Request, size: int) -> tuple[int, int] | Reply | None:
    try:
        return ranges.asked(request.header(b"range"), size)
    except ranges.Unsatisfiable:
        return reply(416, b"", TEXT, (b"content-range", b"bytes */%d" % size))


MOUNT = Mount(
    "/netboot",
    (
        Route("GET", "/blobs/{digest}", Access.CLUSTER, blob_asked, streamed=blob_streamed),
        Route("GET", "/tree", Access.CLUSTER, tree),
    ),
    busy=True,
)
