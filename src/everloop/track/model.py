"""Records of tracking: what ran, with which parameters, and what it measured.

Metric points are never rows: they stand in compressed columns (see ``columns``), with one summary
row beside them for lists and search.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.records import Record, record

HEAD_CHARS: Final = 100


class RunStatus(StrEnum):
    """Where a run stands; ``killed`` means that its process went away without a word."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    KILLED = "killed"


@record("experiment", unique=(("project", "name"),))
class Experiment(Record, frozen=True, kw_only=True):
    """A named group of runs.

    Attributes:
        updated_at: When its name, tags or lifecycle changed last; None before that.
        deleted_at: When it was put into the trash; None while it is in use.
    """

    project: ProjectId
    name: str
    created_at: Instant
    created_by: ActorId
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    updated_at: Instant | None = None
    deleted_at: Instant | None = None


@record(
    "run",
    index=(
        ("project", "experiment", "started_at"),
        ("project", "started_at"),
        ("project", "status"),
        ("project", "pipeline"),
        ("parent",),
    ),
)
class Run(Record, frozen=True, kw_only=True):
    """One execution that logs parameters, metrics and artifacts.

    Attributes:
        pipeline: Name of the pipeline that it executes, None for a plain run.
        environment: Blob with the captured environment as canonical JSON.
        code_commit: Git commit of the code, None outside a repository.
        error: Why it failed, in the words of the failure.
        deleted_at: When it was put into the trash; None while it is in use.
    """

    project: ProjectId
    experiment: Id
    name: str
    status: RunStatus
    started_at: Instant
    ended_at: Instant | None = None
    parent: Id | None = None
    pipeline: str | None = None
    params: dict[str, str]
    tags: dict[str, str]
    environment: Digest | None = None
    code_commit: str | None = None
    error: str | None = None
    created_by: ActorId
    deleted_at: Instant | None = None


@record(
    "run_field",
    unique=(("run", "space", "key"),),
    # A search that sorts by a field walks one of these: level by it, the later start comes first.
    # The run stands in each, so that a search reads it there and not from the row.
    index=(
        ("project", "space", "key", "head", "at", "run"),
        ("project", "space", "key", "number", "head", "at", "run"),
    ),
    covered=False,
    copies={"at": ("run", "started_at")},
    heads={"head": ("value", HEAD_CHARS)},
)
class RunField(Record, frozen=True, kw_only=True):
    """One parameter or tag of a run as search finds it; made from the run and never more than it.

    Attributes:
        space: ``param`` or ``tag``.
        head: The first characters of the value, which the index holds.
        number: The value as a finite number; None when it is none.
        at: When the run began.
    """

    project: ProjectId
    run: Id
    space: str
    key: str
    value: str
    head: str
    number: float | None = None
    at: Instant


@record("run_cursor", unique=(("run", "spool"),))
class RunCursor(Record, frozen=True, kw_only=True):
    """How far a spool of a run has arrived: the offset behind its last batch, and when that came.

    Attributes:
        spool: Id of the spool; empty for the one that the run began with.
    """

    project: ProjectId
    run: Id
    spool: str = ""
    offset: int
    at: Instant


@record("metric_chunk", unique=(("run", "key", "seq"),))
class MetricChunk(Record, frozen=True, kw_only=True):
    """Consecutive points of one metric in columnar form.

    Exactly one of ``data`` and ``blob`` is set: small chunks live in the row, and the last one
    grows until it is full; large batches are blobs.

    Attributes:
        outline: The few points that a plot of many chunks shows of this one; None while it grows.
    """

    project: ProjectId
    run: Id
    key: str
    seq: int
    count: int
    first_step: int
    last_step: int
    data: bytes | None = None
    blob: Digest | None = None
    outline: bytes | None = None


@record("metric_batch", unique=(("run", "seq"),))
class MetricBatch(Record, frozen=True, kw_only=True):
    """Points of several metrics that wait to be sorted into chunks.

    Attributes:
        seq: Counts the waiting batches of the run from 0.
        waiting: Points of the run that wait, those of this batch included.
        places, data: As in ``everloop.track.mixed.MixedPoints``.
    """

    project: ProjectId
    run: Id
    seq: int
    waiting: int
    keys: tuple[str, ...]
    places: bytes
    data: bytes


@record(
    "metric_summary",
    unique=(("run", "key"),),
    index=(("project", "key", "last", "run"),),
    covered=False,
)
class MetricSummary(Record, frozen=True, kw_only=True):
    """What lists show of a metric without reading its points; made from them, never more.

    Attributes:
        last: Value at the greatest step for search and sorting: None for NaN, and the outermost
            floats for infinities.
        last_text: The same value exactly, such as ``0.25``, ``nan`` or ``inf``.
        last_time_us: When that point was measured, in microseconds since 1970.
        minimum: Least finite value.
        maximum: Greatest finite value.
        not_finite: How many values are NaN or infinite.
        chunks: How many chunks there are, beside what waits in batches.
        growing: How many points the last chunk holds if it still grows, else 0.
    """

    project: ProjectId
    run: Id
    key: str
    count: int
    last_step: int
    last: float | None
    last_text: str
    minimum: float | None
    maximum: float | None
    not_finite: int
    last_time_us: int = 0
    chunks: int = 0
    growing: int = 0


@record("artifact_entry", unique=(("run", "path"),))
class ArtifactEntry(Record, frozen=True, kw_only=True):
    """One file that a run kept."""

    project: ProjectId
    run: Id
    path: str
    digest: Digest
    size_bytes: int
