"""Whether a release may begin or move forward now: approvals, freeze windows, envelope, attempts.

Going back is never asked here.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from everloop.core.errors import ApprovalRequired, Conflict, Denied
from everloop.core.ids import Id, made_at
from everloop.core.ports import where
from everloop.kernel.authz import Actor, ActorKind
from everloop.kernel.unit_of_work import View
from everloop.registry.evidence import approvals_of, newest_report
from everloop.registry.model import ModelVersion
from everloop.release.config import BUMPS, Envelope, ReleaseConfig, Strategy
from everloop.release.model import Deployment, Release, Standing

SWITCHING = frozenset({"blue_green", "all_at_once"})


def require_allowed(
    view: View,
    deployment: Deployment,
    version: ModelVersion,
    *,
    config: ReleaseConfig,
    strategy: Strategy,
) -> None:
    """Refuse a release that may not begin now.

    Raises:
        Conflict: ``deployment.halted``, ``release.frozen`` or ``release.attempts_spent``.
        ApprovalRequired: ``release.approvals_missing``.
        Denied: ``release.outside_envelope`` when a program asks for more than it may.
    """
    require_not_halted(deployment)
    require_not_frozen(view, config)
    require_approvals(view, version, config)
    if deployment.champion is None:
        return
    _require_attempts(view, deployment, version, config)
    if is_program(view):
        _require_within(view, deployment, version, config=config, strategy=strategy)


def require_not_halted(deployment: Deployment) -> None:
    """Refuse while the kill switch is thrown.

    Raises:
        Conflict: ``deployment.halted``.
    """
    if deployment.halt is not None:
        raise Conflict(
            "deployment.halted",
            f"The deployment {deployment.name!r} is halted: {deployment.halt.why}",
            hint=f"Use `everloop release resume {deployment.name}` when the cause is gone.",
        )


def require_not_frozen(view: View, config: ReleaseConfig) -> None:
    """Refuse within a freeze window.

    Raises:
        Conflict: ``release.frozen``.
    """
    told = frozen_now(view, config)
    if told:
        raise Conflict(
            "release.frozen",
            f"No release moves forward now: {told}.",
            hint="Wait for its end, or change `freeze` under the model's release settings.",
        )


def frozen_now(view: View, config: ReleaseConfig) -> str:
    """Return why nothing moves forward at this time by the wall clock; empty when it may."""
    window = config.frozen_by(view.services.clock.now())
    return "" if window is None else f"freeze window, {window.why}"


def require_approvals(view: View, version: ModelVersion, config: ReleaseConfig) -> None:
    """Refuse a version with fewer approvals of its artifact than its tier needs.

    Raises:
        ApprovalRequired: ``release.approvals_missing``.
    """
    given, needed = len(approvals_of(view, version)), config.needed_approvals()
    if given < needed:
        name = f"{version.name}@{version.version}"
        raise ApprovalRequired(
            "release.approvals_missing",
            f"{name} has {given} of the {needed} approvals that a model of tier "
            f"{config.tier!r} needs.",
            hint=f"Somebody other than its author runs `everloop gate approve {name}`.",
            context={"missing": needed - given, "artifact": version.artifact},
        )


def attempts_of(view: View, deployment: Deployment, version: ModelVersion) -> list[Release]:
    """Return the earlier releases of a version to a deployment that gathered evidence."""
    found = view.select(Release, *where(deployment=deployment.id, candidate=version.id))
    return [release for release in found if _has_evidence(release.standing)]


def _has_evidence(standing: Standing) -> bool:
    paired, watch = standing.paired, standing.watch
    return bool(
        standing.traffic.total
        or (paired is not None and paired.pairs)
        or (watch is not None and watch.answers)
    )


def is_program(view: View) -> bool:
    """Tell whether a service asks by itself, and not on behalf of a person."""
    actor = view.tx.find(Actor, Id(view.caller.actor))
    is_service = actor is not None and actor.kind is ActorKind.SERVICE
    return is_service and view.caller.on_behalf_of is None


def _require_attempts(
    view: View, deployment: Deployment, version: ModelVersion, config: ReleaseConfig
) -> None:
    earlier = attempts_of(view, deployment, version)
    if len(earlier) >= config.most_attempts:
        spent = sum(release.config.alpha for release in earlier)
        raise Conflict(
            "release.attempts_spent",
            f"{version.name}@{version.version} was released here {len(earlier)} times and "
            f"was looked at with a chance of {spent:.3g} of a false rollback.",
            hint="Register a better version, or raise `most_attempts` under release.",
        )


def _require_within(
    view: View,
    deployment: Deployment,
    version: ModelVersion,
    *,
    config: ReleaseConfig,
    strategy: Strategy,
) -> None:
    envelope = config.envelope
    reasons = [
        _refuse_strategy(envelope, strategy, config),
        _refuse_bump(envelope, version),
        _refuse_loss(view, envelope, version),
        _refuse_pace(view, envelope, deployment),
    ]
    told = next((reason for reason in reasons if reason), None)
    if told is not None:
        raise Denied(
            "release.outside_envelope",
            f"Only a person may release {version.name}@{version.version}: {told}.",
            hint="A releaser runs `everloop release start`, or widens the change envelope.",
        )


def _refuse_strategy(envelope: Envelope, strategy: Strategy, config: ReleaseConfig) -> str:
    if strategy not in envelope.strategies:
        return f"the strategy {strategy} is not one of the envelope's"
    if strategy in SWITCHING:
        return ""
    stages = {"ab": (config.ab_share,), "bandit": (config.bandit_share,)}
    path = (0.0, *stages.get(strategy, config.shares), 1.0)
    widest = max(after - before for before, after in pairwise(path))
    if strategy != "bandit" and widest > envelope.share_step:
        return f"its share grows by {widest:.0%} at once, more than {envelope.share_step:.0%}"
    return ""


def _refuse_bump(envelope: Envelope, version: ModelVersion) -> str:
    known = version.bump in BUMPS
    if known and BUMPS.index(version.bump) > BUMPS.index(envelope.bump):
        return f"it is a {version.bump} step of the version, and {envelope.bump} is the limit"
    return ""


def _refuse_loss(view: View, envelope: Envelope, version: ModelVersion) -> str:
    report = newest_report(view, version) if envelope.loss_ratio is not None else None
    for check in report.checks if report is not None else ():
        ours, theirs = check.values.get("mean_loss"), check.values.get("rival_mean_loss")
        if check.name == "beats_champion" and isinstance(ours, float) and isinstance(theirs, float):
            limit = (envelope.loss_ratio or 1.0) * theirs
            if ours > limit:
                return f"its loss of {ours:.4g} is above {limit:.4g}"
    return ""


def _refuse_pace(view: View, envelope: Envelope, deployment: Deployment) -> str:
    # By the wall clock, which ids are made by: a release may begin in the event time of a replay.
    since = view.services.clock.now() - timedelta(days=1)
    latest = view.select(
        Release,
        *where(deployment=deployment.id),
        descending=True,
        limit=envelope.releases_per_day,
    )
    begun = [release for release in latest if made_at(release.id) >= since]
    if len(begun) >= envelope.releases_per_day:
        return f"{envelope.releases_per_day} releases within a day are the limit"
    return ""


def require_forward(view: View, release: Release) -> None:
    """Refuse a promotion ahead of the evidence by a program, or one that nobody may make now.

    Raises:
        Conflict: ``release.ended``, or ``release.frozen``.
        ApprovalRequired: ``release.approvals_missing``.
        Denied: ``release.outside_envelope`` for a program, which could leave every stage out by it.
    """
    require_live(release)
    require_not_frozen(view, release.config)
    require_approvals(view, view.get(ModelVersion, release.candidate), release.config)
    if is_program(view):
        raise Denied(
            "release.outside_envelope",
            "Only a person may promote ahead of the evidence.",
            hint="Let the release go on, or ask a releaser to run `everloop release promote`.",
        )


def require_live(release: Release) -> None:
    """Refuse a release that is decided.

    Raises:
        Conflict: ``release.ended``.
    """
    if release.live is None:
        raise Conflict(
            "release.ended",
            f"The release has ended: {release.state.value.replace('_', ' ')}.",
            hint="Start a new release.",
        )
