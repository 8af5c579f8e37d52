"""Compliance reports of hosts: those on their way to Foreman, those it refused, and those it may ask for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "arf_uploads",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("cname", sa.Text, nullable=False),
        sa.Column("policy", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("reported_at", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("foreman_id", sa.Text, nullable=False, server_default=""),
        sa.Column("holder", sa.Text, nullable=False, server_default=""),
        sa.Column("claimed_until", sa.Double, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_at", sa.Double, nullable=False, server_default="0"),
        sa.Column("why", sa.Text, nullable=False, server_default=""),
        sa.Column("accepted_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="arf_uploads_pkey"),
        sa.CheckConstraint("state IN ('arriving', 'waiting', 'sent', 'refused')", name="state"),
    )
    op.create_index("arf_uploads_cname", "arf_uploads", ["cname", "policy", "digest"], unique=True)
    op.create_index("arf_uploads_reported", "arf_uploads", ["cname", "reported_at"], unique=True)
    op.create_index("arf_uploads_state", "arf_uploads", ["state", "due_at"])
    op.create_table(
        "arf_chunks",
        sa.Column("upload", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("upload", "number", name="arf_chunks_pkey"),
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
