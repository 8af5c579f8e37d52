from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import update

from muster.cluster import checks
from muster.cluster.life import (
    LEAVING,
    OUT,
    STATES,
    Life,
    Lives,
    State,
    changed,
    in_maintenance,
    life_of,
    lives_in,
    spoken,
)
from muster.cluster.roster import Told, Wish
from muster.kernel.errors import Conflict, Unavailable
from muster.store.engine import Store
from muster.store.tables import lives

NAME = "proxy01.example.com"


async def live(store: Store, state: State, *, expected: int, member: str = NAME, reason: str = "") -> None:
    async with store.write() as uow:
        await changed(uow, member, state, reason=reason, expected=expected)


async def test_a_life_begins_at_version_1_and_grows_by_one_with_every_change(store: Store) -> None:
    assert await Lives(store).all() == {}
    seen = []
    for expected, state in enumerate(STATES):
        await live(store, state, expected=expected, reason=f"step {expected}")
        life = (await Lives(store).all())[NAME]
        seen.append((life.state, life.reason, life.version))
    assert seen == [(state, f"step {n}", n + 1) for n, state in enumerate(STATES)]


async def test_a_change_decided_on_an_old_version_conflicts_and_changes_nothing(store: Store) -> None:
    await live(store, "joining", expected=0)
    await live(store, "warming", expected=1)
    for late in (1, 3):
        with pytest.raises(Conflict, match=f"not version {late} any more"):
            await live(store, "removed", expected=late)
    with pytest.raises(Conflict, match="Somebody began the life"):
        await live(store, "ready", expected=0)
    assert [(n, x.state, x.version) for n, x in (await Lives(store).all()).items()] == [(NAME, "warming", 2)]


async def test_what_is_decided_together_lands_together_or_not_at_all(store: Store) -> None:
    await live(store, "ready", expected=0, member="b")

    async def both() -> None:
        async with store.write() as uow:
            await changed(uow, "a", "joining", reason="", expected=0)
            await changed(uow, "b", "draining", reason="", expected=7)

    with pytest.raises(Conflict):
        await both()
    assert {n: x.state for n, x in (await Lives(store).all()).items()} == {"b": "ready"}


async def test_of_many_that_change_one_version_at_once_one_wins(store: Store) -> None:
    for expected in (0, 1):
        outcomes = await asyncio.gather(
            *(live(store, "ready", expected=expected, reason=str(n)) for n in range(5)), return_exceptions=True
        )
        assert sorted(type(o).__name__ for o in outcomes) == ["Conflict"] * 4 + ["NoneType"]
        assert (await Lives(store).all())[NAME].reason == str(outcomes.index(None))


async def test_a_life_has_stood_for_as_long_as_the_stores_clock_says(store: Store) -> None:
    await live(store, "ready", expected=0)
    async with store.write() as uow:
        await uow.connection.execute(update(lives).values(since=lives.c.since - 100))
    assert 100 <= (await Lives(store).all())[NAME].age_s < 160
    await live(store, "draining", expected=1)
    assert (await Lives(store).all())[NAME].age_s < 60
    async with store.write() as uow:
        await uow.connection.execute(update(lives).values(since=lives.c.since + 1000))
        assert (await lives_in(uow))[NAME].age_s == 0.0
        assert (await life_of(uow, NAME), await life_of(uow, "nobody")) == (Life("draining", "", 2), None)


async def test_without_the_store_lives_are_unavailable(dead_store: Store) -> None:
    with pytest.raises(Unavailable):
        await Lives(dead_store).all()


async def test_the_store_takes_no_state_that_is_none(store: Store) -> None:
    with pytest.raises(Conflict):
        await live(store, "asleep", expected=0)  # type: ignore[arg-type]


def test_a_life_is_shown_with_a_short_age() -> None:
    shown = Life("drained", "new memory", 4, 1.23456).as_json()
    assert shown == {"state": "drained", "reason": "new memory", "version": 4, "age_s": 1.235}


def test_in_maintenance_is_who_nobody_asks_after_whatever_its_case() -> None:
    lives = {"P1.test": Life("maintenance"), "p2.test": Life("drained"), "p3.test": Life("removed")}
    assert in_maintenance(lives) == {"p1.test"}


async def test_a_store_that_does_not_say_who_is_in_maintenance_holds_nobody_up(
    store: Store, dead_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def opened(which: Store) -> AsyncIterator[Store]:
        yield which

    @asynccontextmanager
    async def hung() -> AsyncIterator[Store]:
        await asyncio.Event().wait()
        yield store

    await live(store, "maintenance", expected=0)
    known = await checks.known_lives(lambda: opened(store))
    assert known is not None
    assert known[NAME].state == "maintenance"
    assert await checks.known_lives(lambda: opened(dead_store)) is None
    monkeypatch.setattr(checks, "_LIVES_WITHIN_S", 0.05)
    assert await checks.known_lives(hung) is None


def test_who_leaves_gets_nothing_new_and_who_comes_does_not_get_it_yet() -> None:
    assert LEAVING < OUT
    assert set(STATES) - OUT == {"ready"}
    assert {"joining", "warming"} == OUT - LEAVING


@pytest.mark.parametrize("state", STATES)
def test_a_member_leaves_when_its_life_says_so_whatever_is_wished(state: State) -> None:
    for wish in (Wish(), Wish("drain", "memory", "anna", 1)):
        said = Told(wish, Life(state, "drained by bert")).leaving
        assert said == ("drained by bert" if state in LEAVING else "")


def test_before_anything_is_decided_the_wish_itself_is_obeyed() -> None:
    assert Told(Wish(), None).leaving == ""
    assert Told(Wish("drain", "memory", "anna", 1), None).leaving == "drained by anna: memory"


@pytest.mark.parametrize(
    ("wish", "target", "reason"),
    [
        (Wish(), "ready", "wanted by "),
        (Wish("ready", "", "anna", 1), "ready", "wanted by anna"),
        (Wish("drain", "", "anna", 1), "drain", "drained by anna"),
        (Wish("drain", "disk", "anna", 1, "maintenance"), "maintenance", "put into maintenance by anna: disk"),
        (Wish("drain", "", "anna", 1, "removed"), "removed", "removed by anna"),
        # A member of schema 0001 wished it ready and left the goal of the drain before.
        (Wish("ready", "", "anna", 2, "maintenance"), "ready", "wanted by anna"),
        (Wish("drain", "", "anna", 1, "a goal of the next version"), "drain", "drained by anna"),
    ],
)
def test_a_wish_says_where_the_member_shall_end_and_who_wants_it(wish: Wish, target: str, reason: str) -> None:
    assert (wish.target, wish.as_reason()) == (target, reason)


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("ready", "nobody else was ready", "ready"),
        ("drained", "drained by root: kernel update", "drained, by root: kernel update"),
        ("draining", "drained by root", "draining, by root"),
        ("maintenance", "put into maintenance by ada: a new disk", "in maintenance, by ada: a new disk"),
        ("warming", "it came up", "warming: it came up"),
        ("joining", "", "joining"),
    ],
)
def test_where_a_member_stands_is_said_once(state: State, reason: str, said: str) -> None:
    assert spoken(state, reason) == said
