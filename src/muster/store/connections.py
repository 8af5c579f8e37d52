"""Connections as each database wants them: private, durable, in a transaction that knows whether it writes."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, ExceptionContext, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from muster.kernel.files import make_private
from muster.store.core import AsyncConnection, AsyncEngine
from muster.store.place import Place
from muster.store.reading import Dialect
from muster.store.sqlite_driver import connected

_KEPT = 5
_MORE = 5
MOST = _KEPT + _MORE

_SWITCH_PAUSE_S = 0.01

# SQLSTATE read_only_sql_transaction.
_READ_ONLY = "25006"


def pool(place: Place, *, connect_timeout_s: float, statement_timeout_s: float) -> AsyncEngine:
    """Return a pool of connections to the database; none is made yet.

    Raises:
        ImportError: the database's driver is not installed.
    """
    engine = create_engine(
        # By this name it is the variant for asyncio, which SQLite's has in its own.
        place.url if place.file is not None else place.url.set(drivername="postgresql+psycopg_async"),
        connect_args=place.connect_arguments(
            connect_timeout_s=connect_timeout_s, statement_timeout_s=statement_timeout_s
        ),
        pool_size=_KEPT,
        max_overflow=_MORE,
        pool_timeout=statement_timeout_s,
        # A file does not hang up.
        pool_pre_ping=place.dialect == "postgresql",
        # Parameters are other people's data; they do not belong into tracebacks.
        hide_parameters=True,
    )
    if place.file is not None:
        event.listen(engine, "do_connect", _private_file(place.file))
        event.listen(engine, "connect", _tuned_sqlite)
        event.listen(engine, "begin", _begin_of_sqlite)
    else:
        event.listen(engine, "connect", _made_durable)
        event.listen(engine, "checkout", _left_to_the_server)
        if place.hosts:
            event.listen(engine, "handle_error", _taken_elsewhere)
    return AsyncEngine(engine)


def writer_and_reader(dialect: Dialect, engine: AsyncEngine) -> tuple[AsyncEngine, AsyncEngine]:
    """Two views of one pool: what a transaction may do is decided where it begins."""
    if dialect == "sqlite":
        return engine.execution_options(muster_writing=True), engine.execution_options(muster_writing=False)
    return engine, engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


async def apart(place: Place, statement_timeout_s: float, *, writing: bool) -> Any:
    """Return a connection to the SQLite file apart from the pool, which costs more than most of what is asked of it.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """
    assert place.file is not None  # noqa: S101 - SQLite's have one
    _private_file(place.file)()
    connection = await connected(str(place.file), timeout=statement_timeout_s, isolation_level=None)
    try:
        await _set_pragmas(connection)
        if not writing:
            await connection.execute("PRAGMA query_only=ON")
    except BaseException:
        connection.stop()
        raise
    return connection


def _private_file(file: Path) -> Any:
    def before_connecting(*_: Any) -> None:
        # SQLite would make it readable for all; its side files take the mode over from it. Exclusively, so that a file
        # that exists is never opened here: closing any descriptor of it drops every lock SQLite holds on it in this
        # process (POSIX), and the next process to close it takes the write-ahead log away under us.
        with contextlib.suppress(OSError):
            make_private(file)

    return before_connecting


def _tuned_sqlite(connection: Any, _record: Any) -> None:
    # None: the driver begins no transaction by itself, _begin_of_sqlite does.
    connection.isolation_level = None
    connection.run_async(_set_pragmas)


async def _set_pragmas(connection: Any) -> None:
    await _made_write_ahead(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        await connection.execute(f"PRAGMA {pragma}")


async def _made_write_ahead(connection: Any) -> None:
    """Switch the file to WAL, waiting for others' locks.

    SQLite waits for a lock only where a transaction begins; this statement reads first, then asks for the lock, and
    fails at once when another process switches or writes in that moment.
    """
    cursor = await connection.execute("PRAGMA busy_timeout")
    (limit_ms,) = await cursor.fetchone()
    give_up_at = time.monotonic() + limit_ms / 1000
    while True:
        try:
            await connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
        else:
            return
        await asyncio.sleep(_SWITCH_PAUSE_S)


def _made_durable(connection: Any, _record: Any) -> None:
    """Have the server acknowledge no commit of this session before it is on disk, whatever its own default is.

    Not among the connection's options: those would also lower a stronger default, such as ``remote_apply``. Set even
    where it is ``on`` already, for the server's configuration may be read again under an open session.
    """
    cursor = connection.cursor()
    try:
        cursor.execute(
            "SELECT set_config('synchronous_commit', CASE WHEN now IN ('off', 'local', 'remote_write') THEN 'on' ELSE now"
            " END, false) FROM current_setting('synchronous_commit') AS now"
        )
    finally:
        cursor.close()
    # The setting would go with the transaction the driver began for it.
    connection.commit()


def _left_to_the_server(connection: Any, *_: Any) -> None:
    """Let a write begin as the server's settings have it, so that ``default_transaction_read_only`` fences it.

    After a read SQLAlchemy sets the session's mode back to ``READ WRITE``, in so many words, which would override them.
    """
    connection.set_read_only(None)


def _taken_elsewhere(context: ExceptionContext) -> None:
    """Ask all hosts anew after a server refused a write: the one that takes them is another one by now."""
    if _refused_write(context.original_exception):
        context.is_disconnect = True


def is_elsewhere(error: BaseException, place: Place) -> bool:
    """Whether a server refused a write that another one of several may take."""
    return bool(place.hosts) and _refused_write(error)


def _refused_write(error: BaseException) -> bool:
    return getattr(error, "sqlstate", None) == _READ_ONLY


@contextlib.contextmanager
def raised_by_sqlalchemy(connection: AsyncConnection) -> Iterator[None]:
    """Raise the driver's own exceptions as SQLAlchemy would have."""
    dialect = connection.dialect
    driver: Any = dialect.loaded_dbapi
    try:
        yield
    except driver.Error as e:
        raise DBAPIError.instance(None, None, e, driver.Error, hide_parameters=True, dialect=dialect) from e


def _begin_of_sqlite(connection: Connection) -> None:
    writing = bool(connection.get_execution_options().get("muster_writing"))
    driver: Any = connection.connection.driver_connection
    try:
        await_only(driver.begin(writing=writing))
    except asyncio.CancelledError:
        # As SQLAlchemy does with a statement that is cancelled: who comes next must not wait behind it.
        connection.invalidate()
        raise
