"""Questions about the loop."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.loop.model import LoopRun, LoopSwitch, LoopTransition, LoopTurn
from everloop.monitor.lookup import last_seq
from everloop.monitor.model import FeedbackBatch, PredictionSegment

IdText = Annotated[Id, Meta(max_length=60)]
Limit = Annotated[int, Meta(ge=1, le=1000)]


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ListRuns(_Ask, frozen=True, kw_only=True):
    """Ask for the runs of one loop, or of all."""

    deployment: IdText | None = None
    limit: Limit = 100
    after: IdText | None = None


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """Runs, newest first."""

    items: tuple[LoopRun, ...]
    next: str | None = None


@query("loop.list", permission="loop:read")
def list_runs(ask: ListRuns, view: View) -> RunList:
    """List the loop's runs with their outcomes, newest first."""
    after = view.find(LoopRun, ask.after) if ask.after else None
    mine = where(deployment=ask.deployment) if ask.deployment else ()
    rows = view.select(
        LoopRun, *mine, order="started_at", descending=True, limit=ask.limit, after=after
    )
    return RunList(items=tuple(rows), next=rows[-1].id if len(rows) == ask.limit else None)


class ShowRun(_Ask, frozen=True, kw_only=True):
    """Ask for one run."""

    id: IdText


class RunHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A run and every step it took."""

    run: LoopRun
    transitions: tuple[LoopTransition, ...]


@query("loop.show", permission="loop:read")
def show_run(ask: ShowRun, view: View) -> RunHistory:
    """Show one run of the loop with every transition and why it was made.

    Raises:
        NotFound: ``loop_run.not_found``.
    """
    run = view.get(LoopRun, ask.id)
    steps = view.select(LoopTransition, *where(run=run.id), order="seq")
    return RunHistory(run=run, transitions=tuple(steps))


class ShowStatus(_Ask, frozen=True, kw_only=True):
    """Ask where a deployment's loop stands."""

    deployment: IdText


class LoopStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a loop stands.

    Attributes:
        live: The run under way.
        turn: How far the controller has come; behind it while ``feedback_seq`` or
            ``segment_seq``, the newest there are, are greater than its own.
    """

    is_on: bool
    paused_why: str | None
    live: LoopRun | None
    turn: LoopTurn | None
    segment_seq: int
    feedback_seq: int


@query("loop.status", permission="loop:read")
def show_status(ask: ShowStatus, view: View) -> LoopStatus:
    """Show where a deployment's loop stands."""
    switch = view.first(LoopSwitch, *where(deployment=ask.deployment))
    is_on = switch is None or switch.is_on
    return LoopStatus(
        is_on=is_on,
        paused_why=None if is_on or switch is None else switch.why,
        live=view.first(LoopRun, *where(live=ask.deployment)),
        turn=view.first(LoopTurn, *where(deployment=ask.deployment)),
        segment_seq=last_seq(view, PredictionSegment, ask.deployment),
        feedback_seq=last_seq(view, FeedbackBatch, ask.deployment),
    )
