"""The schema of stores: made by the revisions once in each process of a test run, then copied, or said over again to others.

Alembic works out the same statements each time, and needs more time for that than most tests that want a store; a process of
its own that finds the schema need not even import it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, event

from muster.kernel.secrets import Secret
from muster.store import schema
from muster.store.engine import opened

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


def prepare(url: str) -> None:
    """Make the schema of now in an empty database, as a store does that comes to it first; from any thread, loop or none."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _prepared(url)).result()


def place(file: Path) -> str:
    """Write a SQLite store that has the schema of now and nothing in it, and return its URL."""
    file.touch(0o600)
    file.write_bytes(_sqlite())
    return f"sqlite:///{file}"


async def _prepared(url: str) -> None:
    async with opened(Secret(url)) as store:
        await store.prepare()


@cache
def _sqlite() -> bytes:
    with tempfile.TemporaryDirectory(prefix="muster-schema-") as directory:
        file = Path(directory) / "store.db"
        prepare(f"sqlite:///{file}")
        assert not file.with_name("store.db-wal").exists(), "not all of it is in the file"
        return file.read_bytes()
