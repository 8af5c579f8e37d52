from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from muster.cluster.roster import SILENT_AFTER_S, Report, Roster, Seen, Wish
from muster.kernel.errors import Conflict, Unavailable
from muster.store.engine import Store
from muster.store.tables import members, store_now

REPORT = Report(
    name="proxy01.example.com",
    member_id=1,
    version="0.1.0",
    schema_version="1",
    host="host01",
    pid=4711,
    state="ready",
    reason="",
    features={"dns": "running", "logs": "running"},
    readiness={"smartproxy": {"state": "ready", "reason": ""}},
    certificate={"common_name": "proxy01.example.com", "not_after": 1.5, "names": ["a", "b"]},
)
OTHER = replace(REPORT, name="proxy02.example.com", member_id=2)


async def age(store: Store, name: str, seconds: float) -> None:
    """Make a member's last heartbeat and its start lie further back."""
    async with store.write() as uow:
        await uow.connection.execute(
            update(members)
            .where(members.c.name == name)
            .values(heartbeat_at=members.c.heartbeat_at - seconds, started_at=members.c.started_at - seconds)
        )


async def version_number(store: Store, name: str) -> int:
    async with store.read() as uow:
        found = await uow.connection.scalar(select(members.c.version_number).where(members.c.name == name))
        return int(found or 0)


async def test_a_beat_is_seen_by_everybody_as_it_was_reported(store: Store) -> None:
    roster = Roster(store)
    assert await roster.seen() == {}
    assert (await roster.beat(REPORT, first=True)).wish == Wish()
    assert (await roster.beat(OTHER, first=True)).wish == Wish()
    seen = await Roster(store).seen()
    assert {name: s.report for name, s in seen.items()} == {REPORT.name: REPORT, OTHER.name: OTHER}
    assert all(not s.silent and s.wish == Wish() for s in seen.values())


async def test_a_beat_replaces_the_last_report_and_raises_the_rows_version(store: Store) -> None:
    roster = Roster(store)
    await roster.beat(REPORT, first=True)
    await roster.beat(OTHER, first=True)
    draining = replace(REPORT, state="draining", reason="kernel update", features={}, readiness={}, certificate={})
    await roster.beat(draining, first=False)
    seen = await roster.seen()
    assert seen[REPORT.name].report == draining
    assert seen[OTHER.name].report == OTHER
    assert [await version_number(store, n) for n in (REPORT.name, OTHER.name)] == [2, 1]


async def test_a_members_start_is_marked_by_its_first_beat_only(store: Store) -> None:
    roster = Roster(store)
    await roster.beat(REPORT, first=True)
    await age(store, REPORT.name, 100.0)
    before = (await roster.seen())[REPORT.name].started_at
    await roster.beat(REPORT, first=False)
    assert (await roster.seen())[REPORT.name].started_at == before
    await roster.beat(REPORT, first=True)
    assert (await roster.seen())[REPORT.name].started_at > before + 90


async def test_a_row_somebody_deleted_comes_back_with_the_next_beat(store: Store) -> None:
    roster = Roster(store)
    await roster.beat(REPORT, first=False)
    seen = (await roster.seen())[REPORT.name]
    async with store.read() as uow:
        assert 0 <= await uow.now() - seen.started_at < 60


async def test_a_member_is_silent_after_the_beats_it_missed_in_store_time(store: Store) -> None:
    roster = Roster(store)
    await roster.beat(REPORT, first=True)
    await roster.beat(OTHER, first=True)
    await age(store, OTHER.name, 1000.0)
    seen = await roster.seen()
    assert not seen[REPORT.name].silent
    assert seen[OTHER.name].silent
    assert 1000.0 <= seen[OTHER.name].age_s < 1060.0
    await roster.beat(OTHER, first=False)
    assert not (await roster.seen())[OTHER.name].silent


async def test_a_heartbeat_from_the_future_has_no_negative_age(store: Store) -> None:
    roster = Roster(store)
    await roster.beat(REPORT, first=True)
    await age(store, REPORT.name, -1000.0)
    assert (await roster.seen())[REPORT.name].age_s == 0.0


def test_silence_begins_after_its_limit_and_not_at_it() -> None:
    assert not Seen(REPORT, 0.0, SILENT_AFTER_S, Wish()).silent
    assert Seen(REPORT, 0.0, SILENT_AFTER_S + 0.001, Wish()).silent


def test_a_members_row_is_shown_flat_with_its_wish() -> None:
    shown = Seen(REPORT, 5.0, 1.23456, Wish("drain", "update", "admin", 3)).as_json()
    assert (shown["name"], shown["age_s"], shown["silent"], shown["started_at"]) == (REPORT.name, 1.235, False, 5.0)
    assert shown["wish"] == {
        "wanted": "drain",
        "reason": "update",
        "by": "admin",
        "version": 3,
        "goal": None,
        "forced": False,
    }


async def test_a_wish_is_told_at_the_next_beat_and_shown_to_everybody(store: Store) -> None:
    roster = Roster(store)
    await roster.beat(REPORT, first=True)
    wished = await roster.wish(REPORT.name, "drain", reason="kernel update", by="admin")
    assert wished == Wish("drain", "kernel update", "admin", 1)
    assert (await roster.beat(REPORT, first=False)).wish == wished
    assert (await roster.seen())[REPORT.name].wish == wished
    assert (await roster.beat(OTHER, first=True)).wish == Wish()


async def test_a_wish_may_stand_before_its_member_ever_started(store: Store) -> None:
    roster = Roster(store)
    wished = await roster.wish(REPORT.name, "drain", reason="not yet", by="admin")
    assert await roster.seen() == {}
    assert (await roster.beat(REPORT, first=True)).wish == wished


async def test_a_wish_decided_on_an_old_version_conflicts_and_changes_nothing(store: Store) -> None:
    roster = Roster(store)
    first = await roster.wish(REPORT.name, "drain", reason="update", by="anna", expected=0)
    with pytest.raises(Conflict, match=r"anna wished proxy01\.example\.com to be drain meanwhile \(update\)"):
        await roster.wish(REPORT.name, "ready", reason="done", by="ben", expected=0)
    assert (await roster.beat(REPORT, first=True)).wish == first
    assert await roster.wish(REPORT.name, "ready", reason="done", by="ben", expected=1) == Wish(
        "ready", "done", "ben", 2
    )


async def test_a_wish_without_an_expectation_always_stands(store: Store) -> None:
    roster = Roster(store)
    for version in (1, 2, 3):
        assert (await roster.wish(REPORT.name, "drain", reason="", by="x")).version == version


async def test_of_two_racing_wishes_one_stands(store: Store) -> None:
    roster = Roster(store)
    outcomes = await asyncio.gather(
        *(roster.wish(REPORT.name, "drain", reason="", by=f"b{n}", expected=0) for n in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(o, Wish) for o in outcomes) == 1
    assert sum(isinstance(o, Conflict) for o in outcomes) == 4


async def test_without_the_store_everything_is_unavailable(dead_store: Store) -> None:
    roster = Roster(dead_store)
    with pytest.raises(Unavailable):
        await roster.beat(REPORT, first=True)
    with pytest.raises(Unavailable):
        await roster.seen()
    with pytest.raises(Unavailable):
        await roster.wish(REPORT.name, "drain", reason="", by="x")


async def test_ages_are_measured_by_the_stores_clock_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    roster = Roster(store)
    # A member whose own clock is a year ahead: nothing in a beat may ask it.
    monkeypatch.setattr("time.time", lambda: 4_000_000_000.0)
    await roster.beat(REPORT, first=True)
    async with store.read() as uow:
        now = await uow.connection.scalar(select(store_now()))
    assert now is not None
    assert now < 4_000_000_000.0
    assert (await roster.seen())[REPORT.name].started_at <= now
