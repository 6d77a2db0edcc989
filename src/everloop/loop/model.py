"""The records of the loop, and the limits a project sets it (its change envelope)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.records import Record, record


class LoopConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When and how a model is retrained (``models.<name>.loop``).

    Attributes:
        enabled: Whether the loop may act at all.
        pipeline: ``module:function`` in the project folder that trains; it takes the training
            rows and returns the model.
        dataset: Dataset that each snapshot becomes a version of.
        time: ``wall``, or ``event`` to live by the event time of the predictions (replays).
        time_column: Column of the dataset that holds each row's event time.
        train_days: Rows older than this do not train; None keeps all.
        holdout_every: Every n-th day is kept from training for the gate.
        min_rows: With fewer labelled rows the run is abandoned; the next one begins after the gap.
        min_gap_days: Least time between two retrains.
        max_retrains: Most retrains within ``max_retrains_days``.
        max_retrains_days: See ``max_retrains``.
        cool_down_days: Least time after a refused or rolled-back retrain; doubles with each in
            a row.
        max_attempts: Tries of a training that fails.
        seed: Given to the pipeline.
    """

    enabled: bool = False
    pipeline: Annotated[str, Meta(max_length=200)] = ""
    dataset: Annotated[str, Meta(max_length=100)] = ""
    time: Literal["wall", "event"] = "wall"
    time_column: Annotated[str, Meta(max_length=100)] = "at"
    train_days: Annotated[int, Meta(ge=1)] | None = 90
    holdout_every: Annotated[int, Meta(ge=2, le=100)] = 5
    min_rows: Annotated[int, Meta(ge=1)] = 500
    min_gap_days: Annotated[float, Meta(ge=0, le=3650)] = 14.0
    max_retrains: Annotated[int, Meta(ge=1, le=1000)] = 4
    max_retrains_days: Annotated[float, Meta(gt=0, le=3650)] = 90.0
    cool_down_days: Annotated[float, Meta(ge=0, le=3650)] = 7.0
    max_attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    seed: int = 0


class LoopState(StrEnum):
    """Where a loop run stands; the last five are final."""

    TRIGGERED = "triggered"
    TRAINING = "training"
    GATING = "gating"
    RELEASING = "releasing"
    PROMOTED = "promoted"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    ABANDONED = "abandoned"


FINAL = frozenset(
    {
        LoopState.PROMOTED,
        LoopState.REFUSED,
        LoopState.ROLLED_BACK,
        LoopState.FAILED,
        LoopState.ABANDONED,
    }
)
NEXT: dict[LoopState, frozenset[LoopState]] = {
    LoopState.TRIGGERED: frozenset({LoopState.TRAINING, LoopState.FAILED, LoopState.ABANDONED}),
    LoopState.TRAINING: frozenset({LoopState.GATING, LoopState.FAILED, LoopState.ABANDONED}),
    LoopState.GATING: frozenset({LoopState.RELEASING, LoopState.REFUSED, LoopState.ABANDONED}),
    LoopState.RELEASING: frozenset(
        {LoopState.PROMOTED, LoopState.ROLLED_BACK, LoopState.REFUSED, LoopState.ABANDONED}
    ),
}


@record(
    "loop_run",
    unique=(("live",),),
    index=(("project", "deployment", "started_at"),),
)
class LoopRun(Record, frozen=True, kw_only=True):
    """One turn of the loop, from its cause to its end.

    Attributes:
        live: The deployment's id while the run is not final, so that there is one at most.
        cause: ``alert:<id>`` or ``manual``.
        caused_at: The loop's time when it began (event or wall time).
        attempt: Trainings begun.
        training: Dataset version trained on; ``holdout`` the one kept for the gate.
        version: The model version that came out.
        report: Gate report.
        release: Release.
        why: What the last transition rests on, in words.
    """

    project: ProjectId
    deployment: Id
    model: str
    live: Id | None
    state: LoopState
    cause: str
    caused_at: Instant
    started_at: Instant
    updated_at: Instant
    ended_at: Instant | None
    attempt: int
    transitions: int
    training: Id | None
    holdout: Id | None
    version: Id | None
    report: Id | None
    release: Id | None
    why: str


@record("loop_transition", unique=(("run", "seq"),), index=(("project", "run"),))
class LoopTransition(Record, frozen=True, kw_only=True):
    """One step of a run; never changed.

    Attributes:
        fence: Fencing token of the controller that made it.
        at: The loop's time.
    """

    project: ProjectId
    run: Id
    seq: int
    before: LoopState | None
    after: LoopState
    fence: int
    at: Instant
    made_at: Instant
    why: str


@record("loop_lease", unique=(("deployment",),), index=(("project",),), covered=False)
class LoopLease(Record, frozen=True, kw_only=True):
    """Who controls a deployment's loop; coordination between processes, not history.

    Attributes:
        fence: Grows with every change of hands; writes with an older one are refused.
        until: Wall-clock end of the lease.
    """

    project: ProjectId
    deployment: Id
    owner: str
    fence: int
    until: Instant


@record("loop_turn", unique=(("deployment",),), index=(("project",),), covered=False)
class LoopTurn(Record, frozen=True, kw_only=True):
    """How far the controller has come; a cache of what the records say, for those who wait.

    Attributes:
        number: Counts the controller's rounds that found something to do.
        segment_seq: Last prediction segment that a finished round has seen.
        feedback_seq: Last batch of labels that a finished round has seen.
        is_idle: Whether nothing is left to do until something new comes.
    """

    project: ProjectId
    deployment: Id
    number: int
    segment_seq: int
    feedback_seq: int
    is_idle: bool


@record("loop_switch", unique=(("deployment",),), index=(("project",),))
class LoopSwitch(Record, frozen=True, kw_only=True):
    """The kill switch: while it is off the loop begins no run, training, gate or release."""

    project: ProjectId
    deployment: Id
    is_on: bool
    who: ActorId
    why: str
    at: Instant
