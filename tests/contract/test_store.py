"""The store's promises, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, func, insert, select, text, update

from muster.kernel.errors import Conflict, Rejected, Unavailable
from muster.kernel.secrets import Secret
from muster.store import schema
from muster.store.engine import Store, opened
from muster.store.leases import Lease, Leases
from muster.store.reading import Query
from muster.store.tables import documents, log_records, metadata, store_now
from muster.store.writing import Change, Writing
from tests.servers import postgresql, schemas
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.anyio


def a_document(name: str = "settings", version: int = 1) -> dict[str, Any]:
    return {"name": name, "version": version, "content": {"a": [1]}, "changed_at": store_now(), "changed_by": "test"}


async def version_of(store: Store, name: str = "settings") -> int | None:
    async with store.read() as uow:
        found = await uow.connection.scalar(select(documents.c.version).where(documents.c.name == name))
    return None if found is None else int(found)


async def count(store: Store) -> int:
    async with store.read() as uow:
        return int(await uow.connection.scalar(select(func.count()).select_from(log_records)) or 0)


def a_record(message: str) -> dict[str, Any]:
    return {"member": "proxy01", "timestamp": 1.0, "level": "INFO", "message": message}


async def write_records(store: Store, *messages: str) -> None:
    async with store.write() as uow:
        await uow.connection.execute(insert(log_records), [a_record(m) for m in messages])


async def until_it_works(work: Callable[[], Any]) -> None:
    """Try until the store takes it; a test that hangs here is ended by the limit, which is generous."""
    async with asyncio.timeout(60):
        while True:
            try:
                await work()
                return
            except Unavailable:
                await asyncio.sleep(0.1)


async def test_a_write_is_seen_by_the_next_read(store: Store) -> None:
    async with store.write() as uow:
        await uow.connection.execute(insert(documents).values(**a_document()))

    async with store.read() as uow:
        row = (await uow.connection.execute(select(documents))).one()
    assert row.content == {"a": [1]}


async def test_an_exception_leaving_the_unit_undoes_it_and_stays_what_it_was(store: Store) -> None:
    async def write() -> None:
        async with store.write() as uow:
            await uow.connection.execute(insert(documents).values(**a_document()))
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await write()

    assert await version_of(store) is None
    assert store.trouble is None


async def test_a_timeout_of_the_callers_own_is_not_blamed_on_the_store(store: Store) -> None:
    await store.ping()
    with pytest.raises(TimeoutError):
        async with store.write():
            raise TimeoutError("mine")

    assert store.trouble is None


async def test_of_two_racing_writers_one_waits_and_both_land(store: Store, url: str) -> None:
    async with store.write() as uow:
        await uow.connection.execute(insert(documents).values(**a_document(version=0)))

    async def read_then_write(own: Store) -> None:
        async with own.write() as uow:
            seen = await uow.connection.scalar(select(documents.c.version).with_for_update())
            await asyncio.sleep(0.02)
            await uow.connection.execute(update(documents).values(version=(seen or 0) + 1))

    async with opened(Secret(url)) as other, asyncio.TaskGroup() as tasks:
        for own in (store, other) * 4:
            tasks.create_task(read_then_write(own))

    assert await version_of(store) == 8


async def test_a_read_unit_sees_one_snapshot(store: Store, url: str) -> None:
    await write_records(store, "first")
    async with store.read() as uow:
        before = await uow.connection.scalar(select(func.count()).select_from(log_records))
        async with opened(Secret(url)) as other:
            await write_records(other, "second")
        after = await uow.connection.scalar(select(func.count()).select_from(log_records))

    assert (before, after) == (1, 1)
    assert await count(store) == 2


async def test_a_read_unit_can_change_nothing(store: Store) -> None:
    with pytest.raises(Unavailable, match="read-only"):
        async with store.read() as uow:
            await uow.connection.execute(insert(log_records), [a_record("lost")])

    await write_records(store, "kept")
    assert await count(store) == 1


async def test_a_second_row_by_the_same_key_conflicts(store: Store) -> None:
    async with store.write() as uow:
        await uow.connection.execute(insert(documents).values(**a_document()))

    with pytest.raises(Conflict):
        async with store.write() as uow:
            await uow.connection.execute(insert(documents).values(**a_document(version=2)))

    assert await version_of(store) == 1
    assert store.trouble is None


async def test_a_cancelled_write_leaves_nothing_and_the_store_goes_on(store: Store) -> None:
    await store.ping()
    inside = asyncio.Event()

    async def write() -> None:
        async with store.write() as uow:
            await uow.connection.execute(insert(log_records), [a_record("cancelled")])
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(write())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await write_records(store, "kept")
    assert await count(store) == 1


async def test_more_units_than_connections_wait_their_turn(store: Store) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(write_records(store, str(number)))
            tasks.create_task(count(store))

    assert await count(store) == 40


_RECORDS = Query("SELECT message FROM log_records ORDER BY id")
_RECORD = Change(
    "INSERT INTO log_records (member, timestamp, level, message) VALUES (:member, {now}, :level, :message)"
)
_DOCUMENT = Change(
    "INSERT INTO documents (name, version, content, changed_at, changed_by) VALUES (:name, 1, '{}', {now}, 'test')"
)


async def messages(store: Store) -> list[str]:
    return [row["message"] for row in await store.ask(_RECORDS)]


def recording(*said: str) -> Callable[[Writing], Coroutine[Any, Any, list[str]]]:
    async def work(uow: Writing) -> list[str]:
        assert await uow.changed(_RECORD, a_record(said[0])) == 1
        await uow.change(_RECORD, [a_record(s) for s in said[1:]])
        return [row["message"] for row in await uow.rows(_RECORDS)]

    return work


async def test_a_unit_that_is_carried_out_at_once_lands_as_a_whole(store: Store) -> None:
    assert await store.carry_out("", recording("one", "two", "three")) == ["one", "two", "three"]
    assert await messages(store) == ["one", "two", "three"]

    async def failing(uow: Writing) -> None:
        await recording("four")(uow)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await store.carry_out("", failing)
    assert await messages(store) == ["one", "two", "three"]
    assert store.trouble is None


async def test_what_is_carried_out_at_once_may_conflict(store: Store) -> None:
    async def work(uow: Writing) -> None:
        await uow.change(_RECORD, [a_record("undone")])
        await uow.change(_DOCUMENT, [{"name": "settings"}])

    async with store.write() as uow:
        await uow.connection.execute(insert(documents).values(**a_document()))
    with pytest.raises(Conflict, match="did not carry out a write"):
        await store.carry_out("", work)
    assert await messages(store) == []
    assert store.trouble is None


async def test_units_of_both_kinds_and_questions_go_side_by_side(store: Store, url: str) -> None:
    async with opened(Secret(url)) as other, asyncio.TaskGroup() as tasks:
        for number in range(20):
            for one in (store, other):
                tasks.create_task(one.carry_out("", recording(f"at once {number}")))
                tasks.create_task(write_records(one, f"step by step {number}"))
                tasks.create_task(messages(one))

    found = await messages(store)
    assert sorted(found) == sorted(f"{how} {n}" for how in ("at once", "step by step") for n in range(20) for _ in "12")


async def test_a_unit_carried_out_at_once_that_waits_too_long_is_told_what_any_other_is(url: str) -> None:
    async with opened(Secret(url)) as holder, opened(Secret(url), statement_timeout_s=0.3) as waiter:
        async with holder.write() as uow:
            await uow.connection.execute(insert(documents).values(**a_document()))
        await waiter.ping()

        async def late(uow: Writing) -> None:
            await uow.change(Change("UPDATE documents SET version = 3 WHERE name = :name"), [{"name": "settings"}])

        async with holder.write() as uow:
            await uow.connection.execute(update(documents).values(version=2))
            with pytest.raises(Unavailable, match=r"locked for too long|statement took longer"):
                await waiter.carry_out("", late)
        await waiter.carry_out("", late)
        assert waiter.trouble is None
    async with opened(Secret(url)) as store:
        assert await version_of(store) == 3


async def test_a_unit_carried_out_at_once_that_was_given_up_leaves_nothing_and_the_store_goes_on(
    store: Store, url: str
) -> None:
    update_it = Change("UPDATE documents SET version = version + :more")

    async def late(uow: Writing) -> None:
        await uow.change(update_it, [{"more": 10}])

    async with store.write() as uow:
        await uow.connection.execute(insert(documents).values(**a_document()))
    async with opened(Secret(url)) as holder, holder.write() as uow:
        await uow.connection.execute(update(documents).values(version=2))
        task = asyncio.create_task(store.carry_out("", late))
        # Long enough for it to wait for the holder; were it not, the test would only ask less.
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await store.carry_out("", late)
    assert await version_of(store) == 12


async def test_a_writer_that_was_cancelled_while_it_waited_keeps_nobody_from_writing(tmp_path: Path) -> None:
    url = Secret(f"sqlite:///{tmp_path}/store.db")
    async with opened(url) as store, opened(url) as other:
        async with other.write() as uow:
            await uow.connection.execute(insert(log_records), [a_record("holder's")])
            waiting = asyncio.create_task(write_records(store, "never"))
            # Long enough for it to wait for the holder; were it not, the test would only ask less.
            await asyncio.sleep(0.3)
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(60):
            await write_records(other, "theirs")
            for number in range(6):
                await write_records(store, f"ours {number}")
                assert await count(store) == 3 + number


async def test_a_question_by_itself_finds_what_a_unit_finds(store: Store) -> None:
    query = Query("SELECT name, content FROM documents WHERE name = :name", json=("content",))
    assert await store.ask(query, name="settings") == []
    async with store.write() as uow:
        await uow.connection.execute(insert(documents).values(**a_document()))
    async with store.read() as uow:
        found = await uow.rows(query, name="settings")
    assert await store.ask(query, name="settings") == found == [{"name": "settings", "content": {"a": [1]}}]


async def test_a_question_by_itself_can_change_nothing_and_the_next_is_answered(store: Store) -> None:
    await write_records(store, "kept")
    with pytest.raises(Unavailable, match="read-only"):
        await store.ask(Query("DELETE FROM log_records RETURNING message"))
    assert await messages(store) == ["kept"]
    assert store.trouble is None


async def test_no_thread_outlives_the_store(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        await store.carry_out("", recording("one"))
        assert await messages(store) == ["one"]
        mine = set(threading.enumerate()) - before
        assert mine
    async with asyncio.timeout(60):
        while any(t.is_alive() and not t.name.startswith("asyncio") for t in mine):
            await asyncio.sleep(0.01)


async def test_store_time_is_near_now_and_moves_within_a_unit(store: Store) -> None:
    async with store.write() as uow:
        first = await uow.now()
        await asyncio.sleep(0.02)
        second = await uow.now()

    assert abs(first - time.time()) < 60
    assert second > first


async def test_a_writer_that_waits_too_long_for_anothers_lock_is_told_so(url: str) -> None:
    async with opened(Secret(url)) as holder, opened(Secret(url), statement_timeout_s=0.3) as waiter:
        async with holder.write() as uow:
            await uow.connection.execute(insert(documents).values(**a_document()))
        await waiter.ping()
        async with holder.write() as uow:
            await uow.connection.execute(update(documents).values(version=2))
            with pytest.raises(Unavailable, match=r"locked for too long|statement took longer"):
                async with waiter.write() as late:
                    await late.connection.execute(update(documents).values(version=3))
            assert waiter.trouble is not None
        async with waiter.write() as late:
            await late.connection.execute(update(documents).values(version=4))
        assert waiter.trouble is None
        assert waiter.trouble_since is None


async def test_a_unit_that_takes_too_long_is_ended_and_undone(url: str) -> None:
    async with opened(Secret(url), connect_timeout_s=0.2, statement_timeout_s=0.3) as store:
        await until_it_works(store.ping)

        async def write() -> None:
            async with store.write() as uow:
                await uow.connection.execute(insert(log_records), [a_record("late")])
                await asyncio.sleep(60)

        with pytest.raises(Unavailable, match="no answer within"):
            await write()
        assert await count(store) == 0


async def test_the_password_shows_nowhere(postgresql_server: PostgreSQL) -> None:
    wrong = "hunter2-hunter2"
    async with opened(Secret(postgresql_server.url("postgres", password=wrong))) as store:
        with pytest.raises(Unavailable, match="password authentication failed") as raised:
            await store.ping()
        assert wrong not in f"{raised.value!r} {store!r} {store!s} {store.trouble} {store.shown}"


async def test_a_password_given_beside_the_url_wins(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.url("postgres", password="wrong")
    async with opened(Secret(url), password=Secret(postgresql.PASSWORD), migrate=False) as store:
        with pytest.raises(Unavailable, match="has no schema yet"):
            await store.ping()


async def test_a_value_the_database_cannot_hold_is_rejected(postgresql_server: PostgreSQL) -> None:
    async with opened(Secret(postgresql_server.fresh_store())) as store:
        with pytest.raises(Rejected):
            await write_records(store, "nul \x00 in it")
        assert store.trouble is None


def tell(server: PostgreSQL, *statements: str) -> object:
    """Carry out statements behind the store's back; return the first value of the last one's answer."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for statement in statements:
            answer = connection.execute(statement.encode())
        return (answer.fetchone() or (None,))[0] if answer.description else None


async def durability(store: Store) -> str:
    """Return what the next commit of a write unit waits for."""
    async with store.write() as uow:
        return str(await uow.connection.scalar(text("SHOW synchronous_commit")))


@pytest.mark.parametrize(
    ("default", "ours"),
    [
        ("off", "on"),
        ("local", "on"),
        ("remote_write", "on"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
    ],
)
async def test_a_database_may_ask_for_more_durable_commits_and_not_for_less(
    postgresql_server: PostgreSQL, default: str, ours: str
) -> None:
    url = postgresql_server.fresh_store()
    tell(postgresql_server, f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = {default}")
    async with opened(Secret(url)) as store, opened(Secret(url)) as other:
        assert await durability(store) == ours
        # As a session that was there before, given back and taken again.
        assert await durability(store) == ours
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(durability(other)) for _ in range(8)]
        assert {task.result() for task in asked} == {ours}


async def test_a_url_may_not_ask_for_less_durable_commits(postgresql_server: PostgreSQL) -> None:
    url = f"{postgresql_server.fresh_store()}?options=-c%20synchronous_commit%3Doff%20-c%20geqo%3Doff"
    async with opened(Secret(url)) as store:
        assert await durability(store) == "on"
        async with store.read() as uow:
            assert await uow.connection.scalar(text("SHOW geqo")) == "off", "what else the URL says is left to it"


async def test_an_open_session_stays_durable_when_the_server_is_set_to_less(postgresql_server: PostgreSQL) -> None:
    async with opened(Secret(postgresql_server.fresh_store())) as store:
        async with store.write() as uow:
            process = await uow.connection.scalar(text("SELECT pg_backend_pid()"))
            tell(postgresql_server, "ALTER SYSTEM SET synchronous_commit = off", "SELECT pg_reload_conf()")
        try:
            async with asyncio.timeout(60):
                while tell(postgresql_server, "SHOW synchronous_commit") != "off":
                    await asyncio.sleep(0.05)
            assert await durability(store) == "on"
            async with store.read() as uow:
                assert await uow.connection.scalar(text("SELECT pg_backend_pid()")) == process
        finally:
            tell(postgresql_server, "ALTER SYSTEM RESET synchronous_commit", "SELECT pg_reload_conf()")


async def test_a_fence_on_the_server_holds_for_sessions_that_are_open_and_for_new_ones(
    postgresql_server: PostgreSQL,
) -> None:
    url = Secret(postgresql_server.fresh_store())
    async with opened(url) as store, opened(url) as late:
        await write_records(store, "before")
        assert await count(store) == 1
        tell(postgresql_server, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        try:
            async with asyncio.timeout(60):
                while tell(postgresql_server, "SHOW default_transaction_read_only") != "on":
                    await asyncio.sleep(0.05)
            for one in (store, late):
                for _ in range(2):
                    with pytest.raises(Unavailable, match=r"read-only .*default_transaction_read_only"):
                        await write_records(one, "past the fence")
                    assert await count(one) == 1
        finally:
            tell(
                postgresql_server,
                "SET default_transaction_read_only = off",
                "ALTER SYSTEM RESET default_transaction_read_only",
                "SELECT pg_reload_conf()",
            )

        async def open_again() -> None:
            await write_records(store, "after")

        await until_it_works(open_again)
        assert await count(late) == 2


async def test_with_verify_full_the_database_is_who_its_certificate_says(needs: Callable[[str], None]) -> None:
    needs("postgresql")
    with postgresql.running() as server:
        key, certificate = server.directory / "server.key", server.directory / "server.crt"
        command = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 825 -subj /CN=db -addext subjectAltName=DNS:localhost"
        )
        subprocess.run(
            [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60
        )
        server.stop()
        for file in (key, certificate):
            server.give(file)
        server.start(ssl="on", ssl_cert_file=str(certificate), ssl_key_file=str(key))
        plain = server.fresh_database()
        verified = f"{plain.replace('127.0.0.1', 'localhost')}?sslmode=verify-full&sslrootcert={certificate}"
        async with opened(Secret(verified)) as store, store.write() as uow:
            query = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            assert await uow.connection.scalar(query) is True
        for other in (
            verified.replace("localhost", "127.0.0.1"),
            verified.partition("&")[0] + "&sslrootcert=/dev/null",
        ):
            async with opened(Secret(other)) as store:
                with pytest.raises(Unavailable, match="certificate"):
                    await store.ping()


async def test_several_members_may_make_the_schema_at_once(empty_url: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(Secret(empty_url))) for _ in range(6)]
        async with asyncio.TaskGroup() as tasks:
            for number, store in enumerate(stores):
                tasks.create_task(write_records(store, str(number)))

        assert await count(stores[0]) == 6
        async with stores[0].read() as uow:
            assert list(await uow.connection.scalars(text("SELECT version_num FROM alembic_version"))) == [schema.HEAD]


@pytest.fixture
def by_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores have their schema as in production, and not as the one before them had it."""
    monkeypatch.setattr(schema, "revise", schemas.by_revisions)


async def test_the_migrations_make_exactly_the_tables_the_code_knows(by_revisions: None, empty_url: str) -> None:
    async with opened(Secret(empty_url)) as store:
        assert await differences(store) == []


async def differences(store: Store) -> list[object]:
    """Return in what a store's schema is not what the code knows."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    async with store.read() as uow:
        return list(
            await uow.connection.run_sync(
                lambda connection: compare_metadata(
                    MigrationContext.configure(connection, opts={"compare_type": True}), metadata
                )
            )
        )


async def test_a_schema_that_tests_say_over_again_is_the_one_of_the_migrations(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def revise(connection: Connection, to: str) -> None:
        asked.append(to)
        schemas.by_revisions(connection, to)

    monkeypatch.setattr(schema, "revise", schemas.remembered(revise))
    async with opened(Secret(empty_url)) as store:
        await store.ping()
        async with store.whole(writing=True, limit_s=60) as uow:
            await uow.connection.run_sync(schema.drop)
            await uow.connection.run_sync(schema.upgrade, timeout_s=60)
        assert asked == [schema.HEAD]
        assert await differences(store) == []
        async with store.read() as uow:
            assert list(await uow.connection.scalars(text("SELECT version_num FROM alembic_version"))) == [schema.HEAD]


async def test_an_interrupted_migration_leaves_nothing_behind(
    by_revisions: None, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    original = op.create_index

    def interrupted(*_: Any, **__: Any) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(op, "create_index", interrupted)
    async with opened(Secret(empty_url)) as store:
        with pytest.raises(RuntimeError):
            await store.ping()
        monkeypatch.setattr(op, "create_index", original)
        await write_records(store, "whole")
        assert await count(store) == 1


async def test_a_schema_of_a_newer_muster_is_used_and_spoken_of(url: str) -> None:
    async with opened(Secret(url)) as store, store.write() as uow:
        await uow.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await uow.connection.execute(text("ALTER TABLE documents ADD COLUMN added TEXT"))

    async with opened(Secret(url)) as older:
        await write_records(older, "from the older")
        assert await count(older) == 1
        assert older.schema_notice is not None
        assert "9999" in older.schema_notice
        # As a member does that waited for the lock while a newer one migrated.
        async with older.write() as uow:
            assert await uow.connection.run_sync(schema.upgrade, timeout_s=5) == "9999"


async def test_without_leave_to_migrate_a_missing_schema_is_a_sentence(empty_url: str) -> None:
    async with opened(Secret(empty_url), migrate=False) as store:
        with pytest.raises(Unavailable, match="has no schema yet"):
            await store.ping()


async def test_of_eight_that_want_a_role_one_gets_it(store: Store) -> None:
    leases = Leases(store)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(leases.acquire("publisher", f"proxy{n:02}", 60)) for n in range(8)]

    got = [lease for task in asked if (lease := task.result()) is not None]
    assert len(got) == 1
    assert got[0].epoch == 1
    assert await leases.held("publisher") == got[0]


async def test_acquiring_what_one_holds_extends_it_in_the_same_epoch(store: Store) -> None:
    leases = Leases(store)
    first = await acquired(leases, "proxy01", ttl_s=30)
    again = await acquired(leases, "proxy01", ttl_s=60)

    assert again.epoch == first.epoch
    assert again.expires_at > first.expires_at


async def test_an_expired_role_goes_to_the_next_with_a_larger_epoch(store: Store) -> None:
    leases = Leases(store)
    old = await acquired(leases, "proxy01", ttl_s=0.01)
    await asyncio.sleep(0.05)

    assert await leases.held("publisher") is None
    new = await acquired(leases, "proxy02")
    assert new.epoch == old.epoch + 1
    with pytest.raises(Conflict, match="lost"):
        await leases.renew(old, 60)


async def test_an_expired_role_acquired_again_by_its_holder_has_a_larger_epoch(store: Store) -> None:
    leases = Leases(store)
    old = await acquired(leases, "proxy01", ttl_s=0.01)
    await asyncio.sleep(0.05)

    with pytest.raises(Conflict):
        await leases.renew(old, 60)
    assert (await acquired(leases, "proxy01")).epoch == old.epoch + 1


async def test_a_released_role_is_free_at_once_and_a_late_release_harms_nobody(store: Store) -> None:
    leases = Leases(store)
    old = await acquired(leases, "proxy01")
    await leases.release(old)
    assert await leases.held("publisher") is None

    new = await acquired(leases, "proxy02")
    await leases.release(old)

    assert new.epoch == old.epoch + 1
    assert await leases.held("publisher") == new


async def test_a_renewed_lease_lasts_longer(store: Store) -> None:
    leases = Leases(store)
    lease = await acquired(leases, "proxy01", ttl_s=30)
    renewed = await leases.renew(lease, 60)

    assert renewed.expires_at > lease.expires_at + 20
    assert renewed.epoch == lease.epoch


async def test_a_write_fenced_by_a_lost_lease_does_not_land(store: Store) -> None:
    leases = Leases(store)
    old = await acquired(leases, "proxy01", ttl_s=0.01)
    await asyncio.sleep(0.05)
    new = await acquired(leases, "proxy02")

    async def write_as(lease: Lease, message: str) -> None:
        async with store.write() as uow:
            await uow.connection.execute(insert(log_records), [a_record(message)])
            await leases.fence(uow, lease)

    with pytest.raises(Conflict, match="proxy02 at epoch 2"):
        await write_as(old, "too late")
    await write_as(new, "in time")
    assert await count(store) == 1


async def test_the_holders_own_earlier_epoch_is_fenced_too(store: Store) -> None:
    leases = Leases(store)
    old = await acquired(leases, "proxy01", ttl_s=0.01)
    await asyncio.sleep(0.05)
    await acquired(leases, "proxy01")

    with pytest.raises(Conflict, match="proxy01 at epoch 2"):
        async with store.write() as uow:
            await leases.fence(uow, old)


async def test_a_released_lease_fences_too(store: Store) -> None:
    leases = Leases(store)
    lease = await acquired(leases, "proxy01")
    await leases.release(lease)

    with pytest.raises(Conflict, match="nobody"):
        async with store.write() as uow:
            await leases.fence(uow, lease)


async def test_nobody_takes_a_role_over_while_a_fenced_unit_is_open(store: Store, url: str) -> None:
    leases = Leases(store)
    lease = await acquired(leases, "proxy01", ttl_s=0.01)
    await asyncio.sleep(0.05)
    async with opened(Secret(url)) as other:
        await other.ping()
        async with store.write() as uow:
            await leases.fence(uow, lease)
            taking = asyncio.create_task(Leases(other).acquire("publisher", "proxy02", 60))
            await asyncio.sleep(0.2)
            assert not taking.done()
            await uow.connection.execute(insert(log_records), [a_record("before the change of hands")])
        taken = await taking

    assert taken is not None
    assert taken.epoch == lease.epoch + 1


async def acquired(leases: Leases, holder: str, *, ttl_s: float = 60) -> Lease:
    lease = await leases.acquire("publisher", holder, ttl_s)
    assert lease is not None
    return lease


async def test_a_store_opens_while_the_database_is_down(tmp_path: Path) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/absent/store.db")) as store:
        with pytest.raises(Unavailable, match="there is no directory"):
            await store.ping()
        assert store.trouble is not None
        assert store.trouble_since is not None

        (tmp_path / "absent").mkdir()
        await store.ping()
        assert store.trouble is None


async def test_a_stopped_postgresql_is_unavailable_and_the_same_store_goes_on_after(
    postgresql_server: PostgreSQL,
) -> None:
    async with opened(Secret(postgresql_server.fresh_store())) as store:
        await write_records(store, "before")
        postgresql_server.stop()
        try:
            for _ in range(3):
                with pytest.raises(Unavailable, match=r"connection refused|is gone|shutting down"):
                    async with asyncio.timeout(5):
                        await write_records(store, "lost")
            assert store.trouble is not None
        finally:
            postgresql_server.start()
        await write_records(store, "after")

        assert store.trouble is None
        assert await count(store) == 2


async def test_a_restart_of_postgresql_between_two_units_is_not_noticed(postgresql_server: PostgreSQL) -> None:
    async with opened(Secret(postgresql_server.fresh_store())) as store:
        await write_records(store, "before")
        postgresql_server.stop()
        postgresql_server.start()
        await write_records(store, "after")
        assert await count(store) == 2


async def test_a_postgresql_stopped_in_the_middle_of_a_unit_is_unavailable(postgresql_server: PostgreSQL) -> None:
    async with opened(Secret(postgresql_server.fresh_store())) as store:
        await store.ping()

        async def write() -> None:
            async with store.write() as uow:
                await uow.connection.execute(insert(log_records), [a_record("lost")])
                postgresql_server.stop()
                await uow.connection.execute(insert(log_records), [a_record("lost too")])

        try:
            with pytest.raises(Unavailable):
                await write()
        finally:
            postgresql_server.start()
        assert await count(store) == 0


async def test_a_postgresql_stopped_in_the_middle_of_a_unit_carried_out_at_once_is_unavailable(
    postgresql_server: PostgreSQL,
) -> None:
    async def stopped(uow: Writing) -> None:
        await recording("lost")(uow)
        postgresql_server.stop()
        await recording("lost too")(uow)

    async with opened(Secret(postgresql_server.fresh_store())) as store:
        await store.ping()
        try:
            with pytest.raises(Unavailable):
                await store.carry_out("", stopped)
        finally:
            postgresql_server.start()
        assert await store.carry_out("", recording("kept")) == ["kept"]


@pytest.mark.parametrize("way", ["asks", "changes", "raises"])
async def test_a_unit_carried_out_at_once_and_caught_by_a_hung_postgresql_ends_within_the_deadline(
    postgresql_server: PostgreSQL, way: str
) -> None:
    async with opened(Secret(postgresql_server.fresh_store()), connect_timeout_s=0.5, statement_timeout_s=0.5) as store:
        await until_it_works(store.ping)
        with contextlib.ExitStack() as stack:

            async def hung(uow: Writing) -> None:
                await recording("unknown")(uow)
                stack.enter_context(postgresql_server.paused())
                if way == "raises":
                    raise KeyError("rolls back")
                await (uow.rows(_RECORDS) if way == "asks" else uow.change(_RECORD, [a_record("unknown, too")]))

            async with asyncio.timeout(5):
                with pytest.raises(Unavailable, match="no answer within 1 s"):
                    await store.carry_out("", hung)
        await until_it_works(store.ping)
        await store.carry_out("", recording("kept"))
        assert await messages(store) == ["kept"]


async def test_a_hung_postgresql_is_unavailable_within_the_deadline(postgresql_server: PostgreSQL) -> None:
    url = Secret(postgresql_server.fresh_store())
    async with opened(url, connect_timeout_s=0.5, statement_timeout_s=0.5) as store, opened(url) as fresh:
        await until_it_works(store.ping)
        with postgresql_server.paused():
            # Far above the deadline of one second and far below the ten psycopg would take to give up by itself.
            async with asyncio.timeout(5):
                with pytest.raises(Unavailable, match="no answer within 1 s"):
                    await store.ping()
            # No connection yet: the kernel accepts it, nobody answers.
            async with asyncio.timeout(9.5):
                with pytest.raises(Unavailable, match=r"no answer|no connection"):
                    await fresh.ping()
        await until_it_works(store.ping)
        await until_it_works(fresh.ping)
        assert store.trouble is None


async def test_a_unit_caught_by_a_hung_postgresql_ends_within_the_deadline(postgresql_server: PostgreSQL) -> None:
    async with opened(Secret(postgresql_server.fresh_store()), connect_timeout_s=0.5, statement_timeout_s=0.5) as store:
        await until_it_works(store.ping)

        async def write(stack: contextlib.ExitStack) -> None:
            async with store.write() as uow:
                stack.enter_context(postgresql_server.paused())
                await uow.connection.execute(insert(log_records), [a_record("unknown")])

        with contextlib.ExitStack() as stack:
            async with asyncio.timeout(5):
                with pytest.raises(Unavailable, match="no answer within 1 s"):
                    await write(stack)
        await until_it_works(store.ping)


@pytest.mark.parametrize("way", ["waits", "raises"])
async def test_giving_up_a_unit_asks_a_hung_postgresql_nothing_more(postgresql_server: PostgreSQL, way: str) -> None:
    async with opened(Secret(postgresql_server.fresh_store()), connect_timeout_s=0.5, statement_timeout_s=0.5) as store:
        await until_it_works(store.ping)

        async def write(stack: contextlib.ExitStack) -> None:
            async with store.write() as uow:
                await uow.now()
                stack.enter_context(postgresql_server.paused())
                if way == "raises":
                    raise KeyError("rolls back")
                await asyncio.sleep(60)

        with contextlib.ExitStack() as stack:
            async with asyncio.timeout(5):
                with pytest.raises(Unavailable, match="no answer within 1 s"):
                    await write(stack)
        await until_it_works(store.ping)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a small disk: only root may mount one")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mounted], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"a small disk: {tried.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=True)


async def test_on_a_full_disk_sqlite_says_so_still_reads_and_recovers_with_nothing_lost(small_disk: Path) -> None:
    file = small_disk / "store.db"
    async with opened(Secret(f"sqlite:///{file}")) as store:
        acknowledged = 0
        while store.trouble is None and acknowledged < 10_000:
            with contextlib.suppress(Unavailable):
                await write_records(store, f"{acknowledged} " + "x" * 4000)
                acknowledged += 1
        assert acknowledged > 0
        assert "the disk is full" in (store.trouble or "")
        assert await count(store) == acknowledged

        subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
        await write_records(store, "after")
        assert store.trouble is None
        assert await count(store) == acknowledged + 1

    with contextlib.closing(sqlite3.connect(file)) as plain:
        assert plain.execute("SELECT count(*) FROM log_records").fetchone() == (acknowledged + 1,)
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_disk_already_full_at_the_start_is_named(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as f, contextlib.suppress(OSError):
        while f.write(b"x" * 65536):
            pass
    async with opened(Secret(f"sqlite:///{small_disk}/store.db")) as store:
        with pytest.raises(Unavailable, match="the disk is full"):
            await store.ping()
        ballast.unlink()
        await write_records(store, "after")
        assert await count(store) == 1


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"something else altogether" * 100)
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        with pytest.raises(Unavailable, match="damaged"):
            await store.ping()


def _locks_on(file: Path) -> list[str]:
    """Return what the kernel says of this process' locks on a file: its POSIX locks, one line each."""
    inode = f":{file.stat().st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [" ".join(f) for f in lines if f[4] == str(os.getpid()) and f[5].endswith(inode)]


async def _grow_the_pool(store: Store, connections: int) -> None:
    """Have that many units open at one moment, so that each has a connection of its own."""
    everybody = asyncio.Barrier(connections)

    async def unit() -> None:
        async with store.read() as uow:
            await uow.now()
            await everybody.wait()

    await asyncio.gather(*(unit() for _ in range(connections)))


async def test_a_growing_pool_keeps_the_locks_on_the_sqlite_file(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    async with opened(Secret(f"sqlite:///{file}")) as store:
        await write_records(store, "one")
        assert _locks_on(file)
        for connections in (2, 5, 10):
            await _grow_the_pool(store, connections)
            assert _locks_on(file), f"none with {connections} connections"
    assert not _locks_on(file)


_COME_AND_GO = """
import sqlite3, sys
for _ in range(20):
    connection = sqlite3.connect(sys.argv[1], timeout=10)
    connection.execute("SELECT count(*) FROM log_records").fetchone()
    connection.close()
"""


async def test_processes_that_come_and_go_take_no_file_away(tmp_path: Path) -> None:
    """The last connection to close takes the write-ahead log away, so who is still there must be seen to be."""
    file = tmp_path / "store.db"
    async with opened(Secret(f"sqlite:///{file}")) as store:
        await write_records(store, "first")
        await _grow_the_pool(store, 5)
        log = file.with_name("store.db-wal").stat().st_ino
        others = [await asyncio.create_subprocess_exec(sys.executable, "-c", _COME_AND_GO, str(file)) for _ in range(2)]
        written = 1
        while any(p.returncode is None for p in others):
            await asyncio.gather(*(write_records(store, f"{written}-{n}") for n in range(5)))
            written += 5
        assert [await p.wait() for p in others] == [0, 0]
        assert written > 5
        assert file.with_name("store.db-wal").stat().st_ino == log
        assert await count(store) == written
    with contextlib.closing(sqlite3.connect(file)) as plain:
        assert plain.execute("SELECT count(*) FROM log_records").fetchone() == (written,)
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_the_sqlite_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        await write_records(store, "one")
        modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir() if p.name.startswith("store.db")}
    sides = ("", "-wal", "-shm", "-next", "-turn")
    assert modes == {f"store.db{side}": 0o600 for side in sides}
