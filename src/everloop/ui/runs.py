"""Runs: the list with its filters, one run with its charts, and several side by side."""

from __future__ import annotations

import math
from typing import Final

from starlette.responses import Response

from everloop.core.errors import InvalidInput
from everloop.pipeline.queries import StepList
from everloop.track.model import RunStatus
from everloop.track.queries import (
    ArtifactList,
    ExperimentList,
    RunDetails,
    RunHistory,
    RunList,
)
from everloop.ui.charts import Line, Series, send
from everloop.ui.visit import Visit

MOST_COLUMNS: Final = 6
MOST_COMPARED: Final = 8
MOST_CHARTS: Final = 12
POINTS: Final = 600


def show_list(visit: Visit) -> Response:
    """Show the runs that a filter lets through."""
    status = visit.param("status")
    experiment = visit.param("experiment")
    found = visit.query(
        "run.list",
        RunList,
        experiment=experiment,
        status=status,
        pipeline=visit.param("pipeline"),
        after=visit.param("after"),
        limit=50,
    )
    experiments = visit.query("experiment.list", ExperimentList, limit=200)
    return visit.show(
        "runs.html",
        runs=found,
        experiments=experiments.items if experiments else (),
        statuses=tuple(RunStatus),
        status=status,
        experiment=experiment,
        columns=_common_keys(found) if found else (),
    )


def show_run(visit: Visit) -> Response:
    """Show one run: what it was given, what it measured, what it kept."""
    run = visit.path("run")
    details = visit.get("run.show", RunDetails, run=run)
    return visit.show(
        "run.html",
        details=details,
        run=details.run,
        artifacts=visit.query("run.artifacts", ArtifactList, run=run, limit=200),
        steps=visit.query("step.list", StepList, run=run, limit=200),
        children=visit.query("run.list", RunList, parent=details.run.id, limit=50),
    )


def send_series(visit: Visit) -> Response:
    """Send the points of one metric."""
    history = visit.get(
        "run.history",
        RunHistory,
        run=visit.path("run"),
        key=visit.param("key") or "",
        max_points=POINTS,
    )
    note = f"{len(history.steps)} of {history.count} points; extremes are kept"
    return send(
        Series(
            x=tuple(float(step) for step in history.steps),
            lines=(Line(label=history.key, values=_drawable(history)),),
            note=note if history.sampled else "",
        )
    )


def compare(visit: Visit) -> Response:
    """Show several runs side by side, with what differs between them first."""
    chosen = _chosen(visit)
    if len(chosen) < 2:
        raise InvalidInput(
            "compare.too_few",
            "Two runs at least can be compared.",
            hint="Tick them in the list of runs.",
        )
    details = [visit.get("run.show", RunDetails, run=run) for run in chosen]
    charted = {m.key for item in details for m in item.metrics if m.count > 1}
    return visit.show(
        "compare.html",
        chosen=chosen,
        charted=sorted(charted)[:MOST_CHARTS],
        runs=details,
        given=_rows([item.run.params for item in details]),
        measured=_rows([{m.key: m.last_text for m in item.metrics} for item in details]),
    )


def send_compared(visit: Visit) -> Response:
    """Send the points of one metric of several runs, as one chart."""
    key = visit.param("key") or ""
    histories = [
        (
            details.run.name,
            visit.find("run.history", RunHistory, run=run, key=key, max_points=POINTS),
        )
        for run in _chosen(visit)
        for details in [visit.get("run.show", RunDetails, run=run)]
    ]
    known = [(name, history) for name, history in histories if history is not None]
    steps = sorted({step for _, history in known for step in history.steps})
    lines = []
    for name, history in known:
        at = dict(zip(history.steps, _drawable(history), strict=True))
        lines.append(Line(label=name, values=tuple(at.get(step) for step in steps)))
    return send(Series(x=tuple(float(step) for step in steps), lines=tuple(lines)))


def _chosen(visit: Visit) -> list[str]:
    return list(dict.fromkeys(visit.request.query_params.getlist("run")))[:MOST_COMPARED]


def _rows(columns: list[dict[str, str]]) -> list[tuple[str, list[str | None], bool]]:
    """Return name, values and whether they differ; differing rows first."""
    names = sorted({name for column in columns for name in column})
    rows = [(name, [column.get(name) for column in columns]) for name in names]
    marked = [(name, values, len(set(values)) > 1) for name, values in rows]
    return sorted(marked, key=lambda row: not row[2])


def _common_keys(found: RunList) -> tuple[str, ...]:
    """Return the metrics that most of the runs have."""
    counts: dict[str, int] = {}
    for run in found.items:
        for key in run.metrics:
            counts[key] = counts.get(key, 0) + 1
    ranked = sorted(counts, key=lambda key: (-counts[key], key))
    return tuple(ranked[:MOST_COLUMNS])


def _drawable(history: RunHistory) -> tuple[float | None, ...]:
    return tuple(
        value if isinstance(value, float | int) and math.isfinite(value) else None
        for value in history.values
    )
