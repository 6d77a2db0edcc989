"""The records of deployments and releases, and what a release is told."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.records import Record, record
from everloop.core.wire import Arm
from everloop.registry.evidence import LossName
from everloop.release.config import ReleaseConfig, Share, Strategy
from everloop.release.eprocess import BadEventProcess, PairedProcess, SampleRatioProcess

Unit = Annotated[str, Meta(min_length=1, max_length=32)]
LIVE = "live"
MOST_EVENTS = 100_000
UNDATED = datetime(9999, 1, 1, tzinfo=UTC)
"""The deadline of a release that has not learned yet what time it is for the predictions."""


class Guardrail(StrEnum):
    """What counts as a bad event of an answer."""

    ERROR = "error"
    INVALID = "invalid"
    LATENCY = "latency"
    LABEL_LOSS = "label_loss"
    RANGE = "range"
    OVERRIDE = "override"


class State(StrEnum):
    """Where a release stands: the first three are live, the others final."""

    STANDBY = "standby"
    SHADOW = "shadow"
    CANARY = "canary"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"


class Finding(StrEnum):
    """What is known about one guardrail. NOT_PROVEN and NO_EVENT never count as passed."""

    BETTER = "better"
    PROVEN = "proven"
    NO_EVENT = "no event seen"
    NOT_PROVEN = "not proven"
    WORSE = "worse"


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The champion's own figures, frozen at the first time they are told.

    Attributes:
        latency_us: Its 99th percentile; a slower answer of either arm is a bad event.
        loss: Its 90th percentile on data it was not trained on; a greater loss of either arm is a
            bad event, and losses are compared up to this bound.
        loss_name: The kind of loss that the bound is of.
        low: Its half percentile of answers; an answer of either arm below it is a bad event.
        high: Its 99.5th percentile of answers, likewise.
    """

    latency_us: Annotated[float, Meta(gt=0)] | None = None
    loss: Annotated[float, Meta(gt=0)] | None = None
    loss_name: LossName = "absolute_error"
    low: float | None = None
    high: float | None = None


class BadEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something bad that an answer did, or that its label says about it.

    Attributes:
        share: The canary's share of the traffic when the request was assigned.
        unit: Mark of whom the assignment sticks to, so that one of them speaks once.
    """

    guardrail: Guardrail
    arm: Arm
    share: Share
    unit: Unit | None = None


class Assigned(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests that were given to one arm at one share, of one unit or of none.

    Attributes:
        unit: Mark of the unit; None for requests that were each assigned by themselves.
    """

    arm: Arm
    share: Share
    count: Annotated[int, Meta(ge=1)] = 1
    unit: Unit | None = None


class Traffic(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many requests each arm was given."""

    champion: Annotated[int, Meta(ge=0)] = 0
    canary: Annotated[int, Meta(ge=0)] = 0

    def plus(self, other: Traffic) -> Traffic:
        """Return the sum."""
        return Traffic(champion=self.champion + other.champion, canary=self.canary + other.canary)

    @property
    def total(self) -> int:
        """Requests by either arm."""
        return self.champion + self.canary


class Pair(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both versions lost on one request, as parts of the bound, from 0 to 1.

    Attributes:
        unit: Mark of a request with several rows, whose mean this is; None for one row alone.
    """

    champion: Annotated[float, Meta(ge=0, le=1)]
    candidate: Annotated[float, Meta(ge=0, le=1)]
    unit: Unit | None = None


class Tally(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers that could be judged, and the bad ones among them."""

    answers: Annotated[int, Meta(ge=0)] = 0
    bad: Annotated[int, Meta(ge=0)] = 0


class Judgement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers that a promoted version gave to requests without a unit, or to one unit."""

    guardrail: Guardrail
    answers: Annotated[int, Meta(ge=1)] = 1
    bad: Annotated[int, Meta(ge=0)] = 0
    unit: Unit | None = None


class News(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened since the last look at a release, in the order in which it was learned.

    Attributes:
        watched: What a promoted version did.
    """

    assigned: Annotated[tuple[Assigned, ...], Meta(max_length=MOST_EVENTS)] = ()
    events: Annotated[tuple[BadEvent, ...], Meta(max_length=MOST_EVENTS)] = ()
    pairs: Annotated[tuple[Pair, ...], Meta(max_length=MOST_EVENTS)] = ()
    watched: Annotated[tuple[Judgement, ...], Meta(max_length=MOST_EVENTS)] = ()

    def plus(self, other: News) -> News:
        """Return this and then the other."""
        return News(
            assigned=self.assigned + other.assigned,
            events=self.events + other.events,
            pairs=self.pairs + other.pairs,
            watched=self.watched + other.watched,
        )

    @property
    def traffic(self) -> Traffic:
        """Requests by either arm."""
        counts = dict.fromkeys(Arm, 0)
        for part in self.assigned:
            counts[part.arm] += part.count
        return Traffic(champion=counts[Arm.CHAMPION], canary=counts[Arm.CANARY])


class Watch(Struct, frozen=True, kw_only=True):
    """What is known of a promoted version against the frozen record of the champion before.

    Attributes:
        until: When the watch ends.
        epoch: The deployment's epoch at the promotion; older answers are not the watch's.
        left: What of the champion's record has not been compared yet, by guardrail.
        guardrails: The evidence process of each guardrail that the record speaks of.
        answers: Answers of the new version that were compared.
        draws: Counts the draws from the record.
    """

    until: Instant
    epoch: int
    left: dict[str, Tally] = {}
    guardrails: dict[str, BadEventProcess] = {}
    answers: int = 0
    draws: int = 0


class Standing(Struct, frozen=True, kw_only=True):
    """What a release has seen so far; all that a decision needs beside the news.

    Attributes:
        guardrails: The evidence process of each guardrail, by its name.
        paired: The evidence of the shadow; None for a release without one.
        split: The evidence that the traffic is not split as intended.
        units: Marks of the units that each guardrail, and the split, have counted already.
        stage_traffic: Requests since the stage began.
        watch: The evidence after the promotion; None before it, and where nothing is watched.
    """

    guardrails: dict[str, BadEventProcess]
    split: SampleRatioProcess
    paired: PairedProcess | None = None
    units: dict[str, tuple[str, ...]] = {}
    traffic: Traffic = Traffic()
    stage_traffic: Traffic = Traffic()
    watch: Watch | None = None


class Halt(Struct, frozen=True, kw_only=True):
    """A kill switch that was thrown: no release moves, and the traffic may be pinned.

    Attributes:
        version: The version that answers instead of the champion; None for the champion.
        answer: The constant that answers instead of any version.
        drill: The drill that it belongs to.
    """

    at: Instant
    by: ActorId
    why: str
    version: Id | None = None
    answer: float | None = None
    drill: Id | None = None


@record("deployment", unique=(("project", "name"),), index=(("project", "created_at"),))
class Deployment(Record, frozen=True, kw_only=True):
    """A serving endpoint of one model.

    Attributes:
        champion: The version that answers; None before the first release.
        previous: The champion before, to which a rollback goes.
        epoch: Counts the changes of the routes.
        watched: The release that brought the champion, while its watch lasts.
        halt: The kill switch, when it was thrown.
    """

    project: ProjectId
    name: str
    model: Id
    champion: Id | None
    previous: Id | None
    epoch: int
    created_at: Instant
    created_by: ActorId
    watched: Id | None = None
    halt: Halt | None = None


@record(
    "release",
    unique=(("deployment", "live"),),
    index=(("project", "deployment", "started_at"), ("candidate",)),
)
class Release(Record, frozen=True, kw_only=True):
    """One attempt to move a deployment's traffic to a version.

    Attributes:
        live: ``live`` while it is undecided, else None; a deployment has one live release.
        stage: Index of the share in force; -1 in the shadow.
        share: The candidate's share of the traffic.
        config: The settings in force when it began; later changes do not touch it, or its
            guarantee would be void.
        epoch: The deployment's epoch when it began.
        standing: The evidence so far.
        evidence_bad: Combined evidence that the candidate is worse.
        findings: What is known about each guardrail.
        cursor_segment: The last prediction segment taken in; ``cursor_feedback`` likewise.
        started_at: Event time, like all times here but those of the ledger.
        why: The reason of the last decision.
        evidence: ``kind:id`` of the gate report or waiver that admitted the candidate.
        record: What the champion's latest answers before the release were like, by guardrail;
            None until it is told.
        attempt: Counts the releases of this candidate that gathered evidence, this one included.
        alpha_spent: Chance at most of a false rollback over all these attempts.
    """

    project: ProjectId
    deployment: Id
    model: Id
    candidate: Id
    champion: Id | None
    strategy: Strategy
    state: State
    live: str | None
    stage: int
    share: float
    config: ReleaseConfig
    limits: Limits
    epoch: int
    standing: Standing
    evidence_bad: float
    findings: dict[str, Finding]
    cursor_segment: int
    cursor_feedback: int
    started_at: Instant
    updated_at: Instant
    deadline: Instant
    ended_at: Instant | None
    started_by: ActorId
    why: str
    evidence: str
    record: dict[str, Tally] | None = None
    attempt: int = 1
    alpha_spent: float = 0.0


@record("release_history", unique=(("release",),), index=(("project",),), covered=False)
class ReleaseHistory(Record, frozen=True, kw_only=True):
    """How a release went, for its picture: thinned, so that it stays small.

    Attributes:
        points: Rows of figures in the order of ``release.history.FIGURES``.
        every: Looks that each point stands for.
        looks: Looks so far.
    """

    project: ProjectId
    release: Id
    points: tuple[tuple[float | None, ...], ...] = ()
    every: int = 1
    looks: int = 0


class DrillState(StrEnum):
    """How far a drill has come: the last two are final."""

    SWITCHING = "switching"
    RETURNING = "returning"
    PASSED = "passed"
    FAILED = "failed"


@record("drill", index=(("project", "deployment", "started_at"), ("state",)))
class Drill(Record, frozen=True, kw_only=True):
    """An exercise of the kill switch on a live deployment; evidence that the way back works.

    Attributes:
        version: The version that was pinned.
        epoch: The epoch to be served next.
        asked_at: When that was asked for.
        switch_ms: From the order to the pinned version's being in force at the server.
        return_ms: From the order to return to the champion's being in force again.
    """

    project: ProjectId
    deployment: Id
    state: DrillState
    version: Id
    epoch: int
    started_at: Instant
    started_by: ActorId
    asked_at: Instant
    ended_at: Instant | None = None
    switch_ms: float | None = None
    return_ms: float | None = None
    why: str = ""
