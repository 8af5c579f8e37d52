"""What members saw of machines that boot."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "boot_events",
        sa.Column("id", row_number, autoincrement=True, nullable=False),
        sa.Column("mac", sa.Text, nullable=False, server_default=""),
        sa.Column("address", sa.Text, nullable=False, server_default=""),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("member", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False, server_default="{}"),
        sa.PrimaryKeyConstraint("id", name="boot_events_pkey"),
        sqlite_autoincrement=True,
    )
    op.create_index("boot_events_mac", "boot_events", ["mac", "id"])
    op.create_index("boot_events_address", "boot_events", ["address", "id"])
    op.create_index("boot_events_at", "boot_events", ["at"])


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
