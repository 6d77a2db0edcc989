"""Domain."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None

# By code point on every database.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# SQLite rewrites minus zero in a column of a floating point type.
DOUBLE: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.BLOB(), "sqlite")


def upgrade() -> None:  # noqa: PLR0915 -- written by a tool, one table after the other
    op.create_table(
        "alert",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=True),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("raised_at", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("summary", TEXT, nullable=False),
        sa.Column("columns", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alert"),
    )
    with op.batch_alter_table("alert", schema=None) as batch_op:
        batch_op.create_index(
            "ix_alert_project_deployment_raised_at",
            ["project", "deployment", "raised_at"],
            unique=False,
        )
        batch_op.create_index("ix_alert_project_state", ["project", "state"], unique=False)

    op.create_table(
        "alias_move",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("alias", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("version", TEXT, nullable=True),
        sa.Column("before", TEXT, nullable=True),
        sa.Column("who", TEXT, nullable=False),
        sa.Column("when", TEXT, nullable=False),
        sa.Column("why", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alias_move"),
        sa.UniqueConstraint("model", "alias", "number", name="uq_alias_move_model_alias_number"),
    )
    with op.batch_alter_table("alias_move", schema=None) as batch_op:
        batch_op.create_index("ix_alias_move_project_model", ["project", "model"], unique=False)

    op.create_table(
        "approval",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("artifact", TEXT, nullable=False),
        sa.Column("approver", TEXT, nullable=False),
        sa.Column("comment", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_approval"),
        sa.UniqueConstraint("version", "approver", name="uq_approval_version_approver"),
    )
    with op.batch_alter_table("approval", schema=None) as batch_op:
        batch_op.create_index("ix_approval_project_version", ["project", "version"], unique=False)

    op.create_table(
        "artifact_entry",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_artifact_entry"),
        sa.UniqueConstraint("run", "path", name="uq_artifact_entry_run_path"),
    )
    op.create_table(
        "audit_export",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("bundle", TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("who", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_export"),
    )
    with op.batch_alter_table("audit_export", schema=None) as batch_op:
        batch_op.create_index("ix_audit_export_at", ["at"], unique=False)

    op.create_table(
        "dataset",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dataset"),
        sa.UniqueConstraint("project", "name", name="uq_dataset_project_name"),
    )
    op.create_table(
        "dataset_version",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("dataset", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("root", TEXT, nullable=False),
        sa.Column("manifest", TEXT, nullable=False),
        sa.Column("format", TEXT, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("schema", TEXT, nullable=True),
        sa.Column("profile", TEXT, nullable=True),
        sa.Column("reference", TEXT, nullable=True),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_version"),
        sa.UniqueConstraint("dataset", "number", name="uq_dataset_version_dataset_number"),
    )
    with op.batch_alter_table("dataset_version", schema=None) as batch_op:
        batch_op.create_index(
            "ix_dataset_version_project_created_at", ["project", "created_at"], unique=False
        )
        batch_op.create_index(
            "ix_dataset_version_project_name_number", ["project", "name", "number"], unique=False
        )

    op.create_table(
        "deployment",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("champion", TEXT, nullable=True),
        sa.Column("previous", TEXT, nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("watched", TEXT, nullable=True),
        sa.Column("halt", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_deployment"),
        sa.UniqueConstraint("project", "name", name="uq_deployment_project_name"),
    )
    with op.batch_alter_table("deployment", schema=None) as batch_op:
        batch_op.create_index(
            "ix_deployment_project_created_at", ["project", "created_at"], unique=False
        )

    op.create_table(
        "device",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("fleet", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("group", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("token", TEXT, nullable=False),
        sa.Column("enrolled_at", TEXT, nullable=False),
        sa.Column("enrolled_by", TEXT, nullable=False),
        sa.Column("revoked_at", TEXT, nullable=True),
        sa.Column("running", TEXT, nullable=True),
        sa.Column("refused", TEXT, nullable=False),
        sa.Column("seen_epoch", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", TEXT, nullable=True),
        sa.Column("skew_s", DOUBLE, nullable=False),
        sa.Column("series", TEXT, nullable=False),
        sa.Column("last_batch", sa.BigInteger(), nullable=False),
        sa.Column("answers", sa.BigInteger(), nullable=False),
        sa.Column("problem", TEXT, nullable=False),
        sa.Column("erred_in", TEXT, nullable=True),
        sa.Column("invalid_in", TEXT, nullable=True),
        sa.Column("left_in", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_device"),
        sa.UniqueConstraint("fleet", "name", name="uq_device_fleet_name"),
        sa.UniqueConstraint("token", name="uq_device_token"),
    )
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.create_index(
            "ix_device_project_fleet_running", ["project", "fleet", "running"], unique=False
        )

    op.create_table(
        "device_batch",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("fleet", TEXT, nullable=False),
        sa.Column("device", TEXT, nullable=False),
        sa.Column("series", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("rows", TEXT, nullable=True),
        sa.Column("answers", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("invalid", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("torn", sa.BigInteger(), nullable=False),
        sa.Column("received_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_device_batch"),
        sa.UniqueConstraint(
            "device", "series", "number", name="uq_device_batch_device_series_number"
        ),
    )
    with op.batch_alter_table("device_batch", schema=None) as batch_op:
        batch_op.create_index(
            "ix_device_batch_project_fleet_received_at",
            ["project", "fleet", "received_at"],
            unique=False,
        )

    op.create_table(
        "drill",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("started_by", TEXT, nullable=False),
        sa.Column("asked_at", TEXT, nullable=False),
        sa.Column("ended_at", TEXT, nullable=True),
        sa.Column("switch_ms", DOUBLE, nullable=True),
        sa.Column("return_ms", DOUBLE, nullable=True),
        sa.Column("why", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_drill"),
    )
    with op.batch_alter_table("drill", schema=None) as batch_op:
        batch_op.create_index(
            "ix_drill_project_deployment_started_at",
            ["project", "deployment", "started_at"],
            unique=False,
        )
        batch_op.create_index("ix_drill_state", ["state"], unique=False)

    op.create_table(
        "edge_bundle",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("semver", TEXT, nullable=False),
        sa.Column("artifact", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("parity", TEXT, nullable=False),
        sa.Column("masked", TEXT, nullable=False),
        sa.Column("evidence", TEXT, nullable=False),
        sa.Column("reference", TEXT, nullable=True),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("by", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_edge_bundle"),
        sa.UniqueConstraint("project", "digest", name="uq_edge_bundle_project_digest"),
    )
    with op.batch_alter_table("edge_bundle", schema=None) as batch_op:
        batch_op.create_index(
            "ix_edge_bundle_project_version", ["project", "version"], unique=False
        )

    op.create_table(
        "experiment",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=True),
        sa.Column("deleted_at", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_experiment"),
        sa.UniqueConstraint("project", "name", name="uq_experiment_project_name"),
    )
    op.create_table(
        "feedback_batch",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("outcomes", TEXT, nullable=False),
        sa.Column("fresh", sa.BigInteger(), nullable=False),
        sa.Column("corrected", sa.BigInteger(), nullable=False),
        sa.Column("root", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("received_at", TEXT, nullable=False),
        sa.Column("received_from", TEXT, nullable=False),
        sa.Column("labels", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_feedback_batch"),
        sa.UniqueConstraint("deployment", "seq", name="uq_feedback_batch_deployment_seq"),
    )
    with op.batch_alter_table("feedback_batch", schema=None) as batch_op:
        batch_op.create_index(
            "ix_feedback_batch_project_deployment_seq",
            ["project", "deployment", "seq"],
            unique=False,
        )

    op.create_table(
        "fleet",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("groups", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=True),
        sa.Column("previous", TEXT, nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("config", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fleet"),
        sa.UniqueConstraint("project", "name", name="uq_fleet_project_name"),
    )
    op.create_table(
        "fleet_release",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("fleet", TEXT, nullable=False),
        sa.Column("candidate", TEXT, nullable=False),
        sa.Column("before", TEXT, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("live", TEXT, nullable=True),
        sa.Column("stage", sa.BigInteger(), nullable=False),
        sa.Column("stage_at", TEXT, nullable=False),
        sa.Column("config", TEXT, nullable=False),
        sa.Column("guardrails", TEXT, nullable=False),
        sa.Column("answers", sa.BigInteger(), nullable=False),
        sa.Column("evidence_bad", DOUBLE, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("started_by", TEXT, nullable=False),
        sa.Column("ended_at", TEXT, nullable=True),
        sa.Column("why", TEXT, nullable=False),
        sa.Column("evidence", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fleet_release"),
        sa.UniqueConstraint("fleet", "live", name="uq_fleet_release_fleet_live"),
    )
    with op.batch_alter_table("fleet_release", schema=None) as batch_op:
        batch_op.create_index(
            "ix_fleet_release_project_fleet_started_at",
            ["project", "fleet", "started_at"],
            unique=False,
        )

    op.create_table(
        "fleet_sketch",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("fleet", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("answers", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("invalid", sa.BigInteger(), nullable=False),
        sa.Column("latency_us", sa.BigInteger(), nullable=False),
        sa.Column("profile", TEXT, nullable=False),
        sa.Column("output", TEXT, nullable=True),
        sa.Column("reference", TEXT, nullable=True),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fleet_sketch"),
        sa.UniqueConstraint("fleet", "version", name="uq_fleet_sketch_fleet_version"),
    )
    with op.batch_alter_table("fleet_sketch", schema=None) as batch_op:
        batch_op.create_index("ix_fleet_sketch_project_fleet", ["project", "fleet"], unique=False)

    op.create_table(
        "gate_report",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("artifact", TEXT, nullable=False),
        sa.Column("champion", TEXT, nullable=True),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("checks", TEXT, nullable=False),
        sa.Column("producer", TEXT, nullable=False),
        sa.Column("golden", TEXT, nullable=True),
        sa.Column("statement", TEXT, nullable=False),
        sa.Column("signature", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("by", TEXT, nullable=False),
        sa.Column("serving", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_gate_report"),
    )
    with op.batch_alter_table("gate_report", schema=None) as batch_op:
        batch_op.create_index("ix_gate_report_project_at", ["project", "at"], unique=False)
        batch_op.create_index("ix_gate_report_project_model", ["project", "model"], unique=False)
        batch_op.create_index(
            "ix_gate_report_project_version", ["project", "version"], unique=False
        )

    op.create_table(
        "logged_file",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_logged_file"),
        sa.UniqueConstraint("model", "path", name="uq_logged_file_model_path"),
    )
    op.create_table(
        "logged_metric",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("dataset_name", TEXT, nullable=False),
        sa.Column("dataset_digest", TEXT, nullable=False),
        sa.Column("value", DOUBLE, nullable=True),
        sa.Column("text", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_logged_metric"),
        sa.UniqueConstraint(
            "model",
            "run",
            "key",
            "dataset_name",
            "dataset_digest",
            name="uq_logged_metric_model_run_key_dataset_name_dataset_digest",
        ),
    )
    with op.batch_alter_table("logged_metric", schema=None) as batch_op:
        batch_op.create_index(
            "ix_logged_metric_project_key_value", ["project", "key", "value"], unique=False
        )

    op.create_table(
        "logged_model",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("experiment", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("params", TEXT, nullable=False),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("files", TEXT, nullable=False),
        sa.Column("root", TEXT, nullable=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("deleted_at", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_logged_model"),
    )
    with op.batch_alter_table("logged_model", schema=None) as batch_op:
        batch_op.create_index(
            "ix_logged_model_project_experiment_created_at",
            ["project", "experiment", "created_at"],
            unique=False,
        )
        batch_op.create_index("ix_logged_model_run", ["run"], unique=False)

    op.create_table(
        "loop_lease",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("until", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_loop_lease"),
        sa.UniqueConstraint("deployment", name="uq_loop_lease_deployment"),
    )
    with op.batch_alter_table("loop_lease", schema=None) as batch_op:
        batch_op.create_index("ix_loop_lease_project", ["project"], unique=False)

    op.create_table(
        "loop_run",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("live", TEXT, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("cause", TEXT, nullable=False),
        sa.Column("caused_at", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.Column("ended_at", TEXT, nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("transitions", sa.BigInteger(), nullable=False),
        sa.Column("training", TEXT, nullable=True),
        sa.Column("holdout", TEXT, nullable=True),
        sa.Column("version", TEXT, nullable=True),
        sa.Column("report", TEXT, nullable=True),
        sa.Column("release", TEXT, nullable=True),
        sa.Column("why", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_loop_run"),
        sa.UniqueConstraint("live", name="uq_loop_run_live"),
    )
    with op.batch_alter_table("loop_run", schema=None) as batch_op:
        batch_op.create_index(
            "ix_loop_run_project_deployment_started_at",
            ["project", "deployment", "started_at"],
            unique=False,
        )

    op.create_table(
        "loop_switch",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("is_on", sa.Boolean(), nullable=False),
        sa.Column("who", TEXT, nullable=False),
        sa.Column("why", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_loop_switch"),
        sa.UniqueConstraint("deployment", name="uq_loop_switch_deployment"),
    )
    with op.batch_alter_table("loop_switch", schema=None) as batch_op:
        batch_op.create_index("ix_loop_switch_project", ["project"], unique=False)

    op.create_table(
        "loop_transition",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("before", TEXT, nullable=True),
        sa.Column("after", TEXT, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("made_at", TEXT, nullable=False),
        sa.Column("why", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_loop_transition"),
        sa.UniqueConstraint("run", "seq", name="uq_loop_transition_run_seq"),
    )
    with op.batch_alter_table("loop_transition", schema=None) as batch_op:
        batch_op.create_index("ix_loop_transition_project_run", ["project", "run"], unique=False)

    op.create_table(
        "loop_turn",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("segment_seq", sa.BigInteger(), nullable=False),
        sa.Column("feedback_seq", sa.BigInteger(), nullable=False),
        sa.Column("is_idle", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_loop_turn"),
        sa.UniqueConstraint("deployment", name="uq_loop_turn_deployment"),
    )
    with op.batch_alter_table("loop_turn", schema=None) as batch_op:
        batch_op.create_index("ix_loop_turn_project", ["project"], unique=False)

    op.create_table(
        "loss_point",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("mean_loss", DOUBLE, nullable=False),
        sa.Column("bad_share", DOUBLE, nullable=False),
        sa.Column("evidence", DOUBLE, nullable=False),
        sa.Column("alarmed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_loss_point"),
        sa.UniqueConstraint("deployment", "number", name="uq_loss_point_deployment_number"),
    )
    with op.batch_alter_table("loss_point", schema=None) as batch_op:
        batch_op.create_index(
            "ix_loss_point_project_deployment_number",
            ["project", "deployment", "number"],
            unique=False,
        )

    op.create_table(
        "metric_batch",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("waiting", sa.BigInteger(), nullable=False),
        sa.Column("keys", TEXT, nullable=False),
        sa.Column("places", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_metric_batch"),
        sa.UniqueConstraint("run", "seq", name="uq_metric_batch_run_seq"),
    )
    op.create_table(
        "metric_chunk",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("blob", TEXT, nullable=True),
        sa.Column("outline", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_metric_chunk"),
        sa.UniqueConstraint("run", "key", "seq", name="uq_metric_chunk_run_key_seq"),
    )
    op.create_table(
        "metric_summary",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("last", DOUBLE, nullable=True),
        sa.Column("last_text", TEXT, nullable=False),
        sa.Column("minimum", DOUBLE, nullable=True),
        sa.Column("maximum", DOUBLE, nullable=True),
        sa.Column("not_finite", sa.BigInteger(), nullable=False),
        sa.Column("last_time_us", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.BigInteger(), nullable=False),
        sa.Column("growing", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_metric_summary"),
        sa.UniqueConstraint("run", "key", name="uq_metric_summary_run_key"),
    )
    with op.batch_alter_table("metric_summary", schema=None) as batch_op:
        batch_op.create_index(
            "ix_metric_summary_project_key_last_run",
            ["project", "key", "last", "run"],
            unique=False,
        )

    op.create_table(
        "model",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("licence", TEXT, nullable=False),
        sa.Column("intended_use", TEXT, nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", TEXT, nullable=True),
        sa.Column("last_version", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_model"),
        sa.UniqueConstraint("project", "name", name="uq_model_project_name"),
    )
    op.create_table(
        "model_version",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("artifact", TEXT, nullable=False),
        sa.Column("files", TEXT, nullable=False),
        sa.Column("format", TEXT, nullable=False),
        sa.Column("signature", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=True),
        sa.Column("dataset_version", TEXT, nullable=True),
        sa.Column("holdout", TEXT, nullable=True),
        sa.Column("reference", TEXT, nullable=True),
        sa.Column("examples", TEXT, nullable=True),
        sa.Column("params", TEXT, nullable=False),
        sa.Column("bump", TEXT, nullable=False),
        sa.Column("bump_reason", TEXT, nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("logged_model", TEXT, nullable=True),
        sa.Column("servable_as", TEXT, nullable=True),
        sa.Column("environment", TEXT, nullable=True),
        sa.Column("waiver", TEXT, nullable=False),
        sa.Column("servable_file", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_version"),
        sa.UniqueConstraint("model", "artifact", name="uq_model_version_model_artifact"),
        sa.UniqueConstraint("model", "number", name="uq_model_version_model_number"),
        sa.UniqueConstraint("model", "version", name="uq_model_version_model_version"),
    )
    with op.batch_alter_table("model_version", schema=None) as batch_op:
        batch_op.create_index("ix_model_version_logged_model", ["logged_model"], unique=False)
        batch_op.create_index(
            "ix_model_version_project_created_at", ["project", "created_at"], unique=False
        )
        batch_op.create_index(
            "ix_model_version_project_name_number", ["project", "name", "number"], unique=False
        )
        batch_op.create_index("ix_model_version_run", ["run"], unique=False)

    op.create_table(
        "predicted_key",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("segment", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("prediction", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_predicted_key"),
    )
    with op.batch_alter_table("predicted_key", schema=None) as batch_op:
        batch_op.create_index(
            "ix_predicted_key_deployment_key", ["deployment", "key"], unique=False
        )
        batch_op.create_index("ix_predicted_key_project", ["project"], unique=False)
        batch_op.create_index("ix_predicted_key_segment", ["segment"], unique=False)

    op.create_table(
        "prediction_segment",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("file", TEXT, nullable=False),
        sa.Column("offset_start", sa.BigInteger(), nullable=False),
        sa.Column("offset_end", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("first_id", TEXT, nullable=False),
        sa.Column("last_id", TEXT, nullable=False),
        sa.Column("first_at", TEXT, nullable=False),
        sa.Column("last_at", TEXT, nullable=False),
        sa.Column("blob", TEXT, nullable=False),
        sa.Column("root", TEXT, nullable=False),
        sa.Column("reference", TEXT, nullable=True),
        sa.Column("profile", TEXT, nullable=True),
        sa.Column("versions", TEXT, nullable=False),
        sa.Column("sealed_at", TEXT, nullable=False),
        sa.Column("labels", TEXT, nullable=True),
        sa.Column("labelled", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("erased_at", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_prediction_segment"),
        sa.UniqueConstraint(
            "deployment",
            "file",
            "offset_start",
            name="uq_prediction_segment_deployment_file_offset_start",
        ),
        sa.UniqueConstraint("deployment", "seq", name="uq_prediction_segment_deployment_seq"),
    )
    with op.batch_alter_table("prediction_segment", schema=None) as batch_op:
        batch_op.create_index(
            "ix_prediction_segment_deployment_first_at", ["deployment", "first_at"], unique=False
        )
        batch_op.create_index(
            "ix_prediction_segment_deployment_last_at", ["deployment", "last_at"], unique=False
        )
        batch_op.create_index(
            "ix_prediction_segment_project_deployment_seq",
            ["project", "deployment", "seq"],
            unique=False,
        )
        batch_op.create_index(
            "ix_prediction_segment_project_last_id_first_id",
            ["project", "last_id", "first_id"],
            unique=False,
        )

    op.create_table(
        "refused_labels",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("newest", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_refused_labels"),
        sa.UniqueConstraint(
            "project", "deployment", "reason", name="uq_refused_labels_project_deployment_reason"
        ),
    )
    op.create_table(
        "release",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("candidate", TEXT, nullable=False),
        sa.Column("champion", TEXT, nullable=True),
        sa.Column("strategy", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("live", TEXT, nullable=True),
        sa.Column("stage", sa.BigInteger(), nullable=False),
        sa.Column("share", DOUBLE, nullable=False),
        sa.Column("config", TEXT, nullable=False),
        sa.Column("limits", TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("standing", TEXT, nullable=False),
        sa.Column("evidence_bad", DOUBLE, nullable=False),
        sa.Column("findings", TEXT, nullable=False),
        sa.Column("cursor_segment", sa.BigInteger(), nullable=False),
        sa.Column("cursor_feedback", sa.BigInteger(), nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.Column("deadline", TEXT, nullable=False),
        sa.Column("ended_at", TEXT, nullable=True),
        sa.Column("started_by", TEXT, nullable=False),
        sa.Column("why", TEXT, nullable=False),
        sa.Column("evidence", TEXT, nullable=False),
        sa.Column("record", TEXT, nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("alpha_spent", DOUBLE, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_release"),
        sa.UniqueConstraint("deployment", "live", name="uq_release_deployment_live"),
    )
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.create_index("ix_release_candidate", ["candidate"], unique=False)
        batch_op.create_index(
            "ix_release_project_deployment_started_at",
            ["project", "deployment", "started_at"],
            unique=False,
        )

    op.create_table(
        "release_history",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("release", TEXT, nullable=False),
        sa.Column("points", TEXT, nullable=False),
        sa.Column("every", sa.BigInteger(), nullable=False),
        sa.Column("looks", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_release_history"),
        sa.UniqueConstraint("release", name="uq_release_history_release"),
    )
    with op.batch_alter_table("release_history", schema=None) as batch_op:
        batch_op.create_index("ix_release_history_project", ["project"], unique=False)

    op.create_table(
        "retired_name",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("last_version", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_retired_name"),
        sa.UniqueConstraint("project", "name", name="uq_retired_name_project_name"),
    )
    op.create_table(
        "run",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("experiment", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("ended_at", TEXT, nullable=True),
        sa.Column("parent", TEXT, nullable=True),
        sa.Column("pipeline", TEXT, nullable=True),
        sa.Column("params", TEXT, nullable=False),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("environment", TEXT, nullable=True),
        sa.Column("code_commit", TEXT, nullable=True),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("deleted_at", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
    )
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.create_index("ix_run_parent", ["parent"], unique=False)
        batch_op.create_index(
            "ix_run_project_experiment_started_at",
            ["project", "experiment", "started_at"],
            unique=False,
        )
        batch_op.create_index("ix_run_project_pipeline", ["project", "pipeline"], unique=False)
        batch_op.create_index("ix_run_project_started_at", ["project", "started_at"], unique=False)
        batch_op.create_index("ix_run_project_status", ["project", "status"], unique=False)

    op.create_table(
        "run_cursor",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("spool", TEXT, nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_run_cursor"),
        sa.UniqueConstraint("run", "spool", name="uq_run_cursor_run_spool"),
    )
    op.create_table(
        "run_field",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("space", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("head", TEXT, nullable=False),
        sa.Column("number", DOUBLE, nullable=True),
        sa.Column("at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_run_field"),
        sa.UniqueConstraint("run", "space", "key", name="uq_run_field_run_space_key"),
    )
    with op.batch_alter_table("run_field", schema=None) as batch_op:
        batch_op.create_index(
            "ix_run_field_project_space_key_head_at_run",
            ["project", "space", "key", "head", "at", "run"],
            unique=False,
        )
        batch_op.create_index(
            "ix_run_field_project_space_key_number_head_at_run",
            ["project", "space", "key", "number", "head", "at", "run"],
            unique=False,
        )

    op.create_table(
        "run_input",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("source_type", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("schema", TEXT, nullable=True),
        sa.Column("profile", TEXT, nullable=True),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("context", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_run_input"),
        sa.UniqueConstraint("run", "name", "digest", name="uq_run_input_run_name_digest"),
    )
    op.create_table(
        "run_model",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_run_model"),
        sa.UniqueConstraint("run", "role", "model", name="uq_run_model_run_role_model"),
    )
    with op.batch_alter_table("run_model", schema=None) as batch_op:
        batch_op.create_index("ix_run_model_model", ["model"], unique=False)

    op.create_table(
        "saved_view",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("page", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("query", TEXT, nullable=False),
        sa.Column("saved_by", TEXT, nullable=False),
        sa.Column("saved_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_saved_view"),
        sa.UniqueConstraint("project", "page", "name", name="uq_saved_view_project_page_name"),
    )
    op.create_table(
        "step_run",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=True),
        sa.Column("inputs", TEXT, nullable=False),
        sa.Column("outputs", TEXT, nullable=False),
        sa.Column("cached_from", TEXT, nullable=True),
        sa.Column("key_parts", TEXT, nullable=False),
        sa.Column("why", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("ended_at", TEXT, nullable=False),
        sa.Column("seconds", DOUBLE, nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("error", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_step_run"),
        sa.UniqueConstraint("run", "number", name="uq_step_run_run_number"),
    )
    with op.batch_alter_table("step_run", schema=None) as batch_op:
        batch_op.create_index("ix_step_run_project_key_id", ["project", "key", "id"], unique=False)
        batch_op.create_index(
            "ix_step_run_project_name_id", ["project", "name", "id"], unique=False
        )

    op.create_table(
        "tally",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("labelled", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tally"),
        sa.UniqueConstraint("deployment", name="uq_tally_deployment"),
    )
    with op.batch_alter_table("tally", schema=None) as batch_op:
        batch_op.create_index("ix_tally_project", ["project"], unique=False)

    op.create_table(
        "trace",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("experiment", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("run", TEXT, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("client_request", TEXT, nullable=True),
        sa.Column("request", TEXT, nullable=True),
        sa.Column("response", TEXT, nullable=True),
        sa.Column("metadata", TEXT, nullable=False),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("spans", TEXT, nullable=False),
        sa.Column("files", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trace"),
        sa.UniqueConstraint("project", "key", name="uq_trace_project_key"),
    )
    with op.batch_alter_table("trace", schema=None) as batch_op:
        batch_op.create_index(
            "ix_trace_project_experiment_started_at",
            ["project", "experiment", "started_at"],
            unique=False,
        )

    op.create_table(
        "version_notes",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("updated_at", TEXT, nullable=False),
        sa.Column("updated_by", TEXT, nullable=False),
        sa.Column("deleted_at", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_version_notes"),
        sa.UniqueConstraint("model", "number", name="uq_version_notes_model_number"),
        sa.UniqueConstraint("version", name="uq_version_notes_version"),
    )
    with op.batch_alter_table("version_notes", schema=None) as batch_op:
        batch_op.create_index("ix_version_notes_project_stage", ["project", "stage"], unique=False)
        batch_op.create_index(
            "ix_version_notes_project_updated_at", ["project", "updated_at"], unique=False
        )

    op.create_table(
        "waiting_feedback",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=True),
        sa.Column("labels", TEXT, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("received_at", TEXT, nullable=False),
        sa.Column("received_from", TEXT, nullable=False),
        sa.Column("expires_at", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_waiting_feedback"),
    )
    with op.batch_alter_table("waiting_feedback", schema=None) as batch_op:
        batch_op.create_index(
            "ix_waiting_feedback_project_expires_at", ["project", "expires_at"], unique=False
        )

    op.create_table(
        "waiver",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("artifact", TEXT, nullable=False),
        sa.Column("report", TEXT, nullable=True),
        sa.Column("why", TEXT, nullable=False),
        sa.Column("who", TEXT, nullable=False),
        sa.Column("own_work", sa.Boolean(), nullable=False),
        sa.Column("when", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_waiver"),
    )
    with op.batch_alter_table("waiver", schema=None) as batch_op:
        batch_op.create_index("ix_waiver_project_version", ["project", "version"], unique=False)

    op.create_table(
        "watch",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=True),
        sa.Column("threshold", DOUBLE, nullable=True),
        sa.Column("detector", TEXT, nullable=True),
        sa.Column("block", TEXT, nullable=False),
        sa.Column("segment_cursor", sa.BigInteger(), nullable=False),
        sa.Column("feedback_cursor", sa.BigInteger(), nullable=False),
        sa.Column("next_window", TEXT, nullable=True),
        sa.Column("watermark", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_watch"),
        sa.UniqueConstraint("deployment", name="uq_watch_deployment"),
    )
    with op.batch_alter_table("watch", schema=None) as batch_op:
        batch_op.create_index(
            "ix_watch_project_deployment", ["project", "deployment"], unique=False
        )

    op.create_table(
        "window",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("deployment", TEXT, nullable=False),
        sa.Column("start", TEXT, nullable=False),
        sa.Column("end", TEXT, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("version", TEXT, nullable=True),
        sa.Column("profile", TEXT, nullable=True),
        sa.Column("report", TEXT, nullable=True),
        sa.Column("untested", TEXT, nullable=True),
        sa.Column("drifted", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_window"),
        sa.UniqueConstraint("deployment", "start", name="uq_window_deployment_start"),
    )
    with op.batch_alter_table("window", schema=None) as batch_op:
        batch_op.create_index(
            "ix_window_project_deployment_start", ["project", "deployment", "start"], unique=False
        )
