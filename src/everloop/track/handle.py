"""The handle by which a training program logs: microseconds a call, whatever the server does.

A call checks its input and puts the point into memory. One thread writes what has gathered to the
spool, and another ships the spool. Ending the run writes and ships the rest.
"""

from __future__ import annotations

import atexit
import logging
import operator
import os
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, SupportsFloat, SupportsIndex

import msgspec

from everloop.core.canonical import canonical_json
from everloop.core.clock import Clock, Instant
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.ids import Id
from everloop.track import limits
from everloop.track.active import activate
from everloop.track.courier import PATIENCE_S, Courier
from everloop.track.environment import Environment
from everloop.track.frames import Described, Ended, Read, Surroundings
from everloop.track.keeping import FileKeeper, list_files
from everloop.track.media import MediaLog
from everloop.track.model import RunStatus
from everloop.track.shipper import Shipment
from everloop.track.spool import Spool
from everloop.track.values import ParamValue, check_time, not_a_number, to_text
from everloop.track.watch import PATCH, Watch
from everloop.track.writer import SpoolWriter

_log = logging.getLogger(__name__)
_LEAST: Final = limits.MIN_STEP
_MOST: Final = limits.MAX_STEP


class _Series:
    __slots__ = ("next_step", "place")

    def __init__(self, place: int, next_step: int) -> None:
        self.place = place
        self.next_step = next_step


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What a handle begins with.

    Attributes:
        session: Id of the spool by which an earlier run is taken up; empty for a new run.
        params: Those that are set already.
        tags: Names of those that are set already.
        next_steps: The step after the last, by metric.
        begin_child: Starts a run below this one.
        patience_s: Seconds for which its start and its end wait for a server while nothing moves.
    """

    run: Id
    experiment: str
    session: str = ""
    params: Mapping[str, str]
    tags: Collection[str] = ()
    next_steps: Mapping[str, int] = msgspec.field(default_factory=dict)
    begin_child: Callable[[str, Mapping[str, ParamValue], Mapping[str, str]], RunHandle]
    patience_s: float = PATIENCE_S


class RunHandle(MediaLog):
    """A live run.

    Thread-safe. After a fork the child may go on logging; the parent ships for both. Used as a
    context manager, it ends as failed when the block raises.

    Attributes:
        id: Id of the run.
        experiment: Name of its experiment.
        registrar: Registers a model that this run trained; whoever made the handle gives it one.
    """

    registrar: Callable[..., Any] | None = None

    def __init__(self, opening: Opening, spool: Spool, shipment: Shipment, clock: Clock) -> None:
        self.id = opening.run
        self.experiment = opening.experiment
        self._session = opening.session
        self._begin_child = opening.begin_child
        self._spool = spool
        self._shipment = shipment
        self._courier = Courier(shipment, patience_s=opening.patience_s)
        self._now = clock.now
        self._next_steps = opening.next_steps
        self._series: dict[str, _Series] = {}
        self._opening = threading.RLock()
        self._params = dict(opening.params)
        self._tags = set(opening.tags)
        self._writer = SpoolWriter(spool, self._tell_courier)
        self._files = FileKeeper(spool, self._writer, shipment, self._courier)
        self._put = self._writer.put
        self._push = self._writer.push
        self._watch: Watch | None = None
        self._is_ended = False
        self._owner = os.getpid()
        _LIVE.add(self)

    @property
    def is_ended(self) -> bool:
        """Whether it has ended in this process."""
        return self._is_ended

    @property
    def folder(self) -> Path:
        """The spool folder, in which the run keeps what it needs."""
        return self._spool.path.parent

    def announce(self) -> None:
        """Tell the server that the run began, unless it is away.

        Raises:
            EverloopError: the server refuses the run.
        """
        try:
            self._courier.begin()
        except ConnectionError:
            self._courier.notify()
        except BaseException:
            self._is_ended = True
            _LIVE.discard(self)
            self._spool.remove()
            raise

    def watch(self, watch: Watch) -> None:
        """Let the run find out by itself what surrounds it; once, when it begins."""
        self._watch = watch
        watch.start()

    def child(
        self,
        name: str = "",
        *,
        params: Mapping[str, ParamValue] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> RunHandle:
        """Begin a run below this one, in the same experiment.

        Raises:
            InvalidInput: the name, a parameter or a tag is not usable, or this run has ended.
        """
        self._require_live()
        return self._begin_child(name, params or {}, tags or {})

    def log_metric(
        self,
        key: str,
        value: SupportsFloat,
        step: SupportsIndex | None = None,
        *,
        at: Instant | None = None,
    ) -> None:
        """Log one value.

        Args:
            key: Name of the metric.
            value: A number; NaN and the infinities are kept as they are.
            step: A whole number; one more than the metric's step before when None.
            at: When it was measured; now when None.

        Raises:
            InvalidInput: the key, value or step is not usable, or the run has ended.
        """
        series = self._series.get(key) or self._open_series(key)
        try:
            number = float(value)
            index = series.next_step if step is None else operator.index(step)
            seconds = (self._now() if at is None else check_time(key, at)).timestamp()
        except InvalidInput:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise not_a_number(key, error) from error
        if not _LEAST <= index < _MOST:
            raise not_a_number(key, f"step {index} does not fit into 64 bits")
        series.next_step = index + 1
        self._put(series.place, index, seconds, number)

    def log_metrics(
        self, values: Mapping[str, SupportsFloat], step: SupportsIndex | None = None
    ) -> None:
        """Log several metrics at one step.

        Raises:
            InvalidInput: as for ``log_metric``; what came before the wrong one is logged.
        """
        for key, value in values.items():
            self.log_metric(key, value, step)

    def log_params(self, params: Mapping[str, ParamValue]) -> None:
        """Set parameters; each is set once.

        Raises:
            InvalidInput: a name or value is not usable, or the run has ended.
            Conflict: ``run.param_changed``.
        """
        self._require_live()
        texts = limits.plain_texts({key: to_text(value) for key, value in params.items()})
        limits.check_texts(texts, "Parameter", limits.MAX_PARAM_CHARS)
        changed = [key for key, text in texts.items() if self._params.get(key, text) != text]
        if changed:
            raise Conflict(
                "run.param_changed",
                f"Parameter {changed[0]!r} is already set to another value.",
                hint="A parameter is set once; log what changes as a metric or a tag.",
            )
        limits.check_count(len(self._params | texts), limits.MAX_PARAMS_A_RUN, "parameters")
        self._params |= texts
        for part in limits.in_parts(texts):
            self._push(Described(params=part, tags={}))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or change tags.

        Raises:
            InvalidInput: a name or value is not usable, or the run has ended.
        """
        self._require_live()
        limits.check_texts(tags, "Tag", limits.MAX_TAG_CHARS)
        texts = limits.plain_texts(tags)
        limits.check_count(len(self._tags | texts.keys()), limits.MAX_PARAMS_A_RUN, "tags")
        self._tags |= texts.keys()
        for part in limits.in_parts(texts):
            self._push(Described(params={}, tags=part))

    def log_artifact(self, source: Path | str | bytes, path: str | None = None) -> None:
        """Keep a file, a folder's files, or bytes; symbolic links in a folder are left out.

        The bytes are copied before the call returns, so that the file may change after it: into
        the spool or, those of a large file, to the server right away while it takes them at a
        disk's speed.

        Args:
            source: What to keep: a path, or the bytes themselves.
            path: Its path within the run; the file's name when None, and needed for bytes.

        Raises:
            InvalidInput: the path is not usable, the source is missing, or the run has ended.
        """
        self._require_live()
        if isinstance(source, bytes):
            self._files.keep_bytes(source, path or "")
            return
        root = Path(source)
        name = limits.check_artifact_path(path or root.name)
        for file, inner in list_files(root):
            self._files.keep_file(file, f"{name}/{inner}" if inner else name)

    def log_artifacts(self, folder: Path | str, path: str | None = None) -> None:
        """Keep all files of a folder; symbolic links are left out.

        Args:
            folder: The folder.
            path: The folder within the run that takes them; its top when None.

        Raises:
            InvalidInput: a path is not usable, the folder is missing, or the run has ended.
        """
        self._require_live()
        for file, inner in list_files(Path(folder)):
            name = inner or file.name
            self._files.keep_file(file, f"{path}/{name}" if path else name)

    def log_model(self, model: object, name: str, **told: Any) -> Any:
        """Register a model that this run trained; see `everloop.log_model`.

        Raises:
            Conflict: ``run.no_registry`` for a run that was not begun by `everloop.start_run`.
            EverloopError: what `everloop.log_model` raises.
        """
        if self.registrar is None:
            raise Conflict(
                "run.no_registry",
                f"The run {self.id} knows no registry.",
                hint="Begin it with everloop.start_run, or call everloop.log_model with its id.",
            )
        return self.registrar(model, name, **told)

    def log_input(self, dataset_version: str) -> None:
        """State that the run read a dataset version.

        Args:
            dataset_version: Its name and number, such as ``credit@3``, or its id.

        Raises:
            InvalidInput: it is neither, or the run has ended.
        """
        self._require_live()
        self._push(Read(dataset_version=limits.check_dataset_ref(dataset_version)))

    def surround(self, environment: Environment, patch: bytes) -> None:
        """Keep the environment and the uncommitted changes, captured after the start.

        For a run that was taken up again they become artifacts of their own.
        """
        data = canonical_json(environment)
        where = f"environment/{self._session}.json" if self._session else None
        if where is not None:
            self.log_artifact(data, where)
        else:
            commit = environment.code.commit if environment.code else None
            self._push(Surroundings(environment=data, code_commit=commit))
        if patch:
            self.log_artifact(patch, where.replace(".json", ".patch") if where else PATCH)

    def flush(self) -> None:
        """Write what waits in memory to the spool; it then survives the end of the process."""
        self._writer.flush()

    def finish(self, status: RunStatus = RunStatus.FINISHED, *, error: str | None = None) -> bool:
        """End the run; return whether everything has arrived at the server.

        What has not stays in the spool for ``everloop sync``: at once while the server is away, and
        when it has not answered for ``EVERLOOP_PATIENCE`` seconds (20 when that is not set). What
        the server refused is set aside in a file beside it. Ending the run twice changes nothing.
        """
        if self._is_ended:
            return not self._spool.path.exists()
        if self._watch is not None:
            self._watch.finish()
        self._is_ended = True
        self._series = {}
        _LIVE.discard(self)
        if self._owner != os.getpid():
            self._writer.stop()  # a forked child that ends is not the end of the run
            return False
        text = None if error is None else limits.to_unicode(error[: limits.MAX_ERROR_CHARS])
        is_written = self._writer.stop(Ended(status=status, error=text, ended_at=self._now()))
        # Without the end, something in the spool can't be read: then it stays.
        if is_written and self._ship_the_rest() and self._shipment.ended is not None:
            self._spool.remove()
            return self._shipment.refused == 0
        if is_written:
            _log.warning("everloop: run %s waits in the spool; `everloop sync` ships it", self.id)
        else:
            lost = self._writer.lost + self._writer.waiting
            _log.error("everloop: run %s lost %d points for want of disk", self.id, lost)
            self._courier.stop()
        self._spool.settle()
        return False

    def _ship_the_rest(self) -> bool:
        try:
            return self._courier.stop()
        except BaseException:  # such as Ctrl-C by somebody who will not wait
            _log.warning("everloop: run %s waits in the spool; `everloop sync` ships it", self.id)
            self._spool.settle()
            raise

    def __enter__(self) -> Self:
        activate(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, Exception):
            self.finish(RunStatus.FAILED, error=f"{type(error).__name__}: {error}")
        else:
            self.finish(RunStatus.KILLED, error=type(error).__name__)

    def _open_series(self, key: str) -> _Series:
        self._require_live()
        name = limits.check_key(key, "Metric")
        limits.check_count(len(self._series) + 1, limits.MAX_KEYS_A_RUN, "metrics")
        with self._opening:
            if name not in self._series:
                place = self._writer.name(name)
                self._series[name] = _Series(place, self._next_steps.get(name, 0))
            return self._series[name]

    def _require_live(self) -> None:
        if self._is_ended:
            raise InvalidInput(
                "run.ended",
                f"Run {self.id} has ended; it takes no more.",
                hint="Log before finish(), or inside the `with` block.",
            )

    def _tell_courier(self) -> None:
        if self._owner == os.getpid() and not self._is_ended:
            self._courier.notify()

    def _after_fork(self) -> None:
        # The child has neither our threads nor a right to what the parent still has to write.
        self._writer.after_fork()
        self._spool.after_fork()
        self._opening = threading.RLock()
        self._watch = None


_LIVE: weakref.WeakSet[RunHandle] = weakref.WeakSet()


def _forget_threads() -> None:
    for handle in list(_LIVE):
        handle._after_fork()


def _end_all() -> None:
    failed = getattr(sys, "last_value", None) is not None
    for handle in list(_LIVE):
        try:
            handle.finish(RunStatus.FAILED if failed else RunStatus.FINISHED)
        except Exception:  # noqa: BLE001 -- the process ends; the other runs shall end well
            _log.exception("everloop: run %s did not end well", handle.id)


os.register_at_fork(after_in_child=_forget_threads)
atexit.register(_end_all)
