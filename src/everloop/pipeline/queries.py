"""Questions about steps and pipelines."""

from __future__ import annotations

from typing import Annotated

import msgspec

from everloop.core.clock import Instant
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.pipeline.model import StepRun, StepStatus
from everloop.track.model import Run, RunStatus
from everloop.track.queries import page_size

Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
Text = Annotated[str, msgspec.Meta(max_length=300)]


class FindStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``pipeline.lookup`` takes: a step's key and its name."""

    name: Text
    key: Text | None = None


class StepFound(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``pipeline.lookup``.

    Attributes:
        match: The newest step run with this key that has a result of its own.
        last: Without a match, the newest step run of this name that has a key, for explaining why.
    """

    match: StepRun | None
    last: StepRun | None


class ListSteps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``step.list`` takes; the newest come first, those of one run in their order."""

    run: Text | None = None
    name: Text | None = None
    limit: Limit = 100
    after: Text | None = None


class StepList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``step.list``."""

    items: tuple[StepRun, ...]
    next: str | None


class ListPipelines(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``pipeline.list`` takes; the newest executions come first."""

    pipeline: Text | None = None
    limit: Limit = 100
    after: Text | None = None


class PipelineRow(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a pipeline."""

    run: Id
    pipeline: str
    status: RunStatus
    started_at: Instant
    ended_at: Instant | None
    steps: int
    hits: int
    error: str | None


class PipelineList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``pipeline.list``."""

    items: tuple[PipelineRow, ...]
    next: str | None


@query("pipeline.lookup", permission="run:read")
def find_step(ask: FindStep, view: View) -> StepFound:
    """Find the result for a step's key, and the last run of the step to compare with."""
    match = _newest(view, *where(key=ask.key, status=StepStatus.RAN)) if ask.key else None
    if match is not None:
        return StepFound(match=match, last=None)
    has_key = Condition("key", Compare.NE, None)
    return StepFound(match=None, last=_newest(view, *where(name=ask.name), has_key))


def _newest(view: View, *conditions: Condition) -> StepRun | None:
    found = view.select(StepRun, *conditions, descending=True, limit=1)
    return found[0] if found else None


@query("step.list", permission="run:read")
def list_steps(ask: ListSteps, view: View) -> StepList:
    """List step runs of one run in their order, or of one step, or all, the newest first."""
    conditions: list[Condition] = []
    if ask.run is not None:
        conditions += where(run=ask.run.removeprefix("run:"))
    if ask.name is not None:
        conditions += where(name=ask.name)
    is_ordered = ask.run is not None
    if ask.after is not None:
        conditions.append(Condition("id", Compare.GT if is_ordered else Compare.LT, ask.after))
    size = page_size(ask.limit)
    found = view.select(StepRun, *conditions, descending=not is_ordered, limit=size + 1)
    page = found[:size]
    return StepList(items=tuple(page), next=page[-1].id if len(found) > size else None)


@query("pipeline.list", permission="run:read")
def list_pipelines(ask: ListPipelines, view: View) -> PipelineList:
    """List executions of pipelines with how many of their steps came from the cache."""
    conditions = [Condition("pipeline", Compare.NE, None)]
    if ask.pipeline is not None:
        conditions += where(pipeline=ask.pipeline)
    if ask.after is not None:
        conditions.append(Condition("id", Compare.LT, ask.after))
    size = page_size(ask.limit)
    found = view.select(Run, *conditions, descending=True, limit=size + 1)
    page = found[:size]
    return PipelineList(
        items=tuple(_to_row(view, run) for run in page),
        next=page[-1].id if len(found) > size else None,
    )


def _to_row(view: View, run: Run) -> PipelineRow:
    return PipelineRow(
        run=run.id,
        pipeline=run.pipeline or "",
        status=run.status,
        started_at=run.started_at,
        ended_at=run.ended_at,
        steps=view.count(StepRun, *where(run=run.id)),
        hits=view.count(StepRun, *where(run=run.id, status=StepStatus.HIT)),
        error=run.error,
    )
