"""Repositories that clients fetch: which version each shows, and what members have of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "content_repositories",
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("shown", sa.Text, nullable=False, server_default=""),
        sa.Column("shown_since", sa.Double, nullable=False, server_default="0"),
        sa.Column("newer_since", sa.Double),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
        sa.Column("asked_at", sa.Double, nullable=False),
        sa.Column("certificate", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("path", name="content_repositories_pkey"),
    )
    op.create_index("content_repositories_asked_at", "content_repositories", ["asked_at"])
    op.create_table(
        "content_versions",
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("timestamp", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("left_at", sa.Double),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("path", "digest", name="content_versions_pkey"),
    )
    op.create_table(
        "content_reports",
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("member", sa.Text, nullable=False),
        sa.Column("reached", sa.Integer, nullable=False),
        sa.Column("carried", sa.Text, nullable=False, server_default=""),
        sa.Column("carried_since", sa.Double, nullable=False, server_default="0"),
        sa.Column("staged", sa.Text, nullable=False, server_default=""),
        sa.Column("unreached_since", sa.Double),
        sa.Column("trouble", sa.Text, nullable=False, server_default=""),
        sa.Column("told_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("path", "member", name="content_reports_pkey"),
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
