from __future__ import annotations

import pytest
from sqlalchemy import select

from muster.cluster.timeline import Timeline
from muster.kernel.errors import Unavailable
from muster.kernel.log import LogRecord, LogRings
from muster.store.engine import Store
from muster.store.tables import log_records

FULL = LogRecord(7.25, "ERROR", "Zone refused", "Zone refused: frame", "deadbeef", None)


def record(n: float, level: str = "INFO") -> LogRecord:
    return LogRecord(float(n), level, f"message {n:g}")


def filled(*stamps: float) -> LogRings:
    rings = LogRings()
    for n in stamps:
        rings.add(record(n))
    return rings


def timeline(store: Store, member: str = "proxy01", buffer: int = 100) -> Timeline:
    return Timeline(store, member, buffer)


async def rows(store: Store, member: str) -> list[float]:
    async with store.read() as uow:
        query = select(log_records.c.timestamp).where(log_records.c.member == member).order_by(log_records.c.id)
        return [float(t) for t in (await uow.connection.scalars(query)).all()]


async def test_shared_records_are_seen_by_the_others_whole_and_with_their_member(store: Store) -> None:
    rings = LogRings()
    rings.add(FULL)
    await timeline(store).share(rings)
    assert await timeline(store, "proxy02").records(0.0) == [FULL._replace(member="proxy01")]


async def test_a_member_does_not_see_its_own_records_twice(store: Store) -> None:
    await timeline(store).share(filled(1, 2))
    assert await timeline(store).records(0.0) == []


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
    assert [r.timestamp for r in await mine.records(0.0)] == [1, 2, 3, 4, 5, 6]
    assert [r.timestamp for r in await mine.records(3.0)] == [3, 4, 5, 6]
    assert {r.member for r in await mine.records(0.0)} == {"proxy02", "proxy03"}


async def test_of_more_records_than_are_shown_the_newest_are_kept(store: Store) -> None:
    await timeline(store, "proxy02").share(filled(*range(20)))
    assert [r.timestamp for r in await timeline(store, buffer=3).records(0.0)] == list(range(8, 20))


async def test_a_beat_shares_a_bounded_number_and_the_next_one_goes_on(store: Store) -> None:
    mine, rings = timeline(store), filled(*range(600))
    for expected in (250, 500, 600):
        await mine.share(rings)
        assert await rows(store, "proxy01") == list(range(expected))


async def test_now_and_then_a_member_trims_its_own_records_to_its_newest(store: Store) -> None:
    other, mine, rings = timeline(store, "proxy02", buffer=3), timeline(store, buffer=3), LogRings()
    await other.share(filled(*range(10)))
    for n in range(29):
        rings.add(record(n))
        await mine.share(rings)
    assert len(await rows(store, "proxy01")) == 29
    rings.add(record(29))
    await mine.share(rings)
    assert await rows(store, "proxy01") == [27, 28, 29]
    assert len(await rows(store, "proxy02")) == 10


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


async def test_without_the_store_the_others_records_are_unavailable(dead_store: Store) -> None:
    with pytest.raises(Unavailable):
        await timeline(dead_store).records(0.0)


async def test_what_no_database_takes_as_text_is_replaced_and_takes_no_other_record_with_it(store: Store) -> None:
    rings = LogRings()
    rings.add(LogRecord(1.0, "ERROR", "a\udcffb\0c", "frame \udcff\0", "\0"))
    rings.add(record(2))
    await timeline(store).share(rings)
    assert await timeline(store, "proxy02").records(0.0) == [
        LogRecord(1.0, "ERROR", "a?b?c", "frame ??", "?", "proxy01"),
        record(2)._replace(member="proxy01"),
    ]
