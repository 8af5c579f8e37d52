"""The load generator tells the truth: about stalls, lost calls, and where it may be pointed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from bench.load import Operation, Target, by_member, half_client_hello, idle, keep_alive, new_connections, summary

pytestmark = pytest.mark.anyio

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"member":"m"}'
LAST = GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Target]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    async with await asyncio.start_server(one, "127.0.0.1", 0) as server:
        yield Target("127.0.0.1", server.sockets[0].getsockname()[1], "localhost", None)


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(GOOD)


def operation(due: float, took: float, failed: str | None = None) -> Operation:
    return Operation(due, due, due + took, failed, None if failed else 200)


@pytest.mark.parametrize("host", ["192.0.2.1", "10.0.0.1", "::ffff:192.0.2.1"])
async def test_no_load_leaves_this_machine(host: str) -> None:
    with pytest.raises(ValueError, match="not a loopback address"):
        Target(host, 9090, "name", None)
    with pytest.raises(ValueError, match="not a loopback address"):
        await idle(host, 9090, [b""], 1.0)


async def test_a_name_is_no_target() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        Target("localhost", 9090, "name", None)


async def test_the_number_and_the_time_are_bounded() -> None:
    target = Target("127.0.0.1", 9, "name", None)
    for per_second, duration_s in ((1e6, 3600.0), (1.0, 1e6), (0.0, 10.0)):
        with pytest.raises(ValueError, match="operations within"):
            await new_connections(target, per_second, duration_s)


async def test_every_scheduled_operation_is_on_record() -> None:
    async with serving(answering) as target:
        new = await new_connections(target, 200, 0.1)
        kept = await keep_alive(target, 200, 0.1, 4)
    for operations in (new, kept):
        assert len(operations) == 20
        assert all(o.ok and o.status == 200 for o in operations)
        assert by_member(operations) == {"m": 20}
        assert [o.due for o in operations] == sorted(o.due for o in operations)
    assert not any(o.reconnected for o in kept)


async def test_the_first_byte_is_told_from_the_last() -> None:
    let_go = asyncio.Event()

    async def halting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD[:-5])
        await let_go.wait()
        writer.write(GOOD[-5:])

    async with serving(halting) as target:
        asyncio.get_running_loop().call_later(0.1, let_go.set)
        (one,) = await keep_alive(target, 20, 0.05, 1)
    assert one.ok
    assert one.head is not None
    assert one.start <= one.head < one.end


async def test_warm_connections_have_been_asked_before_the_schedule_begins_and_are_on_no_record() -> None:
    asked: list[bytes] = []
    connections = 0

    async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            asked.append(head.split(b" ")[1])
            writer.write(GOOD)

    async with serving(noting) as target:
        operations = await keep_alive(target, 100, 0.05, 40, warm_path="/warm")
    # More connections than requests: the others are only kept.
    assert connections == 40
    assert asked == [b"/warm"] * 40 + [b"/version"] * 5
    assert [(o.ok, o.reconnected) for o in operations] == [(True, False)] * 5


async def test_a_stall_counts_from_when_the_call_was_due() -> None:
    turn = asyncio.Lock()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        async with turn:
            await asyncio.sleep(0.02)
        writer.write(GOOD)

    async with serving(slow) as target:
        operations = await new_connections(target, 1000, 0.01, workers=1)
    assert operations[-1].start > operations[-1].due
    assert summary(operations).p99_ms >= (operations[-1].end - operations[-1].start) * 1000 * 5


async def test_a_refused_connection_and_a_bad_status_are_failures() -> None:
    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    async with serving(refusing) as target:
        (busy,) = await new_connections(target, 10, 0.1)
        (accepted,) = await new_connections(
            Target(target.host, target.port, "localhost", None, accepted=frozenset({503})), 10, 0.1
        )
    (refused,) = await new_connections(target, 10, 0.1)
    assert (busy.ok, busy.failed, busy.status) == (False, "status 503", 503)
    assert accepted.ok
    assert (refused.ok, refused.status) == (False, None)


async def test_a_connection_that_says_it_closes_is_made_anew() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(LAST)

    async with serving(once) as target:
        operations = await keep_alive(target, 100, 0.03, 1)
    assert [(o.ok, o.reconnected, o.resent) for o in operations] == [(True, False, False)] + [(True, True, False)] * 2


async def test_a_call_without_an_answer_is_sent_again_only_on_a_used_connection_and_only_if_repeatable() -> None:
    async def one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD)
        await reader.readuntil(b"\r\n\r\n")

    async def none(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with serving(one_answer) as target:
        _, again = await keep_alive(target, 100, 0.02, 1)
        post = Target(target.host, target.port, "localhost", None, method="POST")
        _, lost = await keep_alive(post, 100, 0.02, 1)
    async with serving(none) as target:
        (fresh,) = await keep_alive(target, 10, 0.1, 1)
    assert (again.ok, again.resent) == (True, True)
    assert (lost.failed, lost.resent) == ("closed before the reply", False)
    assert (fresh.failed, fresh.resent) == ("closed before the reply", False)


async def test_half_an_answer_is_a_failure_and_never_sent_again() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD[:-5])

    async with serving(half) as target:
        _, cut = await keep_alive(target, 100, 0.02, 1)
    assert (cut.failed, cut.resent) == ("closed within the reply", False)


async def test_a_stopped_schedule_keeps_what_was_done() -> None:
    stop = asyncio.Event()
    seen: list[Operation] = []

    def enough(done: Operation) -> None:
        seen.append(done)
        if len(seen) == 3:
            stop.set()

    async with serving(answering) as target:
        operations = await new_connections(target, 100, 60.0, workers=1, stop=stop, seen=enough)
    assert operations == seen
    assert len(seen) == 3


async def test_idle_connections_say_when_they_were_closed() -> None:
    async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await reader.read(1):
            return

    async with serving(strict) as target:
        closed, opened = await idle(target.host, target.port, [b"x", b""], 0.2)
    assert closed.closed_after_s is not None
    assert opened.closed_after_s is None
    (refused,) = await idle(target.host, target.port, [b""], 0.2)
    assert not refused.connected


def test_a_summary_knows_gap_and_recovery() -> None:
    operations = [operation(0.0, 0.1), operation(1.0, 0.1), operation(2.0, 0.1, "gone"), operation(3.0, 0.1)]
    found = summary(operations)
    assert (found.failed, found.served, found.expected) == (1, 3, 4)
    assert found.longest_gap_s == pytest.approx(2.0)
    assert found.recovery_s(1.5) == pytest.approx(1.6)
    assert found.recovery_s(2.5) == 0.0
    assert summary(operations[:3]).recovery_s(1.5) == math.inf
    assert "failed 1 served 3/4" in found.as_row()
    assert "1× gone" in found.as_row()
    assert summary([], 5).as_row().startswith("failed 0 served 0/5")


def test_half_a_client_hello_is_the_beginning_of_one(tmp_path: Path) -> None:
    hello = half_client_hello("smartproxy.muster.test")
    assert hello[:2] == b"\x16\x03"
    assert int.from_bytes(hello[3:5], "big") > len(hello)


async def test_operations_begin_no_earlier_than_due() -> None:
    begin = time.monotonic()
    async with serving(answering) as target:
        operations = await new_connections(target, 100, 0.05)
    assert all(o.start >= o.due > begin for o in operations)
