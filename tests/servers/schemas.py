"""The schema of empty stores: made by the revisions once in each process of a test run, then said over again to the next.

Alembic works out the same statements each time, and needs more time for that than most tests that want a store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy import Connection, event

from muster.store import schema

_Statement = tuple[str, Any]


class Revise(Protocol):
    """As ``schema.revise``."""

    def __call__(self, connection: Connection, to: str) -> None: ...


by_revisions: Revise = schema.revise
"""As it is in production: for tests of the revisions."""


def remembered(revise: Revise) -> Revise:
    """Return what does as ``revise`` does, and asks it once for each kind of database where there is no schema yet."""
    known: dict[tuple[str, str], list[_Statement]] = {}

    def revised(connection: Connection, to: str) -> None:
        if schema.revision(connection) is not None:
            revise(connection, to)
            return
        kind = connection.dialect.name, to
        if kind not in known:
            known[kind] = _said(connection, lambda: revise(connection, to))
            return
        for statement, parameters in known[kind]:
            connection.exec_driver_sql(statement, parameters or None)

    return revised


def _said(connection: Connection, work: Callable[[], None]) -> list[_Statement]:
    """Do some work and return what it said to the database, without questions: an empty one has no answer to them."""
    said: list[_Statement] = []

    def heard(_: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        if not statement.lstrip().upper().startswith(("SELECT", "PRAGMA")):
            assert not executemany, f"more than one at once: {statement}"
            said.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", heard)
    try:
        work()
    finally:
        event.remove(connection, "before_cursor_execute", heard)
    return said
