from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from muster.content.backend import GatewayTimeout
from muster.content.mirror.pace import no_slower
from muster.kernel.clock import FakeClock
from muster.kernel.pace import Pace

pytestmark = pytest.mark.anyio


async def test_so_many_bytes_come_in_a_second_save_the_first_few() -> None:
    clock = FakeClock()
    pace = Pace(1000, clock=clock)
    for _ in range(100):
        await pace.take(100)
    assert clock.ticks == pytest.approx(10)


async def test_what_was_not_taken_is_there_for_a_moment_only() -> None:
    clock = FakeClock()
    pace = Pace(1000, clock=clock)
    clock.advance(3600)
    for _ in range(10):
        await pace.take(100)
    assert sum(clock.slept) == pytest.approx(1 - 0.25)


async def test_all_who_share_it_have_it_together_in_their_order() -> None:
    clock = FakeClock()
    pace = Pace(1000, clock=clock)
    order = []

    async def fetching(name: str) -> None:
        for _ in range(10):
            await pace.take(100)
            order.append(name)

    await asyncio.gather(*(fetching(n) for n in "abc"))
    # Each sleeps until its own turn; a clock that is moved by sleepers moves for all of them.
    assert order.count("a") == order.count("b") == order.count("c") == 10
    assert order[:3] == ["a", "b", "c"]


async def test_who_is_cancelled_has_taken_it_and_holds_up_nobody() -> None:
    pace = Pace(1e6)
    first = asyncio.create_task(pace.take(10**9))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    quick = Pace(1e9)
    await quick.take(10**6)


def coming(clock: FakeClock, *pieces: tuple[float, int]) -> AsyncGenerator[bytes, None]:
    """Return pieces, each of which is so many bytes that come after so many seconds."""

    async def given() -> AsyncGenerator[bytes, None]:
        for after_s, count in pieces:
            clock.advance(after_s)
            yield b"x" * count

    return given()


async def test_who_is_slower_for_a_minute_is_given_up() -> None:
    clock = FakeClock()
    slow = no_slower(coming(clock, *[(10, 1)] * 9), 500, "http://a", clock=clock)
    assert [await anext(slow) for _ in range(6)] == [b"x"] * 6
    with pytest.raises(GatewayTimeout, match=r"^http://a is too slow: 7 bytes came in 70 s, .* 500 a second, .*least_"):
        await anext(slow)


@pytest.mark.parametrize(
    "pieces",
    [
        # A slow beginning, a moment without anything, and just the pace.
        [(55, 1), *[(1, 600)] * 200], [*[(1, 600)] * 20, (29, 1), (29, 1), *[(1, 600)] * 100], [(20, 10_000)] * 20,
    ],
)  # fmt: skip
async def test_who_is_slow_for_a_moment_goes_on(pieces: list[tuple[float, int]]) -> None:
    clock = FakeClock()
    came = [len(piece) async for piece in no_slower(coming(clock, *pieces), 500, "http://a", clock=clock)]
    assert sum(came) == sum(count for _, count in pieces)


async def test_what_was_much_at_first_is_no_leave_to_be_slow_for_longer() -> None:
    clock = FakeClock()
    with pytest.raises(GatewayTimeout):
        async for _ in no_slower(coming(clock, (0, 1 << 20), *[(10, 1)] * 7), 500, "http://a", clock=clock):
            pass


async def test_that_whoever_takes_it_is_slow_is_not_the_origins_fault() -> None:
    clock = FakeClock()
    async for _ in no_slower(coming(clock, *[(1, 1)] * 20), 500, "http://a", clock=clock):
        clock.advance(600)
