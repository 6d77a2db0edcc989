"""What runs at the moment: which pipeline, which run, and where a step's log calls go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol, SupportsFloat, SupportsIndex, TypeAlias

import msgspec

from everloop.core.clock import Instant
from everloop.core.errors import InvalidInput
from everloop.kernel.performer import Performer
from everloop.track.active import active_run
from everloop.track.handle import RunHandle
from everloop.track.media import MediaLog
from everloop.track.values import ParamValue

Arguments: TypeAlias = tuple[object, ...]
Named: TypeAlias = dict[str, object]


class RunLog(Protocol):
    """What a pipeline or a step logs through; ``RunHandle`` is one."""

    def log_metric(
        self,
        key: str,
        value: SupportsFloat,
        step: SupportsIndex | None = None,
        *,
        at: Instant | None = None,
    ) -> None:
        """Log one value, measured now or at the time given."""
        ...

    def log_metrics(
        self, values: Mapping[str, SupportsFloat], step: SupportsIndex | None = None
    ) -> None:
        """Log several metrics at one step."""
        ...

    def log_params(self, params: Mapping[str, ParamValue]) -> None:
        """Set parameters."""
        ...

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        ...

    def log_artifact(self, source: Path | str | bytes, path: str | None = None) -> None:
        """Keep a file or bytes."""
        ...

    def log_text(self, text: str, path: str) -> None:
        """Keep a text."""
        ...

    def log_dict(self, values: Mapping[str, object] | Sequence[object], path: str) -> None:
        """Keep a dictionary or a list as JSON or YAML."""
        ...

    def log_table(self, data: object, path: str) -> None:
        """Keep a table as Parquet."""
        ...

    def log_figure(self, figure: object, path: str) -> None:
        """Keep a figure."""
        ...

    def log_image(self, image: object, path: str) -> None:
        """Keep an image."""
        ...


class FutureResult(Protocol):
    """A step's result that may still be computed."""

    def result(self) -> object:
        """Wait for the result and return it; raises what the step raised."""
        ...


class StepRunner(Protocol):
    """Runs steps for the pipeline at hand."""

    def call(self, step: object, args: Arguments, kwargs: Named) -> object:
        """Return the step's result, from the cache or by running it."""
        ...

    def submit(self, step: object, args: Arguments, kwargs: Named) -> FutureResult:
        """Begin a step in another process."""
        ...


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """The pipeline at hand.

    Attributes:
        runner: None inside a step, where further steps are plain calls.
        log: Where log calls go.
        performer: None in a worker process.
    """

    runner: StepRunner | None
    log: RunLog
    performer: Performer | None


ACTIVE: ContextVar[Active | None] = ContextVar("everloop_pipeline", default=None)


def current_run() -> RunLog:
    """Return the run to log to: that of the pipeline or step at hand, else the active run.

    Without either it is one that forgets what it is told. What a step logs is kept with its
    result, and logged again when the result is taken from the cache.
    """
    return find_run() or StepLog()


def find_run() -> RunLog | None:
    """Return the run of the pipeline or step at hand, else the active run, else None."""
    active = ACTIVE.get()
    if active is not None:
        return active.log
    run = active_run()
    return run if isinstance(run, RunHandle) else None


def current_performer() -> Performer:
    """Return the caller's way to perform verbs, for reading datasets in a step.

    Raises:
        InvalidInput: ``pipeline.no_performer`` outside a pipeline and in worker processes.
    """
    active = ACTIVE.get()
    if active is None or active.performer is None:
        raise InvalidInput(
            "pipeline.no_performer",
            "There is no connection here: this is not a step of a pipeline in the main process.",
            hint="Read the data in a step without process=True and pass it on as an argument.",
        )
    return active.performer


class StepLog(MediaLog):
    """Keeps log calls as plain values, so that they can be stored and replayed."""

    def __init__(self, onward: RunLog | None = None) -> None:
        self._onward = onward
        self._entries: list[tuple[str, object, object, object]] = []

    def log_metric(
        self,
        key: str,
        value: SupportsFloat,
        step: SupportsIndex | None = None,
        *,
        at: Instant | None = None,
    ) -> None:
        """Log one value; when the step's result is reused, its time is that of the reuse."""
        place = None if step is None else step.__index__()
        self._entries.append(("metric", key, float(value), place))
        if self._onward is not None:
            self._onward.log_metric(key, value, step, at=at)

    def log_metrics(
        self, values: Mapping[str, SupportsFloat], step: SupportsIndex | None = None
    ) -> None:
        """Log several metrics at one step."""
        for key, value in values.items():
            self.log_metric(key, value, step)

    def log_params(self, params: Mapping[str, ParamValue]) -> None:
        """Set parameters."""
        self._entries.append(("params", dict(params), None, None))
        if self._onward is not None:
            self._onward.log_params(params)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self._entries.append(("tags", dict(tags), None, None))
        if self._onward is not None:
            self._onward.set_tags(tags)

    def log_artifact(self, source: Path | str | bytes, path: str | None = None) -> None:
        """Keep a file or bytes."""
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        name = path or ("" if isinstance(source, bytes) else Path(source).name)
        self._entries.append(("artifact", name, data, None))
        if self._onward is not None:
            self._onward.log_artifact(data, name)

    def pack(self) -> bytes:
        """Return the calls as bytes; empty when there were none."""
        return msgspec.msgpack.encode(self._entries) if self._entries else b""


def replay(packed: bytes, log: RunLog) -> None:
    """Repeat stored log calls on another run."""
    for kind, first, second, third in msgspec.msgpack.decode(packed):
        if kind == "metric":
            log.log_metric(first, second, third)
        elif kind == "params":
            log.log_params(first)
        elif kind == "tags":
            log.set_tags(first)
        elif kind == "artifact":
            log.log_artifact(second, first)
