"""Answers of web servers and members, as they come: within limits of time and size, with a person's words for what fails."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp
from yarl import URL

from muster.kernel.clock import Clock
from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.pace import Least
from muster.kernel.reasons import spoken
from muster.netboot.partial import Partial

Told = Callable[[int, int | None], None]
"""Hears how many bytes are there, and of how many; None: nobody said."""

# What is read ahead is lost when a connection breaks.
_READ_BYTES = 64 << 10
_RANGE = re.compile(r"bytes (?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})/(?P<total>[0-9]{1,18})\Z")
_LENGTH = re.compile(r"[0-9]{1,18}\Z")


@dataclass(frozen=True)
class Limits:
    """How long and how much an origin may be.

    Attributes:
        connect_s: ``tftp_connect_timeout``.
        answer_s: until an answer begins.
        silent_s: between two pieces of it.
        least_bytes_per_s: averaged over a minute.
        whole_s: for all tries together.
        most_bytes: a file may have.
        again: how many more tries follow one that got nowhere.
        pause_s: before each of them.
    """

    connect_s: float = 10.0
    answer_s: float = 60.0
    silent_s: float = 30.0
    least_bytes_per_s: float = 1000.0
    whole_s: float = 3600.0
    most_bytes: int = 16 << 30
    again: int = 3
    pause_s: float = 10.0


class Span(NamedTuple):
    """The rest of a file, of so many bytes, from a position on."""

    first: int
    total: int


class Asking:
    """Asks, and takes what is answered. Use :func:`opened`.

    Concurrency: any number of tasks of one loop.
    """

    def __init__(self, session: aiohttp.ClientSession, limits: Limits, clock: Clock, proxy: str | None = None) -> None:
        self._session, self._limits, self._clock, self._proxy = session, limits, clock, proxy

    @contextlib.asynccontextmanager
    async def answer(
        self,
        called: str,
        url: str,
        headers: Mapping[str, str],
        context: ssl.SSLContext | None,
        *,
        name: str | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Hold what is answered to ``GET``, whatever its status; who is asked is ``called`` so in sentences.

        ``name``: what the certificate must carry in place of the URL's host.

        Raises:
            Rejected: the certificate is not accepted.
            Unavailable: nothing was answered.
        """
        response = await self._asked(called, url, headers, context, name)
        try:
            yield response
        finally:
            # Nobody reads the rest: another connection is cheaper than a body of which nobody knows the end.
            response.close()

    async def _asked(
        self, called: str, url: str, headers: Mapping[str, str], context: ssl.SSLContext | None, name: str | None
    ) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(self._limits.answer_s):
                return await self._session.get(
                    URL(url, encoded=True),
                    headers=headers,
                    allow_redirects=False,
                    ssl=context if context is not None else True,
                    server_hostname=name,
                    proxy=self._proxy,
                )
        except aiohttp.ConnectionTimeoutError:
            raise Unavailable(f"{called} did not take the connection within {self._limits.connect_s:g} s") from None
        except TimeoutError:
            raise Unavailable(f"{called} did not begin to answer within {self._limits.answer_s:g} s") from None
        except aiohttp.ClientConnectorCertificateError as e:
            raise Rejected(f"{called} is not who it should be: {spoken(e)}") from e
        except aiohttp.ClientProxyConnectionError as e:
            raise Unavailable(f"{called} was not asked: the proxy cannot be reached: {spoken(e)}") from e
        except aiohttp.ClientHttpProxyError as e:
            raise Unavailable(f"{called} was not asked: the proxy answered {e.status}") from e
        except aiohttp.ClientConnectorError as e:
            raise Unavailable(f"{called} cannot be reached: {spoken(e)}") from e
        except aiohttp.ClientResponseError as e:
            # The library's words repeat what came, and where it was asked.
            raise Unavailable(f"{called} answered what is no HTTP") from e
        except (aiohttp.ClientError, OSError) as e:
            raise Unavailable(f"{called} hung up before it answered") from e

    async def taken(
        self,
        called: str,
        answer: aiohttp.ClientResponse,
        into: Partial,
        told: Told,
        *,
        skipped: int = 0,
        total: int | None,
    ) -> None:
        """Write what an answer brings to where it belongs, but its first bytes that are there already.

        ``total``: how many there are in all, when that is known.

        Raises:
            Rejected: it is larger than may be.
            Unavailable: it broke off, is silent or too slow; what came is kept.
        """
        least, broken = Least(self._limits.least_bytes_per_s), _end_of_unframed(answer)
        refuse_size(into.size, self._limits)
        told(into.size, total)
        while True:
            since = self._clock.monotonic()
            piece = await self._piece(called, answer, into, total)
            if not least.is_kept(len(piece), self._clock.monotonic() - since):
                raise Unavailable(
                    f"{called} is too slow: {least.came} bytes came in {least.waited_s:.0f} s, and "
                    f"{self._limits.least_bytes_per_s:g} a second are the least"
                )
            if not piece:
                break
            piece, skipped = piece[skipped:], max(0, skipped - len(piece))
            await into.write(piece)
            refuse_size(into.size, self._limits)
            told(into.size, total)
        if total is not None and into.size != total:
            raise Unavailable(f"{called} broke off after {into.size} of {total} bytes")
        if broken is not None and (not into.size or (broken.done() and broken.exception() is not None)):
            raise Unavailable(f"{called} broke off after {into.size} bytes, and did not say how many there are")

    async def _piece(self, called: str, answer: aiohttp.ClientResponse, into: Partial, total: int | None) -> bytes:
        try:
            async with asyncio.timeout(self._limits.silent_s):
                return await answer.content.readany()
        except TimeoutError:
            raise Unavailable(f"{called} went silent for {self._limits.silent_s:g} s after {into.size} bytes") from None
        except (aiohttp.ClientError, OSError) as e:
            raise Unavailable(
                f"{called} broke off after {into.size}{'' if total is None else f' of {total}'} bytes"
            ) from e


@contextlib.asynccontextmanager
async def opened(limits: Limits, clock: Clock, *, proxy: str | None = None) -> AsyncIterator[Asking]:
    """Yield what asks, through an HTTP proxy where one is given; each question has a connection of its own."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        auto_decompress=False,
        read_bufsize=_READ_BYTES,
        timeout=aiohttp.ClientTimeout(
            total=None, connect=limits.connect_s, sock_connect=limits.connect_s, sock_read=None
        ),
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=16 << 10,
        max_field_size=16 << 10,
    ) as session:
        yield Asking(session, limits, clock, proxy)


def refuse_size(size: int, limits: Limits) -> None:
    """Refuse what is larger than may be.

    Raises:
        Rejected: it is.
    """
    if size > limits.most_bytes:
        raise Rejected(f"it is larger than {limits.most_bytes} bytes")


def span_of(answer: aiohttp.ClientResponse) -> Span | None:
    """Return which rest an answer holds; None: none, or it does not say it, or says two things."""
    found = _RANGE.match(answer.headers.get("Content-Range", "")) if answer.status == 206 else None
    if found is None:
        return None
    first, last, total = int(found["first"]), int(found["last"]), int(found["total"])
    is_rest = first <= last == total - 1 and length_of(answer) in (None, last - first + 1)
    return Span(first, total) if is_rest else None


def length_of(answer: aiohttp.ClientResponse) -> int | None:
    """Return how many bytes an answer says that it brings; None: nothing, or two things."""
    lengths = answer.headers.getall("Content-Length", [])
    return int(lengths[0]) if len(lengths) == 1 and _LENGTH.match(lengths[0]) else None


def _end_of_unframed(answer: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """Return what tells how the connection ended, where nothing else says whether a body is whole."""
    connection = answer.connection
    is_framed = "Content-Length" in answer.headers or "Transfer-Encoding" in answer.headers
    if is_framed or connection is None or connection.protocol is None:
        return None
    closed = connection.protocol.closed
    if closed is not None:
        closed.add_done_callback(lambda f: f.cancelled() or f.exception())
    return closed
