"""What a release's decisions do to the records: champion, alias, routes and the release itself."""

from __future__ import annotations

from datetime import timedelta

from msgspec import structs

from everloop.core.clock import Instant
from everloop.core.errors import Conflict, GateFailed
from everloop.core.ports import where
from everloop.kernel.unit_of_work import Work
from everloop.registry.aliases import move_alias
from everloop.registry.evidence import require_pass
from everloop.registry.model import Model, ModelVersion
from everloop.registry.queries import PRODUCTION
from everloop.release import watching
from everloop.release.decision import Decision
from everloop.release.model import Deployment, Release, State


def apply(work: Work, release: Release, decision: Decision, at: Instant) -> Release:
    """Write what was decided; a promotion still needs evidence that admits the version."""
    if not decision.is_new:
        return work.replace(release)
    if decision.state is State.PROMOTED:
        try:
            require_pass(work, work.get(ModelVersion, release.candidate))
        except GateFailed as refusal:
            return end(work, release, State.ROLLED_BACK, refusal.message, at)
        return promote(work, release, decision.why, at)
    if decision.state in {State.ROLLED_BACK, State.REFUSED}:
        return end(work, release, decision.state, decision.why, at)
    bump(work, work.get(Deployment, release.deployment))
    return work.replace(
        structs.replace(release, state=decision.state, stage=decision.stage, share=decision.share)
    )


def promote(work: Work, release: Release, why: str, at: Instant) -> Release:
    """Make the candidate the champion, under the alias ``production``, too, and watch it."""
    deployment = work.get(Deployment, release.deployment)
    version = work.get(ModelVersion, release.candidate)
    epoch = deployment.epoch + 1
    is_watched = deployment.champion is not None and release.config.watch_days > 0
    work.replace(
        structs.replace(
            deployment,
            champion=version.id,
            previous=deployment.champion,
            epoch=epoch,
            watched=release.id if is_watched else None,
        )
    )
    move_alias(work, work.get(Model, version.model), PRODUCTION, version, why)
    work.touch(f"model_version:{version.id}")
    standing = release.standing
    if is_watched:
        watch = watching.begin(
            release.config,
            release.record or {},
            until=at + timedelta(days=release.config.watch_days),
            epoch=epoch,
        )
        standing = structs.replace(standing, watch=watch)
    return work.replace(
        structs.replace(
            release,
            state=State.PROMOTED,
            live=None,
            share=1.0,
            standing=standing,
            updated_at=at,
            ended_at=at,
            why=why,
        )
    )


def end(work: Work, release: Release, state: State, why: str, at: Instant) -> Release:
    """End a release without a promotion; the champion stays."""
    bump(work, work.get(Deployment, release.deployment))
    work.touch(f"release:{release.id}")
    return work.replace(
        structs.replace(
            release, state=state, live=None, share=0.0, updated_at=at, ended_at=at, why=why
        )
    )


def restore(work: Work, deployment: Deployment, why: str, at: Instant) -> Deployment:
    """Go back to the champion before.

    Raises:
        Conflict: ``release.nothing_before``.
    """
    if deployment.previous is None:
        raise Conflict(
            "release.nothing_before",
            f"The deployment {deployment.name!r} has no earlier champion to go back to.",
            hint="Release the version you want with `everloop release start`.",
        )
    before = work.get(ModelVersion, deployment.previous)
    promoted = work.select(
        Release,
        *where(deployment=deployment.id, candidate=deployment.champion),
        descending=True,
        limit=1,
    )
    for release in promoted:
        work.touch(f"release:{release.id}")
        work.replace(
            structs.replace(release, state=State.ROLLED_BACK, share=0.0, updated_at=at, why=why)
        )
    restored = work.replace(
        structs.replace(
            deployment,
            champion=before.id,
            previous=None,
            watched=None,
            epoch=deployment.epoch + 1,
        )
    )
    move_alias(work, work.get(Model, before.model), PRODUCTION, before, why)
    work.touch(f"model_version:{before.id}")
    return restored


def bump(work: Work, deployment: Deployment) -> Deployment:
    """Count a change of the routes."""
    return work.replace(structs.replace(deployment, epoch=deployment.epoch + 1))
