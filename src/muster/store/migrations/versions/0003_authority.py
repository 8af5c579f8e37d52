"""The Puppet CA's ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "authorities",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("chain_pem", sa.Text, nullable=False),
        sa.Column("next_serial", sa.BigInteger, nullable=False, server_default="1"),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="authorities_pkey"),
    )
    op.create_table(
        "certificates",
        sa.Column("serial", sa.Text, nullable=False),
        sa.Column("certname", sa.Text, nullable=False),
        sa.Column("pem", sa.Text, nullable=False),
        sa.Column("not_before", sa.Double, nullable=False),
        sa.Column("not_after", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("issued_at", sa.Double, nullable=False),
        sa.Column("issued_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("serial", name="certificates_pkey"),
        sa.CheckConstraint("state IN ('live', 'superseded', 'deleted')", name="certificates_state_check"),
    )
    op.create_index("certificates_certname", "certificates", ["certname"])
    live = sa.text("state = 'live'")
    op.create_index(
        "certificates_live", "certificates", ["certname"], unique=True, sqlite_where=live, postgresql_where=live
    )
    op.create_table(
        "requests",
        sa.Column("certname", sa.Text, nullable=False),
        sa.Column("pem", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("submitted_at", sa.Double, nullable=False),
        sa.Column("source", sa.Text, nullable=False, server_default=""),
        sa.Column("flaw", sa.Text),
        sa.PrimaryKeyConstraint("certname", name="requests_pkey"),
    )
    op.create_table(
        "revocations",
        sa.Column("serial", sa.Text, nullable=False),
        sa.Column("certname", sa.Text),
        sa.Column("revoked_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("serial", name="revocations_pkey"),
    )
    op.create_table(
        "crls",
        sa.Column("authority", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("own_pem", sa.Text, nullable=False),
        sa.Column("infra_pem", sa.Text, nullable=False, server_default=""),
        sa.Column("ancestors_pem", sa.Text, nullable=False, server_default=""),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("next_update", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("authority", name="crls_pkey"),
    )
    op.create_table(
        "autosign_hosts",
        sa.Column("certname", sa.Text, nullable=False),
        sa.Column("added_at", sa.Double, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("certname", name="autosign_hosts_pkey"),
    )
    op.create_table(
        "autosign_tokens",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("certname", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="autosign_tokens_pkey"),
    )
    op.create_index("autosign_tokens_certname", "autosign_tokens", ["certname"])
    op.create_table(
        "audit",
        sa.Column("id", row_number, autoincrement=True, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("certname", sa.Text),
        sa.Column("serial", sa.Text),
        sa.Column("actor", sa.Text, nullable=False, server_default=""),
        sa.Column("member", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="audit_pkey"),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_certname", "audit", ["certname"])


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
