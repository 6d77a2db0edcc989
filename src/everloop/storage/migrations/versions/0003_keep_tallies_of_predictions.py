"""Keep tallies of predictions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None

# By code point on every database.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# SQLite rewrites minus zero in a column of a floating point type.
DOUBLE: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.BLOB(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "tally",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("labelled", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tally"),
        sa.UniqueConstraint("deployment", name="uq_tally_deployment"),
    )
    with op.batch_alter_table("tally", schema=None) as batch_op:
        batch_op.create_index("ix_tally_project", ["project"], unique=False)

    with op.batch_alter_table("prediction_segment", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_prediction_segment_deployment_first_id"))
        batch_op.create_index(
            "ix_prediction_segment_deployment_first_at", ["deployment", "first_at"], unique=False
        )
        batch_op.create_index(
            "ix_prediction_segment_project_last_id_first_id",
            ["project", "last_id", "first_id"],
            unique=False,
        )
