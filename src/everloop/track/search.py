"""Searching runs and experiments: what their names mean in a filter, and the queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec

from everloop.core.clock import Instant
from everloop.core.filter.fields import ChoiceField, InstantField, TextField
from everloop.core.filter.joins import Hop, Route, Through, Union, one_of
from everloop.core.filter.keyed import LookedTexts, Numbers, Texts
from everloop.core.filter.scene import Scene
from everloop.core.filter.tree import Text
from everloop.core.filter.vocabulary import Linked, Vocabulary, declare
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition
from everloop.core.search import Any, Filter, Link, Order, Page, Test
from everloop.kernel.searching import (
    LENIENT_LONGEST,
    Search,
    scene_of,
    search_rows,
    search_text,
)
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.track.fields import HEAD_CHARS, PARAM, TAG
from everloop.track.model import Experiment, MetricSummary, Run, RunStatus

Name = Annotated[str, msgspec.Meta(max_length=500)]


def _texts(space: str, help: str) -> Texts:
    hop = Hop("run_field", Link("run"), (Test("space", Compare.EQ, space),))
    return Texts(hop, help, head_size=HEAD_CHARS)


def _tags_of_experiments(scene: Scene) -> Mapping[str, Mapping[str, str]]:
    return {row.id: row.tags for row in scene.reader.select(Experiment) if row.tags}


def _refer_run(scene: Scene, value: Text) -> Filter:
    del scene
    key = value.value.removeprefix("run:")
    return Any((Test("id", Compare.EQ, key), Test("name", Compare.EQ, key)))


def _refer_experiment(scene: Scene, value: Text) -> Filter:
    del scene
    key = value.value.removeprefix("experiment:")
    return Any((Test("id", Compare.EQ, key), Test("name", Compare.EQ, key)))


_TAGS = _texts(TAG, "a tag")
_READ = Route(
    (
        Hop("edge", Link("source", prefix="run:"), (Test("relation", Compare.EQ, "read"),)),
        Hop("dataset_version", Link("id", "target", strip="dataset_version:")),
    )
)
_TOLD = Route((Hop("run_input", Link("run")),))


def _read(field: TextField) -> Through:
    """Return a field of the versions of our datasets that a run read."""
    return Through((_READ,), field)


def _told(column: str) -> Through:
    """Return a field of the data that a run says it read, which need not be ours."""
    return Through(
        (_TOLD,), TextField(column, f"its {column} as its client told it", nullable=True)
    )


MODEL = Hop("model_version", Link("run"))
RUNS = declare(
    Vocabulary(
        noun="run",
        kind="run",
        fields={
            "id": TextField("id", "its id"),
            "name": TextField("name", "its name"),
            "status": ChoiceField("status", "how it stands", tuple(RunStatus), also=("scheduled",)),
            "started_at": InstantField("started_at", "when it began"),
            "ended_at": InstantField("ended_at", "when it ended"),
            "experiment_id": TextField("experiment", "the id of its experiment"),
            "parent": TextField("parent", "the id of the run around it", nullable=True),
            "pipeline": TextField("pipeline", "the pipeline that it executes", nullable=True),
            "created_by": TextField("created_by", "the id of the actor who began it"),
            "user_id": _TAGS.target("mlflow.user"),
            "commit": TextField("code_commit", "the Git commit of its code", nullable=True),
            "error": TextField("error", "why it failed", nullable=True),
            "deleted_at": InstantField("deleted_at", "when it went to the trash"),
        },
        synonyms={
            "run_id": "id",
            "run_name": "name",
            "run name": "name",
            "Run name": "name",
            "Run Name": "name",
            "start_time": "started_at",
            "started": "started_at",
            "created": "started_at",
            "Created": "started_at",
            "end_time": "ended_at",
            "ended": "ended_at",
            "metric": "metrics",
            "param": "params",
            "parameter": "params",
            "parameters": "params",
            "tag": "tags",
            "datasets": "dataset",
        },
        spaces={
            "metrics": Numbers(Hop("metric_summary", Link("run")), "the last value of a metric"),
            "params": _texts(PARAM, "a parameter"),
            "tags": _TAGS,
        },
        links={
            "experiment": Linked(
                "experiment",
                (Route((Hop("experiment", Link("id", "experiment")),)),),
                "its experiment",
                is_single=True,
            ),
            "dataset": Linked(
                "dataset",
                (_READ,),
                "a dataset version that it read",
                fields={
                    "name": Union((_read(TextField("name", "its name")), _told("name"))),
                    "digest": Union((_read(TextField("root", "its digest")), _told("digest"))),
                    "context": _told("context"),
                },
            ),
            "model": Linked("version", (Route((MODEL,)),), "a model version that it made"),
            "deployment": Linked(
                "deployment",
                (Route((MODEL, Hop("deployment", Link("champion")))),),
                "a deployment that its model version answers in",
            ),
            "parent": Linked(
                "run",
                (Route((Hop("run", Link("id", "parent")),)),),
                "the run around it",
                is_single=True,
            ),
        },
        selves=frozenset({"attribute", "attributes", "attr", "run"}),
        refer=_refer_run,
        order=(Order("started_at", descending=True), Order("id")),
    )
)

EXPERIMENTS = declare(
    Vocabulary(
        noun="experiment",
        kind="experiment",
        fields={
            "id": TextField("id", "its id"),
            "name": TextField("name", "its name"),
            "created_at": InstantField("created_at", "when it was made"),
            "created_by": TextField("created_by", "the id of the actor who made it"),
            "deleted_at": InstantField("deleted_at", "when it went to the trash"),
        },
        synonyms={
            "experiment_id": "id",
            "creation_time": "created_at",
            "last_update_time": "created_at",
            "tag": "tags",
            "runs": "run",
        },
        spaces={"tags": LookedTexts(_tags_of_experiments, "a tag")},
        links={
            "run": Linked(
                "run", (Route((Hop("run", Link("experiment")),)),), "a run that belongs to it"
            )
        },
        refer=_refer_experiment,
        order=(Order("created_at", descending=True), Order("id")),
    )
)


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
