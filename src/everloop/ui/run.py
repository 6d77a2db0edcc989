"""One run: what it was given, what it measured, what it ran in; its name, note and tags edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from everloop.core.errors import Denied
from everloop.core.ids import Id
from everloop.data.model import DatasetVersion
from everloop.data.search import FoundDatasets
from everloop.pipeline.queries import StepList
from everloop.registry.logged_queries import LoggedModelList, LoggedModelView
from everloop.registry.model import ModelVersion
from everloop.registry.search import FoundVersions
from everloop.track.model import MetricSummary
from everloop.track.queries import RunDetails
from everloop.track.search import FoundRuns
from everloop.ui.environment import environment_rows, read_environment, read_patch
from everloop.ui.visit import Visit

NOTE: Final = "mlflow.note.content"
SYSTEM: Final = "system/"
# Tags that MLflow's clients write for their own pages; what they say stands elsewhere on ours.
HOUSEKEEPING: Final = ("mlflow.", "everloop.")


@dataclass(frozen=True, slots=True)
class Tab:
    """One part of a run's page."""

    key: str
    label: str
    count: int | None = None


def show(visit: Visit) -> Response:
    """Show the overview of a run."""
    details, frame = _frame(visit, "")
    run = details.run
    own = [metric for metric in details.metrics if not metric.key.startswith(SYSTEM)]
    tags = {key: text for key, text in run.tags.items() if not key.startswith(HOUSEKEEPING)}
    return visit.show(
        "run.html",
        **frame,
        metrics=own,
        drawn=_drawn(own),
        note=run.tags.get(NOTE, ""),
        tags=tags,
        hidden_tags={key: run.tags[key] for key in run.tags.keys() - tags.keys() - {NOTE}},
        steps=visit.query("step.list", StepList, run=run.id, limit=200),
        children=visit.query("run.search", FoundRuns, filter=f"parent = '{run.id}'", limit=100),
        versions=_versions(visit, run.id),
        data=_data(visit, run.id),
        logged=_logged(visit, details),
    )


def show_system(visit: Visit) -> Response:
    """Show what the machine did while the run went on."""
    details, frame = _frame(visit, "system")
    found = [metric for metric in details.metrics if metric.key.startswith(SYSTEM)]
    return visit.show("run_system.html", **frame, metrics=found, drawn=_drawn(found))


def show_environment(visit: Visit) -> Response:
    """Show the code, machine, command and packages of a run."""
    details, frame = _frame(visit, "environment")
    found = read_environment(visit, details.run)
    return visit.show(
        "run_environment.html",
        **frame,
        environment=found,
        rows=environment_rows(found),
        patch=read_patch(visit, details.run),
        packages=[package.partition("==")[::2] for package in found.packages] if found else [],
    )


def run_frame(visit: Visit, part: str) -> dict[str, object]:
    """Return what the head of every page of a run shows."""
    return _frame(visit, part)[1]


def rename(visit: Visit) -> Response:
    """Give the run another name."""
    return _edited(visit, "run.update", name=visit.form.get("name", "").strip())


def write_note(visit: Visit) -> Response:
    """Write the run's note; an empty one takes it away."""
    return _edited(visit, "run.update", tags={NOTE: visit.prose("note")})


def set_tag(visit: Visit) -> Response:
    """Set a tag."""
    return _edited(visit, "run.update", tags=visit.tag())


def take_tag(visit: Visit) -> Response:
    """Take a tag away."""
    return _edited(visit, "run.untag", key=visit.form.get("key", ""))


def delete(visit: Visit) -> Response:
    """Put the run into the trash."""
    return _edited(visit, "run.delete")


def restore(visit: Visit) -> Response:
    """Take the run out of the trash."""
    return _edited(visit, "run.restore")


def _edited(visit: Visit, verb: str, **fields: object) -> Response:
    run = visit.path("run")
    visit.edit(verb, run=run, **fields)
    return visit.redirect("runs", run)


def _frame(visit: Visit, part: str) -> tuple[RunDetails, dict[str, object]]:
    details = visit.get("run.show", RunDetails, run=visit.path("run"))
    has_system = any(metric.key.startswith(SYSTEM) for metric in details.metrics)
    tabs = [
        Tab("", "Overview"),
        Tab("files", "Files", details.artifacts),
        *([Tab("system", "System")] if has_system else []),
        Tab("environment", "Environment"),
    ]
    return details, {"details": details, "run": details.run, "tabs": tabs, "part": part}


def _drawn(metrics: Sequence[MetricSummary]) -> bool:
    return any(metric.count > 1 for metric in metrics)


def _data(visit: Visit, run: Id) -> Sequence[DatasetVersion]:
    """Return the dataset versions of ours that the run read."""
    try:
        found = visit.get("dataset.search", FoundDatasets, filter=f"run = '{run}'", limit=20)
    except Denied:
        return ()
    return found.items


def _logged(visit: Visit, details: RunDetails) -> dict[str, LoggedModelView]:
    """Return the logged models that the run made or read, by id."""
    if not details.models:
        return {}
    try:
        made = visit.get("logged_model.list", LoggedModelList, run=details.run.id, limit=100)
    except Denied:
        return {}
    return {item.model.id: item for item in made.items}


def _versions(visit: Visit, run: Id) -> list[ModelVersion]:
    try:
        found = visit.get("version.search", FoundVersions, filter=f"run = '{run}'", limit=20)
    except Denied:
        return []
    return [item.version for item in found.items]
