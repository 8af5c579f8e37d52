"""What a read asks of a store, however it is connected: plain SQL, so that who only reads needs no SQL library.

Two answer so: :class:`~muster.store.engine.Store`, which a member keeps open, and :class:`~muster.store.glance.Glance`, for
commands that look once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Dialect = Literal["sqlite", "postgresql"]

# unixepoch('subsec') needs SQLite 3.42; rounding removes the noise a Julian day has below the millisecond. PostgreSQL's
# now() is the start of the transaction, which may have waited for a lock since.
STORE_NOW: Mapping[str, str] = {
    "sqlite": "round((julianday('now') - 2440587.5) * 86400.0, 3)",
    "postgresql": "extract(epoch from clock_timestamp())::float8",
}
"""The store's clock as SQL, by dialect."""


@dataclass(frozen=True)
class Query:
    """A SELECT that both databases understand.

    Attributes:
        text: parameters stand in it as ``:name``, and no other colon and no percent sign.
        json: the columns that hold JSON.
    """

    text: str
    json: tuple[str, ...] = ()

    def row(self, found: Mapping[str, Any], dialect: str) -> dict[str, Any]:
        """Return a row by column, its JSON read: PostgreSQL's driver did that already."""
        row = dict(found)
        if dialect == "sqlite":
            # A number alone stands there as one.
            row |= {name: json.loads(row[name]) for name in self.json if isinstance(row[name], str)}
        return row


class Reading(Protocol):
    """One snapshot of the store."""

    async def now(self) -> float:
        """Return the store's clock: seconds since the epoch."""

    async def rows(self, query: Query, **values: Any) -> list[dict[str, Any]]:
        """Return what a query finds."""


class Readable(Protocol):
    """What can be read."""

    def read(self) -> AbstractAsyncContextManager[Reading]:
        """Open a unit that sees one snapshot and can change nothing.

        Raises:
            Unavailable: the database did not answer, or the unit as a whole took longer than its deadline.
        """
