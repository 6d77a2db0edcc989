"""One day of the replay: ask for each hour, send yesterday's truths, let the loop come to rest."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from features import TARGET
from hours import TIME, inputs_of

from everloop import Client, EverloopError, PredictClient
from everloop.core.ids import Id
from everloop.core.wire import Label
from everloop.loop.queries import LoopStatus, ShowStatus
from everloop.monitor.feedback import AddFeedback, FeedbackReceipt
from everloop.monitor.queries import ListSegments, SegmentList

REST_S = 0.002
PATIENCE_S = 120.0
MOST_SEGMENTS = 1_000
A = TypeVar("A")


@dataclass
class Progress:
    """How far the replay is; on disk after every day, so that a killed demo can go on."""

    path: Path
    day: int = 0
    late: list[tuple[str, float]] = field(default_factory=list)
    loop_error: float = 0.0
    frozen_error: float = 0.0
    hours: int = 0
    last_ids: list[str] = field(default_factory=list)
    marks: dict[str, object] = field(default_factory=dict)
    is_done: bool = False

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Return the progress of an earlier start, or none."""
        if not path.exists():
            return cls(path)
        kept = json.loads(path.read_text())
        kept["late"] = [tuple(item) for item in kept["late"]]
        return cls(path, **kept)

    def save(self) -> None:
        """Put it on disk in one step."""
        kept = {name: value for name, value in vars(self).items() if name != "path"}
        replace_file(self.path, json.dumps(kept))


def replace_file(path: Path, text: str) -> None:
    """Put a file in place whole, or not at all."""
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


class Places(NamedTuple):
    """Where the replay asks: the project's folder, the server, the serving process.

    `require` ends the demo when the control plane is gone.
    """

    near: Client
    far: Client
    predictor: PredictClient
    require: Callable[[], None]


class Replay:
    """Asks the served model and feeds back the truth."""

    def __init__(self, places: Places, deployment: Id, progress: Progress) -> None:
        self.near, self.far, self.predictor, self._require = places
        self.deployment = deployment
        self.progress = progress
        self._sealed_seq = 0

    def live_day(self, rows: list[dict[str, object]], frozen: list[float]) -> None:
        """Replay one day and keep the progress."""
        progress = self.progress
        truths: list[tuple[str, float]] = []
        for row, frozen_answer in zip(rows, frozen, strict=True):
            at, truth = row[TIME], float(str(row[TARGET]))
            assert isinstance(at, datetime)
            answer = self._ask(inputs_of(row), at)
            truths.append((answer[0], truth))
            progress.loop_error += abs(answer[1] - truth)
            progress.frozen_error += abs(frozen_answer - truth)
            progress.hours += 1
        self.rest(truths[-1][0])
        if progress.late:
            self._send(progress.late)
            self.rest(truths[-1][0])
        progress.late = truths
        progress.last_ids = [*progress.last_ids, *(key for key, _ in truths[:1])][-2_000:]
        progress.day += 1
        progress.save()

    def _ask(self, inputs: dict[str, object], at: datetime) -> tuple[str, float]:
        def ask() -> tuple[str, float]:
            made = self.predictor.predict([inputs], at=at).predictions[0]  # type: ignore[list-item]
            assert made.output is not None
            return made.id, made.output

        return _patiently(ask, self._require)

    def _send(self, late: list[tuple[str, float]]) -> None:
        labels = tuple(Label(prediction=Id(key), value=truth) for key, truth in late)

        def send() -> FeedbackReceipt:
            return self.far.perform(
                "feedback.add", AddFeedback(labels=labels, source="replay"), FeedbackReceipt
            )

        receipt = _patiently(send, self._require)
        assert not receipt.unknown, f"unknown predictions: {receipt.unknown[:3]}"

    def rest(self, newest: str) -> None:
        """Wait until the loop has seen the newest prediction and has nothing left to do."""
        end = time.monotonic() + PATIENCE_S
        while not self._is_at_rest(newest):
            if time.monotonic() > end:
                message = f"the loop did not come to rest within {PATIENCE_S:g} s"
                raise TimeoutError(message)
            self._require()
            time.sleep(REST_S)

    def _is_at_rest(self, newest: str) -> bool:
        ask = ListSegments(
            deployment=self.deployment, after_seq=self._sealed_seq, limit=MOST_SEGMENTS
        )
        fresh = self.near.perform("prediction.segments", ask, SegmentList).items
        if len(fresh) == MOST_SEGMENTS:
            self._sealed_seq = fresh[-1].seq - 1
            return False
        if not fresh or max(segment.last_id for segment in fresh) < newest:
            return False
        status = self.near.perform(
            "loop.status", ShowStatus(deployment=self.deployment), LoopStatus
        )
        turn = status.turn
        if turn is None or not turn.is_idle or turn.segment_seq < fresh[-1].seq:
            return False
        is_behind = turn.feedback_seq < status.feedback_seq
        if not is_behind:
            self._sealed_seq = max(fresh[-1].seq - 1, 0)
        return not is_behind


def wait_for_token(predictor: PredictClient, require: Callable[[], None]) -> None:
    """Wait until the serving process has heard of a fresh token."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            predictor.model()
        except (ConnectionError, PermissionError):
            if time.monotonic() > end:
                raise
            require()
            time.sleep(REST_S)
        else:
            return


def _patiently(call: Callable[[], A], require: Callable[[], None]) -> A:
    """Repeat a call while the other side is away, as it is for a moment after a crash."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except EverloopError as error:
            is_away = isinstance(error, ConnectionError)
            if not is_away or time.monotonic() > end:
                raise
            require()
            time.sleep(0.05)
