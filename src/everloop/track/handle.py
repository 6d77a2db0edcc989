"""The handle by which a training program logs: microseconds a call, whatever the server does.

A call checks its input and puts the point into memory. A thread writes what has gathered to the
spool at most every 50 ms, and another ships the spool. Ending the run writes and ships the rest.
"""

from __future__ import annotations

import atexit
import logging
import operator
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self, SupportsFloat, SupportsIndex, TypeAlias

from everloop.core.clock import Clock
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.ids import Id
from everloop.track import limits
from everloop.track.frames import (
    Described,
    Ended,
    Frame,
    Kept,
    Measured,
    Read,
    Started,
    encode_frame,
)
from everloop.track.model import RunStatus
from everloop.track.shipper import Courier, Shipment
from everloop.track.spool import Spool

FLUSH_EVERY_S: Final = 0.05
MOST_WAITING: Final = 2_000_000
ParamValue: TypeAlias = str | bool | int | float | None

_log = logging.getLogger(__name__)


class _Series:
    __slots__ = ("next_step",)

    def __init__(self) -> None:
        self.next_step = 0


Point: TypeAlias = tuple[str, int, datetime, float]


class RunHandle:
    """A live run.

    Thread-safe. After a fork the child may go on logging; the parent ships for both. Used as a
    context manager, it ends as failed when the block raises.
    """

    def __init__(self, started: Started, spool: Spool, shipment: Shipment, clock: Clock) -> None:
        self.id = Id(started.run)
        self._spool = spool
        self._shipment = shipment
        self._courier = Courier(shipment)
        self._now = clock.now
        self._series: dict[str, _Series] = {}
        self._params = dict(started.params)
        self._waiting: deque[Point | Frame] = deque()
        self._is_awake = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._write_lock = threading.Lock()
        self._is_ended = False
        self._has_lost = False
        self._owner = os.getpid()
        _LIVE.add(self)

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
            self._shipment.ship()
        except ConnectionError:
            self._courier.notify()
        except BaseException:
            self._is_ended = True
            self._spool.remove()
            raise

    def log_metric(self, key: str, value: SupportsFloat, step: SupportsIndex | None = None) -> None:
        """Log one value; without a step, one more than the metric's step before.

        Raises:
            InvalidInput: the key, value or step is not usable, or the run has ended.
        """
        series = self._series.get(key) or self._open_series(key)
        try:
            number = float(value)
            at = series.next_step if step is None else operator.index(step)
        except (TypeError, ValueError, OverflowError) as error:
            raise _not_a_number(key, error) from error
        if not limits.MIN_STEP <= at < limits.MAX_STEP:
            raise _not_a_number(key, f"step {at} does not fit into 64 bits")
        series.next_step = at + 1
        self._waiting.append((key, at, self._now(), number))
        if not self._is_awake:
            self._arouse()

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
        texts = {key: to_text(value) for key, value in params.items()}
        limits.check_texts(texts, "Parameter", limits.MAX_PARAM_CHARS)
        changed = [key for key, text in texts.items() if self._params.get(key, text) != text]
        if changed:
            raise Conflict(
                "run.param_changed",
                f"Parameter {changed[0]!r} is already set to another value.",
                hint="A parameter is set once; log what changes as a metric or a tag.",
            )
        self._params |= texts
        self._push(Described(params=texts, tags={}))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or change tags.

        Raises:
            InvalidInput: a name or value is not usable, or the run has ended.
        """
        self._require_live()
        limits.check_texts(tags, "Tag", limits.MAX_TAG_CHARS)
        self._push(Described(params={}, tags=dict(tags)))

    def log_artifact(self, source: Path | str | bytes, path: str | None = None) -> None:
        """Keep a file, a folder's files, or bytes; symbolic links in a folder are left out.

        Args:
            source: What to keep: a path, or the bytes themselves.
            path: Its path within the run; the file's name when None, and needed for bytes.

        Raises:
            InvalidInput: the path is not usable, the source is missing, or the run has ended.
        """
        self._require_live()
        if isinstance(source, bytes):
            name = limits.check_artifact_path(path or "")
            digest, size = self._spool.keep_bytes(source)
            self._push(Kept(path=name, digest=digest, size_bytes=size))
            return
        root = Path(source)
        name = limits.check_artifact_path(path or root.name)
        for file, inner in _list_files(root):
            inside = limits.check_artifact_path(f"{name}/{inner}" if inner else name)
            digest, size = self._spool.keep_file(file)
            self._push(Kept(path=inside, digest=digest, size_bytes=size))

    def log_input(self, dataset_version: str) -> None:
        """State that the run read a dataset version, by its id.

        Raises:
            InvalidInput: the run has ended.
        """
        self._require_live()
        self._push(Read(dataset_version=dataset_version))

    def flush(self) -> None:
        """Write what waits in memory to the spool; it then survives the end of the process."""
        with self._write_lock:
            self._write(self._drain())

    def finish(self, status: RunStatus = RunStatus.FINISHED, *, error: str | None = None) -> bool:
        """End the run; return whether everything has arrived at the server.

        What has not stays in the spool for ``everloop sync``. Ending it twice changes nothing.
        """
        if self._is_ended:
            return not self._spool.path.exists()
        self._is_ended = True
        self._series = {}
        text = None if error is None else error[: limits.MAX_ERROR_CHARS]
        self._waiting.append(Ended(status=status, error=text, ended_at=self._now()))
        self._stop.set()
        self._wake.set()
        self.flush()
        _LIVE.discard(self)
        if self._owner != os.getpid():
            return False
        arrived = self._courier.stop()
        if arrived:
            self._spool.remove()
        else:
            self._spool.sync()
            _log.warning("everloop: run %s waits in the spool; `everloop sync` ships it", self.id)
            self._spool.close()
        return arrived

    def __enter__(self) -> Self:
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
        limits.check_key(key, "Metric")
        limits.check_count(len(self._series) + 1, limits.MAX_KEYS_A_RUN, "metrics")
        return self._series.setdefault(key, _Series())

    def _require_live(self) -> None:
        if self._is_ended:
            raise InvalidInput(
                "run.ended",
                f"Run {self.id} has ended; it takes no more.",
                hint="Log before finish(), or inside the `with` block.",
            )

    def _push(self, frame: Frame) -> None:
        self._waiting.append(frame)
        if not self._is_awake:
            self._arouse()

    def _arouse(self) -> None:
        self._is_awake = True
        if self._thread is None:
            with self._write_lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._work, name="everloop-spool", daemon=True
                    )
                    self._thread.start()
        self._wake.set()

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._stop.wait(FLUSH_EVERY_S)
            # The order matters: a call between these two lines is drained below, and one after
            # them wakes this thread again.
            self._wake.clear()
            self._is_awake = False
            self.flush()
            if self._owner == os.getpid() and not self._stop.is_set():
                self._courier.notify()

    def _drain(self) -> list[Point | Frame]:
        items = []
        while self._waiting:
            items.append(self._waiting.popleft())
        return items

    def _write(self, items: list[Point | Frame]) -> None:
        if not items:
            return
        try:
            self._spool.append(b"".join(encode_frame(frame) for frame in _to_frames(items)))
        except OSError as error:
            # A full disk must not end a training of days; the points wait in memory meanwhile.
            if not self._has_lost:
                self._has_lost = True
                _log.error("everloop: the spool cannot be written: %s", error)
            if len(items) <= MOST_WAITING:
                self._waiting.extendleft(reversed(items))

    def _after_fork(self) -> None:
        # The child has neither our threads nor a right to what the parent still has to write.
        self._waiting.clear()
        self._is_awake = False
        self._thread = None
        self._write_lock = threading.Lock()
        self._wake = threading.Event()


_LIVE: weakref.WeakSet[RunHandle] = weakref.WeakSet()


def _forget_threads() -> None:
    for handle in list(_LIVE):
        handle._after_fork()


def _end_all() -> None:
    failed = getattr(sys, "last_value", None) is not None
    for handle in list(_LIVE):
        handle.finish(RunStatus.FAILED if failed else RunStatus.FINISHED)


os.register_at_fork(after_in_child=_forget_threads)
atexit.register(_end_all)


def _to_frames(items: list[Point | Frame]) -> list[Frame]:
    """Gather points by metric; other frames keep their place behind the points before them."""
    frames: list[Frame] = []
    open_series: dict[str, Measured] = {}
    for item in items:
        if not isinstance(item, tuple):
            open_series = {}
            frames.append(item)
            continue
        key, step, at, value = item
        series = open_series.get(key)
        if series is None:
            series = open_series[key] = Measured(key=key, steps=[], times_us=[], values=[])
            frames.append(series)
        series.steps.append(step)
        series.times_us.append((at - _EPOCH) // _MICROSECOND)
        series.values.append(value)
    return frames


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_text(value: ParamValue) -> str:
    """Return a parameter as the text that is stored."""
    return value if isinstance(value, str) else repr(value)


def _list_files(root: Path) -> list[tuple[Path, str]]:
    if root.is_file():
        return [(root, "")]
    if not root.is_dir():
        raise InvalidInput(
            "run.artifact_missing",
            f"There is no file or folder {str(root)[:200]!r}.",
            hint="Give the path of something that exists, or the bytes themselves.",
        )
    return [
        (file, file.relative_to(root).as_posix())
        for file in sorted(root.rglob("*"))
        if file.is_file() and not file.is_symlink()
    ]


def _not_a_number(key: str, reason: object) -> InvalidInput:
    return InvalidInput(
        "metric.value_invalid",
        f"Metric {str(key)[:60]!r} cannot be logged: {reason}.",
        hint="Log a number (NaN and infinity are allowed) at a whole step.",
    )
