"""Kernel."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None

# By code point on every database.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# SQLite rewrites minus zero in a column of a floating point type.
DOUBLE: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.BLOB(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "actor",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_actor"),
        sa.UniqueConstraint("name", name="uq_actor_name"),
    )
    op.create_table(
        "condemned_blob",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_condemned_blob"),
    )
    with op.batch_alter_table("condemned_blob", schema=None) as batch_op:
        batch_op.create_index("ix_condemned_blob_stage_id", ["stage", "id"], unique=False)

    op.create_table(
        "edge",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("relation", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_edge"),
        sa.UniqueConstraint("source", "relation", "target", name="uq_edge_source_relation_target"),
    )
    with op.batch_alter_table("edge", schema=None) as batch_op:
        batch_op.create_index("ix_edge_target", ["target"], unique=False)

    op.create_table(
        "held_blob",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_held_blob"),
    )
    op.create_table(
        "ledger_checkpoint",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_checkpoint"),
    )
    with op.batch_alter_table("ledger_checkpoint", schema=None) as batch_op:
        batch_op.create_index("ix_ledger_checkpoint_size", ["size"], unique=False)

    op.create_table(
        "ledger_entry",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("resource", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("request", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_entry"),
        sa.UniqueConstraint("index", name="uq_ledger_entry_index"),
        sa.UniqueConstraint("request", name="uq_ledger_entry_request"),
    )
    with op.batch_alter_table("ledger_entry", schema=None) as batch_op:
        batch_op.create_index("ix_ledger_entry_project_index", ["project", "index"], unique=False)
        batch_op.create_index("ix_ledger_entry_resource_index", ["resource", "index"], unique=False)

    op.create_table(
        "ledger_node",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_node"),
    )
    op.create_table(
        "ledger_payload",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("salt", TEXT, nullable=True),
        sa.Column("text", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_payload"),
    )
    op.create_table(
        "ledger_ref",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("ref", TEXT, nullable=False),
        sa.Column("entry", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_ref"),
    )
    with op.batch_alter_table("ledger_ref", schema=None) as batch_op:
        batch_op.create_index("ix_ledger_ref_ref_entry", ["ref", "entry"], unique=False)

    op.create_table(
        "project",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_project"),
        sa.UniqueConstraint("name", name="uq_project_name"),
    )
    op.create_table(
        "project_settings",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("document", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_project_settings"),
        sa.UniqueConstraint("project", "number", name="uq_project_settings_project_number"),
    )
    op.create_table(
        "role_grant",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("granted_by", TEXT, nullable=False),
        sa.Column("granted_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_role_grant"),
        sa.UniqueConstraint("actor", "project", "role", name="uq_role_grant_actor_project_role"),
    )
    with op.batch_alter_table("role_grant", schema=None) as batch_op:
        batch_op.create_index("ix_role_grant_project", ["project"], unique=False)

    op.create_table(
        "token",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("secret_hash", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("expires_at", TEXT, nullable=False),
        sa.Column("revoked_at", TEXT, nullable=True),
        sa.Column("parent", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
        sa.UniqueConstraint("secret_hash", name="uq_token_secret_hash"),
    )
    with op.batch_alter_table("token", schema=None) as batch_op:
        batch_op.create_index("ix_token_actor", ["actor"], unique=False)
        batch_op.create_index("ix_token_parent", ["parent"], unique=False)
