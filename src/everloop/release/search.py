"""Searching deployments and releases: what their names mean in a filter, and the queries."""

from __future__ import annotations

from everloop.core.filter.fields import ChoiceField, InstantField, NumberField, TextField
from everloop.core.filter.joins import Hop, Route
from everloop.core.filter.scene import Scene
from everloop.core.filter.tree import Text
from everloop.core.filter.vocabulary import Linked, Vocabulary, declare
from everloop.core.ports import Compare
from everloop.core.search import Any, Filter, Link, Order, Test
from everloop.kernel.searching import Search, search_rows
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.release.config import STRATEGIES
from everloop.release.model import Deployment, Release, State
from everloop.release.queries import (
    DeploymentList,
    Name,
    ReleaseList,
    get_deployment,
    view_deployment,
    view_release,
)


def _refer(scene: Scene, value: Text) -> Filter:
    del scene
    key = value.value.removeprefix("deployment:")
    return Any((Test("id", Compare.EQ, key), Test("name", Compare.EQ, key)))


def _version(ours: str, help: str) -> Linked:
    return Linked(
        "version", (Route((Hop("model_version", Link("id", ours)),)),), help, is_single=True
    )


_MODEL = Linked(
    "model",
    (Route((Hop("model", Link("id", "model")),)),),
    "the model that it serves",
    is_single=True,
)
DEPLOYMENTS = declare(
    Vocabulary(
        noun="deployment",
        kind="deployment",
        fields={
            "id": TextField("id", "its id"),
            "name": TextField("name", "its name"),
            "epoch": NumberField("epoch", "counts the changes of its routes"),
            "created_at": InstantField("created_at", "when it was made"),
            "created_by": TextField("created_by", "the id of the actor who made it"),
        },
        links={
            "model": _MODEL,
            "champion": _version("champion", "the version that answers"),
            "previous": _version("previous", "the version that answered before"),
            "release": Linked(
                "release", (Route((Hop("release", Link("deployment")),)),), "a release to it"
            ),
        },
        refer=_refer,
        order=(Order("created_at"), Order("id")),
    )
)

RELEASES = declare(
    Vocabulary(
        noun="release",
        kind="release",
        fields={
            "id": TextField("id", "its id"),
            "state": ChoiceField("state", "where it stands", tuple(State)),
            "strategy": ChoiceField("strategy", "how it moves the traffic", STRATEGIES),
            "share": NumberField("share", "the candidate's share of the traffic"),
            "evidence_bad": NumberField("evidence_bad", "evidence that the candidate is worse"),
            "attempt": NumberField("attempt", "counts the releases of its candidate"),
            "started_at": InstantField("started_at", "when it began"),
            "updated_at": InstantField("updated_at", "when it was last looked at"),
            "ended_at": InstantField("ended_at", "when it was decided"),
            "started_by": TextField("started_by", "the id of the actor who began it"),
            "why": TextField("why", "the reason of its last decision"),
        },
        synonyms={"status": "state"},
        links={
            "deployment": Linked(
                "deployment",
                (Route((Hop("deployment", Link("id", "deployment")),)),),
                "the deployment that it moves",
                is_single=True,
            ),
            "model": _MODEL,
            "candidate": _version("candidate", "the version that it brings"),
            "champion": _version("champion", "the version that answered when it began"),
        },
        order=(Order("id", descending=True),),
    )
)


class SearchDeployments(Search, frozen=True, kw_only=True):
    """What ``deployment.search`` takes; the oldest come first when nothing else is asked."""


class SearchReleases(Search, frozen=True, kw_only=True):
    """What ``release.search`` takes; the newest come first when nothing else is asked.

    Attributes:
        deployment: The deployment whose releases to look at, by name, ref or id.
    """

    deployment: Name | None = None


@query("deployment.search", permission="deployment:read")
def find_deployments(ask: SearchDeployments, view: View) -> DeploymentList:
    """Find deployments by filter and order, a page at a time.

    Raises:
        InvalidInput: ``filter.invalid`` or ``order.invalid``, with the position.
    """
    page = search_rows(view, Deployment, DEPLOYMENTS, ask)
    return DeploymentList(
        items=tuple(view_deployment(view, row) for row in page.rows), next=page.next
    )


@query("release.search", permission="release:read")
def find_releases(ask: SearchReleases, view: View) -> ReleaseList:
    """Find releases by filter and order, a page at a time.

    Raises:
        NotFound: ``deployment.not_found``.
        InvalidInput: ``filter.invalid`` or ``order.invalid``, with the position.
    """
    also: tuple[Filter, ...] = ()
    if ask.deployment is not None:
        also = (Test("deployment", Compare.EQ, get_deployment(view, ask.deployment).id),)
    page = search_rows(view, Release, RELEASES, ask, *also)
    return ReleaseList(items=tuple(view_release(view, row) for row in page.rows), next=page.next)
