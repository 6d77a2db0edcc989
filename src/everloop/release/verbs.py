"""The verbs of deployments and releases: make, start, observe, promote, roll back.

A promotion moves the deployment's champion, the alias ``production`` and the lineage in the one
transaction of its verb. Whoever asks, a version without a passed gate or a waiver gets no traffic.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, structs

from everloop.core.clock import Instant
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.ids import check_name
from everloop.core.ports import where
from everloop.core.records import kind_of
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import verb
from everloop.registry.evidence import require_pass, yardstick
from everloop.registry.formats import require_judgeable, require_served
from everloop.registry.lookup import get_model, resolve_model
from everloop.registry.masking import require_known_masks
from everloop.registry.model import ModelVersion
from everloop.registry.proof import require_proven
from everloop.release import moving
from everloop.release.allowing import (
    attempts_of,
    require_allowed,
    require_forward,
    require_live,
)
from everloop.release.config import ReleaseConfig, Strategy
from everloop.release.decision import (
    begin,
    deadline_of,
    first_place,
)
from everloop.release.model import (
    LIVE,
    UNDATED,
    Deployment,
    Limits,
    Release,
    State,
)
from everloop.release.queries import (
    DeploymentView,
    Name,
    ReleaseView,
    get_deployment,
    get_release,
    live_release,
    view_deployment,
    view_release,
)

Why = Annotated[str, Meta(max_length=2_000)]
Cursor = Annotated[int, Meta(ge=0)]
LOSS_PERCENTILE = 90
LEAST_BOUND = 1e-9


class CreateDeployment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The name of a new endpoint and the model it serves."""

    name: Annotated[str, Meta(max_length=100)]
    model: Name


class StartRelease(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version a deployment shall move to, and how.

    Attributes:
        version: Ref or id of the version.
        strategy: As configured when None.
        limits: The champion's frozen figures, as far as they are known; its loss is taken from its
            gate where that measured it.
        cursor_segment: The last prediction segment before the release; ``cursor_feedback``
            likewise.
        at: Event time of the start. When None, the wall clock; where the loop lives by event time,
            the deadline then counts from the first news, whose time is known.
    """

    deployment: Name
    version: Name
    strategy: Strategy | None = None
    limits: Limits = Limits()
    cursor_segment: Cursor = 0
    cursor_feedback: Cursor = 0
    at: Instant | None = None


class PromoteRelease(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The live release that a person wants promoted now, and why."""

    release: Name
    why: Why = ""
    at: Instant | None = None


class AbortRelease(PromoteRelease, frozen=True, kw_only=True):
    """The live release that ends without a promotion, and why."""


class Rollback(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The deployment whose traffic goes back, and why."""

    deployment: Name
    why: Why = ""
    at: Instant | None = None


@verb("deployment.create", permission="deployment:write")
def create_deployment(ask: CreateDeployment, work: Work) -> DeploymentView:
    """Make an endpoint for a model; asking again for the same one changes nothing.

    Raises:
        InvalidInput: ``name.invalid``.
        NotFound: ``model.not_found``.
        Conflict: ``deployment.exists`` when the name serves another model.
    """
    model = get_model(work, ask.model.removeprefix("model:"))
    found = work.first(Deployment, *where(name=check_name(ask.name, "Deployment")))
    if found is None:
        found = work.insert(
            Deployment(
                id=work.new_id(),
                project=work.project,
                name=ask.name,
                model=model.id,
                champion=None,
                previous=None,
                epoch=0,
                created_at=work.now,
                created_by=work.caller.actor,
            )
        )
        work.touch(f"deployment:{found.id}")
    if found.model != model.id:
        raise Conflict(
            "deployment.exists",
            f"The deployment {ask.name!r} serves another model.",
            hint="Choose another name.",
        )
    return view_deployment(work, found)


@verb("release.start", permission="release:release")
def start_release(ask: StartRelease, work: Work) -> ReleaseView:
    """Begin to move a deployment to a version that passed its gate.

    A deployment without a champion has nothing to compare with: its first release is promoted.

    Raises:
        NotFound: no such deployment or version.
        InvalidInput: ``release.other_model``; ``log.mask_unknown``; or
            ``model.outputs_unsupported`` for several numbers that are no classes.
        UnsafeArtifact: ``artifact.not_served`` for a format that never answers in production.
        Conflict: ``release.live`` while another release is undecided, ``release.champion_already``,
            ``deployment.halted``, ``release.frozen`` or ``release.attempts_spent``.
        ApprovalRequired: ``release.approvals_missing``.
        Denied: ``release.outside_envelope`` when a program asks for more than it may.
        GateFailed: ``gate.missing`` or ``gate.failed``.
    """
    deployment = get_deployment(work, ask.deployment)
    version = resolve_model(work, ask.version)
    require_proven(work, version)
    require_judgeable(version)
    require_served(version)
    _require_startable(work, deployment, version)
    require_known_masks(work, version.name)
    evidence = require_pass(work, version)
    evidence_ref = f"{kind_of(evidence).name}:{evidence.id}"
    config = work.model_settings(version.name, "release", ReleaseConfig)
    strategy = ask.strategy or config.strategy
    require_allowed(work, deployment, version, config=config, strategy=strategy)
    at = ask.at or work.now
    place = first_place(config, strategy)
    earlier = attempts_of(work, deployment, version)
    deployment = work.replace(structs.replace(deployment, epoch=deployment.epoch + 1))
    release = work.insert(
        Release(
            id=work.new_id(),
            project=work.project,
            deployment=deployment.id,
            model=deployment.model,
            candidate=version.id,
            champion=deployment.champion,
            strategy=strategy,
            state=place.state,
            live=LIVE,
            stage=place.stage,
            share=place.share,
            config=config,
            limits=_limits(work, deployment, ask.limits),
            epoch=deployment.epoch,
            standing=begin(config, strategy),
            evidence_bad=1.0,
            findings={},
            cursor_segment=ask.cursor_segment,
            cursor_feedback=ask.cursor_feedback,
            started_at=at,
            updated_at=at,
            deadline=_deadline(work, version, config, ask.at),
            ended_at=None,
            started_by=work.caller.actor,
            why=work.reason or f"Started as {strategy.replace('_', ' ')}.",
            evidence=evidence_ref,
            attempt=len(earlier) + 1,
            alpha_spent=config.alpha + sum(release.config.alpha for release in earlier),
        )
    )
    work.touch(
        f"release:{release.id}", f"deployment:{deployment.id}", f"model_version:{version.id}"
    )
    work.link(f"release:{release.id}", "released", f"model_version:{version.id}")
    work.link(f"release:{release.id}", "allowed_by", evidence_ref)
    if deployment.champion is None:
        release = moving.promote(work, release, "There is no champion to compare with.", at)
    elif strategy == "all_at_once":
        release = moving.promote(work, release, "Released all at once, as asked.", at)
    return view_release(work, release)


@verb("release.promote", permission="release:release")
def promote_release(ask: PromoteRelease, work: Work) -> ReleaseView:
    """Promote a live release now, by a person's decision.

    Raises:
        NotFound: ``release.not_found``.
        Conflict: ``release.ended`` or ``release.frozen``.
        ApprovalRequired: ``release.approvals_missing``.
        Denied: ``release.outside_envelope`` for a program.
        GateFailed: its evidence no longer admits it.
    """
    release = get_release(work, ask.release)
    require_forward(work, release)
    require_pass(work, work.get(ModelVersion, release.candidate))
    work.touch(f"release:{release.id}", f"deployment:{release.deployment}")
    why = ask.why or work.reason or "Promoted by a person before the evidence sufficed."
    return view_release(work, moving.promote(work, release, why, ask.at or work.now))


@verb("release.abort", permission="release:release")
def abort_release(ask: AbortRelease, work: Work) -> ReleaseView:
    """End a live release by a person's decision; the champion goes on answering.

    Raises:
        NotFound: ``release.not_found``.
        Conflict: ``release.ended``.
    """
    release = get_release(work, ask.release)
    require_live(release)
    work.touch(f"release:{release.id}", f"deployment:{release.deployment}")
    why = ask.why or work.reason or "Aborted by a person."
    at = ask.at or work.now
    return view_release(work, moving.end(work, release, State.ROLLED_BACK, why, at))


@verb("release.rollback", permission="release:release")
def rollback(ask: Rollback, work: Work) -> DeploymentView:
    """End the live release or, when there is none, go back to the champion before.

    Raises:
        NotFound: ``deployment.not_found``.
        Conflict: ``release.nothing_before`` when there is neither.
    """
    deployment = get_deployment(work, ask.deployment)
    at = ask.at or work.now
    why = ask.why or work.reason or "Rolled back by a person."
    work.touch(f"deployment:{deployment.id}")
    live = live_release(work, deployment)
    if live is not None:
        moving.end(work, live, State.ROLLED_BACK, why, at)
    else:
        moving.restore(work, deployment, why, at)
    return view_deployment(work, work.get(Deployment, deployment.id))


def _limits(work: Work, deployment: Deployment, told: Limits) -> Limits:
    """Return the champion's figures; what the evaluator measured counts before what is told.

    A bound of zero, as of a classifier that is hardly ever wrong, would leave nothing to compare:
    the least bound makes every loss a bad event.
    """
    champion = None if deployment.champion is None else work.find(ModelVersion, deployment.champion)
    measured = None if champion is None else yardstick(work, champion, LOSS_PERCENTILE)
    if measured is None:
        return told
    bound = max(measured.bound, LEAST_BOUND)
    return structs.replace(told, loss=bound, loss_name=measured.loss)


class _LoopTime(Struct, frozen=True, kw_only=True):
    """What of ``models.<name>.loop`` concerns a release."""

    time: str = "wall"


def _deadline(
    work: Work, version: ModelVersion, config: ReleaseConfig, started_at: Instant | None
) -> Instant:
    if started_at is None and work.model_settings(version.name, "loop", _LoopTime).time == "event":
        return UNDATED
    return deadline_of(config, started_at or work.now)


def _require_startable(work: Work, deployment: Deployment, version: ModelVersion) -> None:
    if version.model != deployment.model:
        raise InvalidInput(
            "release.other_model",
            f"{version.name}@{version.version} is no version of the model that "
            f"{deployment.name!r} serves.",
            hint="Name a version of the deployment's model.",
        )
    if live_release(work, deployment) is not None:
        raise Conflict(
            "release.live",
            f"The deployment {deployment.name!r} has a live release.",
            hint="Promote it or roll it back first.",
        )
    if deployment.champion == version.id:
        raise Conflict(
            "release.champion_already",
            f"{version.name}@{version.version} is the champion already.",
            hint="Name another version.",
        )
