from __future__ import annotations

import asyncio

import pytest

from muster.kernel.clock import FakeClock
from muster.kernel.errors import Conflict, MusterError, Unavailable
from muster.policy.breaker import Breaker, NotAsked
from muster.policy.chain import chained
from tests.unit.policy.shelf import Shelf, ToldShelf

DOWN = Unavailable("the other side did not answer")


class Kit:
    def __init__(self, *outcomes: object) -> None:
        self.clock = FakeClock()
        self.provider = ToldShelf(list(outcomes))
        self.breaker = Breaker("ns1", failures=3, open_s=5, most_s=12, clock=self.clock)
        self.shelf = chained(Shelf, self.provider, [self.breaker])  # type: ignore[type-abstract]

    async def said(self) -> str:
        try:
            return await self.shelf.lookup("x")
        except MusterError as e:
            return type(e).__name__


async def test_a_provider_that_failed_often_is_left_alone_for_a_while() -> None:
    kit = Kit(DOWN, DOWN, DOWN, "there")
    assert [await kit.said() for _ in range(5)] == ["Unavailable"] * 3 + ["NotAsked"] * 2
    assert len(kit.provider.calls) == 3
    with pytest.raises(NotAsked) as raised:
        await kit.shelf.lookup("x")
    assert str(raised.value) == (
        "Shelf.lookup was not asked of ns1, which did not answer lately: the other side did not answer"
    )
    kit.clock.advance(5)
    assert await kit.said() == "there"
    assert kit.breaker.standing().state == "closed"


async def test_the_pause_doubles_each_time_it_is_not_back_up_to_a_longest() -> None:
    kit = Kit(*[DOWN] * 20)
    for _ in range(3):
        await kit.said()
    pauses = []
    for _ in range(3):
        pauses.append(kit.breaker.standing().again_in_s)
        kit.clock.advance(pauses[-1])
        assert await kit.said() == "Unavailable"
        assert await kit.said() == "NotAsked"
    assert pauses == [5, 10, 12]


async def test_an_answer_between_failures_counts_anew_and_a_refusal_is_an_answer() -> None:
    kit = Kit(DOWN, DOWN, Conflict("taken"), DOWN, DOWN, "there", DOWN, DOWN)
    said = [await kit.said() for _ in range(8)]
    assert "NotAsked" not in said
    assert kit.breaker.standing().failures == 2


async def test_one_call_tries_and_the_others_are_refused_meanwhile() -> None:
    kit = Kit(DOWN, DOWN, DOWN)
    for _ in range(3):
        await kit.said()
    kit.clock.advance(5)
    going = asyncio.Event()

    async def slow(name: str, *, default: str = "") -> str:
        await going.wait()
        return name + default

    kit.provider.lookup = slow  # type: ignore[method-assign]
    trying = asyncio.create_task(kit.shelf.lookup("x"))
    await asyncio.sleep(0)
    assert kit.breaker.standing().state == "trying"
    assert await kit.said() == "NotAsked"
    # Whoever asked goes away: another one may try.
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    going.set()
    assert await kit.said() == "x"


async def test_calls_that_were_under_way_together_open_it_once() -> None:
    kit = Kit(*[DOWN] * 8)
    said = await asyncio.gather(*(kit.said() for _ in range(8)))
    assert said.count("Unavailable") == 3 or set(said) == {"Unavailable"}
    assert kit.breaker.standing().again_in_s == 5
