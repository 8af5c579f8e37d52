"""What is below ``/pub``: what members have for hosts that join, then a directory of plain files, as Apache serves it.

There are no lists of what is in the directory, and nothing outside it is served.
"""

from __future__ import annotations

import contextlib
import mimetypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import unquote_to_bytes

from muster.content import conditions, files, paths, places
from muster.content.consumer.given import Text
from muster.content.files import Opened
from muster.content.joining import Joining
from muster.edge.replies import SERVER_HEADER, Header, Reply, Streamed, not_found
from muster.edge.request import Request
from muster.edge.routes import Mount

_PLACE = next(p for p in places.PLACES if p.backend == "pub")


class Pub:
    """Serves what is built in, and one directory; None: nothing besides.

    Links lead where they lead as long as that is below it.
    A file system that hangs holds up these threads, and nobody else's. Use :meth:`close`.
    """

    def __init__(self, root: Path | None, joining: Joining) -> None:
        self._root = root
        self._joining = joining
        self._threads = ThreadPoolExecutor(files.THREADS, "pub")

    def close(self) -> None:
        """Wait for nothing that still reads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, path: str, request: Request) -> Reply | Streamed:
        """Answer for a path below the directory, as :func:`muster.content.paths.forwarded` returns it."""
        if (refused := files.unread(request)) is not None:
            return refused
        name = os.fsdecode(unquote_to_bytes(path.partition("?")[0]))
        if (text := self._joining.text(name.lstrip("/"))) is not None:
            return _answered(text, request)
        found = await files.opened(self._threads, partial(self._opened, name))
        if found is None:
            return not_found()
        # What is served has no validator.
        return files.answered(
            found, request, threads=self._threads, called="a file below /pub", content_type=_type(path)
        )

    def _opened(self, path: str) -> Opened | None:
        """Return a plain file below the root; None when there is none."""
        # A directory is none; and what Apache keeps from clients by default, somebody may have relied on.
        if self._root is None or "\0" in path or path.endswith("/") or "/.ht" in path:
            return None
        # Links that lead in a circle are a RuntimeError.
        with contextlib.suppress(OSError, RuntimeError):
            root = self._root.resolve(strict=True)
            where = (root / path.lstrip("/")).resolve(strict=True)
            if not where.is_relative_to(root):
                return None
            # Not waiting for whoever might write into a pipe.
            return Opened.of(os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW))
        return None


def _answered(text: Text, request: Request) -> Reply:
    passed: list[Header] = [
        (b"content-type", text.content_type), (b"x-content-type-options", b"nosniff"), (b"etag", text.digest.tag.encode()),
        # Of the same name it is another one after a change of the cluster, and nobody shall join by what was.
        (b"cache-control", b"no-cache"), SERVER_HEADER,
    ]  # fmt: skip
    if (instead := conditions.instead(request, text.digest, passed)) is not None:
        return instead
    size = len(text.body)
    passed.append((b"accept-ranges", b"bytes"))
    part = conditions.part(request, text.digest, size) if request.method == "GET" else None
    if isinstance(part, Reply):
        return part
    first, last = part or (0, size - 1)
    if part is not None:
        passed.append((b"content-range", b"bytes %d-%d/%d" % (first, last, size)))
    body = text.body[first : last + 1]
    return Reply(206 if part is not None else 200, body, [*passed, (b"content-length", b"%d" % len(body))])


async def _below(pub: Pub, request: Request) -> Reply | Streamed:
    return await pub.answer(paths.forwarded(_PLACE, request.raw_path, request.raw_query), request)


# What ports of content answer below /pub, for other listeners of a member: a script that registers a host asks the Smart
# Proxy that it came from.
MOUNT = Mount(_PLACE.prefix, (), unrouted=_below, busy=True)


def _type(path: str) -> bytes:
    if path.endswith(".rpm"):
        return b"application/x-rpm"
    return (mimetypes.guess_type(path)[0] or "application/octet-stream").encode()
