"""Brings what a run logs into its spool, off the training's path.

Points go into a ring that outlives a killed process, and a thread writes them to the spool 20
times a second; a loop so fast that it fills the ring writes it itself. Other frames, which are
rare, are written at once. While the disk refuses or is slow, points wait in memory; only beyond
two million is any lost, and then it is counted and said.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Final

from everloop.core.errors import EverloopError
from everloop.track import ring
from everloop.track.frames import MAX_FRAME_BYTES, Frame, Named, encode_frame
from everloop.track.ring import RECORD_BYTES, SLOTS, LoggedPoint, Ring
from everloop.track.spool import Spool

FLUSH_EVERY_S: Final = 0.05
RETRY_EVERY_S: Final = 1.0
MOST_WAITING: Final = 2_000_000

_log = logging.getLogger(__name__)


class SpoolWriter:
    """Writes one spool, from a thread of its own and from those that log.

    Thread-safe, and `put` may be called from a signal handler. Points are counted from 0 in the
    order in which they are logged: those before ``_written`` stand in the spool, those before
    ``_limit`` in the ring, and all others in ``_spill``, which only a process that lives keeps.

    Attributes:
        lost: How many points and frames were given up because they could not be written.
    """

    def __init__(self, spool: Spool, written: Callable[[], None]) -> None:
        """Make a writer; ``written`` hears of each write that the thread made."""
        self.lost = 0
        self._spool = spool
        self._tell = written
        self._names: list[str] = []
        self._pending: list[bytes] = []
        self._ring: Ring | None = None
        self._store: Callable[[int, int, float, float, int], None] = _no_ring
        self._is_child = False
        self._begin()

    def _begin(self) -> None:
        self._count = self._written = self._limit = 0
        self._spill = bytearray()
        self._nested: deque[LoggedPoint] = deque()
        self._is_storing = False
        self._has_ring_failed = self._is_failing = self._is_losing = self._is_awake = False
        self._lock = threading.RLock()  # guards the counts, the ring and the spill
        # Held by who writes to the spool; taken before the other, and again by a signal handler.
        self._writing = threading.RLock()
        self._is_writing = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many points and frames are not in the spool."""
        return self._count - self._written + len(self._pending)

    def name(self, key: str) -> int:
        """Return the number of a new metric for `put`."""
        with self._lock:
            place = len(self._names)
            self._names.append(key)
        if not self._is_child:
            self.push(Named(place=place, key=key))
        return place

    def put(self, key: int, step: int, seconds: float, value: float) -> None:
        """Keep one point; it survives the process when this returns."""
        with self._lock:
            if self._is_storing:  # by a signal handler, amid the call that it interrupted
                self._nested.append(LoggedPoint(key, step, seconds, value))
                return
            self._is_storing = True
            try:
                count = self._count
                is_full = count >= self._limit
                if is_full:
                    self._put_aside(LoggedPoint(key, step, seconds, value))
                else:
                    self._store(count, step, seconds, value, key)
                    self._count = count + 1
            finally:
                self._is_storing = False
        if self._nested:
            self._put_nested()
        if not self._is_awake:
            self._arouse()
        if is_full and (self._is_child or self._ring is not None):
            self._relieve()

    def _put_nested(self) -> None:
        while self._nested and not self._is_storing:
            try:
                point = self._nested.popleft()
            except IndexError:  # another thread was first
                return
            self.put(*point)

    def push(self, frame: Frame) -> None:
        """Write one frame; one that can't be written costs no other one."""
        data = self._encode(frame)
        with self._writing:
            self._pending += data
            if not self._is_failing:
                self._write()
        if not self._is_awake:
            self._arouse()

    def flush(self) -> bool:
        """Write all that waits; return whether nothing waits any more."""
        with self._writing:
            return self._write()

    def stop(self, last: Frame | None = None) -> bool:
        """End the thread, and write what waits and a last frame; return whether all is written."""
        self._stop.set()
        self._wake.set()
        with self._writing:
            if last is not None and self._write():
                self._pending += self._encode(last)
            is_written = self._write()
            if is_written and self._ring is not None:
                self._ring.remove()
        return is_written

    def after_fork(self) -> None:
        """Forget, in a forked child, the parent's ring and threads and what it has to write."""
        self._is_child, self._ring, self._pending = True, None, []
        self._begin()

    def _encode(self, frame: Frame) -> list[bytes]:
        """Return a frame's bytes, or nothing for one that can't be written."""
        try:
            data = encode_frame(frame)
            if len(data) <= MAX_FRAME_BYTES:
                return [data]
            reason: object = f"{len(data)} bytes are too many"
        except (TypeError, ValueError, OverflowError) as error:
            reason = error
        self.lost += 1
        _log.error("everloop: %s cannot be kept: %s", type(frame).__name__, reason)
        return []

    def _put_aside(self, point: LoggedPoint) -> None:
        """Take a point for which the ring has no place; the lock is held."""
        if self._count == 0 and not (self._is_child or self._has_ring_failed):
            try:
                self._ring = Ring(self._spool.path)
            except (OSError, AttributeError) as error:  # AttributeError: not on this system
                self._has_ring_failed = True
                _log.info("everloop: points wait in the process's own memory: %s", error)
            else:
                self._limit, self._store = SLOTS, self._ring.writer()
                self._store(0, point.step, point.seconds, point.value, point.key)
                self._count = 1
                return
        if len(self._spill) >= MOST_WAITING * RECORD_BYTES:
            if not self._is_losing:
                self._is_losing = True
                _log.error("everloop: points are lost for want of disk, %d wait", MOST_WAITING)
            self.lost += 1
            return
        self._spill += ring.pack_point(point)
        self._count += 1

    def _relieve(self) -> None:
        """Make room, unless another thread does or nothing can be written."""
        if not self._is_failing and self._writing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._writing.release()

    def _write(self) -> bool:
        """Write what waits now; who calls it holds ``_writing``."""
        if self._is_writing:  # by a signal handler, amid the call that it interrupted
            return False
        self._is_writing = True
        try:
            return self._write_all()
        finally:
            self._is_writing = False

    def _write_all(self) -> bool:
        if self._nested:
            self._put_nested()
        end = self._count  # what comes in meanwhile is left to the next call
        try:
            self._write_frames()
            while self._written < end:
                self._write_points()
        except OSError as error:
            if not self._is_failing:
                self._is_failing = True
                _log.error("everloop: the spool cannot be written, points wait: %s", error)
            return False
        if self._is_failing:
            self._is_failing = False
            _log.warning("everloop: the spool can be written again")
        return True

    def _write_frames(self) -> None:
        count = len(self._pending)
        if count:
            self._spool.append(b"".join(self._pending[:count]))
            del self._pending[:count]

    def _write_points(self) -> None:
        start, upto = self._written, min(self._count, self._limit)
        if self._ring is not None and start < upto:
            data = self._ring.take(start, upto)
        else:
            with self._lock:
                data = bytes(self._spill[: SLOTS * RECORD_BYTES])
        end = start + len(data) // RECORD_BYTES
        told = None if self._ring is None else end
        self._spool.append(encode_frame(ring.frame_points(data, self._names, told)))
        with self._lock:
            self._written = end
            if end > self._limit or self._ring is None:
                del self._spill[: len(data)]
            if not self._spill and self._ring is not None:
                self._limit = end + SLOTS

    def _arouse(self) -> None:
        """Let the thread write soon; starts it the first time."""
        self._is_awake = True
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._work, name="everloop-spool", daemon=True)
                    thread.start()
                    self._thread = thread
        self._wake.set()

    def _work(self) -> None:
        _tidy_memory()
        delay = FLUSH_EVERY_S
        while not self._stop.is_set():
            self._wake.wait()
            self._stop.wait(delay)
            # The order matters: a call between these two lines is written below, and one after
            # them wakes this thread again.
            self._wake.clear()
            self._is_awake = False
            if self._stop.is_set():
                return
            if self.flush():
                delay = FLUSH_EVERY_S
                self._tell()
            else:
                delay = RETRY_EVERY_S
                self._wake.set()


def _no_ring(*_: object) -> None:
    raise AssertionError


@cache
def _tidy_memory() -> None:
    """Bring rings of processes that died long ago into their spools, and free their memory."""
    for path in ring.stale_spools():
        with suppress(OSError, EverloopError):
            Spool(path).close()
