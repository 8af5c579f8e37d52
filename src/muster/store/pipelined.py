"""PostgreSQL's unit as it is carried out in one go: what needs no answer travels with what comes next.

A statement's way to the server and back, and the library in between, cost more than the statement; a certificate is written
down with half as many ways.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import psycopg
from psycopg.rows import dict_row

from muster.store.reading import STORE_NOW, Dialect, Query
from muster.store.writing import Change

_PARAMETER = re.compile(r"(?<!:):([a-z_][a-z0-9_]*)")


class Pipelined:
    """A unit on a connection in pipeline mode; a change that fails is heard of at the next question, or at the end."""

    dialect: Dialect = "postgresql"

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def now(self) -> float:
        (row,) = await self._found(f"SELECT {STORE_NOW['postgresql']} AS now", {})
        return float(row["now"])

    async def rows(self, query: Query, **values: Any) -> list[dict[str, Any]]:
        return [query.row(row, self.dialect) for row in await self._found(_translated(query.text), values)]

    async def change(self, change: Change, rows: Sequence[Mapping[str, Any]]) -> None:
        text = _translated(change.of(self.dialect))
        for row in rows:
            await self._connection.execute(text, row)

    async def changed(self, change: Change, row: Mapping[str, Any]) -> int:
        cursor = await self._connection.execute(_translated(change.of(self.dialect)), row)
        # Not known before everything that is under way has been answered.
        await self._synced()
        return cursor.rowcount

    async def _found(self, text: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        cursor = self._connection.cursor(row_factory=dict_row)
        await cursor.execute(text, values)
        return await cursor.fetchall()

    async def _synced(self) -> None:
        async with self._connection.pipeline():
            """Leaving a pipeline within one waits for its answers."""


async def left_well(connection: psycopg.AsyncConnection[Any], error: BaseException) -> bool:
    """Undo a unit that this error ended; whether the session is one to go on with."""
    if isinstance(error, asyncio.CancelledError):
        return False
    # A constraint and a value that does not fit say nothing of the session.
    if isinstance(error, psycopg.Error) and not isinstance(error, psycopg.IntegrityError | psycopg.DataError):
        return False
    try:
        await connection.rollback()
    except psycopg.Error:
        return False
    return True


@cache
def _translated(text: str) -> str:
    """Return a text with its parameters as the driver writes them; two colons are a cast, as in the clock's."""
    return _PARAMETER.sub(r"%(\1)s", text)
