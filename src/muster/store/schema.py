"""Which revision the schema has, and the way to the newest.

Alembic costs 400 ms to import, so a member that finds the schema current never does: it reads one row.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

KNOWN = ("0001", "0002", "0003", "0004")
"""Every revision this version of Muster knows, oldest first; the test of the migrations holds it to the scripts."""

HEAD = KNOWN[-1]

# Any number nobody else locks in this database: the bytes of "muster" and a 1.
_MIGRATION_LOCK = 0x6D7573746572_01


def revision(connection: Connection) -> str | None:
    """Return the schema's revision, None when there is no schema yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return str(found) if found is not None else None


def is_newer(found: str | None) -> bool:
    """Whether a newer Muster made the schema; it only ever added to what this one knows (``migrations/README.md``)."""
    return found is not None and found not in KNOWN


def upgrade(connection: Connection, *, timeout_s: float) -> str:
    """Bring the schema to :data:`HEAD` inside the caller's write transaction and return the revision it has now.

    Concurrency:
        One member at a time: SQLite's write transaction is the lock, PostgreSQL gets an advisory one until commit. Who
        waited finds the work done.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL statement_timeout = {round(timeout_s * 1000)}"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {round(timeout_s * 1000)}"))
    found = revision(connection)
    if found == HEAD or is_newer(found):
        return found or HEAD
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "muster.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return HEAD
