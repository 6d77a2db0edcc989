"""Ships what earlier processes left in the spool folder, and ends runs whose process died."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from everloop.core.errors import Conflict, Denied, EverloopError, NotFound, Unavailable
from everloop.core.ids import is_id
from everloop.kernel.performer import Performer
from everloop.track.frames import Resumed, Started
from everloop.track.model import RunStatus
from everloop.track.shipper import Shipment
from everloop.track.spool import SEPARATOR, SUFFIX, Spool
from everloop.track.verbs import FinishRun, RunFinished


class Shipped(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one spool.

    Attributes:
        run: Id of the run.
        points: Points that arrived by this call.
        status: How the run stands now; None when nothing could be said about it.
        problem: Why the spool is still there; None when it is done.
        refused: Things that the server refused; they lie in a file beside the spool.
    """

    run: str
    points: int
    status: RunStatus | None
    problem: str | None
    refused: int = 0


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sync_spool`` did, one item a spool of the performer's project."""

    items: tuple[Shipped, ...]

    @property
    def waiting(self) -> int:
        """How many spools are still there."""
        return sum(item.problem is not None for item in self.items)


def sync_spool(
    folder: Path, performer: Performer, *, progress: Callable[[Shipped], None] | None = None
) -> SyncReport:
    """Ship what earlier processes left in the spool folder, and end runs whose process died.

    Runs of other projects and of live processes are left alone. Spools of one run are shipped in
    the order in which they were begun.

    Args:
        folder: The spool folder.
        performer: The server.
        progress: Hears of every spool when something became of it.

    Raises:
        Unavailable: the server is away.
    """
    items = []
    for shipped in _sync_all(folder, performer):
        items.append(shipped)
        if progress is not None:
            progress(shipped)
    return SyncReport(items=tuple(items))


def list_spools(folder: Path) -> list[Path]:
    """Return the spools in a folder, in the order in which their runs began."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def _sync_all(folder: Path, performer: Performer) -> Iterator[Shipped]:
    paths = list_spools(folder)
    newest = {_run_of(path): path for path in paths}
    for path in paths:
        try:
            spool = Spool(path)
        except Conflict:
            continue
        except EverloopError as error:
            yield Shipped(run=_run_of(path), points=0, status=None, problem=str(error))
            continue
        try:
            # Whoever took a run up again says how it ends.
            shipped = _sync_one(spool, performer, is_last=newest[_run_of(path)] == path)
        finally:
            spool.close()
        if shipped is not None:
            yield shipped


def _run_of(path: Path) -> str:
    return path.stem.partition(SEPARATOR)[0]


def _sync_one(spool: Spool, performer: Performer, *, is_last: bool) -> Shipped | None:
    first = next((frame for frame, _ in spool.read(0)), None)
    if first is None:
        return _sync_nothing(spool, performer)
    if not isinstance(first, Started | Resumed) or first.project != performer.project:
        return None
    shipment = Shipment(spool, performer)
    try:
        shipment.seek()
        shipment.ship()
        if shipment.ended is None and is_last:
            shipment.finish(RunStatus.KILLED)
    except Unavailable:
        raise
    except EverloopError as error:
        return Shipped(run=first.run, points=shipment.points, status=None, problem=str(error))
    spool.remove()
    return Shipped(
        run=first.run,
        points=shipment.points,
        status=shipment.ended,
        problem=None,
        refused=shipment.refused,
    )


def _sync_nothing(spool: Spool, performer: Performer) -> Shipped | None:
    """End the run of a spool of which a power cut left not even the beginning."""
    run, ended = _run_of(spool.path), None
    if is_id(run):
        with suppress(NotFound, Denied, Conflict):
            ask = FinishRun(run=run, status=RunStatus.KILLED)
            ended = performer.perform("run.finish", ask, RunFinished).status
    spool.remove()
    return None if ended is None else Shipped(run=run, points=0, status=ended, problem=None)
