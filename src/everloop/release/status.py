"""How a deployment stands in one look: its release, its kill switch, its drills, what holds it."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct

from everloop.core.clock import Instant
from everloop.core.ports import where
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.registry.model import Model
from everloop.release.allowing import frozen_now
from everloop.release.config import ReleaseConfig
from everloop.release.model import Deployment, Drill, DrillState, Release
from everloop.release.queries import (
    DeploymentView,
    Name,
    ReleaseView,
    get_deployment,
    view_deployment,
    view_release,
)


class ShowStatus(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment by name, ref or id."""

    deployment: Name


class ReleaseStatus(Struct, frozen=True, kw_only=True):
    """How a deployment stands.

    Attributes:
        release: Its live release, or else its newest one.
        frozen: Why nothing moves forward now; empty when it may.
        last_drill: The newest drill.
        drill_due_at: When the next one is due; None while there is no champion before to go back
            to.
        is_drill_overdue: Whether that is past.
    """

    deployment: DeploymentView
    release: ReleaseView | None
    frozen: str
    last_drill: Drill | None
    drill_due_at: Instant | None
    is_drill_overdue: bool


@query("release.status", permission="release:read")
def show_status(ask: ShowStatus, view: View) -> ReleaseStatus:
    """Show how a deployment stands: release, kill switch, freeze window and drills.

    Raises:
        NotFound: ``deployment.not_found``.
    """
    deployment = get_deployment(view, ask.deployment)
    shown = view_deployment(view, deployment)
    newest = view.select(Release, *where(deployment=deployment.id), descending=True, limit=1)
    release = shown.live or (newest[0] if newest else None)
    model = view.get(Model, deployment.model)
    config = view.model_settings(model.name, "release", ReleaseConfig)
    due_at = drill_due_at(view, deployment, config)
    last = view.select(Drill, *where(deployment=deployment.id), descending=True, limit=1)
    return ReleaseStatus(
        deployment=shown,
        release=None if release is None else view_release(view, release),
        frozen=frozen_now(view, config),
        last_drill=last[0] if last else None,
        drill_due_at=due_at,
        is_drill_overdue=due_at is not None and due_at < view.services.clock.now(),
    )


def drill_due_at(view: View, deployment: Deployment, config: ReleaseConfig) -> Instant | None:
    """Return when the next drill is due: so long after the last one that passed."""
    if deployment.previous is None:
        return None
    passed = view.select(
        Drill,
        *where(deployment=deployment.id, state=DrillState.PASSED.value),
        descending=True,
        limit=1,
    )
    since = passed[0].started_at if passed else deployment.created_at
    return since + timedelta(days=config.drill_days)
