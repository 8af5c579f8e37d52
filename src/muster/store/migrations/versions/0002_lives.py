"""Lives of members, what balancers see of them, and what a drain is for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "lives",
        sa.Column("member", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
        sa.PrimaryKeyConstraint("member", name="lives_pkey"),
        sa.CheckConstraint(
            "state IN ('joining', 'warming', 'ready', 'draining', 'drained', 'maintenance', 'removed')",
            name="lives_state_check",
        ),
    )
    op.create_table(
        "balancers",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("heartbeat_at", sa.Double, nullable=False),
        sa.Column("content", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="balancers_pkey"),
    )
    # What older members know is "drain"; what it is for stands beside it.
    op.add_column("wishes", sa.Column("goal", sa.Text))
    op.add_column("wishes", sa.Column("forced", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
