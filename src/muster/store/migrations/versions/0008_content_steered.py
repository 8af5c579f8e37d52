"""Pulps that members lead: how far each is with the next state of a repository, to what all are turned, and who is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "content_stages",
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("repository", name="content_stages_pkey"),
    )
    op.create_table(
        "content_flips",
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("packages", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("pulps", sa.Text, nullable=False),
        sa.Column("of", sa.Integer, nullable=False, server_default="0"),
        sa.Column("job", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("by", sa.Text, nullable=False, server_default=""),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("repository", "generation", name="content_flips_pkey"),
    )
    op.create_table(
        "content_followers",
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("pulp", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("why", sa.Text, nullable=False, server_default=""),
        sa.Column("since", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("repository", "pulp", name="content_followers_pkey"),
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
