"""One connection's HTTP/1.1: uvicorn's parser and reply cycle, with the deadlines uvicorn lacks.

Public seams only (``reference/stack.md`` §1): the protocol class and its callbacks. uvicorn never closes a connection that
sends headers slowly or nothing at all; here every phase before a whole request has a deadline, kept as one number per
connection that :meth:`MemberProtocol.expired` compares, so that a call costs no timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from muster.edge.request import Peer
from muster.kernel.names import unmapped
from muster.pki.trust import Trust

HEADER_LIMIT_BYTES = 64 * 1024
_FOREVER = float("inf")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Deadlines:
    """Seconds."""

    header_s: float
    idle_s: float
    age_s: float = _FOREVER


class _OneWrite:
    """What one reply is written to: its headers wait for the first bytes of its body and leave with them.

    uvloop sends at every write, so uvicorn's two writes are two system calls and two packets; they were a fifth of a
    short call's CPU time when it was measured. A reply here always has its body ready.
    """

    __slots__ = ("_headers", "_started", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._headers = b""
        self._started = False

    def write(self, data: bytes) -> None:
        if self._headers:
            self._transport.writelines((self._headers, data))
            self._headers = b""
        elif self._started or data == _CONTINUE:
            self._transport.write(data)
        else:
            self._headers, self._started = data, True

    def close(self) -> None:
        if self._headers:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class MemberProtocol(HttpToolsProtocol):
    """A connection that knows its peer and does not wait for ever.

    Attributes:
        deadline: loop time after which the connection is closed if nothing better has happened.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        deadlines: Deadlines,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.deadlines = deadlines
        self.deadline = _FOREVER
        self.on_lost: Callable[[], None] | None = None
        self.origin: tuple[str, int] | None = None
        self.trust: Trust | None = None
        self._in_headers = False
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            self.client = (unmapped(self.client[0]), self.client[1])
        balancer = self.client[0] if self.origin and self.client else None
        if self.origin is not None:
            self.client = self.origin
        tls = transport.get_extra_info("ssl_object")
        peer = Peer(
            self.client[0] if self.client else "-",
            tls.getpeercert(True) if tls else None,
            balancer,
            self.trust,
            time.monotonic() + self.deadlines.age_s,
        )
        self.app_state = {"peer": peer}
        self.deadline = self.loop.time() + self.deadlines.header_s

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Cleared before the call: a closure kept on a dead protocol is a reference cycle, and cost 60 MB per
        # 10,000 connections when it was measured.
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def data_received(self, data: bytes) -> None:
        self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers:
            if self._header_bytes > HEADER_LIMIT_BYTES:
                self._refuse_long_headers()
        elif self.deadline == _FOREVER and (self.cycle is None or self.cycle.response_complete):
            # Bytes that start no request, such as lone line ends, must not stop the clock.
            self.deadline = self.loop.time() + self.deadlines.header_s

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self.deadline = self.loop.time() + self.deadlines.header_s

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._header_bytes = 0
        self.deadline = _FOREVER
        super().on_headers_complete()
        # The reply to HEAD has no body that its headers could wait for.
        if self.scope["method"] != "HEAD":
            self.cycle.transport = cast(asyncio.Transport, _OneWrite(self.transport))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The sweep does what uvicorn's timer would, at no cost per call.
        self._unset_keepalive_if_required()
        if not self.pipeline:
            self._header_bytes = 0
            self.deadline = self.loop.time() + self.deadlines.idle_s

    def expired(self, now: float) -> bool:
        return now > self.deadline

    def part_by(self, latest: float) -> None:
        """Do not wait longer than that for a request; one that runs is not hurried."""
        if self.deadline != _FOREVER:
            self.deadline = min(self.deadline, latest)

    def _refuse_long_headers(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()
