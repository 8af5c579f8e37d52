from __future__ import annotations

import pytest

from muster.kernel.errors import Conflict, Misconfigured, MusterError, Unavailable
from muster.policy.breaker import NotAsked
from muster.policy.groups.first import First
from muster.policy.groups.grouped import Standing, grouped
from tests.unit.policy.shelf import Shelf, ToldShelf, names

DOWN = Unavailable("no answer")


class Kit:
    def __init__(self, one: list[object], other: list[object]) -> None:
        self.one, self.other = ToldShelf(one), ToldShelf(other)
        self.way = First("shelf", ["one", "other"], (NotAsked,))
        self.shelf: Shelf = grouped(Shelf, {"one": self.one, "other": self.other}, self.way)  # type: ignore[type-abstract]


async def test_who_is_away_is_passed_over_and_the_next_one_stays() -> None:
    kit = Kit(["a", DOWN, "back"], ["b", "b"])
    assert [await kit.shelf.lookup("x") for _ in range(3)] == ["a", "b", "b"]
    assert kit.way.standings() == [Standing("one", "in reserve", "no answer"), Standing("other", "asked")]
    assert (len(kit.one.calls), len(kit.other.calls)) == (2, 2)


async def test_a_refusal_is_the_answer_and_nobody_else_is_asked() -> None:
    kit = Kit([Conflict("taken")], [])
    with pytest.raises(Conflict, match="taken"):
        await kit.shelf.add("x")
    assert kit.other.calls == []


@pytest.mark.parametrize("error", [DOWN, Misconfigured("the key is refused"), NotAsked("was not asked")])
async def test_a_change_that_may_be_repeated_goes_to_the_next_one(error: MusterError) -> None:
    kit = Kit([error], [])
    await kit.shelf.add("x")
    assert names(kit.other.calls) == ["add"]


async def test_a_change_that_may_have_happened_and_may_not_be_repeated_goes_to_nobody_else() -> None:
    kit = Kit([DOWN], [])
    with pytest.raises(Unavailable):
        await kit.shelf.draw()
    assert kit.other.calls == []
    kit = Kit([NotAsked("was not asked")], ["7"])
    assert await kit.shelf.draw() == "7"


async def test_when_all_are_away_each_says_why() -> None:
    kit = Kit([Misconfigured("the key is refused")], [DOWN])
    with pytest.raises(Unavailable) as raised:
        await kit.shelf.lookup("x")
    assert str(raised.value) == (
        "Shelf.lookup failed at every provider of the group: one: the key is refused; other: no answer"
    )
    kit = Kit([Misconfigured("no key")], [Misconfigured("no key")])
    with pytest.raises(Misconfigured):
        await kit.shelf.lookup("x")
