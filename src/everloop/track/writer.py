"""Brings what a run logs from memory into its spool, off the training's path.

A thread writes what has gathered every 20 ms. Writing takes its time too, in a tight loop as much
again, so that a killed process loses less than the last 50 ms. While the disk refuses, points
wait in memory; only beyond two million is any lost, and then it is counted and said.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from everloop.track.frames import MAX_FRAME_BYTES, Frame, Measured, encode_frame
from everloop.track.spool import Spool

FLUSH_EVERY_S: Final = 0.02
MOST_WAITING: Final = 2_000_000
MOST_AT_ONCE: Final = 500_000
# A batch is sent when it has grown this large; two frames of this size still fit into one.
MOST_IN_A_FRAME: Final = 50_000
Point: TypeAlias = tuple[str, int, datetime, float]
Item: TypeAlias = Point | Frame

_log = logging.getLogger(__name__)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class SpoolWriter:
    """Writes one spool from a thread of its own.

    Thread-safe. Whoever logs appends to ``waiting`` and calls ``arouse`` unless ``is_awake``: the
    two lines stand in the hot path of ``log_metric`` and must stay that cheap.

    Attributes:
        lost: How many points and other frames were given up because nothing could be written.
    """

    def __init__(self, spool: Spool, written: Callable[[], None]) -> None:
        """Make a writer; ``written`` hears of each write that the thread made."""
        self.waiting: deque[Item] = deque()
        self.is_awake = False
        self.lost = 0
        self._spool = spool
        self._written = written
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def arouse(self) -> None:
        """Let the thread write soon; starts it the first time."""
        self.is_awake = True
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._work, name="everloop-spool", daemon=True
                    )
                    self._thread.start()
        self._wake.set()

    def flush(self) -> bool:
        """Write all that waits; return whether nothing waits any more."""
        with self._lock:
            # What comes in meanwhile is left to the next call: a fast loop must not hold this one.
            left = len(self.waiting)
            while left > 0:
                items = [self.waiting.popleft() for _ in range(min(left, MOST_AT_ONCE))]
                left -= len(items)
                if not self._write(items):
                    return False
        return True

    def stop(self) -> bool:
        """End the thread and write what waits; return whether all is written."""
        self._stop.set()
        self._wake.set()
        return self.flush()

    def after_fork(self) -> None:
        """Forget, in a forked child, the parent's threads and what the parent has to write."""
        self.waiting.clear()
        self.is_awake = False
        self._thread = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._stop.wait(FLUSH_EVERY_S)
            # The order matters: a call between these two lines is written below, and one after
            # them wakes this thread again.
            self._wake.clear()
            self.is_awake = False
            if self.flush() and not self._stop.is_set():
                self._written()

    def _write(self, items: list[Item]) -> bool:
        data = b"".join(self._encoded(frame) for frame in _to_frames(items))
        try:
            self._spool.append(data)
        except OSError as error:
            self._keep(items, error)
            return False
        if self._is_failing:
            self._is_failing = False
            _log.warning("everloop: the spool can be written again")
        return True

    def _encoded(self, frame: Frame) -> bytes:
        """Return a frame's bytes; none for one that can't be written, which costs no other one."""
        try:
            data = encode_frame(frame)
        except (TypeError, ValueError, OverflowError) as error:
            self._give_up(frame, error)
            return b""
        if len(data) > MAX_FRAME_BYTES:
            self._give_up(frame, f"{len(data)} bytes are too many")
            return b""
        return data

    def _give_up(self, frame: Frame, reason: object) -> None:
        self.lost += len(frame.steps) if isinstance(frame, Measured) else 1
        what = repr(frame.key) if isinstance(frame, Measured) else type(frame).__name__
        _log.error("everloop: %s cannot be kept: %s", what, reason)

    def _keep(self, items: list[Item], error: OSError) -> None:
        """Hold on to what could not be written: a full disk must not end a training of days."""
        if not self._is_failing:
            self._is_failing = True
            _log.error("everloop: the spool cannot be written, points wait in memory: %s", error)
        space = MOST_WAITING - len(self.waiting)
        if len(items) > space:
            self.lost += len(items) - max(space, 0)
            _log.error("everloop: %d points are lost for want of disk", self.lost)
        self.waiting.extendleft(reversed(items[: max(space, 0)]))


def _to_frames(items: list[Item]) -> list[Frame]:
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
        if series is None or len(series.steps) >= MOST_IN_A_FRAME:
            series = open_series[key] = Measured(key=key, steps=[], times_us=[], values=[])
            frames.append(series)
        series.steps.append(step)
        series.times_us.append((at - _EPOCH) // _MICROSECOND)
        series.values.append(value)
    return frames
