"""Questions about deployments and releases."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from everloop.core.errors import NotFound
from everloop.core.ids import Id, is_id
from everloop.core.ports import where
from everloop.core.refs import parse_ref
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.registry.model import Model, ModelVersion
from everloop.release.model import LIVE, Deployment, Release

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Limit = Annotated[int, Meta(ge=1, le=1_000)]
Cursor = Annotated[str, Meta(max_length=100)]
KIND: Final = "deployment"


class ListDeployments(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of the deployments to list."""

    limit: Limit = 100
    after: Cursor | None = None


class ShowDeployment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment by name, ref or id."""

    deployment: Name


class ListReleases(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The deployment whose releases to list, or all; newest first."""

    deployment: Name | None = None
    limit: Limit = 100
    after: Cursor | None = None


class ShowRelease(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release by id."""

    release: Name


class ReleaseView(Struct, frozen=True, kw_only=True):
    """A release with the names behind its ids; versions as semantic versions."""

    release: Release
    deployment: str
    model: str
    candidate: str
    champion: str | None


class ReleaseList(Struct, frozen=True, kw_only=True):
    """One page of releases; ``next`` is the cursor of the page after it."""

    items: tuple[ReleaseView, ...]
    next: str | None = None


class DeploymentView(Struct, frozen=True, kw_only=True):
    """A deployment, the versions that answer, and its live release.

    Attributes:
        watched: The release that brought the champion, while it may still be undone.
        pinned: The version that answers instead of the champion while the deployment is halted.
    """

    deployment: Deployment
    model: str
    champion: str | None
    previous: str | None
    live: Release | None
    watched: Release | None = None
    pinned: str | None = None


class DeploymentList(Struct, frozen=True, kw_only=True):
    """One page of deployments; ``next`` is the cursor of the page after it."""

    items: tuple[DeploymentView, ...]
    next: str | None = None


@query("deployment.list", permission="deployment:read")
def list_deployments(ask: ListDeployments, view: View) -> DeploymentList:
    """List the deployments of the project, oldest first."""
    page, more = view.page(Deployment, limit=ask.limit, after=ask.after)
    return DeploymentList(items=tuple(view_deployment(view, row) for row in page), next=more)


@query("deployment.show", permission="deployment:read")
def show_deployment(ask: ShowDeployment, view: View) -> DeploymentView:
    """Show a deployment: its champion, the one before, and its live release."""
    return view_deployment(view, get_deployment(view, ask.deployment))


@query("release.list", permission="release:read")
def list_releases(ask: ListReleases, view: View) -> ReleaseList:
    """List releases, newest first."""
    conditions = where(deployment=get_deployment(view, ask.deployment).id) if ask.deployment else ()
    page, more = view.page(Release, *conditions, descending=True, limit=ask.limit, after=ask.after)
    return ReleaseList(items=tuple(view_release(view, row) for row in page), next=more)


@query("release.show", permission="release:read")
def show_release(ask: ShowRelease, view: View) -> ReleaseView:
    """Show a release: its state, its evidence and why it stands where it does."""
    return view_release(view, get_release(view, ask.release))


def get_deployment(view: View, text: str) -> Deployment:
    """Return the deployment that a name, a ref or an id names.

    Raises:
        InvalidInput: ``ref.invalid``.
        NotFound: ``deployment.not_found``.
    """
    bare = text.removeprefix(f"{KIND}:")
    if is_id(bare):
        return view.get(Deployment, Id(bare))
    found = view.first(Deployment, *where(name=parse_ref(text, kind=KIND).name))
    if found is None:
        raise NotFound(
            "deployment.not_found",
            f"There is no deployment {bare[:60]!r}.",
            hint="List them with `everloop release deployments`, or make it first.",
        )
    return found


def get_release(view: View, text: str) -> Release:
    """Return the release of that id.

    Raises:
        NotFound: ``release.not_found``.
    """
    return view.get(Release, Id(text.removeprefix("release:")))


def live_release(view: View, deployment: Deployment) -> Release | None:
    """Return the deployment's undecided release, or None."""
    return view.first(Release, *where(deployment=deployment.id, live=LIVE))


def find_admitting(view: View, deployment: Id, version: Id, epoch: int) -> Release | None:
    """Return the release by which a version answered under an epoch of a deployment's routes.

    It is the last one of the version that had begun by then; None for a version that was only
    pinned by the kill switch.
    """
    found = view.select(
        Release, *where(deployment=deployment, candidate=version), order="id", descending=True
    )
    return next((release for release in found if release.epoch <= epoch), None)


def view_deployment(view: View, deployment: Deployment) -> DeploymentView:
    """Return a deployment with the names behind its ids."""
    return DeploymentView(
        deployment=deployment,
        model=view.get(Model, deployment.model).name,
        champion=_text_of(view, deployment.champion),
        previous=_text_of(view, deployment.previous),
        live=live_release(view, deployment),
        watched=None if deployment.watched is None else view.find(Release, deployment.watched),
        pinned=_text_of(view, deployment.halt.version if deployment.halt else None),
    )


def view_release(view: View, release: Release) -> ReleaseView:
    """Return a release with the names behind its ids."""
    candidate = view.get(ModelVersion, release.candidate)
    return ReleaseView(
        release=release,
        deployment=view.get(Deployment, release.deployment).name,
        model=candidate.name,
        candidate=candidate.version,
        champion=_text_of(view, release.champion),
    )


def _text_of(view: View, version: Id | None) -> str | None:
    return view.get(ModelVersion, version).version if version else None
