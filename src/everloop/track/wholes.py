"""Whole runs for the clients of another tracker: each with its metrics, inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec

from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.track.inputs import RunInput, RunModel
from everloop.track.model import Experiment, MetricSummary, Run
from everloop.track.search import Deleted, search_experiments, search_runs

MAX_PAGE = 50_000
MANY = 500
Text = Annotated[str, msgspec.Meta(max_length=10_000)]
Cursor = Annotated[str, msgspec.Meta(max_length=20_000)]
T = TypeVar("T", RunInput, RunModel)
_POINT = ("run", "key", "last_text", "last_time_us", "last_step")


class LastPoint(msgspec.Struct, frozen=True, gc=False):
    """The last point of a metric; fields as in ``MetricSummary``."""

    key: str
    last_text: str
    last_time_us: int
    last_step: int


class WholeRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run with all that is shown of it."""

    run: Run
    metrics: tuple[LastPoint, ...]
    inputs: tuple[RunInput, ...]
    models: tuple[RunModel, ...]


class ReadRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.whole`` takes."""

    run: Annotated[str, msgspec.Meta(max_length=300)]


class FetchRuns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.fetch`` takes: experiments by their ids, filter and order as text."""

    experiments: Annotated[tuple[str, ...], msgspec.Meta(max_length=10_000)]
    filter: Text = ""
    order: Annotated[tuple[Text, ...], msgspec.Meta(max_length=100)] = ()
    deleted: Deleted = Deleted.ACTIVE
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 1_000
    after: Cursor | None = None


class WholeRuns(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.fetch``."""

    items: tuple[WholeRun, ...]
    next: str | None


class FetchExperiments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``experiment.fetch`` takes."""

    filter: Text = ""
    order: Annotated[tuple[Text, ...], msgspec.Meta(max_length=100)] = ()
    deleted: Deleted = Deleted.ACTIVE
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 1_000
    after: Cursor | None = None


class WholeExperiments(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``experiment.fetch``."""

    items: tuple[Experiment, ...]
    next: str | None


@query("run.whole", permission="run:read")
def read_whole(ask: ReadRun, view: View) -> WholeRun:
    """Return one run with its metrics, inputs and outputs.

    Raises:
        NotFound: ``run.not_found``.
    """
    return _wholes(view, [view.get(Run, Id(ask.run))])[0]


@query("run.fetch", permission="run:read")
def fetch_runs(ask: FetchRuns, view: View) -> WholeRuns:
    """Search runs and return them whole, as MLflow's clients expect it.

    Raises:
        InvalidInput: ``filter.invalid``, ``order.invalid`` or ``query.cursor_invalid``.
    """
    page = search_runs(
        view,
        ask.experiments,
        ask.filter,
        ask.order,
        limit=ask.limit,
        after=ask.after,
        deleted=ask.deleted,
    )
    return WholeRuns(items=tuple(_wholes(view, page.rows)), next=page.next)


@query("experiment.fetch", permission="run:read")
def fetch_experiments(ask: FetchExperiments, view: View) -> WholeExperiments:
    """Search experiments as MLflow's clients expect it.

    Raises:
        InvalidInput: ``filter.invalid``, ``order.invalid`` or ``query.cursor_invalid``.
    """
    page = search_experiments(
        view, ask.filter, ask.order, limit=ask.limit, after=ask.after, deleted=ask.deleted
    )
    return WholeExperiments(items=tuple(page.rows), next=page.next)


def _wholes(view: View, runs: Sequence[Run]) -> list[WholeRun]:
    ids = [run.id for run in runs]
    metrics = _last_points(view, ids)
    inputs = _of_runs(view, RunInput, ids)
    models = _of_runs(view, RunModel, ids)
    return [
        WholeRun(
            run=run,
            metrics=tuple(metrics.get(run.id, ())),
            inputs=tuple(inputs.get(run.id, ())),
            models=tuple(models.get(run.id, ())),
        )
        for run in runs
    ]


def _last_points(view: View, ids: list[Id]) -> dict[Id, list[LastPoint]]:
    found: dict[Id, list[LastPoint]] = {key: [] for key in ids}
    for start in range(0, len(ids), MANY):
        part = Condition("run", Compare.IN, tuple(ids[start : start + MANY]))
        for run, *point in view.values(MetricSummary, _POINT, part):
            found[run].append(LastPoint(*point))  # type: ignore[index, arg-type]
    return found


def _of_runs(view: View, kind: type[T], ids: list[Id]) -> dict[Id, list[T]]:
    found: dict[Id, list[T]] = {}
    # A statement has so many variables, and no more.
    for start in range(0, len(ids), MANY):
        part = tuple(ids[start : start + MANY])
        for row in view.select(kind, Condition("run", Compare.IN, part)):
            found.setdefault(row.run, []).append(row)
    return found
