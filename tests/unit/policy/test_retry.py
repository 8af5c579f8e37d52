from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from muster.kernel.clock import FakeClock
from muster.kernel.errors import (
    Conflict,
    Denied,
    Misconfigured,
    MusterError,
    NotFound,
    Rejected,
    Unavailable,
    Unsupported,
)
from muster.policy.chain import chained
from muster.policy.retry import Retry, RetryBudget
from tests.unit.policy.shelf import Shelf, ToldShelf, names

DOWN = Unavailable("the other side did not answer")


@dataclass
class UpperEnd:
    """Chance that always takes the upper end, and remembers between what it was asked to choose."""

    asked: list[tuple[float, float]] = field(default_factory=list)

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return b


@dataclass
class Kit:
    clock: FakeClock = field(default_factory=FakeClock)
    chance: UpperEnd = field(default_factory=UpperEnd)
    provider: ToldShelf = field(default_factory=ToldShelf)

    def shelf(
        self, *outcomes: object, attempts: int = 3, budget: RetryBudget | None = None, cap_s: float = 2.0
    ) -> Shelf:
        self.provider.outcomes = list(outcomes)
        retry = Retry(
            attempts=attempts,
            cap_s=cap_s,
            budget=budget or RetryBudget(clock=self.clock),
            clock=self.clock,
            chance=self.chance,
        )
        return chained(Shelf, self.provider, [retry])  # type: ignore[type-abstract]


async def test_a_query_is_repeated_until_it_is_answered() -> None:
    kit = Kit()
    assert await kit.shelf(DOWN, DOWN, "there").lookup("x") == "there"
    assert names(kit.provider.calls) == ["lookup"] * 3


async def test_a_repeatable_change_is_repeated() -> None:
    kit = Kit()
    await kit.shelf(DOWN, None).add("x")
    assert kit.provider.calls == [("add", "x")] * 2


async def test_a_change_that_may_not_be_repeated_is_tried_exactly_once() -> None:
    kit = Kit()
    with pytest.raises(Unavailable):
        await kit.shelf(DOWN, "7", attempts=10).draw()
    assert names(kit.provider.calls) == ["draw"]
    assert kit.clock.slept == []


@pytest.mark.parametrize(
    "error",
    [e("no") for e in (Conflict, NotFound, Rejected, Denied, Unsupported, Misconfigured, MusterError)]
    + [ValueError("bug")],
    ids=lambda e: type(e).__name__,
)
async def test_an_error_that_will_not_go_away_is_raised_at_once(error: Exception) -> None:
    kit = Kit()
    with pytest.raises(type(error)):
        await kit.shelf(error, "there").lookup("x")
    assert len(kit.provider.calls) == 1


async def test_the_last_attempts_error_is_raised_and_nobody_sleeps_after_it() -> None:
    kit = Kit()
    last = Unavailable("still not")
    with pytest.raises(Unavailable) as raised:
        await kit.shelf(DOWN, DOWN, last, "too late").lookup("x")
    assert raised.value is last
    assert len(kit.provider.calls) == 3
    assert len(kit.clock.slept) == 2


async def test_one_attempt_means_no_retry() -> None:
    kit = Kit()
    with pytest.raises(Unavailable):
        await kit.shelf(DOWN, "there", attempts=1).lookup("x")
    assert len(kit.provider.calls) == 1


async def test_pauses_are_full_jitter_that_doubles_up_to_the_cap() -> None:
    kit = Kit()
    with pytest.raises(Unavailable):
        await kit.shelf(*[DOWN] * 6, attempts=6, cap_s=0.3).lookup("x")
    lowest, highest = zip(*kit.chance.asked, strict=True)
    assert set(lowest) == {0}
    assert [b / a for a, b in pairwise(highest[:3])] == [2.0, 2.0]
    assert highest[-2:] == (0.3, 0.3)
    assert kit.clock.slept == list(highest)


async def test_the_first_pauses_upper_end_is_the_setting_base_s() -> None:
    kit = Kit()
    await kit.shelf(DOWN, "there").lookup("x")
    assert kit.chance.asked == [(0, 0.05)]


async def test_an_empty_budget_stops_retries_and_not_calls() -> None:
    kit = Kit()
    budget = RetryBudget(ratio=0.0, per_second=0.0, limit=3.0, clock=kit.clock)
    shelf = kit.shelf(*[DOWN] * 100, budget=budget)
    for _ in range(10):
        with pytest.raises(Unavailable):
            await shelf.lookup("x")
    # Ten first attempts, and the three retries the budget held.
    assert len(kit.provider.calls) == 13


async def test_calls_fill_the_budget_that_their_retries_empty() -> None:
    kit = Kit()
    budget = RetryBudget(ratio=0.5, per_second=0.0, limit=1.0, clock=kit.clock)
    shelf = kit.shelf(*[DOWN] * 100, budget=budget)
    for _ in range(9):
        with pytest.raises(Unavailable):
            await shelf.lookup("x")
    # Nine first attempts, the retry the budget began with, and one for every two calls after it.
    assert len(kit.provider.calls) == 9 + 1 + 4


async def test_first_attempts_earn_a_fifth_of_a_retry_each() -> None:
    clock = FakeClock()
    budget = RetryBudget(ratio=0.2, per_second=0.0, limit=2.0, clock=clock)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(4):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_time_earns_retries_up_to_the_limit() -> None:
    clock = FakeClock()
    budget = RetryBudget(ratio=0.0, per_second=1.0, limit=5.0, clock=clock)
    assert [budget.spend() for _ in range(6)] == [True] * 5 + [False]
    clock.advance(2.0)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    clock.advance(3600.0)
    assert [budget.spend() for _ in range(6)] == [True] * 5 + [False]
