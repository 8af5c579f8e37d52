"""The store: units of work on SQLite or PostgreSQL that end in time, whatever the database does.

A member opens the store once and keeps it: :func:`opened` asks the database nothing, so that a member starts and serves
what needs no store while the database is down, and every unit tries anew, so that it needs no restart once it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import select, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from muster.kernel import failpoints
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Conflict, Misconfigured, MusterError, Rejected, Unavailable
from muster.kernel.log import logger
from muster.kernel.secrets import Secret
from muster.store import connections, schema
from muster.store.core import AsyncConnection, AsyncEngine
from muster.store.deadline import OutOfTime, ended_within
from muster.store.place import Place
from muster.store.reading import Dialect, Query
from muster.store.reasons import reason
from muster.store.tables import store_now
from muster.store.writing import Change, Writing

_log = logger("store")
T = TypeVar("T")

_MIGRATION_LIMIT_S = 60.0
_CLOSED_WITHIN_S = 5.0


# Reading a text for its parameters costs as much as asking the database. The texts are those of our own modules.
_parsed = cache(text)


@dataclass(frozen=True)
class Unit:
    """One transaction.

    Attributes:
        connection: runs statements; its exceptions become Muster's when they leave the unit, so catch those outside it.
        writing: whether changes may be made.
    """

    connection: AsyncConnection
    writing: bool

    async def now(self) -> float:
        """Return the store's clock: seconds since the epoch."""
        return float((await self.connection.execute(select(store_now()))).scalar_one())

    @property
    def dialect(self) -> Dialect:
        return "sqlite" if self.connection.dialect.name == "sqlite" else "postgresql"

    async def rows(self, query: Query, **values: Any) -> list[dict[str, Any]]:
        """Return what a query finds."""
        found = await self.connection.execute(_parsed(query.text), values)
        return [query.row(dict(row), self.dialect) for row in found.mappings()]

    async def change(self, change: Change, rows: Sequence[Mapping[str, Any]]) -> None:
        """As :meth:`muster.store.writing.Writing.change`."""
        if rows:
            await self.connection.execute(_parsed(change.of(self.dialect)), list(rows))

    async def changed(self, change: Change, row: Mapping[str, Any]) -> int:
        """As :meth:`muster.store.writing.Writing.changed`."""
        return int((await self.connection.execute(_parsed(change.of(self.dialect)), dict(row))).rowcount)


class _Apart:
    """A connection apart from the pool: opened when it is used first, and again after anything went wrong with it."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._connection: Any = None
        self._connecting = asyncio.Lock()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Any]:
        if self._connection is None:
            async with self._connecting:
                if self._connection is None:
                    self._connection = await self._connect()
        connection = self._connection
        try:
            yield connection
        except BaseException:
            # What its thread does now is not known.
            if self._connection is connection:
                self._connection = None
            connection.stop()
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # A disk that hangs must not keep the process from ending.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSED_WITHIN_S):
                    await connection.close()


class Store:
    """A database all members share.

    Concurrency:
        Any number of tasks; ten connections at most and, on SQLite, two apart from them; the rest wait their turn. SQLite's
        writers of one process queue in order, those of several processes take turns (:mod:`muster.store.turnstile`).
    """

    def __init__(
        self,
        place: Place,
        engine: AsyncEngine,
        *,
        limit_s: float,
        statement_timeout_s: float,
        migrate: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._place = place
        self._limit_s = limit_s
        self._migrate = migrate
        self._clock = clock or SystemClock()
        self._writer, self._reader = connections.writer_and_reader(place.dialect, engine)
        self._asked = _Apart(lambda: connections.apart(place, statement_timeout_s, writing=False))
        self._carrying = _Apart(lambda: connections.apart(place, statement_timeout_s, writing=True))
        self._preparing = asyncio.Lock()
        self._prepared = False
        # In SQLite's own queue a waiter sleeps up to 100 ms at a time and nobody's turn is assured.
        self._turn = asyncio.Lock()
        self._trouble: str | None = None
        self._trouble_since: datetime | None = None
        self.schema_notice: str | None = None
        """A sentence when a newer Muster made the schema; this one keeps working with it."""

    def __repr__(self) -> str:
        return f"Store({self._place.shown})"

    @property
    def dialect(self) -> Dialect:
        return self._place.dialect

    @property
    def shown(self) -> str:
        """How messages name the database: no password."""
        return self._place.shown

    @property
    def is_absent(self) -> bool:
        """Whether it is a file that is not there; the first unit makes it."""
        return self._place.file is not None and not self._place.file.exists()

    @property
    def trouble(self) -> str | None:
        """The sentence of the last failure, None after a success."""
        return self._trouble

    @property
    def trouble_since(self) -> datetime | None:
        """When the failures began, by this member's clock."""
        return self._trouble_since

    def read(self) -> AbstractAsyncContextManager[Unit]:
        """Open a unit that sees one snapshot and can change nothing.

        Raises:
            Unavailable: the database did not answer, or the unit as a whole took longer than its deadline.
        """
        return self._unit(writing=False)

    async def ask(self, query: Query, **values: Any) -> list[dict[str, Any]]:
        """Return what one query finds: a whole :meth:`read` unit, for what is asked so often that its cost counts.

        Raises:
            As :meth:`read`.
        """
        if self.dialect != "sqlite":
            async with self.read() as uow:
                return await uow.rows(query, **values)
        await self.prepare()
        what = "carry out a read"
        with self._translated(what):
            async with self._in_time(self._limit_s, what), self._asked.held() as connection:
                found = await connection.ask(query.text, values)
        self._recovered()
        return [query.row(row, "sqlite") for row in found]

    async def close(self) -> None:
        """Let go of what no pool holds."""
        await self._asked.close()
        await self._carrying.close()

    def write(self, step: str = "", *, limit_s: float | None = None) -> AbstractAsyncContextManager[Unit]:
        """Open a unit whose changes land together at its end, or, when an exception leaves it, not at all.

        ``step`` names it among the durable steps (:mod:`muster.kernel.failpoints`); only tests may leave it out. ``limit_s``
        is for what is long by nature; each statement has its own limit all the same.

        Raises:
            Conflict: a row by that key exists, or a constraint forbids the change; nothing was changed.
            Rejected: a value does not fit its column; nothing was changed.
            Unavailable: as :meth:`read`; when the answer to the commit was lost, whether it landed is unknown.
        """
        return self._unit(writing=True, step=step, limit_s=limit_s)

    @asynccontextmanager
    async def whole(self, *, writing: bool, limit_s: float) -> AsyncIterator[Unit]:
        """Open a unit that copies the whole store out or in: as long as it needs, on the schema that is there, if any.

        Raises:
            As :meth:`read` and :meth:`write`.
        """
        async with self._transaction(writing=writing, limit_s=limit_s) as uow:
            if self.dialect == "postgresql":
                # What a unit has by default is too short for one statement of these, and for what is done between two.
                for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
                    await uow.connection.execute(text(f"SET LOCAL {setting} = {round(limit_s * 1000)}"))
            yield uow
        self._recovered()

    async def carry_out(
        self, step: str, work: Callable[[Writing], Coroutine[Any, Any, T]], *, limit_s: float | None = None
    ) -> T:
        """Carry out a whole unit of :meth:`write` and return what ``work`` returned; it may await nothing but its unit.

        For what many ask for at once: on SQLite it is done in one go, in a thread, so that others wait for the database
        alone and not for this member's other calls between two statements.

        Raises:
            As :meth:`write`.
        """
        await self.prepare()
        what = "carry out a write"
        with self._translated(what):
            async with self._in_time(limit_s or self._limit_s, what):
                if self.dialect == "sqlite":
                    async with self._turn, self._carrying.held() as connection:
                        found = await self._carried_out(connection, step, work)
                else:
                    found = await self._pipelined(step, work)
        failpoints.after_commit(step)
        self._recovered()
        return found

    async def _carried_out(self, connection: Any, step: str, work: Callable[[Writing], Coroutine[Any, Any, T]]) -> T:
        from muster.store.sqlite_connection import Until

        # A failpoint may stop the whole process, which nothing but the loop's own thread can.
        until = Until(asked=failpoints.is_armed(step))
        try:
            found: T = await connection.carried_out(work, until)
            if until.asked:
                failpoints.before_commit(step)
                await connection.commit()
        except asyncio.CancelledError:
            until.given_up = True
            raise
        return found

    async def _pipelined(self, step: str, work: Callable[[Writing], Coroutine[Any, Any, T]]) -> T:
        from muster.store.pipelined import Pipelined, left_well

        async with self._connected(self._writer) as connection:
            driver = connection.driver_connection
            with connections.raised_by_sqlalchemy(connection):
                try:
                    async with driver.pipeline():
                        found = await work(Pipelined(driver))
                    failpoints.before_commit(step)
                    await driver.commit()
                except BaseException as e:
                    is_well = False
                    try:
                        is_well = await left_well(driver, e)
                    finally:
                        if not is_well:
                            await connection.invalidate()
                    if connections.is_elsewhere(e, self._place):
                        # Where the server takes no writes, all hosts are asked anew.
                        await self._writer.dispose()
                    raise
        return found

    async def ping(self) -> None:
        """Return when the database has answered a real question.

        Raises:
            Unavailable: it did not.
        """
        async with self.read() as uow:
            await uow.now()

    async def prepare(self) -> None:
        """Bring the schema to what this version needs; once it is, this costs nothing. Every unit calls it.

        Raises:
            Unavailable: the database did not answer, or has no schema and this store may not make one.
        """
        if self._prepared:
            return
        # A deadline of its own: many units wait here for one that may be asking a hung server.
        async with self._in_time(self._limit_s, "answer"):
            await self._preparing.acquire()
        try:
            if not self._prepared:
                await self._prepare()
        finally:
            self._preparing.release()

    async def _prepare(self) -> None:
        if not self._migrate and self.is_absent:
            raise schema.unmade(self.shown, None)
        async with self._transaction(writing=False, limit_s=self._limit_s) as uow:
            found = await schema.revision_in(uow, self.dialect)
        if found != schema.HEAD and not schema.is_newer(found):
            found = await self._upgraded(found)
        if schema.is_newer(found):
            self.schema_notice = (
                f"The store ({self.shown}) has schema {found}, made by a newer Muster; this one knows {schema.HEAD} "
                "and works with it"
            )
            _log.warning(self.schema_notice)
        self._prepared = True

    async def _upgraded(self, found: str | None) -> str:
        if not self._migrate:
            raise schema.unmade(self.shown, found)
        async with self._transaction(writing=True, limit_s=_MIGRATION_LIMIT_S) as uow:
            now = await uow.connection.run_sync(schema.upgrade, timeout_s=_MIGRATION_LIMIT_S)
            failpoints.before_commit("migration")
        failpoints.after_commit("migration")
        _log.info(f"The store ({self.shown}) has schema {now}")
        return now

    @asynccontextmanager
    async def _unit(self, *, writing: bool, step: str = "", limit_s: float | None = None) -> AsyncIterator[Unit]:
        await self.prepare()
        async with self._transaction(writing=writing, limit_s=limit_s or self._limit_s) as uow:
            yield uow
            failpoints.before_commit(step)
        failpoints.after_commit(step)
        self._recovered()

    @asynccontextmanager
    async def _transaction(self, *, writing: bool, limit_s: float) -> AsyncIterator[Unit]:
        what = "carry out a write" if writing else "carry out a read"
        with self._translated(what):
            async with self._in_time(limit_s, what), contextlib.AsyncExitStack() as stack:
                if writing and self.dialect == "sqlite":
                    await stack.enter_async_context(self._turn)
                yield Unit(await stack.enter_async_context(self._begun(writing=writing)), writing)

    @asynccontextmanager
    async def _begun(self, *, writing: bool) -> AsyncIterator[AsyncConnection]:
        async with self._connected(self._writer if writing else self._reader) as connection, connection.begin():
            try:
                yield connection
            except asyncio.CancelledError:
                # The roll-back that follows would ask, without a deadline, a server just given up on.
                await connection.invalidate()
                raise

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        connection = engine.connect()
        try:
            await connection.start()
        except OSError as e:
            raise self._failure(e, "answer") from e
        # Not the connection's own block: that shields its end from cancellation, and so from the deadline.
        async with contextlib.aclosing(connection):
            yield connection

    @asynccontextmanager
    async def _in_time(self, limit_s: float, what: str) -> AsyncIterator[None]:
        try:
            async with ended_within(limit_s):
                yield
        except OutOfTime as e:
            raise self._failure(e, what) from e

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeout, sqlite3.Error) as e:
            raise self._failure(e, what) from e

    def _failure(self, error: SQLAlchemyError | OSError | sqlite3.Error, what: str) -> MusterError:
        """Return what a library's exception means here, and remember it when the store is to blame."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        said = reason(cause, self._place)
        if isinstance(error, IntegrityError | sqlite3.IntegrityError):
            return Conflict(f"The store ({self.shown}) did not {what}: {said}")
        if isinstance(error, DataError | sqlite3.DataError):
            return Rejected(f"The store ({self.shown}) did not {what}: {said}")
        if isinstance(error, PoolTimeout):
            said = f"all {connections.MOST} connections were busy for too long"
        sentence = f"The store ({self.shown}) did not {what}: {said}"
        if self._trouble is None:
            self._trouble_since = self._clock.now()
            _log.warning(sentence)
        self._trouble = sentence
        return Unavailable(sentence)

    def _recovered(self) -> None:
        if self._trouble is not None:
            _log.info(f"The store ({self.shown}) answers again")
        self._trouble = self._trouble_since = None


@asynccontextmanager
async def opened(
    url: Secret,
    *,
    password: Secret | None = None,
    connect_timeout_s: float = 2.0,
    statement_timeout_s: float = 5.0,
    migrate: bool = True,
    clock: Clock | None = None,
) -> AsyncIterator[Store]:
    """Hold a store open; asks the database nothing, so it also opens while that is down.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER@HOST:PORT/DATABASE``.
        password: of the PostgreSQL user; wins over one in the URL.
        connect_timeout_s: per host; with ``statement_timeout_s`` added, the deadline of a whole unit.
        statement_timeout_s: of one statement; also how long a writer waits for another's lock.
        migrate: whether the first unit may make the store, or upgrade its schema.
        clock: says when trouble began.

    Raises:
        Misconfigured: the URL is of no kind we know.
    """
    place = Place.parsed(url, password)
    limit_s = place.connect_limit_s(connect_timeout_s) + statement_timeout_s
    try:
        engine = connections.pool(place, connect_timeout_s=connect_timeout_s, statement_timeout_s=statement_timeout_s)
    except ImportError as e:
        raise Misconfigured(f"The store ({place.shown}) cannot be opened: {e}") from e
    store = Store(place, engine, limit_s=limit_s, statement_timeout_s=statement_timeout_s, migrate=migrate, clock=clock)
    try:
        yield store
    finally:
        try:
            await store.close()
        finally:
            await engine.dispose()
