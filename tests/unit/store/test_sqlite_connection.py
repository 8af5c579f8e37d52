"""A statement is one trip to the connection's thread, a whole unit may be one, and neither leaves anything half done."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from muster.store.reading import Query
from muster.store.sqlite_connection import Connection, Until
from muster.store.sqlite_driver import connected
from muster.store.turnstile import Turnstile
from muster.store.writing import Change, Writing

pytestmark = pytest.mark.anyio

_ADD = Change("INSERT INTO said (word) VALUES (:word)")
_WORDS = Query("SELECT word FROM said ORDER BY word")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "store.db"
    with contextlib.closing(sqlite3.connect(made)) as plain:
        plain.execute("PRAGMA journal_mode=WAL")
        plain.execute("CREATE TABLE said (word TEXT PRIMARY KEY)")
    return made


@pytest.fixture
async def connection(file: Path) -> AsyncIterator[Connection]:
    made: Connection = await connected(str(file), timeout=0.2, isolation_level=None)
    yield made
    await made.close()


def words(file: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(file)) as plain:
        return [word for (word,) in plain.execute("SELECT word FROM said ORDER BY word")]


def saying(*said: str) -> Any:
    async def work(uow: Writing) -> list[str]:
        await uow.change(_ADD, [{"word": word} for word in said])
        return [row["word"] for row in await uow.rows(_WORDS)]

    return work


def has_turn(file: Path) -> bool:
    """Whether somebody writes, or waits to."""
    turnstile = Turnstile(file)
    try:
        return not turnstile.enter(0)
    finally:
        turnstile.close()


async def test_a_cursor_has_fetched_everything_when_it_was_executed(connection: Connection) -> None:
    await connection.begin(writing=True)
    cursor = connection.cursor()
    await cursor.executemany("INSERT INTO said VALUES (?)", [("b",), ("a",)])
    assert (cursor.description, cursor.rowcount) == (None, 2)
    await cursor.execute("SELECT word FROM said ORDER BY word")
    await connection.commit()
    assert [column[0] for column in cursor.description] == ["word"]
    assert await cursor.fetchall() == [("a",), ("b",)]
    assert await cursor.fetchall() == []
    await cursor.close()


async def test_a_unit_that_reads_sees_one_snapshot_until_its_end(connection: Connection, file: Path) -> None:
    async def seen() -> list[Any]:
        cursor = connection.cursor()
        await cursor.execute("SELECT word FROM said")
        return list(await cursor.fetchall())

    await connection.begin(writing=False)
    assert await seen() == []
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as plain:
        plain.execute("INSERT INTO said VALUES ('later')")
    assert await seen() == []
    await connection.commit()
    await connection.begin(writing=False)
    assert await seen() == [("later",)]
    await connection.rollback()
    # One that asks nothing does not even begin, and leaves nothing to the next.
    await connection.begin(writing=False)
    await connection.commit()
    assert await seen() == [("later",)]
    assert not connection.in_transaction


async def test_a_unit_that_reads_can_change_nothing(connection: Connection, file: Path) -> None:
    await connection.begin(writing=False)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await connection.cursor().execute("INSERT INTO said VALUES ('a')")
    await connection.rollback()
    await connection.begin(writing=True)
    await connection.cursor().execute("INSERT INTO said VALUES ('b')")
    await connection.commit()
    assert words(file) == ["b"]


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_who_writes_has_the_turn_until_the_end(connection: Connection, file: Path, end: str) -> None:
    await connection.begin(writing=True)
    assert has_turn(file)
    await getattr(connection, end)()
    assert not has_turn(file)


async def test_a_connection_that_is_closed_in_the_middle_gives_its_turn_back(file: Path) -> None:
    gone: Connection = await connected(str(file), isolation_level=None)
    await gone.begin(writing=True)
    await gone.cursor().execute("INSERT INTO said VALUES ('never')")
    await gone.close()
    assert not has_turn(file)
    assert words(file) == []


async def test_who_does_not_get_the_lock_is_told_as_sqlite_tells_it_and_keeps_no_turn(
    connection: Connection, file: Path
) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as older:
        older.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            await connection.begin(writing=True)
        assert not has_turn(file)
        older.execute("ROLLBACK")
    await connection.begin(writing=True)
    await connection.rollback()


async def test_who_does_not_get_the_turn_asks_sqlite_all_the_same(connection: Connection, file: Path) -> None:
    turnstile = Turnstile(file)
    assert turnstile.enter(30)
    # Whoever has it does not write: it waits for something else, or hangs.
    assert await connection.carried_out(saying("a"), Until()) == ["a"]
    # As much time as the settings say is there for the next one again.
    cursor = connection.cursor()
    await cursor.execute("PRAGMA busy_timeout")
    assert await cursor.fetchall() == [(200,)]
    # The other one's turn is still its own.
    assert has_turn(file)
    turnstile.close()
    assert words(file) == ["a"]


async def test_a_whole_unit_is_carried_out_in_the_connections_thread(connection: Connection, file: Path) -> None:
    async def work(uow: Writing) -> str:
        assert uow.dialect == "sqlite"
        assert abs(await uow.now() - await uow.now()) < 60
        await uow.change(_ADD, [{"word": "a"}])
        return threading.current_thread().name

    assert await connection.carried_out(work, Until()) != threading.current_thread().name
    assert words(file) == ["a"]
    assert not has_turn(file)


async def test_an_exception_in_a_unit_undoes_it_and_stays_what_it_was(connection: Connection, file: Path) -> None:
    async def work(uow: Writing) -> None:
        await uow.change(_ADD, [{"word": "a"}])
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await connection.carried_out(work, Until())
    assert words(file) == []
    assert not has_turn(file)


async def test_a_unit_that_waits_for_something_else_is_refused(connection: Connection, file: Path) -> None:
    async def work(uow: Writing) -> None:
        await uow.change(_ADD, [{"word": "a"}])
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="awaited something else"):
        await connection.carried_out(work, Until())
    assert words(file) == []
    assert not has_turn(file)


async def test_a_unit_lands_when_it_is_asked_to(connection: Connection, file: Path) -> None:
    assert await connection.carried_out(saying("a"), Until(asked=True)) == ["a"]
    assert words(file) == []
    assert has_turn(file)
    await connection.commit()
    assert words(file) == ["a"]
    assert not has_turn(file)


async def test_a_unit_that_was_given_up_does_not_land(connection: Connection, file: Path) -> None:
    until = Until()

    async def work(uow: Writing) -> None:
        await uow.change(_ADD, [{"word": "a"}])
        until.given_up = True

    with pytest.raises(asyncio.CancelledError):
        await connection.carried_out(work, until)
    assert words(file) == []
    assert not has_turn(file)
    with pytest.raises(asyncio.CancelledError):
        await connection.carried_out(saying("b"), until)
    assert words(file) == []


async def test_a_question_by_itself_needs_no_unit(connection: Connection) -> None:
    assert await connection.ask("SELECT :word AS said, 2 AS number", {"word": "a"}) == [{"said": "a", "number": 2}]
    assert await connection.ask("SELECT word FROM said", {}) == []
    assert not connection.in_transaction
