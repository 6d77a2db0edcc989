"""Questions about runs, their metrics, artifacts and experiments."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from everloop.core.clock import Instant
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.core.search import All, Order, Test
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.track import columns
from everloop.track.inputs import RunInput, RunModel
from everloop.track.model import (
    ArtifactEntry,
    Experiment,
    MetricSummary,
    Run,
    RunCursor,
)
from everloop.track.series import read_for_plot

MAX_HISTORY_POINTS = 100_000
Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
Text = Annotated[str, msgspec.Meta(max_length=300)]


class ShowRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.show`` takes."""

    run: Text


class RunDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.show``.

    Attributes:
        offset: How far the spool that it began with has arrived.
        last_heard: When the last batch came.
        inputs: Data that it read, as its client named it.
        models: Logged models that it read or made.
    """

    run: Run
    experiment: str
    metrics: tuple[MetricSummary, ...]
    artifacts: int
    offset: int
    last_heard: Instant | None
    inputs: tuple[RunInput, ...] = ()
    models: tuple[RunModel, ...] = ()


class ReadHistory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.history`` takes; ``max_points`` 0 asks for as many as one answer may hold."""

    run: Text
    key: Text
    max_points: Annotated[int, msgspec.Meta(ge=0, le=MAX_HISTORY_POINTS)] = 1_000


class RunHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.history``: columns of equal length in step order.

    Attributes:
        times: Seconds since 1970 in UTC.
        values: Numbers; ``NaN``, ``Infinity`` and ``-Infinity`` are texts, for JSON has no such
            numbers.
        count: How many points there are in all.
        sampled: Whether some were left out; extremes never are.
    """

    run: Id
    key: str
    steps: tuple[int, ...]
    times: tuple[float, ...]
    values: tuple[float | str, ...]
    count: int
    sampled: bool


class ListArtifacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.artifacts`` takes."""

    run: Text
    limit: Limit = 100
    after: Text | None = None


class ArtifactList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.artifacts``."""

    items: tuple[ArtifactEntry, ...]
    next: str | None


class CountExperiments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``experiment.counts`` takes: experiments by their ids."""

    experiments: Annotated[tuple[Text, ...], msgspec.Meta(max_length=200)]


class ExperimentCount(msgspec.Struct, frozen=True, kw_only=True):
    """How much an experiment holds.

    Attributes:
        runs: How many runs it has that are not in the trash.
        last_started_at: When the newest of them began; None without any.
    """

    experiment: Id
    runs: int
    last_started_at: Instant | None


class ExperimentCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``experiment.counts``, in the order of the question."""

    items: tuple[ExperimentCount, ...]


@query("run.show", permission="run:read")
def show_run(ask: ShowRun, view: View) -> RunDetails:
    """Show one run with the summary of each of its metrics.

    Raises:
        NotFound: ``run.not_found``.
    """
    run = view.get(Run, Id(ask.run.removeprefix("run:")))
    cursors = view.select(RunCursor, *where(run=run.id))
    return RunDetails(
        run=run,
        experiment=view.get(Experiment, run.experiment).name,
        metrics=tuple(view.select(MetricSummary, *where(run=run.id), order="key")),
        artifacts=view.count(ArtifactEntry, *where(run=run.id)),
        offset=next((cursor.offset for cursor in cursors if not cursor.spool), 0),
        last_heard=max((cursor.at for cursor in cursors), default=None),
        inputs=tuple(view.select(RunInput, *where(run=run.id))),
        models=tuple(view.select(RunModel, *where(run=run.id))),
    )


@query("run.history", permission="run:read")
def read_history(ask: ReadHistory, view: View) -> RunHistory:
    """Return the points of one metric, thinned out so that extremes stay.

    Raises:
        NotFound: ``run.not_found`` or ``metric.not_found``.
        InvalidInput: ``metric.max_points_invalid``.
    """
    run = view.get(Run, Id(ask.run.removeprefix("run:")))
    if not 0 <= ask.max_points <= MAX_HISTORY_POINTS:
        raise InvalidInput(
            "metric.max_points_invalid",
            f"{ask.max_points} points cannot be asked for.",
            hint=f"Ask for 1 to {MAX_HISTORY_POINTS} points.",
        )
    summary = view.first(MetricSummary, *where(run=run.id, key=ask.key))
    if summary is None:
        raise NotFound(
            "metric.not_found",
            f"Run {run.id} has no metric {ask.key[:60]!r}.",
            hint="`everloop runs show` lists the metrics of a run.",
        )
    most = ask.max_points or MAX_HISTORY_POINTS
    points = read_for_plot(view, summary, most)
    shown = columns.downsample(points, most)
    return RunHistory(
        run=run.id,
        key=ask.key,
        steps=tuple(shown.steps.tolist()),
        times=tuple((shown.times_us / 1e6).tolist()),
        values=tuple(_to_json(value) for value in shown.values.tolist()),
        count=summary.count,
        sampled=len(shown.steps) < summary.count,
    )


def _to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


@query("run.artifacts", permission="run:read")
def list_artifacts(ask: ListArtifacts, view: View) -> ArtifactList:
    """List the files that a run kept, in the order in which they came.

    Raises:
        NotFound: ``run.not_found``.
    """
    run = view.get(Run, Id(ask.run.removeprefix("run:")))
    later = () if ask.after is None else (Condition("id", Compare.GT, ask.after),)
    size = page_size(ask.limit)
    found = view.select(ArtifactEntry, *where(run=run.id), *later, limit=size + 1)
    page = found[:size]
    return ArtifactList(items=tuple(page), next=page[-1].id if len(found) > size else None)


@query("experiment.counts", permission="run:read")
def count_experiments(ask: CountExperiments, view: View) -> ExperimentCounts:
    """Tell how many runs experiments have, which costs a look at each run.

    Raises:
        NotFound: ``experiment.not_found``.
    """
    return ExperimentCounts(items=tuple(_count(view, Id(key)) for key in ask.experiments))


def _count(view: View, key: Id) -> ExperimentCount:
    view.get(Experiment, key)
    active = All((Test("experiment", Compare.EQ, key), Test("deleted_at", Compare.EQ, None)))
    newest = view.search(Run, active, order=(Order("started_at", descending=True),), limit=1)
    return ExperimentCount(
        experiment=key,
        runs=view.count(Run, *where(experiment=key, deleted_at=None)),
        last_started_at=newest.rows[0].started_at if newest.rows else None,
    )


def page_size(limit: int) -> int:
    """Return the limit kept within what one answer may hold."""
    return min(max(limit, 1), 1_000)
