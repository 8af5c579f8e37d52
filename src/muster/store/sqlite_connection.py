"""SQLite's connection as the store uses it: a statement is one trip to its thread and back, and a whole unit may be one.

The driver's own cursor makes four trips for a statement: it is opened, carries out, fetches and is closed. A trip costs more
than most statements, and a unit that writes keeps everybody else from writing while it is under way.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

import aiosqlite

from muster.store.reading import STORE_NOW, Dialect, Query
from muster.store.turnstile import Turnstile
from muster.store.writing import Change, Writing

T = TypeVar("T")

# Of the time for which a writer waits for others; the rest is for SQLite's own waiting.
_SHARE_AT_TURNSTILE = 0.5
# Whoever passed sooner waits in SQLite for as long as the settings say, and nothing has to be said to it.
_SOON_S = 0.1


class _Outcome(NamedTuple):
    """What one statement left."""

    description: Any
    rowcount: int
    lastrowid: int | None
    rows: list[Any]


@dataclass
class Until:
    """How far a unit goes by itself.

    Attributes:
        asked: it is not committed before somebody asks for that.
        given_up: nobody waits for it any more, so it must not land.
    """

    asked: bool = False
    given_up: bool = False

    def refuse_if_given_up(self) -> None:
        if self.given_up:
            raise asyncio.CancelledError


class _Guarded(sqlite3.Connection):
    """A connection that gives its turn back when it is closed, however that comes about."""

    turnstile: Turnstile | None = None

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self.turnstile is not None:
                self.turnstile.close()


class Connection(aiosqlite.Connection):
    """A connection with a thread of its own, in which all of its work is done."""

    def __init__(self, database: str, *, timeout: float = 5.0, **named: Any) -> None:
        super().__init__(self._connected, 64)
        self._database = database
        self._named = named
        self._turnstile = Turnstile(Path(database))
        self._limit_s = timeout
        self._unit: Literal["reading", "writing"] | None = None
        # What goes before the next statement, in the same trip.
        self._first: tuple[str, ...] = ()

    def _connected(self) -> sqlite3.Connection:
        made = sqlite3.connect(self._database, timeout=self._limit_s, factory=_Guarded, **self._named)
        made.turnstile = self._turnstile
        return made

    def cursor(self) -> Any:
        return Cursor(self)

    async def begin(self, *, writing: bool) -> None:
        """Begin a unit; one that only reads begins with its first statement.

        Raises:
            sqlite3.OperationalError: others wrote for too long.
        """
        if writing:
            try:
                await self._execute(self._begin_writing)
            except asyncio.CancelledError:
                # It begins all the same once the lock is free, and nobody would end it.
                self._tx.put_nowait((None, self._roll_back))
                raise
            self._unit = "writing"
        else:
            self._unit, self._first = "reading", ("PRAGMA query_only=ON", "BEGIN")

    def _begin_writing(self) -> None:
        begun = time.monotonic()
        self._turnstile.enter(self._limit_s * _SHARE_AT_TURNSTILE)
        waited_s = time.monotonic() - begun
        try:
            self._conn.execute("PRAGMA query_only=OFF")
            if waited_s > _SOON_S:
                self._wait_within(self._limit_s - waited_s)
            # A deferred transaction that reads first and writes later fails at once when another wrote in between,
            # whatever the busy timeout: SQLITE_BUSY_SNAPSHOT.
            self._conn.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._turnstile.leave()
            raise
        finally:
            if waited_s > _SOON_S:
                self._wait_within(self._limit_s)

    def _wait_within(self, limit_s: float) -> None:
        self._conn.execute(f"PRAGMA busy_timeout={max(0, int(limit_s * 1000))}")

    async def commit(self) -> None:
        await self._end(self._commit)

    async def rollback(self) -> None:
        await self._end(self._roll_back)

    async def _end(self, end: Callable[[], None]) -> None:
        unit, self._unit = self._unit, None
        if self._first:
            # Nothing was asked.
            self._first = ()
        elif unit == "reading":
            # What comes next waits behind it in the connection's queue; nothing depends on when it is done.
            self._tx.put_nowait((None, end))
        elif unit == "writing":
            try:
                await self._execute(end)
            except BaseException:
                self._unit = unit
                raise

    def _commit(self) -> None:
        self._conn.commit()
        self._turnstile.leave()

    def _roll_back(self) -> None:
        try:
            self._conn.rollback()
        finally:
            self._turnstile.leave()

    async def carried_out(self, work: Callable[[Writing], Coroutine[Any, Any, T]], until: Until) -> T:
        """Carry out a whole unit in one trip; its work may await nothing but the unit.

        With ``until.asked`` it is not committed yet.
        """
        found: T = await self._execute(copy_context().run, self._carried_out_here, work, until)
        self._unit = "writing" if until.asked else None
        return found

    def _carried_out_here(self, work: Callable[[Writing], Coroutine[Any, Any, T]], until: Until) -> T:
        until.refuse_if_given_up()
        self._begin_writing()
        try:
            found = _driven(work(_Unit(self._conn)))
            until.refuse_if_given_up()
            if not until.asked:
                self._commit()
        except BaseException:
            self._roll_back()
            raise
        return found

    async def ask(self, sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what one statement finds outside any unit, by column."""
        found = await self._statement(sqlite3.Connection.execute, sql, values)
        return _by_column(found.description, found.rows)

    async def _statement(self, execute: Callable[..., sqlite3.Cursor], sql: str, parameters: Any) -> _Outcome:
        """Carry out one statement and fetch what it finds, in one trip."""
        first, self._first = self._first, ()
        found: _Outcome = await self._execute(self._stated, first, execute, sql, parameters)
        return found

    def _stated(
        self, first: Sequence[str], execute: Callable[..., sqlite3.Cursor], sql: str, parameters: Any
    ) -> _Outcome:
        for statement in first:
            self._conn.execute(statement)
        cursor = execute(self._conn, sql, parameters)
        rows = cursor.fetchall() if cursor.description else []
        found = _Outcome(cursor.description, cursor.rowcount, cursor.lastrowid, rows)
        cursor.close()
        return found

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == self._thread.ident:
            return fn(*args, **kwargs)
        return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]


class _Unit:
    """A unit in its connection's thread."""

    dialect: Dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def now(self) -> float:
        return float(self._connection.execute(f"SELECT {STORE_NOW['sqlite']}").fetchone()[0])

    async def rows(self, query: Query, **values: Any) -> list[dict[str, Any]]:
        cursor = self._connection.execute(query.text, values)
        return [query.row(row, "sqlite") for row in _by_column(cursor.description, cursor.fetchall())]

    async def change(self, change: Change, rows: Sequence[Mapping[str, Any]]) -> None:
        self._connection.executemany(change.of("sqlite"), rows)

    async def changed(self, change: Change, row: Mapping[str, Any]) -> int:
        return self._connection.execute(change.of("sqlite"), row).rowcount


class Cursor:
    """What SQLAlchemy asks of a cursor; it holds rows that were fetched."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._found = _Outcome(None, -1, None, [])

    async def __aenter__(self) -> Self:
        return self

    @property
    def description(self) -> Any:
        return self._found.description

    @property
    def rowcount(self) -> int:
        return self._found.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._found.lastrowid

    async def execute(self, sql: str, parameters: Any = ()) -> Self:
        self._found = await self._connection._statement(sqlite3.Connection.execute, sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: Any) -> Self:
        self._found = await self._connection._statement(sqlite3.Connection.executemany, sql, parameters)
        return self

    async def fetchall(self) -> list[Any]:
        rows = list(self._found.rows)
        self._found.rows.clear()
        return rows

    async def close(self) -> None:
        """Nothing is left to be closed."""


def _by_column(description: Any, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    columns = [column[0] for column in description]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _driven(work: Coroutine[Any, Any, T]) -> T:
    try:
        work.send(None)
    except StopIteration as e:
        found: T = e.value
        return found
    finally:
        work.close()
    raise RuntimeError("A unit that is carried out at once awaited something else than its own statements")
