"""One program behind the ports of content, asked over HTTP/1.1: bytes as they come, bounded in time both ways."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.reasons import spoken

_READ_BYTES = 64 << 10
_RECEIVE_BYTES = 512 << 10
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
# Connecting is tried once more, because a backend that is restarted is away for as long as that.
_SECOND_TRY_S = 0.3


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
        headers: as they came, in their order.
        end: must be called: it ends the connection, unless the whole body has come and that is kept.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    pieces: AsyncGenerator[bytes, None]
    end: Callable[[], None]


class Backend:
    """One program. Use :func:`opened`. Connections are kept; safe for many tasks of one loop."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        name: str,
        url: str,
        patience: Patience,
        context: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        self.name = name
        self.url = "http://localhost" if url.startswith("unix:") else url
        self._session = session
        self._patience = patience
        self._context = context

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
            GatewayTimeout: it did not begin to answer in time.
            BadGateway: what it answered is no HTTP.
        """
        is_last = body is not None
        while True:
            try:
                return await self._asked(method, path, headers, body, length)
            except aiohttp.ClientConnectorError as e:
                if is_last:
                    raise Unavailable(f"{self.name} cannot be reached: {_said(e)}") from e
            except aiohttp.ServerDisconnectedError as e:
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
            async with asyncio.timeout(self._patience.first_byte_s):
                response = await self._session.request(
                    method,
                    URL(self.url + path, encoded=True),
                    headers=sent,
                    data=body,
                    allow_redirects=False,
                    ssl=self._context() if self._context is not None else True,
                    skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
                )
        except TimeoutError:
            raise GatewayTimeout(
                f"{self.name} did not begin to answer within {self._patience.first_byte_s:g} s"
            ) from None
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError):
            raise
        except aiohttp.ClientError as e:
            if isinstance(e.__cause__, MusterError):
                # The body's, which the client did not go on with.
                raise e.__cause__ from None
            if isinstance(e, aiohttp.ClientResponseError):
                # The library's words repeat what came, and where it was asked: nothing for a client.
                raise BadGateway(f"{self.name} gave no answer: what came is no HTTP") from e
            raise BadGateway(f"{self.name} gave no answer: {_said(e)}") from e
        given = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in response.raw_headers]
        return Answer(response.status, given, self._pieces(response), response.close)

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                async with asyncio.timeout(self._patience.stall_s):
                    piece = await response.content.readany()
                if not piece:
                    return
                yield piece
        except TimeoutError:
            raise Unavailable(f"{self.name} went silent for {self._patience.stall_s:g} s within its answer") from None
        except aiohttp.ClientError as e:
            raise Unavailable(f"{self.name} broke off its answer: {_said(e)}") from e


@asynccontextmanager
async def opened(
    name: str,
    url: str,
    patience: Patience,
    *,
    context: Callable[[], ssl.SSLContext] | None = None,
) -> AsyncIterator[Backend]:
    """Yield what asks the program at ``url``: ``http://…``, ``https://…`` with a context, or ``unix:/PATH``.

    ``context`` is asked for each connection, so that it can follow files.
    """
    connector: aiohttp.BaseConnector
    if url.startswith("unix:"):
        connector = aiohttp.UnixConnector(url.removeprefix("unix:"), limit=0, keepalive_timeout=15)
    else:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15, ttl_dns_cache=30, socket_factory=_socket)
    session = aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        read_bufsize=_READ_BYTES,
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=patience.connect_s, sock_read=None),
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=16 << 10,
        max_field_size=16 << 10,
    )
    async with session:
        yield Backend(session, name, url, patience, context if url.startswith("https:") else None)


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    # The kernel would let it grow to megabytes, and a reader who is slow leaves it full.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    return made


def _said(error: Exception) -> str:
    return spoken(error) if isinstance(error, OSError) else f"{type(error).__name__} {error}".strip()
