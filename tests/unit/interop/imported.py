"""A world that something was imported into, and what it holds as a flat value to compare."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

from everloop.interop.importers.loading import Importer, Options
from everloop.interop.importers.report import Report
from everloop.track.queries import (
    ArtifactList,
    ListArtifacts,
    ReadHistory,
    RunDetails,
    RunHistory,
    ShowRun,
)
from everloop.track.search import FoundRuns, SearchRuns
from tests.kit import World, world

VECTORS = Path(__file__).parents[2] / "vectors" / "mlflow"
VERSIONS_WITH_ALL = "v3"
WORDS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "running": "RUNNING"}


def make_database(version: str, folder: Path) -> str:
    """Make the recorded MLflow database in a folder; return its address."""
    shutil.copytree(VECTORS / version / "files", folder / "mlruns")
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.executescript((VECTORS / version / "dump.sql").read_text())
    database.close()
    return f"sqlite:///{folder / 'mlflow.db'}"


def a_world() -> World:
    made = world()
    made.clock.push(days=365 * 50)  # later than whatever was recorded
    return made


def bring_in(place: World, source: Any, **options: Any) -> Report:
    return Importer(place.owner, source, Options(**options)).run()


def runs_by_origin(place: World) -> dict[str, RunDetails]:
    page = place.owner.perform("run.search", SearchRuns(limit=1000), FoundRuns)
    details = [
        place.owner.perform("run.show", ShowRun(run=row.id), RunDetails) for row in page.items
    ]
    return {found.run.tags["imported.from"].partition(":")[2]: found for found in details}


def as_mlflow_says(place: World, found: RunDetails) -> dict[str, Any]:
    """Return a run in the words in which MLflow's client was recorded."""
    run = found.run
    tags = {key: value for key, value in run.tags.items() if key != "imported.from"}
    return {
        "name": run.name,
        "status": WORDS[run.status],
        "start_time": round(run.started_at.timestamp() * 1000),
        "end_time": run.ended_at and round(run.ended_at.timestamp() * 1000),
        "lifecycle_stage": "active" if run.deleted_at is None else "deleted",
        "params": run.params,
        "tags": tags,
        "last": {metric.key: metric.last_text for metric in found.metrics},
        "history": {metric.key: history(place, run.id, metric.key) for metric in found.metrics},
    }


def history(place: World, run: str, key: str) -> list[list[Any]]:
    ask = ReadHistory(run=run, key=key, max_points=0)
    points = place.owner.perform("run.history", ask, RunHistory)
    return [
        [step, round(time * 1000), repr(float(value))]
        for step, time, value in zip(points.steps, points.times, points.values, strict=True)
    ]


def files_of(place: World, run: str) -> dict[str, bytes]:
    page = place.owner.perform("run.artifacts", ListArtifacts(run=run), ArtifactList)
    return {item.path: place.blobs.get(item.digest) for item in page.items}
