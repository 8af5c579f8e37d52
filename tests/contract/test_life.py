"""Lives, their steward, and the schema that brought them, on both stores: the same promises on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, inspect, text

from muster.cluster.file import ClusterFile
from muster.cluster.life import Lives, State, changed
from muster.cluster.minutes import ROLE, minutes
from muster.cluster.observations import Observation, Observations, told
from muster.cluster.roster import Report, Roster, Wish
from muster.cluster.steward import Steward
from muster.kernel.errors import Conflict
from muster.kernel.secrets import Secret
from muster.kernel.settings import parse
from muster.store import schema
from muster.store.engine import Store, opened
from muster.store.leases import Leases
from muster.store.place import Place
from muster.store.tables import metadata

pytestmark = pytest.mark.anyio

CLUSTER = """
schema: 1
cluster: demo
address: cluster.test
store: {url: sqlite:////nowhere/x.db}
members:
- {id: 1, name: p1.test, address: 127.0.0.11}
- {id: 2, name: p2.test, address: 127.0.0.12}
"""

# What a member of schema 0001 says to the store, word for word.
OLD_MEMBER = """
INSERT INTO members (name, member_id, version, schema_version, host, pid, started_at, heartbeat_at, state, reason,
                     features, readiness, certificate)
VALUES ('p1.test', 1, '0.1.0', '1', 'host', 42, {now}, {now}, 'ready', '', '{{"dns": "running"}}',
        '{{"smartproxy": {{"state": "ready", "reason": ""}}}}', '{{}}')
"""
OLD_BEAT = """
UPDATE members SET state = 'draining', reason = 'drained by anna', heartbeat_at = {now},
                   version_number = version_number + 1 WHERE name = 'p1.test'
"""
OLD_WISHES = """
INSERT INTO wishes (member, wanted, reason, "by", at, version) VALUES
('p1.test', 'drain', 'new memory', 'anna', {now}, 3), ('p2.test', 'ready', '', 'anna', {now}, 1)
"""
OLD_READING = """SELECT wanted, reason, "by", version FROM wishes WHERE member = '{member}'"""
OLD_READY = (
    """UPDATE wishes SET wanted = 'ready', reason = '', "by" = 'bert', version = {version} WHERE member = 'p1.test'"""
)
OLD_LEASE = "INSERT INTO leases (name, holder, epoch, expires_at) VALUES ('rotation', 'p1', 7, 0)"
OLD_DOCUMENT = """
INSERT INTO documents (name, version, content, changed_at, changed_by) VALUES ('roll', 2, '{"a": 1}', 0, 'anna')
"""


@pytest.fixture
def cluster() -> ClusterFile:
    return parse(CLUSTER).parsed(ClusterFile)


@pytest.fixture
async def second(url: str, store: Store) -> AsyncIterator[Store]:
    """The same database as another process sees it."""
    async with opened(Secret(url)) as other:
        yield other


def now_in(url: str) -> str:
    return (
        "(julianday('now') - 2440587.5) * 86400.0"
        if url.startswith("sqlite")
        else "extract(epoch from clock_timestamp())"
    )


@contextmanager
def plainly(url: str) -> Iterator[Connection]:
    """A connection that knows nothing of Muster, whose changes stay."""
    place = Place.parsed(Secret(url))
    driver = "sqlite" if place.dialect == "sqlite" else "postgresql+psycopg"
    engine = create_engine(place.url.set(drivername=driver))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def of_schema_0001(url: str) -> None:
    """Make the store an older Muster left."""
    with plainly(url) as connection:
        config = Config()
        config.set_main_option("script_location", "muster.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in (OLD_MEMBER, OLD_WISHES, OLD_LEASE):
            connection.execute(text(statement.format(now=now_in(url))))
        connection.exec_driver_sql(OLD_DOCUMENT)
        assert schema.revision(connection) == "0001"


async def live(store: Store, member: str, state: State, *, expected: int, reason: str = "") -> None:
    async with store.write() as uow:
        await changed(uow, member, state, reason=reason, expected=expected)


async def reported(store: Store, *names: str) -> None:
    for name in names:
        ready = {"smartproxy": {"state": "ready", "reason": ""}}
        await Roster(store).beat(Report(name, 1, "1", "1", "h", 1, "ready", "", {}, ready, {}), first=True)


async def test_a_life_is_changed_on_its_version_only(store: Store, second: Store) -> None:
    await live(store, "p1.test", "joining", expected=0, reason="new")
    await live(second, "p1.test", "warming", expected=1, reason="up")
    with pytest.raises(Conflict):
        await live(store, "p1.test", "removed", expected=1)
    with pytest.raises(Conflict):
        await live(store, "p1.test", "removed", expected=0)
    life = (await Lives(store).all())["p1.test"]
    assert (life.state, life.reason, life.version) == ("warming", "up", 2)
    assert 0 <= life.age_s < 60


@pytest.mark.parametrize("expected", [0, 1])
async def test_of_many_that_change_one_version_at_once_one_wins(store: Store, second: Store, expected: int) -> None:
    if expected:
        await live(store, "p1.test", "joining", expected=0)
    writers = [(store, second)[n % 2] for n in range(8)]
    outcomes = await asyncio.gather(
        *(live(w, "p1.test", "ready", expected=expected, reason=str(n)) for n, w in enumerate(writers)),
        return_exceptions=True,
    )
    assert sorted(type(o).__name__ for o in outcomes) == ["Conflict"] * 7 + ["NoneType"]
    life = (await Lives(store).all())["p1.test"]
    assert (life.reason, life.version) == (str(outcomes.index(None)), expected + 1)


async def test_two_stewards_never_decide_together_and_one_takes_over_from_one_that_resigns(
    store: Store, second: Store, cluster: ClusterFile
) -> None:
    one, other = Steward(store, "one"), Steward(second, "other")
    await reported(store, "p1.test", "p2.test")
    said = await asyncio.gather(one.beat(cluster), other.beat(cluster))
    assert [s is None for s in said].count(True) == 1
    first, late = (one, other) if one.decides else (other, one)
    await Roster(store).wish("p1.test", "drain", reason="", by="anna")
    for _ in range(4):
        await asyncio.gather(one.beat(cluster), other.beat(cluster))
        assert (first.decides, late.decides) == (True, False)
    lives = await Lives(second).all()
    assert {n: (x.state, x.version) for n, x in lives.items()} == {"p1.test": ("draining", 2), "p2.test": ("ready", 1)}
    await first.resign()
    await Roster(store).wish("p1.test", "ready", reason="", by="anna")
    later = [await late.beat(cluster) for _ in range(3)]
    assert next(s for s in later if s is not None).startswith("Warming p1.test: it is wanted back.")
    assert (await Lives(store).all())["p1.test"].state == "ready"
    assert (await minutes(store)).by == ("other" if late is other else "one")


async def test_a_steward_that_lost_its_role_changes_nothing(store: Store, second: Store, cluster: ClusterFile) -> None:
    one, other = Steward(store, "one"), Steward(second, "other")
    await reported(store, "p1.test", "p2.test")
    await one.beat(cluster)
    before = await Lives(store).all()
    held = await Leases(store).held(ROLE)
    assert held is not None
    await Leases(store).release(held)
    for _ in range(3):
        await other.beat(cluster)
    late = Leases(store)

    async def write_late() -> None:
        async with store.write() as uow:
            await late.fence(uow, held)
            await changed(uow, "p1.test", "draining", reason="", expected=before["p1.test"].version)

    with pytest.raises(Conflict, match="the role has other at epoch 2"):
        await write_late()
    assert (await Lives(store).all())["p1.test"].version == before["p1.test"].version
    assert await one.beat(cluster) is None


async def test_what_a_balancer_sees_is_told_and_told_anew(store: Store, second: Store) -> None:
    seen = Observation("lb1", "HAProxy 2.6", "abc", {"p1.test": {"smartproxy": "up"}}, {"p1.test": 2})
    for one in (Observation("lb1"), seen):
        async with store.write() as uow:
            await told(uow, one)
    found = await Observations(second).all()
    assert {n: (o.observation, o.silent) for n, o in found.items()} == {"lb1": (seen, False)}


async def test_a_wish_keeps_its_goal_and_its_force(store: Store, second: Store) -> None:
    wish = await Roster(store).wish("p1.test", "maintenance", reason="disk", by="anna", forced=True)
    assert wish == Wish("drain", "disk", "anna", 1, "maintenance", True)
    assert await Roster(second).wishes() == {"p1.test": wish}
    back = await Roster(second).wish("p1.test", "ready", reason="", by="anna", expected=1)
    assert (back.target, back.goal, back.forced) == ("ready", None, False)
    assert await Roster(store).wishes() == {"p1.test": back}


async def test_an_older_store_is_upgraded_with_everything_in_it(empty_url: str) -> None:
    of_schema_0001(empty_url)
    async with opened(Secret(empty_url)) as store:
        roster = Roster(store)
        assert await roster.wishes() == {
            "p1.test": Wish("drain", "new memory", "anna", 3),
            "p2.test": Wish("ready", "", "anna", 1),
        }
        seen = (await roster.seen())["p1.test"]
        assert (seen.report.pid, seen.report.features, seen.silent) == (42, {"dns": "running"}, False)
        assert (await Lives(store).all(), await Observations(store).all()) == ({}, {})
        lease = await Leases(store).acquire("rotation", "p2", 5)
        assert lease is not None
        assert lease.epoch == 8
        await live(store, "p1.test", "draining", expected=0)
    with plainly(empty_url) as connection:
        assert schema.revision(connection) == schema.HEAD
        assert connection.exec_driver_sql("SELECT version FROM documents WHERE name = 'roll'").scalar() == 2


async def test_two_members_that_upgrade_at_once_upgrade_once(empty_url: str) -> None:
    of_schema_0001(empty_url)
    async with opened(Secret(empty_url)) as one, opened(Secret(empty_url)) as other:
        found = await asyncio.gather(*(Roster(s).wishes() for s in (one, other, one, other)))
    assert all(f["p1.test"].version == 3 for f in found)


async def test_a_member_of_the_older_schema_still_beats_and_reads_its_wish(empty_url: str) -> None:
    of_schema_0001(empty_url)

    def said_of(member: str) -> tuple[Any, ...] | None:
        with plainly(empty_url) as connection:
            connection.execute(text(OLD_BEAT.format(now=now_in(empty_url))))
            row = connection.execute(text(OLD_READING.format(member=member))).first()
            return tuple(row) if row is not None else None

    async with opened(Secret(empty_url)) as store:
        roster = Roster(store)
        await roster.seen()
        assert said_of("p1.test") == ("drain", "new memory", "anna", 3)
        report = (await roster.seen())["p1.test"].report
        assert (report.state, report.reason) == ("draining", "drained by anna")
        # Of maintenance and removal it knows the part it can do: it drains.
        for version, target in enumerate(("maintenance", "removed"), 4):
            await roster.wish("p1.test", target, reason="disk", by="bert", forced=True)  # type: ignore[arg-type]
            assert said_of("p1.test") == ("drain", "disk", "bert", version)


async def test_a_wish_made_by_an_older_command_line_means_what_it_says(empty_url: str) -> None:
    of_schema_0001(empty_url)
    async with opened(Secret(empty_url)) as store:
        roster = Roster(store)
        await roster.wish("p1.test", "maintenance", reason="disk", by="bert", expected=3)
        with plainly(empty_url) as connection:
            connection.execute(text(OLD_READY.format(version=5)))
        assert (await roster.wishes())["p1.test"].target == "ready"
        with plainly(empty_url) as connection:
            connection.exec_driver_sql("DELETE FROM wishes")
            connection.execute(text(OLD_WISHES.format(now=now_in(empty_url))))
        assert (await roster.wishes())["p1.test"] == Wish("drain", "new memory", "anna", 3)


async def test_a_new_store_and_an_upgraded_one_have_the_same_schema(empty_url: str) -> None:
    of_schema_0001(empty_url)
    async with opened(Secret(empty_url)) as store:
        await store.ping()
    with plainly(empty_url) as connection:
        found = inspect(connection)
        columns = {t: {c["name"] for c in found.get_columns(t)} for t in found.get_table_names()}
    assert columns.pop("alembic_version") == {"version_num"}
    assert columns == {t.name: {c.name for c in t.columns} for t in metadata.sorted_tables}
