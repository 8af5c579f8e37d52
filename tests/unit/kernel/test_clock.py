from __future__ import annotations

from datetime import UTC, datetime, timedelta

from muster.kernel.clock import FakeClock, SystemClock, system_chance


async def test_a_fake_clock_moves_only_when_told_or_slept_on() -> None:
    clock = FakeClock()
    before = clock.now()
    assert clock.now() == before
    clock.advance(2.5)
    await clock.sleep(1.5)
    assert clock.now() - before == timedelta(seconds=4)
    assert clock.monotonic() == 4.0
    assert clock.slept == [1.5]


async def test_the_systems_clock_is_aware_and_grows() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    before = clock.monotonic()
    await clock.sleep(0.001)
    assert clock.monotonic() > before


def test_chance_stays_between_its_ends() -> None:
    assert all(2.0 <= system_chance().uniform(2.0, 3.0) <= 3.0 for _ in range(100))
