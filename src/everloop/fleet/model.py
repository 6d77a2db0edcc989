"""The records of fleets, their devices, staged releases, and what devices tell."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.records import Record, record
from everloop.data.profile import Profile
from everloop.data.sketch import Moments
from everloop.release.eprocess import BadEventProcess

LIVE = "live"
GroupName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Groups = Annotated[tuple[GroupName, ...], Meta(min_length=1, max_length=20)]


class FleetConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a version goes from group to group.

    Attributes:
        step: Who takes the next step: a ``person``, or the ``evidence`` below.
        alpha: Chance at most of rolling back a version that is no worse, over all looks.
        step_up_evidence: No step while the evidence against the version is this strong.
        min_adopted: Part of the reached devices that must run the version.
        max_left: Part of them that may have tried the version and left it; with more, only a
            person takes the next step.
        min_answers: Answers by the version before a step.
        soak_hours: Time in a stage before a step.
    """

    step: Literal["person", "evidence"] = "person"
    alpha: Annotated[float, Meta(gt=0, lt=0.5)] = 0.01
    step_up_evidence: Annotated[float, Meta(gt=1)] = 3.0
    min_adopted: Annotated[float, Meta(gt=0, le=1)] = 0.8
    max_left: Annotated[float, Meta(ge=0, le=1)] = 0.05
    min_answers: Annotated[int, Meta(ge=0)] = 100
    soak_hours: Annotated[float, Meta(ge=0, le=8_760)] = 1.0


class Guardrail(StrEnum):
    """What counts as bad of a device's answers, once a release."""

    ERROR = "error"
    INVALID = "invalid"


class State(StrEnum):
    """Where a staged release stands; only the first is live."""

    ROLLING = "rolling"
    DONE = "done"
    ROLLED_BACK = "rolled_back"


@record("fleet", unique=(("project", "name"),))
class Fleet(Record, frozen=True, kw_only=True):
    """Devices that run versions of one model.

    Attributes:
        groups: In the order in which they get a version; the first is the canary.
        target: The bundle for all whom no release reaches; None before the first.
        previous: The bundle before, to which a rollback goes.
        epoch: Counts the changes of what devices should run; a device never goes back in it.
    """

    project: ProjectId
    name: str
    model: Id
    groups: tuple[str, ...]
    target: Id | None
    previous: Id | None
    epoch: int
    config: FleetConfig
    created_at: Instant
    created_by: ActorId


class Refusal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle that a device tried and left: its digest and the code of the reason."""

    digest: Annotated[Digest, Meta(max_length=80)]
    reason: Annotated[str, Meta(max_length=200)]


@record(
    "device",
    unique=(("fleet", "name"), ("token",)),
    index=(("project", "fleet", "running"),),
)
class Device(Record, frozen=True, kw_only=True):
    """One device of a fleet, and what it said last.

    Attributes:
        actor: As whom it acts.
        token: With which it comes; ended when it is revoked.
        running: SHA-256 of the bundle that it runs, as it says.
        refused: Bundles that it tried and left.
        seen_epoch: The fleet's epoch that it has seen.
        seen_at: When it reported last.
        skew_s: By how many seconds its clock is ahead of ours, at its last report.
        series: Which log its batches are of; another one means that its log began anew.
        last_batch: The highest batch of that series.
        answers: Answers that it told of, over all versions.
        problem: What is odd about it; empty when nothing is.
        erred_in: The last release in whose evidence its errors count.
        invalid_in: The same of its invalid answers.
        left_in: The last release whose bundle it had tried and left.
    """

    project: ProjectId
    fleet: Id
    name: str
    group: str
    actor: ActorId
    token: Id
    enrolled_at: Instant
    enrolled_by: ActorId
    revoked_at: Instant | None = None
    running: Digest | None = None
    refused: tuple[Refusal, ...] = ()
    seen_epoch: int = 0
    seen_at: Instant | None = None
    skew_s: float = 0.0
    series: str = ""
    last_batch: int = 0
    answers: int = 0
    problem: str = ""
    erred_in: Id | None = None
    invalid_in: Id | None = None
    left_in: Id | None = None


@record(
    "fleet_release",
    unique=(("fleet", "live"),),
    index=(("project", "fleet", "started_at"),),
)
class FleetRelease(Record, frozen=True, kw_only=True):
    """One attempt to bring a bundle to all groups, one after the other.

    Attributes:
        candidate: The bundle.
        before: What the other groups run meanwhile; None in a fleet without a target.
        live: ``live`` while it is undecided, else None; a fleet has one.
        stage: Index of the last group that it has reached.
        stage_at: Since when.
        config: The settings in force when it began.
        guardrails: The evidence about each kind of bad event.
        answers: Answers by the candidate on devices of the groups that it has reached.
        evidence_bad: Combined evidence that the candidate is worse.
        why: The reason of the last decision.
        evidence: ``kind:id`` of what admitted the candidate's version.
    """

    project: ProjectId
    fleet: Id
    candidate: Id
    before: Id | None
    state: State
    live: str | None
    stage: int
    stage_at: Instant
    config: FleetConfig
    guardrails: dict[str, BadEventProcess]
    answers: int
    evidence_bad: float
    started_at: Instant
    started_by: ActorId
    ended_at: Instant | None
    why: str
    evidence: str


@record(
    "device_batch",
    unique=(("device", "series", "number"),),
    index=(("project", "fleet", "received_at"),),
)
class DeviceBatch(Record, frozen=True, kw_only=True):
    """One batch of answers that a device told of; a batch counts once.

    Attributes:
        digest: Of the batch as it came, so that a repetition is told from another batch.
        rows: Blob of the rows with bodies; None when there were none.
        dropped: Rows whose bodies the device had no room for; they are in the counts.
        torn: Lines of its log that a power cut destroyed.
    """

    project: ProjectId
    fleet: Id
    device: Id
    series: str
    number: int
    digest: Digest
    rows: Digest | None
    answers: int
    errors: int
    invalid: int
    dropped: int
    torn: int
    received_at: Instant


@record(
    "fleet_sketch", unique=(("fleet", "version"),), index=(("project", "fleet"),), covered=False
)
class FleetSketch(Record, frozen=True, kw_only=True):
    """What all devices of a fleet were asked of one version and answered, merged.

    Attributes:
        profile: Inputs, counted in the bins of the version's training data.
        output: Moments of the answers.
        reference: Blob of that reference; None when the version has none.
    """

    project: ProjectId
    fleet: Id
    version: Id
    answers: int
    errors: int
    invalid: int
    latency_us: int
    profile: Profile
    output: Moments | None
    reference: Digest | None
    updated_at: Instant
