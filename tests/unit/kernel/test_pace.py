from __future__ import annotations

import asyncio

import pytest

from muster.kernel.clock import FakeClock
from muster.kernel.pace import Least, Pace

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


def test_a_least_pace_is_an_average_over_a_minute() -> None:
    least = Least(500)
    assert least.is_kept(1, 59)
    assert not least.is_kept(10_000, 2)
    assert (least.came, least.waited_s) == (10_001, 61)
    quick = Least(500)
    assert all(quick.is_kept(500, 1) for _ in range(1000))
