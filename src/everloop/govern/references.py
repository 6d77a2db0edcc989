"""Which field of which kind names another record, and what that means when the other one goes.

Kinds are named by their names, for some belong to packages beside this one. A test holds every
field of every kind that is an id against this table, so that a new kind can't be forgotten.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Role(StrEnum):
    """What a row is to the record that it names.

    PART goes with it; NEEDS keeps it from going while the row stays; LIVE does so while the row's
    field ``live`` is set; MENTIONS is history, which stays and then names something that is gone.
    """

    PART = "part"
    NEEDS = "needs"
    LIVE = "live"
    MENTIONS = "mentions"


class Reference(NamedTuple):
    """A field that names a record of another kind."""

    kind: str
    field: str
    target: str
    role: Role


def _references(target: str, role: Role, *fields: str) -> tuple[Reference, ...]:
    pairs = (field.split(".") for field in fields)
    return tuple(Reference(kind, field, target, role) for kind, field in pairs)


REFERENCES: Final = (
    *_references(
        "run",
        Role.PART,
        "artifact_entry.run",
        "logged_metric.run",
        "logged_model.run",
        "metric_batch.run",
        "metric_chunk.run",
        "metric_summary.run",
        "run_cursor.run",
        "run_field.run",
        "run_input.run",
        "run_model.run",
        "step_run.run",
    ),
    *_references("run", Role.NEEDS, "model_version.run", "run.parent"),
    *_references("experiment", Role.NEEDS, "run.experiment"),
    *_references("experiment", Role.PART, "logged_model.experiment", "trace.experiment"),
    *_references("logged_model", Role.PART, "logged_file.model", "logged_metric.model"),
    *_references("logged_model", Role.NEEDS, "model_version.logged_model"),
    *_references("model", Role.NEEDS, "model_version.model"),
    *_references(
        "model",
        Role.MENTIONS,
        "alias_move.model",
        "deployment.model",
        "edge_bundle.model",
        "fleet.model",
        "gate_report.model",
        "release.model",
        "retired_name.model",
        "version_notes.model",
    ),
    *_references(
        "model_version",
        Role.PART,
        "approval.version",
        "gate_report.version",
        "version_notes.version",
        "waiver.version",
    ),
    *_references(
        "model_version",
        Role.NEEDS,
        "deployment.champion",
        "deployment.previous",
        "watch.version",
    ),
    *_references(
        "model_version", Role.LIVE, "loop_run.version", "release.candidate", "release.champion"
    ),
    *_references(
        "model_version",
        Role.MENTIONS,
        "alert.version",
        "alias_move.before",
        "alias_move.version",
        "drill.version",
        "edge_bundle.version",
        "fleet_sketch.version",
        "gate_report.champion",
        "loss_point.version",
        "window.version",
    ),
    *_references("gate_report", Role.LIVE, "loop_run.report"),
    *_references("gate_report", Role.MENTIONS, "waiver.report"),
    *_references("release", Role.PART, "release_history.release"),
    *_references("release", Role.LIVE, "loop_run.release"),
    *_references("release", Role.MENTIONS, "deployment.watched"),
    *_references("step_run", Role.MENTIONS, "step_run.cached_from"),
    *_references("dataset", Role.PART, "dataset_version.dataset"),
    *_references(
        "dataset_version", Role.NEEDS, "model_version.dataset_version", "model_version.holdout"
    ),
    *_references("dataset_version", Role.LIVE, "loop_run.holdout", "loop_run.training"),
    *_references("loop_run", Role.PART, "loop_transition.run"),
    *_references("edge_bundle", Role.NEEDS, "fleet.previous", "fleet.target"),
    *_references("edge_bundle", Role.LIVE, "fleet_release.candidate", "fleet_release.before"),
    *_references(
        "fleet",
        Role.PART,
        "device.fleet",
        "device_batch.fleet",
        "fleet_release.fleet",
        "fleet_sketch.fleet",
    ),
    *_references("device", Role.MENTIONS, "device_batch.device"),
    *_references(
        "fleet_release", Role.MENTIONS, "device.erred_in", "device.invalid_in", "device.left_in"
    ),
    *_references("prediction_segment", Role.MENTIONS, "predicted_key.segment"),
    *_references(
        "deployment",
        Role.PART,
        "alert.deployment",
        "drill.deployment",
        "feedback_batch.deployment",
        "loop_lease.deployment",
        "loop_run.deployment",
        "loop_run.live",
        "loop_switch.deployment",
        "loop_turn.deployment",
        "loss_point.deployment",
        "predicted_key.deployment",
        "prediction_segment.deployment",
        "refused_labels.deployment",
        "release.deployment",
        "tally.deployment",
        "waiting_feedback.deployment",
        "watch.deployment",
        "window.deployment",
    ),
)
NO_RECORDS: Final = frozenset(
    {
        ("predicted_key", "prediction"),
        ("prediction_segment", "first_id"),
        ("prediction_segment", "last_id"),
        ("token", "parent"),
        ("device", "token"),
    }
)
"""Ids of things without a record of their own, and of tokens, which are never purged."""

EVIDENCE: Final = {"gate_report": "at", "waiver": "when", "approval": "at"}
"""Kinds that are evidence about a version, and the field that says since when."""

LINEAGE: Final = frozenset({"dataset_version", "model_version"})
"""Kinds whose origin must stay: what one of them came from can't go without it."""


def references_to(target: str) -> tuple[Reference, ...]:
    """Return every field that names records of a kind."""
    return tuple(found for found in REFERENCES if found.target == target)
