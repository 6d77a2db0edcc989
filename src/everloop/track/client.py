"""How a run begins: its draft, its sources of time and ids, and its first frame."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from everloop.core.canonical import canonical_json
from everloop.core.clock import Clock, SystemClock
from everloop.core.ids import Id, IdSource
from everloop.kernel.performer import Performer
from everloop.track import limits
from everloop.track.environment import Environment
from everloop.track.frames import Started, encode_frame
from everloop.track.handle import ParamValue, RunHandle, to_text
from everloop.track.shipper import Shipment
from everloop.track.spool import SUFFIX, Spool

__all__ = ["ParamValue", "RunDraft", "RunHandle", "RunPorts", "start_run"]


class RunPorts(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run is spooled, and its sources of time and ids.

    Attributes:
        spool: Folder of the spools; a private temporary one when None.
    """

    spool: Path | None = None
    clock: Clock = msgspec.field(default_factory=SystemClock)
    ids: IdSource | None = None

    def new_id(self) -> Id:
        """Return a fresh id by the clock at hand."""
        return (self.ids or _ids_by(self.clock)).new()

    def folder(self) -> Path:
        """Return the spool folder."""
        return self.spool or Path(tempfile.mkdtemp(prefix="everloop-spool-"))


class RunDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is when it starts."""

    experiment: str = "default"
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
    limits.check_experiment(draft.experiment)
    params = {key: to_text(value) for key, value in draft.params.items()}
    limits.check_texts(params, "Parameter", limits.MAX_PARAM_CHARS)
    limits.check_texts(draft.tags, "Tag", limits.MAX_TAG_CHARS)
    environment = draft.environment
    run_id = ports.new_id()
    started = Started(
        project=performer.project,
        run=run_id,
        experiment=draft.experiment,
        name=draft.name,
        parent=draft.parent,
        pipeline=draft.pipeline,
        params=params,
        tags=dict(draft.tags),
        started_at=ports.clock.now(),
        environment=canonical_json(environment) if environment else b"",
        code_commit=environment.code.commit if environment and environment.code else None,
    )
    spool = Spool(ports.folder() / f"{run_id}{SUFFIX}")
    spool.append(encode_frame(started))
    handle = RunHandle(started, spool, Shipment(spool, performer), ports.clock)
    handle.announce()
    return handle


def _ids_by(clock: Clock) -> IdSource:
    return IdSource(lambda: int(clock.now().timestamp() * 1_000), os.urandom)
