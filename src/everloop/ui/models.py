"""Models: the list, one model with its versions and aliases, one version with its evidence."""

from __future__ import annotations

from starlette.responses import Response

from everloop.data.model import DatasetVersion
from everloop.gate.queries import GateList, GateView
from everloop.govern.cards import CardView
from everloop.registry.queries import AliasMoveList, ModelList, ModelVersionList, ModelView
from everloop.release.queries import ReleaseList
from everloop.ui.visit import Visit


def show_list(visit: Visit) -> Response:
    """Show the models of the project."""
    found = visit.query("model.list", ModelList, after=visit.param("after"))
    return visit.show("models.html", models=found)


def show_model(visit: Visit) -> Response:
    """Show a model: its versions, what its gate said of each, where its aliases pointed when."""
    name = visit.path("name")
    versions = visit.get("model.versions", ModelVersionList, name=name, after=visit.param("after"))
    gates = visit.query("gate.list", GateList, model=name, limit=1000)
    judged = {gate.version: gate for gate in reversed(gates.items)} if gates else {}
    history = visit.query("model.alias_history", AliasMoveList, name=name, limit=200)
    return visit.show(
        "model.html",
        name=name,
        versions=versions,
        judged=judged,
        history=history.items if history else (),
        aliases=_current(history) if history else {},
    )


def show_version(visit: Visit) -> Response:
    """Show one version: what it takes and answers, what speaks for it, where it came from."""
    ref = f"{visit.path('name')}@{visit.path('version')}"
    model = visit.get("model.show", ModelView, ref=ref)
    version = model.version
    releases = visit.query("release.list", ReleaseList, limit=200)
    return visit.show(
        "version.html",
        model=model,
        version=version,
        gate=visit.find("gate.show", GateView, ref=version.id),
        card=visit.find("card.show", CardView, ref=version.id),
        training=_data(visit, version.dataset_version),
        holdout=_data(visit, version.holdout),
        releases=[
            item
            for item in (releases.items if releases else ())
            if item.release.candidate == version.id
        ],
    )


def _current(history: AliasMoveList) -> dict[str, str | None]:
    """Return where each alias points now; the moves come newest first."""
    latest: dict[str, str | None] = {}
    for item in history.items:
        latest.setdefault(item.move.alias, item.version)
    return latest


def _data(visit: Visit, version: str | None) -> DatasetVersion | None:
    return visit.find("data.show", DatasetVersion, ref=version) if version else None
