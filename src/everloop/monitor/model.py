"""The records of monitoring, and what a project may set about it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.records import Record, record
from everloop.monitor.drift import DriftReport, Floors
from everloop.monitor.edetector import EDetector


class MonitorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is watched (``models.<name>.monitor``); losses are those of the gate, as it measured.

    Attributes:
        window_hours: Length of a window of event time.
        bad_percentile: A loss above this percentile of the champion's own losses at its gate is
            a bad event.
        block_hours: Event time whose labelled answers make one observation of the loss detector;
            whole days keep the hour of the day from counting as evidence.
        block_rows: A block with fewer labelled answers goes on into the next one.
        margin: Part by which bad events may exceed their expected rate before it is a fault.
        average_run_length: Blocks between false alarms of the loss detector, at least.
        alpha: Rate of false discoveries among the columns of one window.
        min_rows: A window with fewer rows is not tested for drift.
        floors: The smallest changes of a column that matter.
    """

    window_hours: Annotated[int, Meta(ge=1, le=24 * 31)] = 24 * 7
    bad_percentile: Literal[75, 90, 95, 99] = 90
    block_hours: Annotated[int, Meta(ge=1, le=24 * 31)] = 24
    block_rows: Annotated[int, Meta(ge=1, le=100_000)] = 12
    margin: Annotated[float, Meta(ge=0, le=5)] = 1.0
    average_run_length: Annotated[float, Meta(ge=10, le=1e9)] = 180.0
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    min_rows: Annotated[int, Meta(ge=10, le=1_000_000)] = 48
    floors: Floors = Floors()


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of predictions (``models.<name>.log``).

    Attributes:
        sample: Share of the requests whose inputs are kept; ids, versions, times and answers
            always are.
        masked: Inputs that are never written, beside those that the model's version masks.
        max_mb: Space that answers may take before they are sealed; what is beyond is dropped and
            counted.
        seal_after_s: Seconds that answers are gathered for before they become one segment, which is
            when they can be searched, proven and judged; less where very many come. A deployment
            with a live release, or one that lives by event time, seals at once.
        keep_days: Days after which the rows of a segment, its labels and keys are erased; the
            Merkle root stays. None keeps them.
    """

    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    masked: tuple[str, ...] = ()
    max_mb: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_024
    seal_after_s: Annotated[float, Meta(ge=0, le=3_600)] = 10.0
    keep_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None


class VersionRows(Struct, frozen=True, kw_only=True):
    """How many rows of a segment one model version was asked for."""

    version: Id
    rows: int


@record(
    "prediction_segment",
    unique=(("deployment", "seq"), ("deployment", "file", "offset_start")),
    index=(
        ("project", "deployment", "seq"),
        ("project", "last_id", "first_id"),
        ("deployment", "first_at"),
        ("deployment", "last_at"),
    ),
)
class PredictionSegment(Record, frozen=True, kw_only=True):
    """A sealed stretch of one prediction log.

    Attributes:
        seq: Counts the segments of the deployment from 1.
        file: Name of the log file; ``offset_start`` to ``offset_end`` is the stretch in bytes.
        first_id: Smallest prediction id in it; ids of one process increase.
        first_at: Smallest event time in it.
        blob: Parquet of the rows.
        root: RFC 9162 Merkle root over the rows' canonical JSON, in order.
        reference: The reference in whose bins ``profile`` counts; None before a first release.
        profile: Blob of the profile of the inputs.
        labels: Blob of the truths known so far.
        labelled: How many rows have one.
        dropped: Answers given before these rows for which the log had no space.
        erased_at: When the rows, labels and keys were erased; what is left proves the root.
    """

    project: ProjectId
    deployment: Id
    seq: int
    file: str
    offset_start: int
    offset_end: int
    rows: int
    first_id: Id
    last_id: Id
    first_at: Instant
    last_at: Instant
    blob: Digest
    root: Digest
    reference: Digest | None
    profile: Digest | None
    versions: tuple[VersionRows, ...]
    sealed_at: Instant
    labels: Digest | None = None
    labelled: int = 0
    dropped: int = 0
    erased_at: Instant | None = None


@record("predicted_key", index=(("deployment", "key"), ("segment",), ("project",)), covered=False)
class PredictedKey(Record, frozen=True, kw_only=True):
    """Which prediction a business key names; an index of what the segments say.

    Attributes:
        key: Digest of the key, which may be personal.
        prediction: The newest one of the segment that has it.
    """

    project: ProjectId
    deployment: Id
    segment: Id
    key: str
    prediction: Id


@record("tally", unique=(("deployment",),), index=(("project",),), covered=False)
class Tally(Record, frozen=True, kw_only=True):
    """How much was served in all; a cache of what the segments say, for those who look often.

    Attributes:
        labelled: Predictions that have a truth.
        dropped: Answers that were given and could not be logged.
    """

    project: ProjectId
    deployment: Id
    predictions: int
    labelled: int
    dropped: int = 0


@record(
    "feedback_batch",
    unique=(("deployment", "seq"),),
    index=(("project", "deployment", "seq"),),
)
class FeedbackBatch(Record, frozen=True, kw_only=True):
    """Labels that came in one call, joined with the answers they judge.

    Attributes:
        outcomes: Blob of the joined rows: those labelled, or said to be overridden, for the first
            time.
        fresh: How many of them.
        corrected: Labels that replaced an earlier, different one.
        root: Merkle root over the labels as they came.
        source: Who sent them, beyond the actor, in a word.
        labels: Blob of the labels as they came, corrections and repetitions included; None after
            they were erased.
    """

    project: ProjectId
    deployment: Id
    seq: int
    outcomes: Digest
    fresh: int
    corrected: int
    root: Digest
    source: str
    received_at: Instant
    received_from: ActorId
    labels: Digest | None = None


class LabelRefusal(StrEnum):
    """Why a label judges nothing."""

    UNKNOWN_CLASS = "unknown_class"
    NOT_A_NUMBER = "not_a_number"
    OTHER_KEY = "other_key"
    NO_PREDICTION = "no_prediction"
    NO_ROOM = "no_room"


class RefusedLabel(Struct, frozen=True, kw_only=True):
    """A label by the id or key that it named, and when it was refused."""

    name: str
    at: Instant


@record("refused_labels", unique=(("project", "deployment", "reason"),))
class RefusedLabels(Record, frozen=True, kw_only=True):
    """Labels of a deployment that were refused for one reason.

    Attributes:
        deployment: Whose predictions they were about; empty when they did not say.
        count: How many there were in all.
        newest: The last few of them, the newest first.
    """

    project: ProjectId
    deployment: Id
    reason: LabelRefusal
    count: int
    newest: tuple[RefusedLabel, ...]


@record("waiting_feedback", index=(("project", "expires_at"),))
class WaitingFeedback(Record, frozen=True, kw_only=True):
    """Labels of one call whose predictions are not sealed yet.

    Attributes:
        deployment: Where their business keys are looked up; None when all are by id.
        labels: Blob of the labels; ``count`` of them.
        source: Who sent them, beyond the actor, in a word.
        expires_at: When they are given up.
    """

    project: ProjectId
    deployment: Id | None
    labels: Digest
    count: int
    source: str
    received_at: Instant
    received_from: ActorId
    expires_at: Instant


@record(
    "window",
    unique=(("deployment", "start"),),
    index=(("project", "deployment", "start"),),
)
class Window(Record, frozen=True, kw_only=True):
    """A closed stretch of event time and what was found in it.

    Attributes:
        report: What the drift test found; None when it could not run.
        untested: Why it could not run.
        drifted: Names of the columns that drifted.
    """

    project: ProjectId
    deployment: Id
    start: Instant
    end: Instant
    rows: int
    version: Id | None
    profile: Digest | None
    report: DriftReport | None
    untested: str | None
    drifted: tuple[str, ...]


class OpenBlock(Struct, frozen=True, kw_only=True):
    """Labelled answers of a block that is not closed yet; ``number`` counts blocks since 1970."""

    number: int = 0
    bad: int = 0
    total: int = 0
    loss: float = 0.0


@record("watch", unique=(("deployment",),), index=(("project", "deployment"),))
class Watch(Record, frozen=True, kw_only=True):
    """Where the monitoring of a deployment stands.

    Attributes:
        version: The champion that the loss detector watches.
        threshold: Loss above which an answer of the champion is a bad event.
        detector: State of the e-detector.
        segment_cursor: Last segment looked at; ``feedback_cursor`` likewise.
        next_window: Start of the first window that is not closed.
        watermark: Greatest event time sealed so far.
    """

    project: ProjectId
    deployment: Id
    version: Id | None
    threshold: float | None
    detector: EDetector | None
    block: OpenBlock
    segment_cursor: int
    feedback_cursor: int
    next_window: Instant | None
    watermark: Instant | None


@record(
    "loss_point",
    unique=(("deployment", "number"),),
    index=(("project", "deployment", "number"),),
)
class LossPoint(Record, frozen=True, kw_only=True):
    """One block of labelled answers: what the loss detector saw.

    Attributes:
        at: Event time at which the block ended.
        evidence: Natural logarithm of the detector's statistic after this block.
    """

    project: ProjectId
    deployment: Id
    number: int
    version: Id
    at: Instant
    mean_loss: float
    bad_share: float
    evidence: float
    alarmed: bool


class AlertKind(StrEnum):
    """What an alert is about."""

    LOSS = "loss"
    DRIFT = "drift"


class AlertState(StrEnum):
    """Where an alert stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


@record("alert", index=(("project", "deployment", "raised_at"), ("project", "state")))
class Alert(Record, frozen=True, kw_only=True):
    """A judgement that asks for an action.

    Attributes:
        at: Event time of what caused it.
        subject: ``kind:id`` of the window or loss point behind it.
        columns: Columns that drifted.
    """

    project: ProjectId
    deployment: Id
    version: Id | None
    kind: AlertKind
    at: Instant
    raised_at: Instant
    subject: str
    summary: str
    columns: tuple[str, ...]
    state: AlertState
