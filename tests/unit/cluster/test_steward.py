from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import update

from muster.cluster.decide import Decision
from muster.cluster.file import ClusterFile
from muster.cluster.life import Lives, changed
from muster.cluster.minutes import ROLE, Minutes, minutes
from muster.cluster.roster import Report, Roster
from muster.cluster.steward import Steward
from muster.kernel.errors import Unavailable
from muster.kernel.settings import parse
from muster.store.documents import Documents
from muster.store.engine import Store
from muster.store.leases import Leases
from muster.store.tables import leases

CLUSTER = """
schema: 1
cluster: demo
address: cluster.test
store: {url: sqlite:////nowhere/x.db}
members:
- {id: 1, name: p1.test, address: 127.0.0.11}
- {id: 2, name: p2.test, address: 127.0.0.12}
"""


@pytest.fixture
def cluster() -> ClusterFile:
    return parse(CLUSTER).parsed(ClusterFile)


async def reported(store: Store, *names: str, state: str = "ready") -> None:
    for name in names:
        ready = {"smartproxy": {"state": "ready", "reason": ""}}
        await Roster(store).beat(Report(name, 1, "1", "1", "h", 1, state, "", {}, ready, {}), first=True)  # type: ignore[arg-type]


async def states(store: Store) -> dict[str, str]:
    return {name: life.state for name, life in (await Lives(store).all()).items()}


async def expire(store: Store) -> None:
    """Let the lease run out, as when its holder is paused for long."""
    async with store.write() as uow:
        await uow.connection.execute(update(leases).values(expires_at=leases.c.expires_at - 60))


class Paused(Steward):
    """A steward that stops for a while between what it decided and what it does about it, once."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def _carry_out(self, decision: Decision) -> None:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            await happens()
        await super()._carry_out(decision)


async def test_one_of_two_decides_and_the_other_says_nothing(store: Store, cluster: ClusterFile) -> None:
    one, other = Steward(store, "one"), Steward(store, "other")
    await reported(store, "p1.test", "p2.test")
    assert "Admitting p1.test: nobody else was ready" in str(await one.beat(cluster))
    assert await other.beat(cluster) is None
    assert (one.decides, other.decides) == (True, False)
    assert await states(store) == {"p1.test": "ready", "p2.test": "ready"}
    assert {life.version for life in (await Lives(store).all()).values()} == {1}


async def test_of_two_that_begin_at_once_one_decides(store: Store, cluster: ClusterFile) -> None:
    both = [Steward(store, "one"), Steward(store, "other")]
    said = await asyncio.gather(*(s.beat(cluster) for s in both))
    assert [s is None for s in said].count(True) == 1
    assert sum(s.decides for s in both) == 1


async def test_one_that_resigns_lets_another_decide_at_its_next_look(store: Store, cluster: ClusterFile) -> None:
    one, other = Steward(store, "one"), Steward(store, "other")
    await one.beat(cluster)
    assert await other.beat(cluster) is None
    await one.resign()
    await one.resign()
    assert not one.decides
    assert [await other.beat(cluster) is not None for _ in range(3)] == [False, False, True]


async def test_one_whose_lease_ran_out_decides_again_only_under_a_new_epoch(store: Store, cluster: ClusterFile) -> None:
    one = Steward(store, "one")
    await one.beat(cluster)
    await expire(store)
    said = [await one.beat(cluster) for _ in range(3)]
    assert said[-1] is not None
    held = await Leases(store).held(ROLE)
    assert held is not None
    assert (held.holder, held.epoch) == ("one", 2)


async def test_a_paused_steward_that_was_replaced_changes_nothing(store: Store, cluster: ClusterFile) -> None:
    one, other = Paused(store, "one"), Steward(store, "other")
    await reported(store, "p1.test", "p2.test")
    await one.beat(cluster)
    await Roster(store).wish("p1.test", "drain", reason="", by="anna")

    async def is_replaced() -> None:
        await Roster(store).wish("p1.test", "ready", reason="", by="anna")
        await Roster(store).wish("p2.test", "drain", reason="", by="anna")
        await expire(store)
        assert "Draining p2.test" in str(await other.beat(cluster))

    one.meanwhile = is_replaced
    # Its drain of p1 is on the very version of p1 that still stands: only the epoch stops it.
    assert "Draining p1.test" in str(await one.beat(cluster))
    assert await states(store) == {"p1.test": "ready", "p2.test": "draining"}
    assert (await minutes(store)).by == "other"
    assert await one.beat(cluster) is None
    assert (one.decides, other.decides) == (False, True)


async def test_a_paused_steward_that_was_replaced_does_not_speak_for_the_other(
    store: Store, cluster: ClusterFile
) -> None:
    one, other = Paused(store, "one"), Steward(store, "other")
    await reported(store, "p1.test", "p2.test")
    await one.beat(cluster)

    async def is_replaced() -> None:
        await Roster(store).wish("p2.test", "drain", reason="", by="anna")
        await expire(store)
        await other.beat(cluster)

    # What it has seen asks for no change, so there is only something to say.
    one.meanwhile = is_replaced
    assert await one.beat(cluster) == "2 of 2 members are ready."
    said = await minutes(store)
    assert (said.by, said.sentence) == ("other", "Draining p2.test: drained by anna. 1 of 2 members are ready.")


async def test_a_decision_on_a_life_that_changed_meanwhile_changes_nothing_and_the_next_beat_decides_anew(
    store: Store, cluster: ClusterFile
) -> None:
    one = Paused(store, "one")
    await reported(store, "p1.test", "p2.test")

    async def changes() -> None:
        async with store.write() as uow:
            await changed(uow, "p2.test", "joining", reason="by hand", expected=0)

    one.meanwhile = changes
    await one.beat(cluster)
    assert await states(store) == {"p2.test": "joining"}
    assert await minutes(store) == Minutes()
    for _ in range(3):
        await one.beat(cluster)
    assert await states(store) == {"p1.test": "ready", "p2.test": "ready"}


async def test_the_minutes_say_what_is_held_who_waits_and_who_decides(store: Store, cluster: ClusterFile) -> None:
    one = Steward(store, "one")
    assert await minutes(store) == Minutes()
    await reported(store, "p1.test")
    for _ in range(2):
        await one.beat(cluster)
    await Roster(store).wish("p1.test", "drain", reason="", by="anna")
    await one.beat(cluster)
    said = await minutes(store)
    assert (said.by, set(said.held), set(said.waiting)) == ("one", {"p1.test"}, set())
    assert "too few members would be ready (smartproxy 0; 1 must be)" in said.held["p1.test"]
    assert f"Not draining p1.test: {said.held['p1.test']}." in said.sentence
    await Roster(store).wish("p1.test", "ready", reason="", by="anna")
    await one.beat(cluster)
    assert (await minutes(store)).held == {}


async def test_minutes_that_did_not_change_are_written_once(store: Store, cluster: ClusterFile) -> None:
    one = Steward(store, "one")
    await reported(store, "p1.test", "p2.test")
    for _ in range(2):
        await one.beat(cluster)
    before = await Documents(store).read("steward")
    for _ in range(3):
        await one.beat(cluster)
    assert await Documents(store).read("steward") == before


async def test_one_that_decides_again_speaks_again_though_it_has_nothing_new_to_say(
    store: Store, cluster: ClusterFile
) -> None:
    one, other = Steward(store, "one"), Steward(store, "other")
    await reported(store, "p1.test", "p2.test")
    for _ in range(2):
        await one.beat(cluster)
    await one.resign()
    for _ in range(3):
        await other.beat(cluster)
    assert (await minutes(store)).by == "other"
    await other.resign()
    for _ in range(3):
        await one.beat(cluster)
    assert (await minutes(store)).by == "one"


async def test_without_the_store_nobody_decides(dead_store: Store, cluster: ClusterFile) -> None:
    one = Steward(dead_store, "one")
    with pytest.raises(Unavailable):
        await one.beat(cluster)
    assert not one.decides
