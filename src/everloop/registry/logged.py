"""Logged models: folders of a model's files that a run wrote, sealed when they are ready.

MLflow's clients make them before they register anything. While one is pending its files may be
put and replaced; once it is ready they are a manifest under one digest, and nothing may change it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.manifest import FileEntry
from everloop.core.records import Record, record


class LoggedStatus(StrEnum):
    """Where a logged model stands; only a pending one takes files."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"


@record("logged_model", index=(("project", "experiment", "created_at"), ("run",)))
class LoggedModel(Record, frozen=True, kw_only=True):
    """A model's folder of files, written by a run.

    Attributes:
        experiment: Id of the experiment that it belongs to.
        run: The run that wrote it, None for one without a run.
        kind: What its author calls its type, such as ``Agent``; often empty.
        files: What it was sealed with; empty while it is pending.
        root: Digest over those files; None while it is pending.
        deleted_at: When it was put into the trash; None while it is in use.
    """

    project: ProjectId
    experiment: Id
    run: Id | None
    name: str
    kind: str = ""
    status: LoggedStatus = LoggedStatus.PENDING
    params: dict[str, str] = msgspec.field(default_factory=dict)
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()
    root: Digest | None = None
    created_at: Instant
    updated_at: Instant
    created_by: ActorId
    deleted_at: Instant | None = None


@record("logged_file", unique=(("model", "path"),))
class LoggedFile(Record, frozen=True, kw_only=True):
    """One file of a logged model."""

    project: ProjectId
    model: Id
    path: str
    digest: Digest
    size_bytes: int


@record(
    "logged_metric",
    unique=(("model", "run", "key", "dataset_name", "dataset_digest"),),
    index=(("project", "key", "value"),),
)
class LoggedMetric(Record, frozen=True, kw_only=True):
    """The newest value of a metric that a run measured on a logged model and, maybe, a dataset.

    Attributes:
        value: The value, None when it is not finite.
        text: The same value exactly, such as ``0.25``, ``nan`` or ``inf``.
    """

    project: ProjectId
    model: Id
    run: Id
    key: str
    dataset_name: str = ""
    dataset_digest: str = ""
    value: float | None
    text: str
    step: int
    at: Instant
