"""Retry: repeat only what may be repeated, with jitter, within a budget.

Defaults and their provenance are in docs/facts/balancer.md §5: three attempts, full jitter from 50 ms, capped at 2 s,
and a budget of a fifth of all calls plus one a second, so that retries never multiply an outage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from muster.kernel.clock import Chance, Clock, SystemClock, system_chance
from muster.kernel.errors import MusterError
from muster.policy.chain import Call
from muster.policy.marks import Operation


@dataclass
class RetryBudget:
    """Tokens that retries spend: each first attempt earns ``ratio``, each second earns ``per_second``, at most ``limit``.

    Not thread-safe: one event loop.
    """

    ratio: float = 0.2
    per_second: float = 1.0
    limit: float = 20.0
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        self._tokens = self.limit
        self._at = self.clock.monotonic()

    def earn(self) -> None:
        self._refill(self.ratio)

    def spend(self) -> bool:
        """Take one token; False when there is none, and then the retry must not happen."""
        self._refill(0.0)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _refill(self, extra: float) -> None:
        now = self.clock.monotonic()
        self._tokens = min(self.limit, self._tokens + extra + (now - self._at) * self.per_second)
        self._at = now


@dataclass
class Retry:
    """Repeat queries and repeatable changes whose failure is ``retryable``; everything else fails at once.

    A change that is not repeatable is tried exactly once, whatever happens.
    """

    attempts: int = 3
    base_s: float = 0.05
    cap_s: float = 2.0
    budget: RetryBudget = field(default_factory=RetryBudget)
    clock: Clock = field(default_factory=SystemClock)
    chance: Chance = field(default_factory=system_chance)

    async def __call__(self, operation: Operation, call: Call) -> Any:
        self.budget.earn()
        attempts = self.attempts if operation.repeatable else 1
        for attempt in range(1, attempts + 1):
            try:
                return await call()
            except MusterError as e:
                if not e.retryable or attempt == attempts or not self.budget.spend():
                    raise
            await self.clock.sleep(self.chance.uniform(0, min(self.cap_s, self.base_s * 2 ** (attempt - 1))))
        raise AssertionError("unreachable: the last attempt returns or raises")
