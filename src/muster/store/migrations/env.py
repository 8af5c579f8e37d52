"""What Alembic runs around the revisions: our connection, its transaction, nothing of its own."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from muster.store.tables import metadata

connection: Connection | None = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("migrations run through muster.store.schema.upgrade, which brings the connection")

# The caller's transaction holds all revisions or none: both databases roll DDL back.
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
