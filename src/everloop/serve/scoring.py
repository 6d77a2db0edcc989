"""Rows to answers by one version: at once where that is cheap, else in batches of what has come.

A cheap model is asked right where its request was read. A dear one has a thread of its own, which
takes all rows that came while it scored the ones before: nothing waits for company, and the more
is asked at once, the larger the batches. Each request gets its own rows back, by place.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter_ns
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from everloop.core.errors import LimitExceeded
from everloop.core.wire import Status
from everloop.serve.bundle import LoadedBundle
from everloop.serve.sketch import Sketch

FloatArray = npt.NDArray[np.float64]
INLINE_US: Final = 400.0
BATCH_ROWS: Final = 4_096
WAITING_ROWS: Final = 65_536
_DRIFT: Final = 1.01
_NOTHING: Final = np.empty(0)


class Scored(msgspec.Struct, gc=False):
    """What a version made of the rows of one request.

    Attributes:
        outputs: One number a row, or one row of numbers; None when the model failed.
        status: Of all the rows: the worst.
    """

    status: Status
    outputs: FloatArray | None
    latency_us: int


UNFIT: Final = Scored(Status.ERROR, None, 0)
"""Of rows that a version cannot take."""


class _Job(NamedTuple):
    matrix: FloatArray
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Scored]


class Scorer:
    """Asks one loaded version. ``now`` and ``later`` are called on the event loop's thread."""

    def __init__(self, loaded: LoadedBundle) -> None:
        self.loaded = loaded
        self._predict_one = getattr(loaded.predictor, "predict_one", None)
        self.sketch = None if loaded.profile is None else Sketch(loaded.profile, loaded.rows)
        self.has_quick_way = self._predict_one is not None
        self._may_hang = getattr(loaded.predictor, "may_hang", False)
        self.row_us = math.inf
        self.call_us = math.inf
        self._jobs: deque[_Job] = deque()
        self.waiting_rows = 0
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def warm(self) -> None:
        """Ask the golden questions and one more batch, so that no caller pays for a first time."""
        golden = self.loaded.golden_matrix()
        if not len(golden):
            return
        for row in golden[:20]:
            self.now(row[None, :])
            if self.has_quick_way:
                self.one(row.tolist())
        for _ in range(3):
            self.now(np.resize(golden, (64, golden.shape[1])))

    def is_quick(self, rows: int) -> bool:
        """Tell whether so many rows may be scored between two requests."""
        return self.cost_us(rows) <= INLINE_US

    def cost_us(self, rows: int) -> float:
        """Return the time that so many rows take at once; without an end for who may hang."""
        if self._may_hang:
            return math.inf  # nobody else would be answered meanwhile
        if rows == 1:
            return self.call_us
        return self.call_us + (rows - 1) * min(self.row_us, self.call_us)

    def one(self, row: Sequence[float]) -> Scored | None:
        """Score one row by the quick way; None where it has a null, or the quick way fails."""
        assert self._predict_one is not None
        begin = perf_counter_ns()
        try:
            output = self._predict_one(row)
        except Exception:  # noqa: BLE001 -- the usual way finds out what is wrong, and says so
            return None
        spent = (perf_counter_ns() - begin) / 1_000
        self._learn(1, spent)
        outputs = np.array([output], dtype=np.float64)
        return Scored(judge(self.loaded, outputs), outputs, int(spent))

    def now(self, matrix: FloatArray) -> Scored:
        """Score rows here; whatever the model raises becomes their status."""
        begin = perf_counter_ns()
        try:
            outputs = np.atleast_1d(np.asarray(self.loaded.model(matrix), dtype=np.float64))
        except Exception:  # noqa: BLE001 -- a model is foreign code: what it raises is its error
            outputs = _NOTHING
        if len(outputs) != len(matrix):
            return Scored(Status.ERROR, None, (perf_counter_ns() - begin) // 1_000)
        spent = (perf_counter_ns() - begin) / 1_000
        self._learn(len(matrix), spent)
        return Scored(judge(self.loaded, outputs), outputs, int(spent))

    def later(self, matrix: FloatArray) -> asyncio.Future[Scored]:
        """Score rows in this version's own thread, together with what else has come.

        Raises:
            LimitExceeded: ``server.busy`` when too many rows wait already.
        """
        if self.waiting_rows + len(matrix) > WAITING_ROWS:
            raise LimitExceeded(
                "server.busy",
                f"{self.waiting_rows} rows wait for this model already.",
                hint="Try again in a second.",
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Scored] = loop.create_future()
        with self._wake:
            self._jobs.append(_Job(matrix, loop, future))
            self.waiting_rows += len(matrix)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="scorer", daemon=True)
                self._thread.start()
            self._wake.notify()
        return future

    def close(self) -> None:
        """End the thread when it has scored what waits; idempotent."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()

    def _learn(self, rows: int, spent_us: float) -> None:
        # What a call and a row cost at least: a machine that was busy elsewhere tells nothing.
        if rows == 1:
            self.call_us = min(spent_us, self.call_us * _DRIFT)
        elif rows >= 16:
            self.row_us = min(max(0.0, spent_us - self.call_us) / rows, self.row_us * _DRIFT)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._jobs and not self._is_closed:
                    self._wake.wait()
                if not self._jobs:
                    # A request that was planned before the end may come yet: it starts another.
                    self._thread = None
                    return
                jobs = [job for job in self._take() if not job.future.done()]
            if not jobs:
                continue  # nobody waits for these any more
            found = self._score(jobs)
            for job, scored in zip(jobs, found, strict=True):
                with suppress(RuntimeError):  # the process ends: nobody waits any more
                    job.loop.call_soon_threadsafe(_deliver, job.future, scored)

    def _take(self) -> list[_Job]:
        """Take all that waits, up to one batch, and at least one."""
        jobs = [self._jobs.popleft()]
        rows = len(jobs[0].matrix)
        while self._jobs and rows + len(self._jobs[0].matrix) <= BATCH_ROWS:
            jobs.append(self._jobs.popleft())
            rows += len(jobs[-1].matrix)
        self.waiting_rows -= rows
        return jobs

    def _score(self, jobs: Sequence[_Job]) -> list[Scored]:
        if len(jobs) == 1:
            return [self.now(jobs[0].matrix)]
        together = self.now(np.concatenate([job.matrix for job in jobs]))
        if together.outputs is None:
            # One bad row must not take the others' answers away.
            return [self.now(job.matrix) for job in jobs]
        ends = np.cumsum([len(job.matrix) for job in jobs])
        parts = np.split(together.outputs, ends[:-1])
        return [Scored(judge(self.loaded, part), part, together.latency_us) for part in parts]


def judge(loaded: LoadedBundle, outputs: FloatArray) -> Status:
    """Return the worst status of answers: valid only where all of them are."""
    if outputs.size == 1:
        return Status.OK if loaded.is_valid(outputs.item()) else Status.INVALID
    low = -math.inf if loaded.bundle.output_minimum is None else loaded.bundle.output_minimum
    high = math.inf if loaded.bundle.output_maximum is None else loaded.bundle.output_maximum
    is_finite = bool(np.isfinite(outputs).all())
    is_sound = is_finite and bool((outputs >= low).all() and (outputs <= high).all())
    return Status.OK if is_sound else Status.INVALID


async def in_time(answer: asyncio.Future[Scored], within_s: float) -> Scored:
    """Wait for an answer, but not for ever: one that is too late is an error of the model."""
    try:
        async with asyncio.timeout(within_s):
            return await answer
    except TimeoutError:
        return Scored(Status.ERROR, None, int(within_s * 1e6))


def is_late(scored: Scored, within_s: float) -> bool:
    """Tell whether an answer did not come in time."""
    return scored.outputs is None and scored.latency_us >= int(within_s * 1e6)


def _deliver(future: asyncio.Future[Scored], scored: Scored) -> None:
    if not future.done():
        future.set_result(scored)
