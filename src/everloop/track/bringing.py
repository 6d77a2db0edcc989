"""Whole runs in one call, as an import brings them: made, filled and ended in one transaction."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.kernel.unit_of_work import Desk, Work
from everloop.kernel.verbs import Payload, verb
from everloop.track.inputs import AddInputs, NamedData, add_inputs
from everloop.track.lifecycle import RunNamed, delete_run
from everloop.track.model import Run
from everloop.track.series import PreparedPoints
from everloop.track.verbs import LogRun, StartRun, log_run, prepare_log, start_run

MOST_RUNS = 200


class WholeRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run with all it has.

    Attributes:
        log: What it holds and how it ended.
        data: What it read, as the other system names it.
        deleted: Whether it goes to the trash.
    """

    start: StartRun
    log: LogRun
    data: Annotated[tuple[NamedData, ...], Meta(max_length=1_000)] = ()
    deleted: bool = False


class BringRuns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.bring`` takes: runs that are over, parents before their children."""

    runs: Annotated[tuple[WholeRun, ...], Meta(max_length=MOST_RUNS)]


class RunsBrought(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.bring``.

    Attributes:
        new: Ids of the runs that were made; the others were here already and stay as they are.
    """

    new: tuple[Id, ...]


def prepare_runs(ask: BringRuns, desk: Desk) -> tuple[PreparedPoints, ...]:
    """Decode and check the points of all runs before the transaction; raises as ``run.log``."""
    for run in ask.runs:
        if run.log.run != run.start.run or run.log.spool is not None:
            raise InvalidInput(
                "run.mixed_up",
                f"What is said of run {run.start.run[:60]} belongs to another run or a spool.",
                hint="Give both parts of a run its own id.",
            )
    return tuple(prepare_log(run.log, desk) for run in ask.runs)


@verb("run.bring", permission="run:write", prepare=prepare_runs, payload=Payload.DIGEST)
def bring_runs(ask: BringRuns, work: Work, prepared: tuple[PreparedPoints, ...]) -> RunsBrought:
    """Make whole runs at once, all or none; a run that is here already is left as it is.

    Raises:
        InvalidInput: ``run.mixed_up``, or as ``run.start`` and ``run.log`` do.
        NotFound: a parent run or the bytes of a file do not exist.
        LimitExceeded: a run would hold too much.
    """
    new: list[Id] = []
    for run, points in zip(ask.runs, prepared, strict=True):
        if work.find(Run, Id(run.start.run)) is not None:
            continue
        made = start_run(run.start, work).run
        log_run(run.log, work, points)
        if run.data:
            add_inputs(AddInputs(run=made, data=run.data), work)
        if run.deleted:
            delete_run(RunNamed(run=made), work)
        new.append(made)
    return RunsBrought(new=tuple(new))
