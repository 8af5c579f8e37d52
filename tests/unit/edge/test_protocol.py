"""A connection without a socket: what is parsed, what waits, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from muster.edge.budget import Budget
from muster.edge.protocol import HEADER_LIMIT, Deadlines, MemberProtocol

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Wire(asyncio.Transport):
    """A transport that keeps what is written, and how it is treated."""

    written: list[bytes] = field(default_factory=list)
    unsent: int = 0
    paused: bool = False
    ended: str = ""

    def write(self, data: Any) -> None:
        assert not self.ended, "written after its end"
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.9", 4711)}.get(name, default)

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    @property
    def replies(self) -> int:
        return b"".join(self.written).count(b"HTTP/1.1 200 OK")


@dataclass
class Desk:
    """An application that answers when it is told to."""

    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    reads: bool = False
    unframed: bool = False
    may: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        if self.reads:
            body, more = b"", True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            self.bodies.append(body)
        await self.may.acquire()
        headers = [] if self.unframed else [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


@dataclass
class Line:
    """One connection with its ends."""

    desk: Desk
    wire: Wire
    protocol: MemberProtocol
    budget: Budget

    def send(self, data: bytes) -> None:
        self.protocol.data_received(data)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


Opened = Callable[..., Line]


@pytest.fixture
def opened() -> Opened:
    def open_(*, budget: int = 1 << 20, write_s: float = 30.0, reads: bool = False, unframed: bool = False) -> Line:
        desk, wire, counted = Desk(reads=reads, unframed=unframed), Wire(), Budget(budget)
        config = Config(desk, http=MemberProtocol, lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        deadlines = Deadlines(10.0, 30.0, 3600.0, write_s)
        protocol = MemberProtocol(config, ServerState(), {}, deadlines=deadlines, budget=counted)
        protocol.connection_made(wire)
        return Line(desk, wire, protocol, counted)

    return open_


async def test_a_request_waits_unparsed_until_the_reply_before_it_is_given(opened: Opened) -> None:
    line = opened()
    line.send(GET * 100)
    await line.settle()
    assert line.desk.asked == ["/a"]
    assert len(line.protocol.pipeline) == 0
    assert line.wire.paused
    assert line.budget.held_bytes == 99 * len(GET)
    for given in range(1, 6):
        line.desk.may.release()
        async with asyncio.timeout(10):
            while len(line.desk.asked) == given:
                await asyncio.sleep(0.005)
        assert (line.wire.replies, len(line.desk.asked)) == (given, given + 1)
    for _ in range(95):
        line.desk.may.release()
    async with asyncio.timeout(20):
        while line.wire.replies < 100:
            await asyncio.sleep(0.01)
    assert (line.budget.held_bytes, line.wire.paused, line.wire.ended) == (0, False, "")
    assert len(line.desk.asked) == 100


@pytest.mark.parametrize(("unframed", "known"), [(False, b"Content-Length: 2"), (True, b"Transfer-Encoding: chunked")])
async def test_how_long_a_body_is_stands_where_grub_looks_for_it(opened: Opened, unframed: bool, known: bytes) -> None:
    line = opened(unframed=unframed)
    line.desk.may.release()
    line.send(GET)
    await line.settle()
    head = b"".join(line.wire.written).partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert [name for name in head if name.lower() == known.lower()] == [known]


@pytest.mark.parametrize("cut", [len(GET) - n for n in range(4)])
async def test_what_follows_a_request_is_refused_behind_its_reply(opened: Opened, cut: int) -> None:
    for asked in (GET, b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"):
        line, sent = opened(), asked + b"nonsense\r\n\r\n"
        line.send(sent[:cut])
        line.send(sent[cut:])
        await line.settle()
        assert (line.desk.asked, line.wire.written, line.wire.ended) == (["/a"], [], "")
        line.desk.may.release()
        async with asyncio.timeout(10):
            while not line.wire.ended:
                await asyncio.sleep(0.005)
        said = b"".join(line.wire.written)
        assert 0 <= said.find(b" 200 OK") < said.find(b" 400 Bad Request")


async def test_nothing_more_is_read_while_something_waits(opened: Opened) -> None:
    line = opened()
    line.send(GET * 3)
    await line.settle()
    for given in (1, 2):
        line.desk.may.release()
        await line.settle()
        # The reply is given, and the next request not parsed yet.
        assert (line.wire.replies, len(line.desk.asked), line.wire.paused) == (given, given, True)
        async with asyncio.timeout(10):
            while len(line.desk.asked) == given:
                await asyncio.sleep(0.005)
    assert (line.budget.held_bytes, line.wire.paused) == (0, False)


async def test_what_one_connection_may_let_wait_is_the_members_to_say(opened: Opened) -> None:
    line = opened(budget=1000)
    line.send(GET * 100)
    assert line.wire.ended == "aborted"
    line.protocol.connection_lost(None)
    assert line.budget.held_bytes == 0


async def test_a_client_that_leaves_gives_its_bytes_back_and_gets_no_reply(opened: Opened) -> None:
    line = opened()
    line.send(GET * 50)
    await line.settle()
    line.wire.ended = "gone"
    line.protocol.connection_lost(ConnectionResetError())
    assert line.budget.held_bytes == 0
    line.desk.may.release()
    await line.settle()
    assert (line.wire.written, line.desk.asked) == ([], ["/a"])


async def test_a_body_that_nobody_reads_yet_waits_in_the_kernel(opened: Opened) -> None:
    line = opened()
    line.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    line.send(b"x" * 90_000)
    assert line.wire.paused
    assert len(line.protocol.cycle.body) <= 33 * 1024
    assert line.budget.held_bytes == 90_000 - len(line.protocol.cycle.body)


async def test_a_body_that_is_read_arrives_whole_however_it_is_cut(opened: Opened) -> None:
    for cut in (1, 7, 1000, 1 << 20):
        line = opened(reads=True)
        body = bytes(range(256)) * 300
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (body[:1], body[1:50_000], body[50_000:]))
        chunked = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        plain = b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        line.desk.may = asyncio.Semaphore(2)
        sent = chunked + plain
        for at in range(0, len(sent), cut):
            line.send(sent[at : at + cut])
            if line.wire.paused or cut > 500:
                await line.settle()
        await line.settle()
        assert line.desk.bodies == [body, body], cut
        assert (line.desk.asked, line.wire.replies, line.wire.ended) == (["/a", "/b"], 2, ""), cut
        assert line.budget.held_bytes == 0


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"GET /a HTTP/1.1\r\n", b"X-Long: " + b"x" * 70_000),
        (b"GET /a HTTP/1.1\r\n", b"".join(b"X-%d: y\r\n" % n for n in range(HEADER_LIMIT + 50))),
    ],
    ids=["long", "many"],
)
async def test_headers_are_counted_in_bytes_and_in_number(opened: Opened, head: bytes, more: bytes) -> None:
    line = opened()
    line.send(head + more)
    assert line.wire.ended == "closed"
    assert line.wire.written[0].startswith(b"HTTP/1.1 431 ")
    assert line.desk.asked == []


@pytest.mark.parametrize(
    "more",
    [
        b"1;" + b"e" * 70_000,
        b"1\r\nx\r\n0\r\nX-Long: " + b"x" * 70_000,
        b"1\r\nx\r\n0\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(HEADER_LIMIT + 50)),
    ],
    ids=["a chunk's extension", "a long trailer", "many trailers"],
)
async def test_what_stands_beside_a_body_counts_too(opened: Opened, more: bytes) -> None:
    line = opened(reads=True)
    line.send(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + more)
    assert line.wire.ended == "aborted"


async def test_small_chunks_earn_no_room_for_what_stands_beside_them(opened: Opened) -> None:
    line = opened(reads=True)
    line.send(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(30):
        line.send(b"1\r\nx\r\n" * 1000)
        await line.settle()
    line.send(b"0\r\nX-Long: " + b"x" * 90_000)
    assert line.wire.ended == "aborted"


async def test_a_trailer_is_no_header(opened: Opened) -> None:
    line = opened(reads=True)
    line.send(
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Late: y\r\nHost: z\r\n\r\n"
    )
    await line.settle()
    assert line.desk.asked == ["/a"]
    assert line.protocol.cycle.scope["headers"] == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]


async def test_small_chunks_are_no_offence(opened: Opened) -> None:
    line = opened(reads=True)
    line.desk.may.release()
    line.send(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(30):
        line.send(b"1\r\nx\r\n" * 1000)
        await line.settle()
    line.send(b"0\r\n\r\n")
    await line.settle()
    assert (line.desk.bodies, line.wire.replies) == ([b"x" * 30_000], 1)


async def test_a_client_that_takes_nothing_is_seen_and_one_that_takes_little_is_not(opened: Opened) -> None:
    line = opened(write_s=30.0)
    assert not line.protocol.stalled(0.0)
    line.wire.unsent = 1000
    assert not line.protocol.stalled(1.0)
    assert not line.protocol.stalled(31.0)
    line.wire.unsent = 999
    assert not line.protocol.stalled(32.0)
    assert not line.protocol.stalled(62.0)
    line.wire.unsent = 5000
    assert line.protocol.stalled(62.1)
    line.wire.unsent = 0
    assert not line.protocol.stalled(99.0)


async def test_requests_that_end_otherwise_wait_in_a_small_number(opened: Opened) -> None:
    # The parser also takes a bare line feed, by which no piece ends.
    line = opened()
    line.send(b"GET /a HTTP/1.1\nHost: x\n\n" * 50)
    assert len(line.protocol.pipeline) <= 5
    assert line.wire.ended
