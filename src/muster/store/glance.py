"""A glance: the store as a command sees it that reads once and ends, without an SQL library, which takes long to load.

It says what :class:`~muster.store.engine.Store` says, in the same words, and never makes a file or a schema.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from muster.kernel.errors import Conflict, Misconfigured, MusterError, Rejected, Unavailable
from muster.kernel.secrets import Secret
from muster.store import schema
from muster.store.deadline import OutOfTime, ended_within
from muster.store.place import Place
from muster.store.reading import STORE_NOW, Query, Reading
from muster.store.reasons import reason

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")


class Glance:
    """A database all members share, to read; each unit has a connection of its own.

    Concurrency:
        Any number of tasks.
    """

    def __init__(self, place: Place, *, connect_timeout_s: float, statement_timeout_s: float) -> None:
        self._place = place
        self._arguments = {"connect_timeout_s": connect_timeout_s, "statement_timeout_s": statement_timeout_s}
        self._limit_s = place.connect_limit_s(connect_timeout_s) + statement_timeout_s
        self._prepared = False

    def __repr__(self) -> str:
        return f"Glance({self._place.shown})"

    def read(self) -> AbstractAsyncContextManager[Reading]:
        """Open a unit that sees one snapshot and can change nothing.

        Raises:
            schema.Unmade: there is no schema that this Muster could read.
            Unavailable: the database did not answer, or the unit as a whole took longer than its deadline.
        """
        return self._unit()

    @asynccontextmanager
    async def _unit(self) -> AsyncIterator[Reading]:
        with self._translated():
            async with ended_within(self._limit_s), AsyncExitStack() as stack:
                # On the stack, so that it is closed within the deadline, too.
                try:
                    unit = await stack.enter_async_context(self._connected())
                except OSError as e:
                    raise self._failure(e, "answer") from e
                if not self._prepared:
                    found = await schema.revision_in(unit, self._place.dialect)
                    if found != schema.HEAD and not schema.is_newer(found):
                        raise schema.unmade(self._place.shown, found)
                    self._prepared = True
                yield unit

    def _connected(self) -> AbstractAsyncContextManager[Reading]:
        if self._place.file is not None:
            return _of_sqlite(self._place, self._arguments["statement_timeout_s"])
        return _of_postgresql(self._place.parts.of_libpq() | self._place.connect_arguments(**self._arguments))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        errors: tuple[type[Exception], ...] = (*_errors(self._place), OutOfTime)
        try:
            yield
        except errors as e:
            raise self._failure(e) from e

    def _failure(self, error: BaseException, what: str = "carry out a read") -> MusterError:
        sentence = f"The store ({self._place.shown}) did not {what}: {reason(error, self._place)}"
        kinds = {base.__name__ for base in type(error).__mro__}
        if "IntegrityError" in kinds:
            return Conflict(sentence)
        return Rejected(sentence) if "DataError" in kinds else Unavailable(sentence)


def glanced(
    url: Secret,
    *,
    password: Secret | None = None,
    connect_timeout_s: float = 2.0,
    statement_timeout_s: float = 5.0,
) -> Glance:
    """Return a store to read; asks the database nothing. The arguments are those of :func:`muster.store.engine.opened`.

    Raises:
        Misconfigured: the URL is of no kind we know.
    """
    place = Place.parsed(url, password)
    try:
        _errors(place)
    except ImportError as e:
        raise Misconfigured(f"The store ({place.shown}) cannot be opened: {e}") from e
    return Glance(place, connect_timeout_s=connect_timeout_s, statement_timeout_s=statement_timeout_s)


def _errors(place: Place) -> tuple[type[Exception], ...]:
    """Return what the driver raises; loads it."""
    if place.dialect == "sqlite":
        return (sqlite3.Error,)
    import psycopg

    return (psycopg.Error,)


class _OfSQLite:
    """One snapshot of a file."""

    def __init__(self, connection: sqlite3.Connection, thread: _Thread) -> None:
        self._connection = connection
        self._thread = thread

    async def now(self) -> float:
        found = await self.rows(Query(f"SELECT {STORE_NOW['sqlite']} AS now"))
        return float(found[0]["now"])

    async def rows(self, query: Query, **values: Any) -> list[dict[str, Any]]:
        def fetched() -> list[dict[str, Any]]:
            cursor = self._connection.execute(query.text, values)
            names = [column[0] for column in cursor.description]
            return [query.row(dict(zip(names, row, strict=True)), "sqlite") for row in cursor]

        return await self._thread.do(fetched)


@asynccontextmanager
async def _of_sqlite(place: Place, statement_timeout_s: float) -> AsyncIterator[_OfSQLite]:
    file = place.file
    if file is None or not file.exists():
        raise schema.unmade(place.shown, None)
    # SQLite opens the file, and nobody else: closing another descriptor of it would drop this process' locks on it.
    thread = _Thread(f"glance at {file.name}")
    connection: sqlite3.Connection | None = None
    try:
        connection = await thread.do(
            lambda: sqlite3.connect(
                f"{file.as_uri()}?mode=ro",
                uri=True,
                timeout=statement_timeout_s,
                isolation_level=None,
                check_same_thread=False,
            )
        )
        await thread.do(lambda: connection.execute("BEGIN"))
        yield _OfSQLite(connection, thread)
    finally:
        if connection is not None:
            # What still runs was given up on.
            connection.interrupt()
            thread.last(connection.close)
        thread.end()


class _Thread:
    """Carries out one piece of work after another; a disk that hangs holds up nobody else, nor the end of the process."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def carry_out() -> None:
            answer: T | None = None
            error: BaseException | None = None
            try:
                answer = work()
            except BaseException as e:  # noqa: BLE001 - boundary: whatever it is, the task that waits has to learn of it
                error = e

            def settle() -> None:
                if future.cancelled():
                    return
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(answer)  # type: ignore[arg-type]

            # Nobody waits any more when the loop is closed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle)

        self._work.put(carry_out)
        return await future

    def last(self, work: Callable[[], object]) -> None:
        """Have the thread do that, without waiting for it."""
        self._work.put(work)

    def end(self) -> None:
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


class _OfPostgreSQL:
    """One snapshot of a database."""

    def __init__(self, connection: psycopg.AsyncConnection[dict[str, Any]]) -> None:
        self._connection = connection

    async def now(self) -> float:
        found = await self.rows(Query(f"SELECT {STORE_NOW['postgresql']} AS now"))
        return float(found[0]["now"])

    async def rows(self, query: Query, **values: Any) -> list[dict[str, Any]]:
        statement = _PARAMETER.sub(r"%(\1)s", query.text).encode()
        cursor = await self._connection.execute(statement, values or None)
        return [query.row(row, "postgresql") for row in await cursor.fetchall()]


@asynccontextmanager
async def _of_postgresql(arguments: dict[str, Any]) -> AsyncIterator[_OfPostgreSQL]:
    import psycopg
    from psycopg.rows import dict_row

    connection = await psycopg.AsyncConnection.connect(**arguments, row_factory=dict_row)
    try:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        yield _OfPostgreSQL(connection)
    finally:
        # It asks the server nothing, so it ends also when that hangs.
        await connection.close()
