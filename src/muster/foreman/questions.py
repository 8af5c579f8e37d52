"""Questions to any Smart Proxy, ours or the Ruby one: ``GET`` over mutual TLS, and nothing that changes anything.

Commands ask every member and end; a whole HTTP client would take longer to load than all answers take to come
(:mod:`muster.foreman.smart_proxy` has one, for those who stay and who change things).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from muster.foreman.answers import Answer
from muster.kernel.errors import Misconfigured, Rejected, Unavailable
from muster.kernel.names import shown
from muster.kernel.reasons import spoken
from muster.kernel.secrets import Secret

_HEAD_LIMIT_BYTES = 64 << 10
_BODY_LIMIT_BYTES = 4 << 20
_END_OF_HEAD = b"\r\n\r\n"
_LONGEST_SIZE_LINE = 18
_STATUS = re.compile(r"[1-9][0-9]{2}\Z")
_CLOSE_S = 1.0


class Questions:
    """One other Smart Proxy, asked one question after another on a connection that is kept. Use :func:`opened`."""

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext | None,
        server_name: str | None,
        timeout_s: float,
        connect_timeout_s: float,
        preface: bytes = b"",
        source: str | None = None,
        authorization: Secret | None = None,
        limit_bytes: int = _BODY_LIMIT_BYTES,
    ) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Rejected(f"{shown(url)} is no URL of a Smart Proxy")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._context = (context or ssl.create_default_context()) if parts.scheme == "https" else None
        self._server_name = server_name
        self._named = server_name or parts.netloc.rpartition("@")[2]
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._preface = preface
        self._source = (source, 0) if source is not None else None
        self._authorization = authorization
        self._limit_bytes = limit_bytes
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str) -> Answer:
        """Ask for a path and return the answer, whatever its status.

        Raises:
            Unavailable: no answer.
            Misconfigured: TLS refused; the sentence has the library's words.
        """
        target = f"GET {self.url}{path}"
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
            raise Rejected(f"{shown(path)} is no path")
        try:
            async with asyncio.timeout(self._timeout_s):
                answer, stays = await self._asked(path, target)
        except TimeoutError as e:
            self._drop()
            if e.errno is not None:
                raise Unavailable(f"{target} failed: {spoken(e)}") from e
            raise Unavailable(f"{target} got no answer in time") from None
        except ssl.SSLError as e:
            self._drop()
            raise Misconfigured(f"{target} failed in TLS: {spoken(e)}") from e
        except OSError as e:
            self._drop()
            raise Unavailable(f"{target} failed: {spoken(e)}") from e
        except BaseException:
            self._drop()
            raise
        if not stays:
            # In a time of its own: the answer is there, whether or not the other end takes part in the farewell.
            await self.close()
        return answer

    async def call(self, path: str) -> Answer:
        """As :meth:`ask`, and turn every refusal into the error it stands for, with the other proxy's words."""
        return (await self.ask(path)).accepted(self.url, "GET", path)

    async def close(self) -> None:
        streams, self._streams = self._streams, None
        # Of one that the other end has closed already nothing is left; Python 3.11.2 (Debian 12) fails to abort it.
        if streams is None or streams[1].is_closing():
            return
        streams[1].close()
        try:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await streams[1].wait_closed()
        finally:
            streams[1].transport.abort()

    def _drop(self) -> None:
        """End the connection without a farewell, in which a proxy that hangs would not take part."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].transport.abort()

    async def _asked(self, path: str, target: str) -> tuple[Answer, bool]:
        """Return the answer, and whether the connection stays."""
        is_kept = self._streams is not None
        try:
            return await self._exchanged(path, target)
        except (asyncio.IncompleteReadError, ConnectionError) as e:
            begun = isinstance(e, asyncio.IncompleteReadError) and bool(e.partial)
            if not is_kept or begun:
                raise _cut(e, target) from e
        # A kept connection may have been closed at the other end since; a question may be asked twice.
        await self.close()
        try:
            return await self._exchanged(path, target)
        except (asyncio.IncompleteReadError, ConnectionError) as e:
            raise _cut(e, target) from e

    async def _exchanged(self, path: str, target: str) -> tuple[Answer, bool]:
        reader, writer = await self._connected()
        # Bodies are read as they come: nothing here unpacks them.
        asked = f"GET {path} HTTP/1.1\r\nHost: {self._named}\r\nAccept: application/json\r\n"
        if self._authorization is not None:
            asked += f"Authorization: {self._authorization.reveal()}\r\n"
        writer.write(f"{asked}Accept-Encoding: identity\r\n\r\n".encode())
        await writer.drain()
        status, headers, stays = await _head(reader, target)
        body = b"" if status in (204, 304) else await _body(reader, headers, target, self._limit_bytes)
        is_framed = "content-length" in headers or "transfer-encoding" in headers
        answer = Answer(status, body.decode("utf-8", "replace"), headers.get("etag"), headers.get("server"))
        return answer, stays and is_framed

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            async with asyncio.timeout(min(self._timeout_s, self._connect_timeout_s)):
                self._streams = await self._opened()
        return self._streams

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = (self._server_name or self._host) if self._context is not None else None
        tls: dict[str, Any] = {} if self._preface else {"ssl": self._context, "server_hostname": name}
        reader, writer = await asyncio.open_connection(
            self._host, self._port, limit=_HEAD_LIMIT_BYTES, local_addr=self._source, **tls
        )
        if not self._preface:
            return reader, writer
        try:
            writer.write(self._preface)
            if self._context is not None:
                await writer.start_tls(self._context, server_hostname=name)
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer


@asynccontextmanager
async def opened(
    url: str,
    *,
    context: ssl.SSLContext | None,
    server_name: str | None = None,
    timeout_s: float = 10.0,
    connect_timeout_s: float = 2.0,
    preface: bytes = b"",
    source: str | None = None,
    authorization: Secret | None = None,
    limit_bytes: int = _BODY_LIMIT_BYTES,
) -> AsyncIterator[Questions]:
    """Yield what asks the proxy at ``url``.

    ``server_name`` is the name its certificate must carry when it is not the URL's host; ``context`` None trusts the CAs of
    the system. ``timeout_s`` counts for each question, ``connect_timeout_s`` for the connection it may need. ``preface`` is
    what a connection begins with, before TLS: a PROXY header. ``source`` is an address of this host to ask from.
    ``authorization`` is that header's value; nothing follows a redirection, so nobody else is shown it. Of an answer's body
    at most ``limit_bytes`` are read.
    """
    questions = Questions(
        url, context, server_name, timeout_s, connect_timeout_s, preface, source, authorization, limit_bytes
    )
    try:
        yield questions
    finally:
        await questions.close()


def _cut(error: asyncio.IncompleteReadError | ConnectionError, target: str) -> Unavailable:
    why = spoken(error) if isinstance(error, OSError) else "the connection was closed before the answer was whole"
    return Unavailable(f"{target} failed: {why}")


async def _head(reader: asyncio.StreamReader, target: str) -> tuple[int, dict[str, str], bool]:
    """Return status, headers in lower case, and whether the connection stays."""
    while True:
        try:
            head = await reader.readuntil(_END_OF_HEAD)
        except asyncio.LimitOverrunError as e:
            raise Unavailable(f"{target} was answered with too long a head") from e
        found = _headed(head, target)
        # What comes first says only that there will be an answer.
        if not 100 <= found[0] < 200:
            return found


def _headed(head: bytes, target: str) -> tuple[int, dict[str, str], bool]:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not _STATUS.match(rest[:3]) or rest[3:4] not in ("", " "):
        raise Unavailable(f"{target} was answered with no HTTP: {shown(first)}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    stays = headers.get("connection", "" if version == "HTTP/1.1" else "close").lower() != "close"
    return int(rest[:3]), headers, stays


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str], target: str, limit_bytes: int) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader, target, limit_bytes)
    length = headers.get("content-length")
    if length is not None:
        return await reader.readexactly(_size(length, 10, target, limit_bytes))
    out = bytearray()
    while chunk := await reader.read(64 << 10):
        out += chunk
        _refuse_too_much(len(out), target, limit_bytes)
    return bytes(out)


async def _chunks(reader: asyncio.StreamReader, target: str, limit_bytes: int) -> bytes:
    out = bytearray()
    while True:
        line = (await _line(reader, target))[:-2].split(b";")[0].decode("latin-1").strip()
        size = _size(line, 16, target, limit_bytes)
        _refuse_too_much(len(out) + size, target, limit_bytes)
        if size == 0:
            # Fields may follow; the last line is empty.
            while await _line(reader, target) != b"\r\n":
                pass
            return bytes(out)
        out += await reader.readexactly(size)
        await reader.readexactly(2)


async def _line(reader: asyncio.StreamReader, target: str) -> bytes:
    try:
        return await reader.readuntil(b"\r\n")
    except asyncio.LimitOverrunError as e:
        raise Unavailable(f"{target} was answered with too long a line") from e


def _size(text: str, base: int, target: str, limit_bytes: int) -> int:
    digits = "0123456789abcdef"[:base]
    if not text or len(text) > _LONGEST_SIZE_LINE or any(c not in digits for c in text.lower()):
        raise Unavailable(f"{target} was answered with no HTTP: {shown(text)} is no length")
    size = int(text, base)
    _refuse_too_much(size, target, limit_bytes)
    return size


def _refuse_too_much(size: int, target: str, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise Unavailable(f"{target} was answered with more than {limit_bytes} bytes")
