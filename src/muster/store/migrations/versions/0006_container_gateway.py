"""The container gateway: images, who may read which, and who is known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "gateway_repositories",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("auth_required", sa.Integer, nullable=False, server_default="1"),
        sa.PrimaryKeyConstraint("name", name="gateway_repositories_pkey"),
    )
    op.create_table(
        "gateway_subjects",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name="gateway_subjects_pkey"),
        sa.CheckConstraint("kind IN ('user', 'host')", name="gateway_subjects_kind_check"),
    )
    op.create_table(
        "gateway_grants",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", "repository", name="gateway_grants_pkey"),
        sa.CheckConstraint("kind IN ('user', 'host')", name="gateway_grants_kind_check"),
    )


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
