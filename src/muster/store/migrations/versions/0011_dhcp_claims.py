"""Addresses that are promised, probed or just reserved, and which of them, and of hardware addresses, are being changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dhcp_claims",
        sa.Column("address", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("mac", sa.Text, nullable=False, server_default=""),
        sa.Column("holder", sa.Text, nullable=False, server_default=""),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("address", name="dhcp_claims_pkey"),
        sa.CheckConstraint("state IN ('probing', 'free', 'answered', 'promised', 'reserved')", name="state"),
    )
    op.create_index("dhcp_claims_until", "dhcp_claims", ["until"])
    op.create_table(
        "dhcp_changes",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("key", name="dhcp_changes_pkey"),
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
