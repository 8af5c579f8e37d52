"""A store of several hosts: the one that takes writes is found again after a promotion, by the same open store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import psycopg
import pytest
from sqlalchemy import insert, select

from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from muster.store.tables import log_records
from muster.store.writing import Change, Writing
from tests.servers import postgresql
from tests.servers.postgresql import PASSWORD, PostgreSQL

pytestmark = pytest.mark.anyio


@pytest.fixture
def pair(needs: Callable[[str], None]) -> Iterator[tuple[PostgreSQL, PostgreSQL]]:
    needs("postgresql")
    with postgresql.replicated() as found:
        yield found


def url_of(pair: tuple[PostgreSQL, PostgreSQL], database: str) -> Secret:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in pair)
    return Secret(f"postgresql://muster:{PASSWORD}@{hosts}/{database}?target_session_attrs=read-write")


def promote_alone(standby: PostgreSQL) -> None:
    """Make it the primary. Nobody follows it yet; waiting for a follower is the operator's to end."""
    standby.promote()
    with psycopg.connect(standby.url("postgres"), autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        connection.execute("SELECT pg_reload_conf()")


Write = Callable[[Store, str], Awaitable[None]]
_RECORD = Change(
    "INSERT INTO log_records (member, timestamp, level, message) VALUES (:member, {now}, 'INFO', :message)"
)


async def write_step_by_step(store: Store, message: str) -> None:
    async with store.write() as uow:
        record = {"member": "proxy01", "timestamp": 1.0, "level": "INFO", "message": message}
        await uow.connection.execute(insert(log_records).values(record))


async def write_at_once(store: Store, message: str) -> None:
    async def work(uow: Writing) -> None:
        await uow.change(_RECORD, [{"member": "proxy01", "message": message}])

    await store.carry_out("", work)


@pytest.fixture(params=[write_step_by_step, write_at_once])
def write(request: pytest.FixtureRequest) -> Write:
    found: Write = request.param
    return found


async def written(store: Store) -> set[str]:
    async with store.read() as uow:
        return set((await uow.connection.scalars(select(log_records.c.message))).all())


async def write_until_it_lands(write: Write, store: Store, message: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                return await write(store, message)
            except Unavailable:
                await asyncio.sleep(0.1)


async def test_after_the_primary_died_the_open_store_writes_to_the_promoted_standby(
    pair: tuple[PostgreSQL, PostgreSQL], write: Write
) -> None:
    primary, standby = pair
    primary.fresh_database()
    async with opened(url_of(pair, "fresh_1")) as store:
        await write(store, "acknowledged")
        # More than one session must find its way.
        await asyncio.gather(*(written(store) for _ in range(4)))
        primary.kill()
        with pytest.raises(Unavailable):
            await write(store, "nobody takes it")
        promote_alone(standby)
        await write_until_it_lands(write, store, "after")
        assert {"acknowledged", "after"} <= await written(store) <= {"acknowledged", "after", "nobody takes it"}
        assert store.trouble is None


async def test_a_fenced_primary_that_still_runs_is_left_for_the_one_that_takes_writes(
    pair: tuple[PostgreSQL, PostgreSQL], write: Write
) -> None:
    primary, standby = pair
    primary.fresh_database()
    async with opened(url_of(pair, "fresh_1")) as store:
        await write(store, "before")
        with psycopg.connect(primary.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
            connection.execute("SELECT pg_reload_conf()")

        async def is_refused() -> None:
            for number in range(600):
                try:
                    await write(store, f"late {number}")
                except Unavailable:
                    return
                await asyncio.sleep(0.05)

        await is_refused()
        with pytest.raises(Unavailable, match="default_transaction_read_only"):
            await write(store, "past the fence")
        promote_alone(standby)
        await write_until_it_lands(write, store, "after")
        found = await written(store)
        assert {"before", "after"} <= found
        assert "past the fence" not in found
