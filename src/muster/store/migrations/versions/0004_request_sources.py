"""Waiting requests by where they come from and since when: each is counted and looked for at every new one."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("requests_source", "requests", ["source"])
    op.create_index("requests_submitted_at", "requests", ["submitted_at"])


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
