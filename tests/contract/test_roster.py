"""The roster and the shared time line on both stores: the same promises on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest

from muster.cluster.roster import Report, Roster
from muster.cluster.timeline import Timeline
from muster.kernel.errors import Conflict
from muster.kernel.rings import LogRecord, LogRings
from muster.store.engine import Store

pytestmark = pytest.mark.anyio


def report(name: str, state: str = "ready") -> Report:
    ready = {"smartproxy": {"state": state, "reason": ""}}
    certificate = {"common_name": name, "not_after": 1.5}
    return Report(name, 1, "0.1.0", "1", "host", 42, state, "", {"dns": "running"}, ready, certificate)  # type: ignore[arg-type]


async def test_a_member_reports_and_everybody_sees_it_in_store_time(store: Store) -> None:
    roster = Roster(store)
    assert (await roster.beat(report("p1"), first=True)).wish.wanted == "ready"
    await roster.beat(report("p1", "draining"), first=False)
    seen = (await roster.seen())["p1"]
    assert seen.report == report("p1", "draining")
    assert 0 <= seen.age_s < 5
    assert not seen.silent
    assert seen.as_json()["features"] == {"dns": "running"}


async def test_a_wish_stands_before_its_member_and_reaches_it_with_its_beat(store: Store) -> None:
    roster = Roster(store)
    wish = await roster.wish("p1", "drain", reason="kernel update", by="admin")
    assert (await roster.beat(report("p1"), first=True)).wish == wish


async def test_of_two_wishes_on_one_version_one_is_refused(store: Store) -> None:
    roster = Roster(store)
    first = await roster.wish("p1", "drain", reason="", by="anna")
    await roster.wish("p1", "ready", reason="", by="bert", expected=first.version)
    with pytest.raises(Conflict, match="bert wished p1 to be ready"):
        await roster.wish("p1", "drain", reason="", by="carl", expected=first.version)
    assert (await roster.beat(report("p1"), first=True)).wish.by == "bert"


async def test_records_of_the_others_are_told_ascending_and_trimmed_to_the_newest(store: Store) -> None:
    mine, other = Timeline(store, "p1", 20), Timeline(store, "p2", 20)
    rings = LogRings(100, 10, "p2")
    for n in range(50):
        rings.add(LogRecord(float(n), "INFO", f"record {n}", None, "abcd1234"))
    for _ in range(30):
        await other.share(rings)
    told, missing = await mine.records(0.0)
    assert [r.message for r in told] == [f"record {n}" for n in range(30, 50)]
    assert {r.member for r in told} == {"p2"}
    assert missing == ""
    assert [r.timestamp for r in (await mine.records(45.0))[0]] == [45.0, 46.0, 47.0, 48.0, 49.0]
    assert await other.records(0.0) == ([], "")


async def test_errors_outlast_the_talk_around_them_and_what_was_not_shared_is_counted(store: Store) -> None:
    mine, other = Timeline(store, "p1", 20), Timeline(store, "p2", 20)
    rings = LogRings(30, 2, "p2")
    for n in range(5):
        rings.add(LogRecord(float(n), "ERROR", f"error {n}"))
    await other.share(rings)
    for n in range(10, 110):
        rings.add(LogRecord(float(n), "INFO", f"record {n}"))
    await other.share(rings)
    told, missing = await mine.records(0.0)
    assert [r.message for r in told][:3] == ["error 3", "error 4", "record 91"]
    assert (told[-1].level, told[-1].member) == ("WARN", "p2")
    assert missing == "70 records of p2 were not shared; its own /logs may have them"


async def test_a_record_with_bytes_no_database_takes_stops_no_other(store: Store) -> None:
    mine, other = Timeline(store, "p1", 20), Timeline(store, "p2", 20)
    rings = LogRings(100, 10, "p2")
    rings.add(LogRecord(1.0, "ERROR", "nul \x00 and surrogate \udcff", "trace \x00", None))
    rings.add(LogRecord(2.0, "INFO", "after"))
    await other.share(rings)
    assert [r.message for r in (await mine.records(0.0))[0]] == ["nul ? and surrogate ?", "after"]
