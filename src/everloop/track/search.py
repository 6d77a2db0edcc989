"""The searches for runs and experiments, and those of MLflow's clients among them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import msgspec

from everloop.core.clock import Instant
from everloop.core.filter.joins import one_of
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition
from everloop.core.search import Filter, Page, Test
from everloop.kernel.searching import (
    LENIENT_LONGEST,
    Search,
    scene_of,
    search_rows,
    search_text,
)
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.track.model import Experiment, MetricSummary, Run, RunStatus
from everloop.track.vocabulary import EXPERIMENTS, RUNS

Name = Annotated[str, msgspec.Meta(max_length=500)]


class Deleted(StrEnum):
    """Which rows count: those in use, those in the trash, or both."""

    ACTIVE = "active"
    DELETED = "deleted"
    ALL = "all"


class SearchRuns(Search, frozen=True, kw_only=True):
    """What ``run.search`` takes; the newest runs come first when nothing else is asked.

    Attributes:
        experiment: Names or ids of experiments; runs of all of them when empty.
        status: How the runs stand; any when left out.
        pipeline: The pipeline that the runs execute.
        fields: Which metrics the answer holds: ``metrics`` for all, ``metrics.auc`` for one; none
            when empty, for lists are faster without.
        deleted: Whether runs in the trash count.
    """

    experiment: Annotated[tuple[Name, ...], msgspec.Meta(max_length=1_000)] = ()
    status: RunStatus | None = None
    pipeline: Name | None = None
    fields: Annotated[tuple[Name, ...], msgspec.Meta(max_length=200)] = ()
    deleted: Deleted = Deleted.ACTIVE


class FoundRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run that a search found.

    Attributes:
        experiment: The experiment's name.
        seconds: How long it ran; None while it runs.
        metrics: The exact last values, as texts, of the metrics that were asked for.
    """

    id: Id
    name: str
    experiment: str
    pipeline: str | None
    status: RunStatus
    started_at: Instant
    ended_at: Instant | None
    seconds: float | None
    created_by: str
    parent: Id | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, str]
    error: str | None
    deleted_at: Instant | None


class FoundRuns(msgspec.Struct, frozen=True, kw_only=True):
    """One page of runs; ``next`` is the cursor of the page after it."""

    items: tuple[FoundRun, ...]
    next: str | None


class SearchExperiments(Search, frozen=True, kw_only=True):
    """What ``experiment.search`` takes.

    Attributes:
        deleted: Whether experiments in the trash count.
    """

    deleted: Deleted = Deleted.ACTIVE


class FoundExperiments(msgspec.Struct, frozen=True, kw_only=True):
    """One page of experiments; ``next`` is the cursor of the page after it."""

    items: tuple[Experiment, ...]
    next: str | None


@query("run.search", permission="run:read")
def find_runs(ask: SearchRuns, view: View) -> FoundRuns:
    """Find runs by filter and order, a page at a time.

    Raises:
        InvalidInput: ``filter.invalid`` or ``order.invalid``, with the position.
    """
    also = [*_state(ask.deleted), *_in_experiments(view, ask.experiment)]
    if ask.status is not None:
        also.append(Test("status", Compare.EQ, ask.status))
    if ask.pipeline is not None:
        also.append(Test("pipeline", Compare.EQ, ask.pipeline))
    page = search_rows(view, Run, RUNS, ask, *also)
    metrics = metrics_of(view, [run.id for run in page.rows], ask.fields)
    names = _names(view, {run.experiment for run in page.rows})
    return FoundRuns(
        items=tuple(
            _to_found(run, names.get(run.experiment, ""), metrics.get(run.id, {}))
            for run in page.rows
        ),
        next=page.next,
    )


@query("experiment.search", permission="run:read")
def find_experiments(ask: SearchExperiments, view: View) -> FoundExperiments:
    """Find experiments by filter and order, a page at a time.

    Raises:
        InvalidInput: ``filter.invalid`` or ``order.invalid``, with the position.
    """
    page = search_rows(view, Experiment, EXPERIMENTS, ask, *_state(ask.deleted))
    return FoundExperiments(items=tuple(page.rows), next=page.next)


def search_runs(
    view: View,
    experiments: Sequence[str],
    filter_text: str,
    order: Sequence[str],
    *,
    limit: int,
    after: str | None = None,
    deleted: Deleted = Deleted.ACTIVE,
) -> Page[Run]:
    """Return runs as MLflow's clients expect them.

    A word that no status has finds nothing, parameters sort as texts, and values come before NaN,
    NaN before what is missing; ties go to the later start and then to the smaller id.

    Args:
        view: The project to look in.
        experiments: Ids of experiments; without any, nothing is found.
        filter_text: In the grammar of ``core.filter``.
        order: Keys such as ``metrics.auc DESC``, one a text.
        limit: How many runs at most.
        after: The ``next`` of the page before.
        deleted: Whether runs in the trash count.

    Raises:
        InvalidInput: ``filter.invalid``, ``order.invalid`` or ``query.cursor_invalid``.
    """
    also = (*_state(deleted), one_of("experiment", experiments))
    return search_text(
        view,
        Run,
        RUNS,
        (filter_text, order),
        also,
        page=Search(limit=limit, after=after),
        scene=scene_of(view, lenient=True),
        longest=LENIENT_LONGEST,
    )


def search_experiments(
    view: View,
    filter_text: str,
    order: Sequence[str],
    *,
    limit: int,
    after: str | None = None,
    deleted: Deleted = Deleted.ACTIVE,
) -> Page[Experiment]:
    """Return experiments as MLflow's clients expect them; as ``search_runs`` otherwise."""
    return search_text(
        view,
        Experiment,
        EXPERIMENTS,
        (filter_text, order),
        _state(deleted),
        page=Search(limit=limit, after=after),
        scene=scene_of(view, lenient=True),
        longest=LENIENT_LONGEST,
    )


def metrics_of(view: View, runs: Sequence[Id], fields: Sequence[str]) -> dict[Id, dict[str, str]]:
    """Return the exact last values of the metrics that fields ask for, by run and name."""
    keys = {name.partition(".")[2] for name in fields if name.startswith("metrics.")}
    if not runs or not (keys or "metrics" in fields):
        return {}
    wanted = [Condition("run", Compare.IN, tuple(runs))]
    if "metrics" not in fields:
        wanted.append(Condition("key", Compare.IN, tuple(sorted(keys))))
    found: dict[Id, dict[str, str]] = {}
    for row in view.select(MetricSummary, *wanted):
        found.setdefault(row.run, {})[row.key] = row.last_text
    return found


def _state(deleted: Deleted) -> tuple[Filter, ...]:
    if deleted is Deleted.ALL:
        return ()
    is_there = Compare.EQ if deleted is Deleted.ACTIVE else Compare.NE
    return (Test("deleted_at", is_there, None),)


def _in_experiments(view: View, texts: Sequence[str]) -> list[Filter]:
    if not texts:
        return []
    wanted = tuple(text.removeprefix("experiment:") for text in texts)
    named = view.select(Experiment, Condition("name", Compare.IN, wanted))
    return [one_of("experiment", {*wanted, *(row.id for row in named)})]


def _names(view: View, keys: set[Id]) -> dict[Id, str]:
    if not keys:
        return {}
    found = view.select(Experiment, Condition("id", Compare.IN, tuple(sorted(keys))))
    return {row.id: row.name for row in found}


def _to_found(run: Run, experiment: str, metrics: dict[str, str]) -> FoundRun:
    seconds = None if run.ended_at is None else (run.ended_at - run.started_at).total_seconds()
    return FoundRun(
        id=run.id,
        name=run.name,
        experiment=experiment,
        pipeline=run.pipeline,
        status=run.status,
        started_at=run.started_at,
        ended_at=run.ended_at,
        seconds=seconds,
        created_by=run.created_by,
        parent=run.parent,
        params=run.params,
        tags=run.tags,
        metrics=metrics,
        error=run.error,
        deleted_at=run.deleted_at,
    )
