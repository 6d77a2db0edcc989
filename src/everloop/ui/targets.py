"""From a lineage node or ref to the page that shows the thing."""

from __future__ import annotations

from starlette.responses import Response

from everloop.core.ids import is_id
from everloop.data.model import DatasetVersion
from everloop.gate.queries import GateView
from everloop.registry.queries import ModelView
from everloop.release.queries import DeploymentView
from everloop.ui.visit import Visit


def follow(visit: Visit) -> Response:
    """Send the browser to the page of a thing; what has none goes to its lineage."""
    ref = visit.path("ref")
    kind, _, key = ref.partition(":")
    if kind == "run" and is_id(key):
        return visit.redirect("runs", key)
    if kind == "release" and is_id(key):
        return visit.redirect("releases", key)
    if kind == "loop_run" and is_id(key):
        return visit.redirect("loop", key)
    return _follow_named(visit, kind, key) or visit.redirect("lineage", ref=ref)


def _follow_named(visit: Visit, kind: str, key: str) -> Response | None:
    if kind in {"model", "model_version"}:
        model = visit.find("model.show", ModelView, ref=key)
        if model:
            return visit.redirect("models", model.version.name, model.version.version)
    if kind == "gate_report":
        gate = visit.find("gate.show", GateView, ref=key)
        if gate:
            return visit.redirect("models", gate.version.name, gate.version.version)
    if kind in {"dataset", "dataset_version"}:
        data = visit.find("data.show", DatasetVersion, ref=key)
        if data:
            return visit.redirect("datasets", data.name, str(data.number))
    if kind == "deployment":
        deployment = visit.find("deployment.show", DeploymentView, deployment=key)
        if deployment:
            return visit.redirect("deployments", deployment.deployment.name)
    return None
