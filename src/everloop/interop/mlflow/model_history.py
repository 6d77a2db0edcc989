"""The tag ``mlflow.log-model.history``, by which clients before 3.0 list the models of a run."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import msgspec

from everloop.core.errors import InvalidInput
from everloop.interop.mlflow.routing import Context, Json, Route
from everloop.interop.mlflow.runs import ById, set_tags
from everloop.track.limits import MAX_TAG_CHARS
from everloop.track.queries import RunDetails, ShowRun

TAG: Final = "mlflow.log-model.history"
_KEPT: Final = ("run_id", "artifact_path", "utc_time_created", "model_uuid")
_NEEDED: Final = frozenset({"run_id", "artifact_path", "utc_time_created", "flavors"})


class LogModel(ById, frozen=True, kw_only=True):
    """Body of ``runs/log-model``: what stands in the model's ``MLmodel``, as JSON."""

    model_json: Annotated[str, msgspec.Meta(max_length=1_000_000)]


def log_model(context: Context, ask: LogModel) -> Json:
    """Add a model to the tag of its run; the oldest make room when the tag is full."""
    known = context.perform("run.show", ShowRun(run=ask.run), RunDetails).run.tags.get(TAG)
    told = [*_read_list(known), _shorten(_read_model(ask.model_json))]
    while len(json.dumps(told)) > MAX_TAG_CHARS and len(told) > 1:
        del told[0]
    set_tags(context, ask.run, {TAG: json.dumps(told)})
    return {}


def _read_list(text: str | None) -> list[Any]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []  # somebody set the tag by hand
    return found if isinstance(found, list) else []


def _read_model(text: str) -> dict[str, Any]:
    try:
        model = json.loads(text)
    except (ValueError, RecursionError):
        model = None
    if not isinstance(model, dict) or not model.keys() >= _NEEDED:
        raise InvalidInput(
            "model.json_invalid",
            f"model_json is no JSON object with {', '.join(sorted(_NEEDED))}.",
            hint="Send what stands in the model's MLmodel.",
        )
    return model


def _shorten(model: dict[str, Any]) -> dict[str, Any]:
    flavors = model["flavors"] if isinstance(model["flavors"], dict) else {}
    return {name: model[name] for name in _KEPT if name in model} | {
        "flavors": {
            name: {key: value for key, value in told.items() if key != "config"}
            if isinstance(told, dict)
            else told
            for name, told in flavors.items()
        }
    }


ROUTES = (Route("POST", "2.0/mlflow/runs/log-model", log_model),)
