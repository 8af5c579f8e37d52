"""The tree of boot files: what stands at which path since which version, who has it, and what is being fetched."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# What is below a directory is found by comparing bytes, whatever the database's language.
_PATH = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "netboot_tree",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("forgotten", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="netboot_tree_pkey"),
    )
    op.create_table(
        "netboot_entries",
        sa.Column("path", _PATH, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False, server_default=""),
        sa.Column("size", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("target", sa.Text, nullable=False, server_default=""),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.Double, nullable=False),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.Column("origin", sa.Text, nullable=False, server_default=""),
        sa.Column("etag", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("path", name="netboot_entries_pkey"),
        sa.CheckConstraint("kind IN ('file', 'link', 'gone')", name="kind"),
    )
    op.create_index("netboot_entries_version", "netboot_entries", ["version"])
    op.create_index("netboot_entries_digest", "netboot_entries", ["digest"])
    op.create_table(
        "netboot_blobs",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="netboot_blobs_pkey"),
    )
    op.create_table(
        "netboot_members",
        sa.Column("member", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("fenced", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("lacks", sa.Text, nullable=False, server_default="[]"),
        sa.Column("trouble", sa.Text, nullable=False, server_default=""),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("member", name="netboot_members_pkey"),
    )
    op.create_table(
        "netboot_fetches",
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("member", sa.Text, nullable=False, server_default=""),
        sa.Column("holder", sa.Text, nullable=False, server_default=""),
        sa.Column("done_bytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("total_bytes", sa.BigInteger),
        sa.Column("why", sa.Text, nullable=False, server_default=""),
        sa.Column("about", sa.Text, nullable=False, server_default=""),
        sa.Column("asked_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("beat_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.PrimaryKeyConstraint("path", name="netboot_fetches_pkey"),
        sa.CheckConstraint("state IN ('waiting', 'running', 'done', 'failed')", name="state"),
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
