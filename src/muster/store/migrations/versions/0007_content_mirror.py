"""What members mirror: publications, what each environment has of them, its history, and work that is asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "content_publications",
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("parts", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False, server_default=""),
        sa.Column("packages", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("size_bytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("of", sa.Text, nullable=False, server_default=""),
        sa.Column("made_at", sa.Double, nullable=False),
        sa.Column("published_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("repository", "digest", name="content_publications_pkey"),
    )
    op.create_table(
        "content_distributions",
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("part", sa.Text, nullable=False, server_default=""),
        sa.Column("publication", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
        sa.PrimaryKeyConstraint("path", name="content_distributions_pkey"),
    )
    op.create_index("content_distributions_repository", "content_distributions", ["repository"])
    op.create_table(
        "content_promotions",
        sa.Column("id", row_number, autoincrement=True, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("publication", sa.Text, nullable=False),
        sa.Column("previous", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="content_promotions_pkey"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "content_jobs",
        sa.Column("id", row_number, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False, server_default=""),
        sa.Column("member", sa.Text, nullable=False, server_default=""),
        sa.Column("publication", sa.Text, nullable=False, server_default=""),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("asked_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("holder", sa.Text, nullable=False, server_default=""),
        sa.Column("done", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("of", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("sentence", sa.Text, nullable=False, server_default=""),
        sa.Column("result", sa.Text, nullable=False, server_default="{}"),
        sa.Column("is_unwanted", sa.Integer, nullable=False, server_default="0"),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="content_jobs_pkey"),
        sa.CheckConstraint(
            "state IN ('asked', 'running', 'done', 'failed', 'cancelled')", name="content_jobs_state_check"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("content_jobs_state", "content_jobs", ["state"])
    is_open = sa.text("state IN ('asked', 'running') AND is_unwanted = 0")
    op.create_index(
        "content_jobs_open",
        "content_jobs",
        ["kind", "repository", "member", "publication"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
