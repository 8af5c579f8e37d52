"""Which revision the schema has, and the way to the newest.

Alembic costs 400 ms to import, so a member that finds the schema current never does: it reads one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from muster.kernel.errors import Unavailable
from muster.store.reading import Query, Reading

if TYPE_CHECKING:
    from sqlalchemy import Connection

KNOWN = (
    "0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012", "0013", "0014", "0015",
    "0016",
)  # fmt: skip
"""Every revision this version of Muster knows, oldest first; the test of the migrations holds it to the scripts."""

HEAD = KNOWN[-1]

# Any number nobody else locks in this database: the bytes of "muster" and a 1.
_MIGRATION_LOCK = 0x6D7573746572_01


class Unmade(Unavailable):
    """There is no store yet, or an older one than this Muster needs: who changes something makes it, who reads does not."""


class Absent(Unmade):
    """There is no store yet: nobody has done anything that would stand in it."""


_TABLE: Mapping[str, Query] = {
    "sqlite": Query("SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"),
    "postgresql": Query("SELECT 1 AS name WHERE to_regclass('alembic_version') IS NOT NULL"),
}
_REVISION = Query("SELECT version_num FROM alembic_version")


async def revision_in(unit: Reading, dialect: str) -> str | None:
    """Return the schema's revision, None when there is no schema yet."""
    # Asked first: on PostgreSQL a statement that fails ends the transaction.
    if not await unit.rows(_TABLE[dialect]):
        return None
    found = await unit.rows(_REVISION)
    return str(found[0]["version_num"]) if found else None


def revision(connection: Connection) -> str | None:
    """As :func:`revision_in`, where the schema is made."""
    from sqlalchemy import text

    if connection.execute(text(_TABLE[connection.dialect.name].text)).first() is None:
        return None
    found = connection.scalar(text(_REVISION.text))
    return str(found) if found is not None else None


def is_newer(found: str | None) -> bool:
    """Whether a newer Muster made the schema; it only ever added to what this one knows (``migrations/README.md``)."""
    return found is not None and found not in KNOWN


def unmade(store: str, found: str | None) -> Unmade:
    """Return the error of who may not make a store's schema, where that is none or an older one."""
    had = f"has schema {found}" if found else "has no schema yet"
    which = Unmade if found else Absent
    return which(
        f"The store ({store}) {had}; this Muster needs {HEAD}, which muster serve and muster balance make when they start"
    )


def upgrade(connection: Connection, *, timeout_s: float, to: str = HEAD) -> str:
    """Bring the schema to ``to`` inside the caller's write transaction and return the revision it has now.

    Concurrency:
        One member at a time: SQLite's write transaction is the lock, PostgreSQL gets an advisory one until commit. Who
        waited finds the work done.
    """
    from sqlalchemy import text

    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL statement_timeout = {round(timeout_s * 1000)}"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {round(timeout_s * 1000)}"))
    found = revision(connection)
    if found is not None and (is_newer(found) or KNOWN.index(found) >= KNOWN.index(to)):
        return found
    revise(connection, to)
    return to


def revise(connection: Connection, to: str) -> None:
    """Carry out the revisions that lead to ``to``. Use :func:`upgrade`, which asks whether, and keeps others away."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "muster.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def hold(connection: Connection) -> None:
    """Keep everybody else from the schema and from every table of ours until the caller's write transaction ends."""
    if connection.dialect.name != "postgresql":
        # SQLite's write transaction does.
        return
    from sqlalchemy import inspect, text

    from muster.store.tables import metadata

    connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
    if ours := sorted(set(inspect(connection).get_table_names()) & set(metadata.tables)):
        connection.execute(text(f"LOCK TABLE {', '.join(ours)} IN ACCESS EXCLUSIVE MODE"))


def drop(connection: Connection) -> None:
    """Remove every table of ours inside the caller's write transaction, with all that is in them."""
    from sqlalchemy import inspect, text

    from muster.store.tables import metadata

    metadata.drop_all(connection)
    if inspect(connection).has_table("alembic_version"):
        connection.execute(text("DROP TABLE alembic_version"))
