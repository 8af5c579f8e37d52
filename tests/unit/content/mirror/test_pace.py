from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from muster.content.backend import GatewayTimeout
from muster.content.mirror.pace import no_slower
from muster.kernel.clock import FakeClock

pytestmark = pytest.mark.anyio


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
