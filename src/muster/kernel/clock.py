"""Time and chance as arguments, so that tests can hold both."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What a room may know of time."""

    def now(self) -> datetime:
        """Return the wall clock, aware, UTC. Never used for leases: those live in store time."""

    def monotonic(self) -> float:
        """Return seconds that only grow, from an arbitrary start."""

    async def sleep(self, seconds: float) -> None:
        """Return no earlier than ``seconds`` from now."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class FakeClock:
    """A clock that moves only when told, or when somebody sleeps on it. For tests."""

    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    ticks: float = 0.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at.timestamp() + self.ticks, UTC)

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, seconds: float) -> None:
        self.ticks += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ticks += seconds
        await asyncio.sleep(0)


class Chance(Protocol):
    """Where jitter comes from."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number between ``a`` and ``b``."""


def system_chance() -> Chance:
    return random.SystemRandom()
