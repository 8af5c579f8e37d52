from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.cluster.sections import Edge as Limits
from muster.edge.application import Application, Mounted, Send
from muster.edge.authorise import Callers, Gate
from muster.edge.feature import Features
from muster.edge.metrics import EdgeMetrics
from muster.edge.replies import Reply, Streamed, reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.kernel.errors import Unavailable
from muster.kernel.rings import LogRings
from tests.unit.edge.calls import scope

pytestmark = pytest.mark.anyio

HEADERS = [(b"content-type", b"text/plain")]


@dataclass
class Call:
    """One streamed reply, and how it went."""

    rings: LogRings
    sent: list[MutableMapping[str, Any]] = field(default_factory=list)
    closed: bool = False
    cut: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    lines: list[str] = field(default_factory=list)
    draining: bool = False
    application: Application | None = None

    def __post_init__(self) -> None:
        self.taken.set()

    async def make(
        self, pieces: AsyncGenerator[bytes, None], *, end: Callable[[], None] = lambda: None, send: Send | None = None
    ) -> None:
        async def counted() -> AsyncGenerator[bytes, None]:
            try:
                async for piece in pieces:
                    yield piece
            finally:
                self.closed = True

        async def below(_: object, __: Request) -> Streamed:
            return Streamed(200, HEADERS, counted(), end)

        mounts = [Mounted(Mount("/x", (), unrouted=below), None)]
        application = self.application = self.application or Application(
            gate=Gate(Callers()), features=Features({}), mounts=mounts, limits=Limits(), rings=self.rings,
            metrics=EdgeMetrics(CollectorRegistry()), access_log=self.lines.append, foreman=False,
        )  # fmt: skip
        application.mount(mounts)
        application.draining = self.draining
        first = True

        async def receive() -> MutableMapping[str, Any]:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": b"", "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def keep(message: MutableMapping[str, Any]) -> None:
            self.sent.append(message)

        def cut() -> None:
            self.cut = True
            asyncio.get_running_loop().call_soon(self.gone.set)

        call = scope("GET", "/x/y")
        call["state"] |= {"cut": cut, "drain": self.taken.wait}
        await application(call, receive, send or keep)

    @property
    def body(self) -> list[bytes]:
        return [m["body"] for m in self.sent[1:]]

    @property
    def ended(self) -> bool:
        return not self.sent[-1].get("more_body", False)


@pytest.fixture
def call(rings: LogRings) -> Call:
    return Call(rings)


async def test_pieces_are_sent_one_by_one_and_the_call_is_logged(call: Call) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"a"
        assert len(call.sent) == 2
        yield b"b"

    await call.make(pieces())
    assert (call.body, call.ended, call.closed, call.cut) == ([b"a", b"b", b""], True, True, False)
    assert "Finished GET /x/y with 200" in call.lines[0]


async def test_no_piece_is_asked_for_before_the_client_has_taken_the_one_before(call: Call) -> None:
    """It would be held in memory for nothing, once for each reader who is slow."""
    asked: list[bytes] = []

    async def pieces() -> AsyncGenerator[bytes, None]:
        for piece in (b"a", b"b"):
            asked.append(piece)
            yield piece

    call.taken.clear()
    making = asyncio.create_task(call.make(pieces()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert (asked, call.body) == ([b"a"], [b"a"])
    call.taken.set()
    await making
    assert call.body == [b"a", b"b", b""]


async def test_an_error_cuts_the_connection_instead_of_ending_the_body(call: Call) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise Unavailable("the backend broke off")

    await call.make(pieces())
    assert (call.body, call.ended, call.closed, call.cut) == ([b"a"], False, True, True)
    assert any("the backend broke off" in r.message for r in call.rings.records())


async def test_a_reply_that_was_cut_is_over_when_its_connection_is(call: Call) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise Unavailable("the backend broke off")

    await call.make(pieces())
    # Before that the server takes it for one that was forgotten.
    assert call.gone.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_replies_that_are_cut_fill_no_log(call: Call) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise Unavailable("the backend broke off")

    for _ in range(30):
        call.sent.clear()
        await call.make(pieces())
    assert sum("was cut" in r.message for r in call.rings.records()) == 10


async def test_a_client_that_goes_away_ends_what_is_fetched_for_it(call: Call) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"a"
        call.gone.set()
        await asyncio.sleep(30)
        yield b"b"

    async with asyncio.timeout(10):
        await call.make(pieces())
    assert (call.body, call.ended, call.closed) == ([b"a"], False, True)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_member_that_stops_ends_it_too(call: Call) -> None:
    begun = asyncio.Event()

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"a"
        begun.set()
        await asyncio.sleep(30)

    making = asyncio.create_task(call.make(pieces()))
    await begun.wait()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert call.closed


async def test_while_draining_a_streamed_reply_closes_its_connection_too(call: Call) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"a"

    call.draining = True
    await call.make(pieces())
    assert (b"connection", b"close") in call.sent[0]["headers"]


async def test_what_a_reply_holds_is_let_go_though_no_piece_was_asked_for(call: Call) -> None:
    ended = []

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"a"

    class Stopped(Exception):
        pass

    async def refusing(_: MutableMapping[str, Any]) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        await call.make(pieces(), end=lambda: ended.append(True), send=refusing)
    assert ended == [True]


async def test_a_route_may_answer_piece_by_piece_and_head_as_ever() -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"one "
        yield b"two"

    async def announced(_: object, __: Request) -> Reply:
        return reply(200, b"", b"text/plain")

    async def streamed(_: object, __: Request) -> Streamed:
        return Streamed(200, HEADERS, pieces())

    metrics = EdgeMetrics(CollectorRegistry())
    rings = LogRings()
    application = Application(
        gate=Gate(Callers()), features=Features({}), limits=Limits(), rings=rings, metrics=metrics, services={"https": "s"},
        mounts=[
            Mounted(Mount(prefix, (Route("GET", "/live", Access.OPEN, announced, streamed=streamed),)), None)
            for prefix in ("/x", "/cluster")
        ],
    )  # fmt: skip
    for prefix in ("/x", "/cluster"):
        for method, body in (("GET", b"one two"), ("HEAD", b"")):
            assert await sent(application, method, f"{prefix}/live") == body
    metrics.traffic.turn()
    # Who looks at the page is no traffic of the service, and fills nobody's log.
    assert sum(metrics.traffic.told()["services"]["s"]["calls"]) == 2
    assert all("/cluster" not in r.message for r in rings.records())


async def sent(application: Application, method: str, path: str) -> bytes:
    found: list[bytes] = []
    gone = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        found.append(message.get("body", b""))

    async def drain() -> None:
        pass

    call = scope(method, path)
    call["state"] |= {"cut": lambda: None, "drain": drain}
    await application(call, receive, send)
    return b"".join(found)
