"""One program behind the ports of content, asked over HTTP/1.1: bytes as they come, bounded in time both ways."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.reasons import spoken

_READ_BYTES = 64 << 10
_RECEIVE_BYTES = 512 << 10
# aiohttp asks once more itself, at once, PUT and DELETE too: what it kept may have been closed meanwhile.
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
# Connecting is tried once more, because a backend that is restarted is away for as long as that.
_SECOND_TRY_S = 0.3
# What no header may hold on its way to a client.
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMED = frozenset({"content-length", "transfer-encoding"})


class GatewayTimeout(MusterError):
    """What lies behind this member did not answer in time."""

    status = 504


class BadGateway(MusterError):
    """What lies behind this member answered something that is no answer."""

    status = 502


@dataclass(frozen=True)
class Patience:
    """Seconds: to connect, until an answer begins, and between two pieces of it."""

    connect_s: float
    first_byte_s: float
    stall_s: float


@dataclass(frozen=True)
class Answer:
    """A backend's answer whose body is still to come.

    Attributes:
        of: whose it is.
        headers: as they came, in their order.
        end: must be called: it ends the connection, unless the whole body has come and that is kept.
    """

    of: str
    status: int
    headers: Sequence[tuple[str, str]]
    pieces: AsyncGenerator[bytes, None]
    end: Callable[[], None]

    @classmethod
    def absent(cls, of: str) -> Answer:
        """Return the answer of somebody who has not what is asked for."""
        return cls(of, 404, (("Content-Length", "0"),), once(b""), lambda: None)

    def releasing(self, release: Callable[[], None]) -> Answer:
        """Return it with something that is called when it ends, once however often that is."""
        left = [release]

        def end() -> None:
            self.end()
            if left:
                left.pop()()

        return replace(self, end=end)

    async def whole(self, limit_bytes: int, *, hold: Callable[[int], None] = lambda _: None) -> bytes | None:
        """Return the body, and end the answer; None: it is larger. ``hold`` counts each piece.

        Raises:
            Unavailable: it breaks off.
        """
        body = bytearray()
        try:
            async with contextlib.aclosing(self.pieces) as coming:
                async for piece in coming:
                    body += piece
                    hold(len(piece))
                    if len(body) > limit_bytes:
                        return None
        finally:
            self.end()
        return bytes(body)


async def once(body: bytes) -> AsyncGenerator[bytes, None]:
    """Yield a body in one piece; nothing, where it is empty."""
    if body:
        yield body


class Backend:
    """One program. Use :func:`opened`. Connections are kept; safe for many tasks of one loop."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        name: str,
        url: str,
        patience: Patience,
        context: Callable[[], ssl.SSLContext] | None,
        server_hostname: str | None = None,
        *,
        proxy: str | None = None,
    ) -> None:
        self.name = name
        self.url = "http://localhost" if url.startswith("unix:") else url
        self._place = url
        self._session = session
        self._patience = patience
        self._context = context
        self._server_hostname = server_hostname
        self._proxy = proxy

    def at(self, name: str, url: str, *, server_hostname: str) -> Backend:
        """Return another program that is asked in the same way, whose certificate must carry a name."""
        return Backend(self._session, name, url, self._patience, self._context, server_hostname, proxy=self._proxy)

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> Answer:
        """Send a request and return the answer as soon as it begins, whatever its status.

        ``path`` goes with its query as it shall be sent; ``length`` is the body's, when it is known.

        Raises:
            Unavailable: it cannot be reached, also not a moment later.
            GatewayTimeout: it did not begin to answer in time, counted from the last it was sent.
            BadGateway: what it answered is no HTTP, or nothing that can be passed on.

        Where it was asked is their ``place``: for the log, not for clients.
        """
        try:
            return await self._tried(method, path, headers, body, length)
        except (Unavailable, GatewayTimeout, BadGateway) as e:
            e.place = self._place
            raise

    async def _tried(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: AsyncIterator[bytes] | None,
        length: int | None,
    ) -> Answer:
        is_last = body is not None
        while True:
            try:
                return await self._asked(method, path, headers, body, length)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as e:
                if is_last:
                    is_late = isinstance(e, aiohttp.ConnectionTimeoutError)
                    why = f"connecting took longer than {self._patience.connect_s:g} s" if is_late else _said(e)
                    what = "the proxy to " if isinstance(e, aiohttp.ClientProxyConnectionError) else ""
                    raise Unavailable(f"{what}{self.name} cannot be reached: {why}") from e
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as e:
                # Nothing was answered; what may be repeated is.
                if is_last or method not in _REPEATABLE:
                    raise Unavailable(f"{self.name} hung up before it answered") from e
            is_last = True
            await asyncio.sleep(_SECOND_TRY_S)

    async def _asked(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: AsyncIterator[bytes] | None,
        length: int | None,
    ) -> Answer:
        sent = [*headers]
        if length is not None:
            sent.append(("Content-Length", str(length)))
        try:
            async with asyncio.timeout(self._patience.first_byte_s) as waiting:
                response = await self._session.request(
                    method,
                    URL(self.url + path, encoded=True),
                    headers=sent,
                    data=self._sent(body, waiting) if body is not None else None,
                    allow_redirects=False,
                    ssl=self._context() if self._context is not None else True,
                    server_hostname=self._server_hostname,
                    proxy=self._proxy,
                    skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
                )
        except (aiohttp.ConnectionTimeoutError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            raise
        except TimeoutError:
            raise GatewayTimeout(
                f"{self.name} did not begin to answer within {self._patience.first_byte_s:g} s"
            ) from None
        except aiohttp.ClientError as e:
            if isinstance(e.__cause__, MusterError):
                # The body's, which the client did not go on with.
                raise e.__cause__ from None
            if isinstance(e, aiohttp.ClientHttpProxyError):
                raise BadGateway(f"{self.name} was not asked: the proxy answered {e.status}") from e
            if isinstance(e, aiohttp.ClientResponseError):
                # The library's words repeat what came, and where it was asked: nothing for a client.
                raise BadGateway(f"{self.name} gave no answer: what came is no HTTP") from e
            raise BadGateway(f"{self.name} gave no answer: {_said(e)}") from e
        if why := _unfit(response):
            response.close()
            raise BadGateway(f"{self.name} gave no answer that can be passed on: {why}")
        given = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in response.raw_headers]
        return Answer(
            self.name, response.status, given, self._pieces(response, _end_of_unframed(response)), response.close
        )

    async def _sent(self, body: AsyncIterator[bytes], waiting: asyncio.Timeout) -> AsyncGenerator[bytes, None]:
        """Yield a body; the wait for an answer stands still while a client is slow, and begins anew with each piece."""
        loop = asyncio.get_running_loop()

        def wait(until: float | None) -> None:
            # What was answered before the body was whole is awaited no longer.
            with contextlib.suppress(RuntimeError):
                waiting.reschedule(until)

        wait(None)
        async for piece in body:
            wait(loop.time() + self._patience.first_byte_s)
            yield piece
            wait(None)
        wait(loop.time() + self._patience.first_byte_s)

    async def _pieces(
        self, response: aiohttp.ClientResponse, end: asyncio.Future[None] | None
    ) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                async with asyncio.timeout(self._patience.stall_s):
                    piece = await response.content.readany()
                if not piece:
                    break
                yield piece
            if end is not None and end.done() and end.exception() is not None:
                raise Unavailable(f"{self.name} broke off its answer, whose length it did not say")
        except TimeoutError:
            raise Unavailable(f"{self.name} went silent for {self._patience.stall_s:g} s within its answer") from None
        except aiohttp.ClientError as e:
            raise Unavailable(f"{self.name} broke off its answer: {_said(e)}") from e


@contextlib.asynccontextmanager
async def opened(
    name: str,
    url: str,
    patience: Patience,
    *,
    context: Callable[[], ssl.SSLContext] | None = None,
    kept: bool = True,
    buffer_bytes: int = _READ_BYTES,
) -> AsyncIterator[Backend]:
    """Yield what asks the program at ``url``: ``http://…``, ``https://…`` with a context, or ``unix:/PATH``.

    ``context`` is asked for each connection, so that it can follow files. Where they are not ``kept`` each question has a
    connection of its own. So much of an answer is read ahead: one that is shorter comes whole, however its connection ends.
    """
    connector: aiohttp.BaseConnector
    if url.startswith("unix:"):
        connector = aiohttp.UnixConnector(url.removeprefix("unix:"), limit=0, keepalive_timeout=15)
    else:
        connector = (
            connecting()
            if kept
            else aiohttp.TCPConnector(limit=0, force_close=True, ttl_dns_cache=30, socket_factory=_socket)
        )
    async with session(connector, patience, buffer_bytes) as asking:
        yield Backend(asking, name, url, patience, context if url.startswith("https:") else None)


def connecting(resolver: AbstractResolver | None = None) -> aiohttp.TCPConnector:
    """Return what connects to programs by name, at addresses that ``resolver`` gives, by default the host's."""
    return aiohttp.TCPConnector(
        limit=0, keepalive_timeout=15, ttl_dns_cache=30, socket_factory=_socket, resolver=resolver
    )  # fmt: skip


def session(
    connector: aiohttp.BaseConnector, patience: Patience, buffer_bytes: int = _READ_BYTES
) -> aiohttp.ClientSession:
    """Return what backends ask with: it follows nothing, unpacks nothing, and keeps no cookies."""
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        read_bufsize=buffer_bytes,
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=patience.connect_s, sock_read=None),
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=16 << 10,
        max_field_size=16 << 10,
    )


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    # The kernel would let it grow to megabytes, and a reader who is slow leaves it full.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    return made


def _unfit(response: aiohttp.ClientResponse) -> str:
    """Return why an answer cannot be passed on, empty when it can."""
    if not 200 <= response.status <= 599:
        return f"its status is {response.status}"
    for name, value in response.raw_headers:
        if _NO_VALUE.search(value):
            return "a header holds a control character"
        if name.lower() == b"transfer-encoding" and value.strip().lower() not in (b"chunked", b"identity"):
            return "it is in a transfer coding that was not asked for"
    return ""


def _end_of_unframed(response: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """Return what tells how the connection ended, where nothing else says whether a body is whole."""
    if (
        response.connection is None
        or response.connection.protocol is None
        or not _FRAMED.isdisjoint(name.lower() for name in response.headers)
    ):
        return None
    closed = response.connection.protocol.closed
    if closed is not None:
        # Whoever has gone away does not ask how it ended.
        closed.add_done_callback(lambda f: f.cancelled() or f.exception())
    return closed


def _said(error: BaseException) -> str:
    if isinstance(error, OSError):
        return spoken(error)
    # Its whole text would hold the URL, tokens of its query too, and lines that point at what was read.
    found = (getattr(e, "message", None) for e in (error, error.__cause__))
    message = next((m for m in found if isinstance(m, str)), "")
    return message.partition(": b'")[0].partition("\n")[0].rstrip(":")[:200] or type(error).__name__
