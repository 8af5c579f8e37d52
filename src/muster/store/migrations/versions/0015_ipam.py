"""Addresses of an IPAM that are promised or being changed, and those that the store itself keeps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ipam_promises",
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("subnet", sa.Text, nullable=False),
        sa.Column("mac", sa.Text, nullable=False, server_default=""),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("holder", sa.Text, nullable=False, server_default=""),
        sa.Column("held_until", sa.Double, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("space", "address", name="ipam_promises_pkey"),
        sa.CheckConstraint("state IN ('promised', 'settled')", name="state"),
    )
    op.create_index("ipam_promises_until", "ipam_promises", ["until"])
    op.create_index("ipam_promises_space_mac", "ipam_promises", ["space", "mac"])
    op.create_table(
        "ipam_addresses",
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("subnet", sa.Text, nullable=False),
        sa.Column("mac", sa.Text, nullable=False, server_default=""),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("space", "address", name="ipam_addresses_pkey"),
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
