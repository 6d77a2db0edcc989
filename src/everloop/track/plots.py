"""The lines of charts: many metrics of many runs in one answer, thinned out to what is drawn.

A page that follows runs asks again with what it has: then only newer points come, and a line whose
older points changed meanwhile comes whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Final

import msgspec
import numpy as np

from everloop.core.clock import Instant
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.track import columns
from everloop.track.columns import Columns, Floats
from everloop.track.model import MetricSummary, Run, RunStatus
from everloop.track.series import read_for_plot, read_series

MAX_RUNS: Final = 100
MAX_KEYS: Final = 40
MAX_LINES: Final = 1_000
MAX_POINTS: Final = 4_000
Text = Annotated[str, msgspec.Meta(max_length=300)]
Number = int | float


class Axis(StrEnum):
    """What the x axis counts: steps, seconds since 1970, or seconds since the run began."""

    STEP = "step"
    TIME = "time"
    RELATIVE = "relative"


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the caller has of a line: its greatest step, and how many points there were."""

    run: Text
    key: Text
    step: int
    count: int


class Plot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.plot`` takes.

    Attributes:
        runs: Whose metrics; those that are gone are left out.
        keys: Which metrics; none asks for the names alone.
        points: The most for each line.
        first: Where the part to draw begins on the x axis; a neighbour outside comes too.
        last: Where it ends.
        known: Lines of which only what is newer is wanted.
    """

    runs: Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_RUNS)]
    keys: Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_KEYS)] = ()
    axis: Axis = Axis.STEP
    points: Annotated[int, msgspec.Meta(ge=10, le=MAX_POINTS)] = 400
    first: Number | None = None
    last: Number | None = None
    known: Annotated[tuple[Known, ...], msgspec.Meta(max_length=MAX_LINES)] = ()


class PlotRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose lines are drawn."""

    id: Id
    name: str
    status: RunStatus
    started_at: Instant


class PlotLine(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one run.

    Attributes:
        x: In the unit of the axis, ascending.
        y: ``NaN``, ``Infinity`` and ``-Infinity`` are texts, for JSON has no such numbers.
        step: Greatest step of all points, drawn or not.
        count: How many points there are in all.
        is_whole: False when the line only goes on from what the caller has.
    """

    run: Id
    key: str
    x: tuple[Number, ...]
    y: tuple[float | str, ...]
    step: int
    count: int
    is_whole: bool


class PlotLines(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.plot``.

    Attributes:
        keys: Names of all metrics of the runs that have more than one point.
    """

    runs: tuple[PlotRun, ...]
    keys: tuple[str, ...]
    lines: tuple[PlotLine, ...]


@query("run.plot", permission="run:read")
def plot_runs(ask: Plot, view: View) -> PlotLines:
    """Return the lines of metrics of runs, each thinned out so that extremes stay."""
    found = {run.id: run for run in _runs(view, ask.runs)}
    runs = [found[Id(key)] for key in dict.fromkeys(ask.runs) if key in found]
    summaries = {(row.run, row.key): row for row in _summaries(view, [run.id for run in runs])}
    known = {(mark.run, mark.key): mark for mark in ask.known}
    lines = [
        line
        for key in dict.fromkeys(ask.keys)
        for run in runs
        if (run.id, key) in summaries
        for line in [_line(view, ask, run, summaries[run.id, key], known)]
        if line is not None
    ]
    return PlotLines(
        runs=tuple(
            PlotRun(id=run.id, name=run.name, status=run.status, started_at=run.started_at)
            for run in runs
        ),
        keys=tuple(sorted({row.key for row in summaries.values() if row.count > 1})),
        lines=tuple(lines[:MAX_LINES]),
    )


def _runs(view: View, ids: Iterable[str]) -> list[Run]:
    return view.select(Run, Condition("id", Compare.IN, tuple(dict.fromkeys(ids))))


def _summaries(view: View, runs: list[Id]) -> list[MetricSummary]:
    return view.select(MetricSummary, Condition("run", Compare.IN, tuple(runs))) if runs else []


def _line(
    view: View,
    ask: Plot,
    run: Run,
    summary: MetricSummary,
    known: Mapping[tuple[str, str], Known],
) -> PlotLine | None:
    """Return what the caller lacks of a line, None for nothing."""
    mark = known.get((run.id, summary.key))
    if mark is not None and mark.count == summary.count:
        return None
    is_zoomed = ask.first is not None or ask.last is not None
    read = (
        read_series(view, run.id, summary.key)
        if is_zoomed
        else (read_for_plot(view, summary, ask.points))
    )
    points = _in_order(read)
    count = summary.count
    # Of a line that was thinned out already nobody knows which points are new.
    is_thin = len(points.steps) < count
    newer = None if mark is None or is_thin else points.steps > mark.step
    is_whole = newer is None or mark is None or count - int(newer.sum()) != mark.count
    if newer is not None and not is_whole:
        points = Columns(points.steps[newer], points.times_us[newer], points.values[newer])
    axis = _positions(points, ask.axis, run)
    shown = columns.downsample(_cut(points, axis, ask), ask.points)
    drawn = _positions(shown, ask.axis, run)
    order = np.argsort(drawn, kind="stable")  # a later step may have an earlier time
    return PlotLine(
        run=run.id,
        key=summary.key,
        x=tuple(drawn[order].tolist()),
        y=tuple(to_json(value) for value in shown.values[order].tolist()),
        step=summary.last_step,
        count=count,
        is_whole=is_whole,
    )


def _in_order(points: Columns) -> Columns:
    if bool((np.diff(points.steps) >= 0).all()):
        return points
    order = np.argsort(points.steps, kind="stable")
    return Columns(points.steps[order], points.times_us[order], points.values[order])


def _positions(points: Columns, axis: Axis, run: Run) -> Floats | columns.Ints:
    if axis is Axis.STEP:
        return points.steps
    seconds: Floats = points.times_us / 1e6
    if axis is Axis.TIME:
        return np.round(seconds, 3)
    return np.round(seconds - run.started_at.timestamp(), 3)


def _cut(points: Columns, axis: Floats | columns.Ints, ask: Plot) -> Columns:
    """Return the part between first and last, with one neighbour on each side."""
    if ask.first is None and ask.last is None:
        return points
    inside = np.ones(len(axis), dtype=bool)
    if ask.first is not None:
        inside &= axis >= ask.first
    if ask.last is not None:
        inside &= axis <= ask.last
    at = np.flatnonzero(inside)
    part = slice(max(int(at[0]) - 1, 0), int(at[-1]) + 2) if at.size else slice(0, 0)
    return Columns(points.steps[part], points.times_us[part], points.values[part])


def to_json(value: float) -> float | str:
    """Return a number as JSON can hold it."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
