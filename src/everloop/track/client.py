"""How a run begins, or is taken up again: its draft, its sources of time and ids, its spool."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from everloop.core.canonical import canonical_json
from everloop.core.clock import Clock, SystemClock
from everloop.core.errors import EverloopError, Unavailable
from everloop.core.ids import Id, IdSource
from everloop.kernel.performer import Performer
from everloop.track import limits
from everloop.track.courier import PATIENCE_S, Courier
from everloop.track.environment import Environment, read_seeds
from everloop.track.frames import (
    MAGIC,
    Described,
    Frame,
    Points,
    Resumed,
    Started,
    decode_frames,
    encode_frame,
)
from everloop.track.handle import Opening, RunHandle
from everloop.track.queries import RunDetails, ShowRun
from everloop.track.ring import split_points
from everloop.track.shipper import Shipment
from everloop.track.spool import SEPARATOR, SUFFIX, Spool
from everloop.track.values import ParamValue, to_text
from everloop.track.watch import Watch, Watching

__all__ = ["ParamValue", "RunDraft", "RunHandle", "RunPorts", "resume_run", "start_run"]

_log = logging.getLogger(__name__)


class RunPorts(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run is spooled, and its sources of time and ids.

    Attributes:
        spool: Folder of the spools; a private temporary one when None, or when it cannot be
            written.
        watching: What the run finds out by itself; nothing when left out.
        patience_s: Seconds for which start and end wait for a server while nothing moves.
    """

    spool: Path | None = None
    watching: Watching = msgspec.field(default_factory=Watching)
    patience_s: float = PATIENCE_S
    clock: Clock = msgspec.field(default_factory=SystemClock)
    ids: IdSource | None = None

    def new_id(self) -> Id:
        """Return a fresh id by the clock at hand."""
        return (self.ids or _ids_by(self.clock)).new()

    def open(self, name: str, first: Frame) -> Spool:
        """Return a new spool that begins with this frame.

        Raises:
            Unavailable: ``spool.unwritable`` when no folder takes it.
        """
        if self.spool is not None:
            try:
                return _begin_spool(self.spool / name, first)
            except OSError as error:
                _log.warning("everloop: %s cannot be written, %s", self.spool, error)
        try:
            folder = Path(tempfile.mkdtemp(prefix="everloop-spool-"))
            spool = _begin_spool(folder / name, first)
        except OSError as error:
            raise Unavailable(
                "spool.unwritable",
                f"Neither the spool folder nor a temporary one can be written: {error}.",
                hint="Make room, or set TMPDIR to a folder that can be written.",
            ) from error
        if self.spool is not None:
            _log.warning("everloop: the run is spooled in %s instead", folder)
        return spool


class RunDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is when it starts."""

    experiment: str = limits.DEFAULT_EXPERIMENT
    name: str = ""
    parent: str | None = None
    pipeline: str | None = None
    params: Mapping[str, ParamValue] = msgspec.field(default_factory=dict)
    tags: Mapping[str, str] = msgspec.field(default_factory=dict)
    environment: Environment | None = None


def start_run(
    performer: Performer, draft: RunDraft | None = None, *, ports: RunPorts | None = None
) -> RunHandle:
    """Begin a run and return its handle.

    While the server is away the run begins all the same, in the spool.

    Raises:
        InvalidInput: a name, parameter or tag is not usable.
        EverloopError: the server refuses to start it.
    """
    draft, ports = draft or RunDraft(), ports or RunPorts()
    experiment = limits.check_experiment(draft.experiment)
    told = {"name": draft.name, "pipeline": draft.pipeline or ""}
    limits.check_texts(told, "Run", limits.MAX_NAME_CHARS)
    params = limits.plain_texts({key: to_text(value) for key, value in draft.params.items()})
    limits.check_texts(params, "Parameter", limits.MAX_PARAM_CHARS)
    limits.check_texts(draft.tags, "Tag", limits.MAX_TAG_CHARS)
    environment = draft.environment
    run_id = ports.new_id()
    started = Started(
        project=performer.project,
        run=run_id,
        experiment=experiment,
        name=limits.to_plain(draft.name),
        parent=draft.parent,
        pipeline=draft.pipeline,
        params=params,
        tags=limits.plain_texts(draft.tags),
        started_at=ports.clock.now(),
        environment=canonical_json(environment) if environment else b"",
        code_commit=environment.code.commit if environment and environment.code else None,
    )
    spool = ports.open(f"{run_id}{SUFFIX}", started)
    opening = Opening(
        run=run_id,
        experiment=draft.experiment,
        params=params,
        tags=draft.tags.keys(),
        begin_child=_child_of(performer, run_id, draft.experiment, ports),
        patience_s=ports.patience_s,
    )
    handle = RunHandle(opening, spool, Shipment(spool, performer), ports.clock)
    handle.announce()
    _watch(handle, ports)
    return handle


def resume_run(performer: Performer, run: str, *, ports: RunPorts | None = None) -> RunHandle:
    """Take up a run again, whether it ended, failed or was killed; return its handle.

    What an earlier process left in the spool folder is shipped first. While the server is away
    the run goes on all the same; metrics that no spool here knows then begin at step 0 again.

    Raises:
        NotFound: ``run.not_found``.
        Conflict: ``run.deleted``.
    """
    ports = ports or RunPorts()
    run_id, session = Id(run.removeprefix("run:")), ports.new_id()
    left = _read_leftovers(ports.spool, run_id)
    resumed = Resumed(project=performer.project, run=run_id, spool=session)
    spool = ports.open(f"{run_id}{SEPARATOR}{session}{SUFFIX}", resumed)
    shipment = Shipment(spool, performer)
    try:
        Courier(shipment, patience_s=ports.patience_s).begin()
        known = performer.perform("run.show", ShowRun(run=run_id), RunDetails)
        params, tags, experiment = known.run.params, known.run.tags, known.experiment
        steps = {metric.key: metric.last_step + 1 for metric in known.metrics}
    except ConnectionError:
        params, tags, experiment = left.params, left.tags, left.experiment
        steps = left.next_steps
    except BaseException:
        spool.remove()
        raise
    opening = Opening(
        run=run_id,
        experiment=experiment,
        session=session,
        params=params,
        tags=tags.keys(),
        next_steps=steps,
        begin_child=_child_of(performer, run_id, experiment, ports),
        patience_s=ports.patience_s,
    )
    handle = RunHandle(opening, spool, shipment, ports.clock)
    handle.announce()
    _watch(handle, ports)
    return handle


def _watch(handle: RunHandle, ports: RunPorts) -> None:
    watching = ports.watching
    if watching.root is not None or watching.every_s is not None:
        handle.watch(Watch(handle, watching, read_seeds()))


class _ChildOf:
    def __init__(self, performer: Performer, draft: RunDraft, ports: RunPorts) -> None:
        self._performer = performer
        self._draft = draft
        self._ports = ports

    def __call__(
        self, name: str, params: Mapping[str, ParamValue], tags: Mapping[str, str]
    ) -> RunHandle:
        draft = msgspec.structs.replace(self._draft, name=name, params=params, tags=tags)
        return start_run(self._performer, draft, ports=self._ports)


def _child_of(performer: Performer, run: Id, experiment: str, ports: RunPorts) -> _ChildOf:
    return _ChildOf(performer, RunDraft(experiment=experiment, parent=run), ports)


class _Leftovers(msgspec.Struct):
    experiment: str = limits.DEFAULT_EXPERIMENT
    params: dict[str, str] = msgspec.field(default_factory=dict)
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    next_steps: dict[str, int] = msgspec.field(default_factory=dict)


def _read_leftovers(folder: Path | None, run: Id) -> _Leftovers:
    """Gather what spools here tell of a run, for when the server cannot be asked."""
    found = _Leftovers()
    for path in sorted(folder.glob(f"{run}*{SUFFIX}")) if folder is not None else ():
        with suppress(EverloopError, OSError):
            Spool(path).close()  # adds what its process had no time to write
        for frame, _ in decode_frames(path.read_bytes()[len(MAGIC) :]):
            if isinstance(frame, Started):
                found.experiment = frame.experiment
                found.params |= frame.params
                found.tags |= frame.tags
            elif isinstance(frame, Described):
                found.params |= frame.params
                found.tags |= frame.tags
            elif isinstance(frame, Points):
                for key, points in split_points(frame):
                    found.next_steps[key] = int(points.steps[-1]) + 1
    return found


def _begin_spool(path: Path, first: Frame) -> Spool:
    spool = Spool(path)
    try:
        spool.append(encode_frame(first))
    except OSError:
        spool.remove()
        raise
    return spool


def _ids_by(clock: Clock) -> IdSource:
    return IdSource(lambda: int(clock.now().timestamp() * 1_000), os.urandom)
