from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import select

from muster.cluster.timeline import Timeline
from muster.kernel.errors import Unavailable
from muster.kernel.rings import LogRecord, LogRings
from muster.store.engine import Store
from muster.store.tables import log_records

FULL = LogRecord(7.25, "ERROR", "Zone refused", "Zone refused: frame", "deadbeef", None)


def record(n: float, level: str = "INFO") -> LogRecord:
    return LogRecord(float(n), level, f"message {n:g}")


def filled(*stamps: float, size: int = 2000) -> LogRings:
    rings = LogRings(size)
    for n in stamps:
        rings.add(record(n))
    return rings


def timeline(store: Store, member: str = "proxy01", buffer: int = 100) -> Timeline:
    return Timeline(store, member, buffer)


async def told(reader: Timeline, since: float = 0.0) -> Sequence[LogRecord]:
    return (await reader.records(since))[0]


async def rows(store: Store, member: str) -> list[float]:
    async with store.read() as uow:
        query = select(log_records.c.timestamp).where(log_records.c.member == member).order_by(log_records.c.id)
        return [float(t) for t in (await uow.connection.scalars(query)).all()]


async def test_shared_records_are_seen_by_the_others_whole_and_with_their_member(store: Store) -> None:
    rings = LogRings()
    rings.add(FULL)
    await timeline(store).share(rings)
    assert await timeline(store, "proxy02").records(0.0) == ([FULL._replace(member="proxy01")], "")


async def test_a_member_does_not_see_its_own_records_twice(store: Store) -> None:
    await timeline(store).share(filled(1, 2))
    assert await timeline(store).records(0.0) == ([], "")


async def test_each_record_is_shared_once(store: Store) -> None:
    mine, rings = timeline(store), filled(1, 2)
    await mine.share(rings)
    await mine.share(rings)
    rings.add(record(3))
    await mine.share(rings)
    assert await rows(store, "proxy01") == [1, 2, 3]


async def test_records_of_all_others_come_ascending_from_the_timestamp_on(store: Store) -> None:
    await timeline(store, "proxy02").share(filled(1, 4, 6))
    await timeline(store, "proxy03").share(filled(2, 3, 5))
    mine = timeline(store)
    assert [r.timestamp for r in await told(mine)] == [1, 2, 3, 4, 5, 6]
    assert [r.timestamp for r in await told(mine, 3.0)] == [3, 4, 5, 6]
    assert {r.member for r in await told(mine)} == {"proxy02", "proxy03"}


async def test_of_more_records_than_are_shown_the_newest_are_kept_and_it_is_said(store: Store) -> None:
    await timeline(store, "proxy02").share(filled(*range(20)))
    found, missing = await timeline(store, buffer=3).records(0.0)
    assert [r.timestamp for r in found] == list(range(8, 20))
    assert missing == "of the other members' records only the newest 12 are shown"
    assert (await timeline(store, buffer=5).records(0.0))[1] == ""


async def test_much_talk_pushes_no_warning_out_of_the_answer(store: Store) -> None:
    rings = LogRings()
    rings.add(record(0, "WARN"))
    for n in range(1, 20):
        rings.add(record(n))
    await timeline(store, "proxy02").share(rings)
    assert [r.timestamp for r in await told(timeline(store, buffer=3))] == [0, *range(8, 20)]


async def test_a_beat_shares_a_bounded_number_and_the_next_one_goes_on(store: Store) -> None:
    mine, rings = timeline(store, buffer=5000), filled(*range(2400), size=5000)
    for expected in (1000, 2000, 2400):
        await mine.share(rings)
        assert await rows(store, "proxy01") == list(range(expected))


async def test_warnings_and_errors_are_shared_before_everything_else(store: Store) -> None:
    mine, rings = timeline(store, buffer=5000), LogRings()
    levels = ["DEBUG", "INFO", *["INFO"] * 1500, "WARN", "ERROR", "FATAL", "UNKNOWN"]
    for n, level in enumerate(levels):
        rings.add(record(n, level))
    await mine.share(rings)
    assert await rows(store, "proxy01") == [*range(996), *range(1502, 1506)]
    await mine.share(rings)
    assert sorted(await rows(store, "proxy01")) == list(range(len(levels)))


async def test_records_that_were_too_many_are_counted_on_the_time_line_once(store: Store) -> None:
    mine, reader = timeline(store, buffer=5000), timeline(store, "proxy02", buffer=5000)
    rings = filled(*range(25), size=10)
    for _ in range(3):
        await mine.share(rings)
    found, missing = await reader.records(0.0)
    assert [r.timestamp for r in found[:-1]] == list(range(15, 25))
    assert found[-1].level == "WARN"
    assert found[-1].message.startswith("15 older log records of this member were too many to be shared")
    assert missing == "15 records of proxy01 were not shared; its own /logs may have them"


async def test_what_several_members_did_not_share_is_said_of_each_and_of_the_time_asked_about(store: Store) -> None:
    reader = timeline(store, "proxy03", buffer=5000)
    for name, numbers in (("proxy02", (14, 13)), ("proxy01", (12,))):
        mine = timeline(store, name, buffer=5000)
        rings = LogRings(size=10)
        for number in numbers:
            for n in range(number):
                rings.add(record(n))
            await mine.share(rings)
    found, missing = await reader.records(0.0)
    assert missing == (
        "2 records of proxy01 were not shared; its own /logs may have them; "
        "7 records of proxy02 were not shared; its own /logs may have them"
    )
    assert (await reader.records(found[-1].timestamp + 1))[1] == ""


async def test_a_record_that_only_looks_like_a_count_is_none(store: Store) -> None:
    mine, rings = timeline(store), filled(*range(25), size=10)
    await mine.share(rings)
    (count,) = [r for r in await told(timeline(store, "proxy02")) if r.level == "WARN"]
    others = timeline(store, "proxy03")
    rings = LogRings()
    for level, message in (
        ("INFO", count.message),
        ("WARN", "Started " + count.message),
        ("WARN", count.message + "!"),
    ):
        rings.add(LogRecord(1.0, level, message))
    await others.share(rings)
    assert (await timeline(store, "proxy02").records(0.0))[1].count("were not shared") == 1


async def test_while_the_store_is_down_it_is_the_talk_that_is_dropped(dead_store: Store, store: Store) -> None:
    rings = LogRings(size=10)
    for n, level in enumerate(["ERROR", "INFO", "WARN", *["INFO"] * 7]):
        rings.add(record(n, level))
    for n in range(10, 16):
        with pytest.raises(Unavailable):
            await timeline(dead_store).share(rings)
        rings.add(record(n))
    await timeline(store).share(rings)
    kept = await told(timeline(store, "proxy02"))
    assert [r.timestamp for r in kept[:-1]] == [0, 2, *range(8, 16)]
    assert kept[-1].message.startswith("6 older log records")


async def test_a_count_that_did_not_reach_the_store_is_told_later(dead_store: Store, store: Store) -> None:
    mine, rings = timeline(dead_store), filled(*range(12), size=10)
    with pytest.raises(Unavailable):
        await mine.share(rings)
    mine.store = store
    await mine.share(rings)
    assert (await told(timeline(store, "proxy02")))[-1].message.startswith("2 older log records")


async def test_now_and_then_a_member_trims_its_own_records_to_its_newest(store: Store) -> None:
    other, mine, rings = timeline(store, "proxy02", buffer=20), timeline(store, buffer=20), LogRings()
    await other.share(filled(*range(19)))
    await mine.share(filled(*range(100, 119)))
    for _ in range(28):
        await mine.share(rings)
    mine.buffer = 3
    assert len(await rows(store, "proxy01")) == 19
    await mine.share(rings)
    assert await rows(store, "proxy01") == [116, 117, 118]
    assert len(await rows(store, "proxy02")) == 19


async def test_a_busy_member_trims_as_soon_as_it_shared_as_many_as_are_kept(store: Store) -> None:
    mine, rings = timeline(store, buffer=10), LogRings()
    most = 0
    for n in range(50):
        rings.add(record(n))
        await mine.share(rings)
        most = max(most, len(await rows(store, "proxy01")))
    assert most == 19
    assert (await rows(store, "proxy01"))[-1] == 49


async def test_errors_and_warnings_are_kept_beside_the_newest_records_as_in_the_rings(store: Store) -> None:
    rings = LogRings(size=4, tail_size=2)
    mine = timeline(store, buffer=4)
    for n, level in enumerate(["ERROR", "WARN", "FATAL", "UNKNOWN", *["INFO"] * 8]):
        rings.add(record(n, level))
        await mine.share(rings)
    assert await rows(store, "proxy01") == [1, 2, 3, 8, 9, 10, 11]
    assert [r.timestamp for r in rings.records()] == [1, 2, 3, 8, 9, 10, 11]


async def test_a_member_with_nothing_to_say_still_trims_and_keeps_what_fits(store: Store) -> None:
    mine = timeline(store, buffer=5)
    await mine.share(filled(1, 2))
    for _ in range(29):
        await mine.share(LogRings())
    assert await rows(store, "proxy01") == [1, 2]


async def test_records_wait_while_the_store_is_down(dead_store: Store, store: Store) -> None:
    rings = filled(1, 2, 3)
    with pytest.raises(Unavailable):
        await timeline(dead_store).share(rings)
    rings.add(record(4))
    await timeline(store).share(rings)
    assert await rows(store, "proxy01") == [1, 2, 3, 4]


async def test_a_beat_without_records_asks_nothing_of_the_store(dead_store: Store) -> None:
    await timeline(dead_store).share(LogRings())
    assert dead_store.trouble is None


async def test_records_made_while_others_are_written_wait_behind_them(store: Store) -> None:
    mine, rings = timeline(store, buffer=5000), filled(*range(1200))
    sharing = asyncio.create_task(mine.share(rings))
    await asyncio.sleep(0)
    rings.add(record(2000))
    await sharing
    await mine.share(rings)
    assert await rows(store, "proxy01") == [*range(1200), 2000]
    assert rings.dropped_unshared == 0


async def test_without_the_store_the_others_records_are_unavailable(dead_store: Store) -> None:
    with pytest.raises(Unavailable):
        await timeline(dead_store).records(0.0)


async def test_what_no_database_takes_as_text_is_replaced_and_takes_no_other_record_with_it(store: Store) -> None:
    rings = LogRings()
    rings.add(LogRecord(1.0, "ERROR", "a\udcffb\0c", "frame \udcff\0", "\0"))
    rings.add(record(2))
    await timeline(store).share(rings)
    assert await told(timeline(store, "proxy02")) == [
        LogRecord(1.0, "ERROR", "a?b?c", "frame ??", "?", "proxy01"),
        record(2)._replace(member="proxy01"),
    ]
