"""SQLAlchemy's Core for tasks: what its extension for asyncio does, without the ORM that this extension loads.

Core speaks to asyncio's drivers through a greenlet, in which a call of its own waits for a task's. That bridge
(``greenlet_spawn``) is Core's; the extension only stands in front of it, as the classes here do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, TypeVarTuple, overload

from sqlalchemy import Connection, CursorResult, Dialect, Engine, Executable, ScalarResult, Table, Transaction
from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from sqlalchemy.sql.selectable import TypedReturnsRows

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class AsyncConnection:
    """A connection of a pool, taken from it by :meth:`start`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    @property
    def sync_connection(self) -> Connection:
        """The connection for calls that run in a greenlet."""
        if self._connection is None:
            raise RuntimeError("the connection was not started, or is closed")
        return self._connection

    @property
    def driver_connection(self) -> Any:
        """The driver's own connection."""
        return self.sync_connection.connection.driver_connection

    @property
    def dialect(self) -> Dialect:
        return self._engine.dialect

    async def start(self) -> None:
        self._connection = await greenlet_spawn(self._engine.connect)

    def begin(self) -> AsyncTransaction:
        return AsyncTransaction(self.sync_connection)

    @overload
    async def execute(self, statement: TypedReturnsRows[*Ts], parameters: Any = None) -> CursorResult[*Ts]: ...

    @overload
    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]: ...

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run a statement and return its result, every row of which was fetched."""
        return await greenlet_spawn(self.sync_connection.execute, statement, parameters)

    async def scalar(self, statement: Executable, parameters: Any = None) -> Any:
        """Return the first column of the first row, None when there is none."""
        return (await self.execute(statement, parameters)).scalar()

    async def scalars(self, statement: Executable, parameters: Any = None) -> ScalarResult[Any]:
        return (await self.execute(statement, parameters)).scalars()

    async def run_sync(
        self, carried_out: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs
    ) -> T:
        return await greenlet_spawn(partial(carried_out, self.sync_connection, *args, **named))

    async def invalidate(self) -> None:
        """Throw the connection to the database away: nothing is asked of it any more."""
        await greenlet_spawn(self.sync_connection.invalidate)

    async def aclose(self) -> None:
        """Give the connection back to its pool, rolled back."""
        if self._connection is not None:
            await greenlet_spawn(self._connection.close)


class AsyncTransaction:
    """A transaction around a block: committed at its end, rolled back when an exception leaves it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._begun: Transaction | None = None

    async def __aenter__(self) -> None:
        self._begun = await greenlet_spawn(self._connection.begin)
        self._begun.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._begun is not None:
            await greenlet_spawn(self._begun.__exit__, kind, error, traceback)


@dataclass(frozen=True)
class AsyncEngine:
    """A pool of connections whose driver is one for asyncio."""

    sync_engine: Engine

    def connect(self) -> AsyncConnection:
        return AsyncConnection(self.sync_engine)

    def execution_options(self, **options: Any) -> AsyncEngine:
        """Return another view of the same pool."""
        return AsyncEngine(self.sync_engine.execution_options(**options))

    async def dispose(self) -> None:
        await greenlet_spawn(self.sync_engine.dispose)


def insert_of(dialect: str) -> Callable[[Table], Any]:
    """Return the dialect's own INSERT, which can say what becomes of a row that is there.

    Each dialect is large, and a process needs one.
    """
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert
    from sqlalchemy.dialects import sqlite

    return sqlite.insert
