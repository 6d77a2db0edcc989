"""The records of deployments and releases, what a project may set, and what a release is told."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.records import Record, record
from everloop.core.wire import Arm
from everloop.registry.evidence import LossName
from everloop.release.eprocess import BadEventProcess, PairedProcess, SampleRatioProcess

Share = Annotated[float, Meta(gt=0, lt=1)]
Unit = Annotated[str, Meta(min_length=1, max_length=32)]
Strategy = Literal["shadow", "canary", "all_at_once"]
OnNotProven = Literal["roll_back", "promote", "hold"]
LIVE = "live"
MOST_EVENTS = 100_000
UNDATED = datetime(9999, 1, 1, tzinfo=UTC)
"""The deadline of a release that has not learned yet what time it is for the predictions."""


class ReleaseConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How new versions are released (``models.<name>.release``).

    Attributes:
        strategy: ``shadow`` compares without traffic first; ``canary`` gives traffic at once.
        min_pairs: Requests answered by both versions, with labels, before a canary begins.
        shares: The canary's share of the traffic, stage by stage.
        min_stage_requests: Requests, by either arm, before the next stage.
        min_canary_requests: Requests answered by the canary before it is promoted.
        alpha: Chance at most of rolling back a version that is no worse than the margins allow;
            one in a thousand more for traffic that only looks wrongly split.
        beta: Chance at most of calling a version proven that is as bad as ``proof_margin``.
        margin: Part by which the rate of slow or wrong answers may exceed the champion's before
            it counts against the canary; errors and invalid answers have no margin.
        proof_margin: Part by which a rate must be proven not to exceed the champion's.
        paired_margin: Loss difference, as a part of the bound, that the shadow must rule out.
        step_up_evidence: No next stage while the evidence against the canary is this strong;
            the guarantee of ``alpha`` does not depend on it.
        deadline_days: When a decision falls even without proof.
        on_not_proven: What happens then.
    """

    strategy: Strategy = "shadow"
    min_pairs: Annotated[int, Meta(ge=1)] = 48
    shares: Annotated[tuple[Share, ...], Meta(min_length=1, max_length=10)] = (0.1, 0.5)
    min_stage_requests: Annotated[int, Meta(ge=1)] = 48
    min_canary_requests: Annotated[int, Meta(ge=1)] = 24
    alpha: Annotated[float, Meta(gt=0, lt=0.5)] = 0.01
    beta: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    margin: Annotated[float, Meta(ge=0, le=2)] = 0.1
    proof_margin: Annotated[float, Meta(gt=0, le=10)] = 0.5
    paired_margin: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    step_up_evidence: Annotated[float, Meta(gt=1)] = 3.0
    deadline_days: Annotated[float, Meta(gt=0, le=365)] = 14.0
    on_not_proven: OnNotProven = "roll_back"


class Guardrail(StrEnum):
    """What counts as a bad event of an answer."""

    ERROR = "error"
    INVALID = "invalid"
    LATENCY = "latency"
    LABEL_LOSS = "label_loss"


class State(StrEnum):
    """Where a release stands: the first two are live, the others final."""

    SHADOW = "shadow"
    CANARY = "canary"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"


class Finding(StrEnum):
    """What is known about one guardrail. NOT_PROVEN and NO_EVENT never count as passed."""

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
    """

    latency_us: Annotated[float, Meta(gt=0)] | None = None
    loss: Annotated[float, Meta(gt=0)] | None = None
    loss_name: LossName = "absolute_error"


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
    """What both versions lost on one request, as parts of the bound, from 0 to 1."""

    champion: Annotated[float, Meta(ge=0, le=1)]
    candidate: Annotated[float, Meta(ge=0, le=1)]


class News(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened since the last look at a release, in the order in which it was learned."""

    assigned: Annotated[tuple[Assigned, ...], Meta(max_length=MOST_EVENTS)] = ()
    events: Annotated[tuple[BadEvent, ...], Meta(max_length=MOST_EVENTS)] = ()
    pairs: Annotated[tuple[Pair, ...], Meta(max_length=MOST_EVENTS)] = ()

    def plus(self, other: News) -> News:
        """Return this and then the other."""
        return News(
            assigned=self.assigned + other.assigned,
            events=self.events + other.events,
            pairs=self.pairs + other.pairs,
        )

    @property
    def traffic(self) -> Traffic:
        """Requests by either arm."""
        counts = dict.fromkeys(Arm, 0)
        for part in self.assigned:
            counts[part.arm] += part.count
        return Traffic(champion=counts[Arm.CHAMPION], canary=counts[Arm.CANARY])


class Standing(Struct, frozen=True, kw_only=True):
    """What a release has seen so far; all that a decision needs beside the news.

    Attributes:
        guardrails: The evidence process of each guardrail, by its name.
        paired: The evidence of the shadow; None for a release without one.
        split: The evidence that the traffic is not split as intended.
        units: Marks of the units that each guardrail, and the split, have counted already.
        stage_traffic: Requests since the stage began.
    """

    guardrails: dict[str, BadEventProcess]
    split: SampleRatioProcess
    paired: PairedProcess | None = None
    units: dict[str, tuple[str, ...]] = {}
    traffic: Traffic = Traffic()
    stage_traffic: Traffic = Traffic()


@record("deployment", unique=(("project", "name"),), index=(("project", "created_at"),))
class Deployment(Record, frozen=True, kw_only=True):
    """A serving endpoint of one model.

    Attributes:
        champion: The version that answers; None before the first release.
        previous: The champion before, to which a rollback goes.
        epoch: Counts the changes of the routes.
    """

    project: ProjectId
    name: str
    model: Id
    champion: Id | None
    previous: Id | None
    epoch: int
    created_at: Instant
    created_by: ActorId


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
