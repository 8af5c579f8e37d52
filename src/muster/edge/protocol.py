"""One connection's HTTP/1.1: uvicorn's parser and reply cycle, with the bounds uvicorn lacks.

Public seams only (docs/facts/libraries.md §1): the protocol class and its callbacks. uvicorn never closes a connection that
sends headers slowly or nothing at all; here every phase before a whole request has a deadline, kept as one number per
connection that :meth:`MemberProtocol.expired` compares, so that a call costs no timer.

Bytes are bounded, too. A request is parsed when the reply before it has been given: what arrives earlier waits unparsed,
reading pauses, and the member's budget counts it. Of a message everything counts that is not body: headers, trailers and
how chunks are framed. A client that takes no byte of its reply for ``write_s`` is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from muster.edge.budget import Budget
from muster.edge.request import Peer
from muster.kernel.names import unmapped
from muster.pki.trust import Trust

HEADER_LIMIT_BYTES = 64 * 1024
# Each is an object or three in memory, however short.
HEADER_LIMIT = 128
# Of a request's body that nobody has asked for yet; then reading pauses.
_BODY_AHEAD_BYTES = 16 * 1024
# What is parsed before it is looked whether more may be.
_PIECE_BYTES = 16 * 1024
# A chunk's length in hexadecimal, and its line ends.
_CHUNK_FRAME_BYTES = 20
# Requests whose ends stand in no form that can be told before they are parsed may come this many at once.
_PIPELINE_LIMIT = 4
# Whoever sends requests without waiting for replies lets others go first; no client of a Smart Proxy does that.
_PIPELINE_PAUSE_S = 0.01
_READ_AHEAD_BYTES = 16 * 1024
_WRITE_AHEAD_BYTES = 32 * 1024
_FOREVER = float("inf")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_END_OF_HEADERS = b"\r\n\r\n"
_TAIL_BYTES = len(_END_OF_HEADERS) - 1
_CHUNKED = b"\r\ntransfer-encoding: chunked\r\n"
# uvicorn writes names in lower case, and so GRUB 2.06 does not know them (docs/facts/content-and-boot.md): it has the whole
# file and waits for more, until it gives up.
_FRAMINGS = (
    (b"\r\ncontent-length: ", b"\r\nContent-Length: "),
    (_CHUNKED, b"\r\nTransfer-Encoding: chunked\r\n"),
)
_CONTENT_LENGTH = b"content-length"
_CONTENT_LENGTH_SIZE = len(_CONTENT_LENGTH)


@dataclass(frozen=True)
class Deadlines:
    """Seconds."""

    header_s: float
    idle_s: float
    age_s: float = _FOREVER
    write_s: float = _FOREVER


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
        # Whoever has gone away gets nothing; uvloop would raise for one that it has closed already.
        if self._transport.is_closing():
            self._headers = b""
        elif self._headers:
            headers, self._headers = self._headers, b""
            self._transport.writelines((headers, data))
        elif self._started or data == _CONTINUE:
            self._transport.write(data)
        else:
            for written, known in _FRAMINGS:
                data = data.replace(written, known, 1)
            self._headers, self._started = data, True

    def close(self) -> None:
        if self._headers:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class _Unchunked(_OneWrite):
    """As that, for HTTP/1.0: it knows no chunks, so a body of unknown length is as long as its connection."""

    __slots__ = ("_strips",)

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._strips = False

    def write(self, data: bytes) -> None:
        if self._strips:
            # One chunk, the last one behind it.
            size, _, body = data.partition(b"\r\n")
            data = body[: int(size, 16)] if size else b""
        elif not self._started and _CHUNKED in data:
            self._strips, data = True, data.replace(_CHUNKED, b"\r\n", 1)
        super().write(data)


class _Flow(FlowControl):
    """Reading and writing paused and resumed; what arrived before a pause is let in before more is read."""

    def __init__(self, transport: asyncio.Transport, let_in: Callable[[], bool]) -> None:
        """``let_in`` says whether something waits, and sees to it that it is let in soon."""
        super().__init__(transport)
        self._let_in = let_in
        # Reading may go on, and the transport still does not.
        self._is_behind = False

    def pause_reading(self) -> None:
        if self._is_behind:
            self._is_behind, self.read_paused = False, True
        else:
            super().pause_reading()

    def resume_reading(self) -> None:
        if not self.read_paused:
            return
        if self._let_in():
            # Who sends faster than he is answered would else be read, and held in memory, without end.
            self._is_behind, self.read_paused = True, False
        else:
            super().resume_reading()

    def read_on(self) -> None:
        """Have the transport read again, when reading may go on: nothing waits any more."""
        if self._is_behind:
            self._is_behind = False
            self._transport.resume_reading()


class MemberProtocol(HttpToolsProtocol):
    """A connection that knows its peer, does not wait for ever, and holds a bounded number of bytes.

    Attributes:
        deadline: loop time after which the connection is closed if nothing better has happened.
    """

    flow: _Flow

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        deadlines: Deadlines,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.deadlines = deadlines
        self.deadline = _FOREVER
        self.on_lost: Callable[[], None] | None = None
        self.origin: tuple[str, int] | None = None
        self.trust: Trust | None = None
        self._budget = budget
        self._in_headers = False
        self._in_body = False
        # Of the message that is parsed: what was fed that is not body, less what its chunks' frames may take.
        self._beside_body_bytes = 0
        self._trailers = 0
        # The last bytes of headers that are not whole; of a body, how much is still to come where its length was said.
        self._tail = b""
        self._body_left: int | None = None
        # What arrived and may not be parsed yet.
        self._unfed = b""
        self._unfed_counted = 0
        self._feeding = False
        # How much was unsent when that last became less, and when.
        self._unsent = (0, _FOREVER)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self._feed_soon)
        transport.set_write_buffer_limits(_WRITE_AHEAD_BYTES)
        # What TLS keeps undecrypted while reading is paused; a plain transport keeps nothing.
        if hasattr(transport, "set_read_buffer_limits"):
            transport.set_read_buffer_limits(_READ_AHEAD_BYTES)
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
        self.app_state = {"peer": peer, "cut": transport.abort, "drain": self.flow.drain}
        self.deadline = self.loop.time() + self.deadlines.header_s

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Nobody waits for these replies any more.
        self.pipeline.clear()
        self._hold_back(b"")
        # Cleared before the call: a closure kept on a dead protocol is a reference cycle, and cost 60 MB per
        # 10,000 connections when it was measured.
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def data_received(self, data: bytes) -> None:
        if self._unfed or self._feeding:
            self._hold_back(self._unfed + data)
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Parse as much as may be parsed now, and keep the rest."""
        self._feeding = True
        at, size = 0, len(data)
        while at < size and not self.transport.is_closing():
            # A pause is the application's, which has not taken the body yet, or this one's, until a reply was given.
            if self.flow.read_paused or self._owes_a_reply():
                self.flow.pause_reading()
                break
            end = self._piece_end(data, at, size)
            piece = data if end - at == size else data[at:end]
            at = end
            self._beside_body_bytes += len(piece)
            super().data_received(piece)
            self._tail = b"" if self._in_body else (self._tail + piece[-_TAIL_BYTES:])[-_TAIL_BYTES:]
            if self.parser is None or self._is_refused():
                break
        self._feeding = False
        rest = b"" if self.transport.is_closing() or self.parser is None else data[at:] + self._unfed
        if rest or self._unfed:
            self._hold_back(rest)
        if not self._unfed and not self.transport.is_closing():
            self.flow.read_on()
        if self._in_headers or self.transport.is_closing():
            return
        if self.deadline == _FOREVER and (self.cycle is None or self.cycle.response_complete):
            # Bytes that start no request, such as lone line ends, must not stop the clock.
            self.deadline = self.loop.time() + self.deadlines.header_s

    def _owes_a_reply(self) -> bool:
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not self._in_body

    def _piece_end(self, data: bytes, at: int, size: int) -> int:
        """Return where to stop and look: behind the headers, behind a body of known length, or after some bytes.

        What follows a whole request is not parsed before its reply: the parser's own refusal would go ahead of that.
        """
        end = min(at + _PIECE_BYTES, size)
        if self._in_body:
            return end if self._body_left is None else min(end, at + max(1, self._body_left))
        if self._tail:
            # The end may have come in two pieces.
            found = (self._tail + data[at : at + _TAIL_BYTES]).find(_END_OF_HEADERS)
            if found >= 0:
                return at + found + len(_END_OF_HEADERS) - len(self._tail)
        found = data.find(_END_OF_HEADERS, at, end)
        return end if found < 0 else found + len(_END_OF_HEADERS)

    def _is_refused(self) -> bool:
        """Close the connection of a message that is beyond all measure."""
        if len(self.pipeline) > _PIPELINE_LIMIT:
            self.transport.abort()
            return True
        if self._beside_body_bytes <= HEADER_LIMIT_BYTES and len(self.headers or ()) + self._trailers <= HEADER_LIMIT:
            return False
        if self._in_headers:
            self._refuse_long_headers()
        else:
            self.transport.abort()
        return True

    def _hold_back(self, data: bytes) -> None:
        """Keep bytes that may not be parsed yet, as far as the member's budget goes; then the connection ends."""
        self._unfed = data
        if self._budget is None:
            return
        more, self._unfed_counted = len(data) - self._unfed_counted, len(data)
        if more < 0:
            self._budget.give(-more)
        elif not self._budget.take(more):
            self._unfed_counted -= more
            self.transport.abort()

    def _feed_soon(self) -> bool:
        # Not from within: whoever resumes reading is in the middle of a reply, or of the parser.
        if self._unfed and self._in_body:
            self.loop.call_soon(self._feed_rest)
        elif self._unfed:
            self.loop.call_later(_PIPELINE_PAUSE_S, self._feed_rest)
        return bool(self._unfed)

    def _feed_rest(self) -> None:
        if self._unfed and not self._feeding and self.parser is not None:
            data = self._unfed
            self._hold_back(b"")
            self._feed(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self.deadline = self.loop.time() + self.deadlines.header_s

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            # A trailer. Whether it came before the application began must not tell whether it counts as a header.
            self._trailers += 1
        # One more than may be, which refuses the message; those after it are not kept.
        elif len(self.headers) <= HEADER_LIMIT:
            super().on_header(name, value)
            if len(name) == _CONTENT_LENGTH_SIZE and self.headers[-1][0] == _CONTENT_LENGTH and value.isdigit():
                self._body_left = int(value)

    def on_headers_complete(self) -> None:
        self._in_headers, self._in_body = False, True
        self.deadline = _FOREVER
        super().on_headers_complete()
        # The reply to HEAD has no body that its headers could wait for.
        if self.scope["method"] != "HEAD":
            sent = _Unchunked if self.scope["http_version"] == "1.0" else _OneWrite
            self.cycle.transport = cast(asyncio.Transport, sent(self.transport))

    def on_chunk_header(self) -> None:
        # What one frame does not take of it, nothing else may.
        self._beside_body_bytes = max(0, self._beside_body_bytes - _CHUNK_FRAME_BYTES)

    def on_body(self, body: bytes) -> None:
        self._beside_body_bytes -= len(body)
        if self._body_left is not None:
            self._body_left -= len(body)
        super().on_body(body)
        if len(self.cycle.body) > _BODY_AHEAD_BYTES:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False
        self._body_left = None
        self._beside_body_bytes = self._trailers = 0

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The sweep does what uvicorn's timer would, at no cost per call.
        self._unset_keepalive_if_required()
        if not self.pipeline:
            self.deadline = self.loop.time() + self.deadlines.idle_s

    def expired(self, now: float) -> bool:
        return now > self.deadline

    def stalled(self, now: float) -> bool:
        """Whether the client has taken nothing of what waits for it, for as long as that is borne; asked now and then."""
        waiting = self.transport.get_write_buffer_size()
        if not waiting and not self.flow.write_paused:
            self._unsent = (0, _FOREVER)
            return False
        before, since = self._unsent
        if since == _FOREVER or waiting < before:
            self._unsent = (waiting, now)
            return False
        self._unsent = (waiting, since)
        return now - since > self.deadlines.write_s

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for the client to take it, so that a close would wait, too."""
        return self.transport.get_write_buffer_size() > 0

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
