"""Reads the logged models of MLflow 3, which a run writes before anybody registers them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from everloop.interop.importers.mlflow_files import Locator
from everloop.interop.importers.source import SourceFile, SourceLoggedModel, SourceMeasured
from everloop.interop.importers.times import UNKNOWN, at_ms
from everloop.registry.logged import LoggedStatus

Ask = Callable[..., Sequence[Sequence[Any]]]
NUMBERS = {1: LoggedStatus.PENDING, 2: LoggedStatus.READY, 3: LoggedStatus.FAILED}
NAMES = {
    "LOGGED_MODEL_PENDING": LoggedStatus.PENDING,
    "LOGGED_MODEL_READY": LoggedStatus.READY,
    "LOGGED_MODEL_UPLOAD_FAILED": LoggedStatus.FAILED,
}


def read_logged_models(ask: Ask, locate: Locator) -> list[SourceLoggedModel]:
    """Return the logged models of an MLflow database, the oldest first."""
    params = _texts(ask("SELECT model_id, param_key, param_value FROM logged_model_params"))
    tags = _texts(ask("SELECT model_id, tag_key, tag_value FROM logged_model_tags"))
    metrics: dict[str, list[SourceMeasured]] = {}
    for model, run, key, value, step, at, name, digest in ask(
        "SELECT model_id, run_id, metric_name, metric_value, metric_step, metric_timestamp_ms,"
        " dataset_name, dataset_digest FROM logged_model_metrics"
        " ORDER BY model_id, metric_timestamp_ms, metric_step"
    ):
        text = "nan" if value is None else repr(float(value))
        measured = SourceMeasured(
            run, key, text, step or 0, (at or 0) * 1_000, name or "", digest or ""
        )
        metrics.setdefault(model, []).append(measured)
    return [
        SourceLoggedModel(
            id=model,
            experiment=experiment,
            run=run or None,
            name=name,
            kind=kind or "",
            status=NUMBERS.get(status, LoggedStatus.FAILED),
            created_at=at_ms(made) or UNKNOWN,
            params=params.get(model, {}),
            tags=tags.get(model, {}),
            metrics=tuple(metrics.get(model, ())),
            files=partial(locate.files, place),
            is_deleted="deleted" in {stage, above},
        )
        for model, experiment, run, name, kind, status, made, place, stage, above in ask(
            "SELECT m.model_id, e.name, m.source_run_id, m.name, m.model_type, m.status,"
            " m.creation_timestamp_ms, m.artifact_location, m.lifecycle_stage, e.lifecycle_stage"
            " FROM logged_models m JOIN experiments e ON e.experiment_id = m.experiment_id"
            " ORDER BY m.creation_timestamp_ms, m.model_id"
        )
    ]


def to_logged_model(
    item: Mapping[str, Any], experiment: str, files: Callable[[str], Iterable[SourceFile]]
) -> SourceLoggedModel:
    """Return a logged model as MLflow's server tells of it."""
    info, data = item["info"], item.get("data", {})
    return SourceLoggedModel(
        id=info["model_id"],
        experiment=experiment,
        run=info.get("source_run_id") or None,
        name=str(info.get("name") or info["model_id"]),
        kind=str(info.get("model_type") or ""),
        status=NAMES.get(str(info.get("status")), LoggedStatus.FAILED),
        created_at=at_ms(int(info.get("creation_timestamp_ms") or 0)) or UNKNOWN,
        params=_pairs(data.get("params")),
        tags=_pairs(info.get("tags")),
        metrics=tuple(
            SourceMeasured(
                metric.get("run_id"),
                metric["key"],
                repr(float(metric["value"])) if metric.get("value") is not None else "nan",
                int(metric.get("step") or 0),
                int(metric.get("timestamp") or 0) * 1_000,
                str(metric.get("dataset_name") or ""),
                str(metric.get("dataset_digest") or ""),
            )
            for metric in data.get("metrics") or ()
        ),
        files=partial(files, str(info.get("artifact_uri") or "")),
    )


def _texts(rows: Sequence[Sequence[Any]]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for model, key, value in rows:
        found.setdefault(model, {})[key] = value or ""
    return found


def _pairs(items: Any) -> dict[str, str]:
    return {str(item["key"]): str(item.get("value") or "") for item in items or ()}
