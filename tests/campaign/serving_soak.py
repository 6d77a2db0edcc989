"""Steady load on the serving processes while workers are killed and models swapped.

Each answer is checked against what the version that it names answers to that row, every
acknowledged prediction must be in the log, every acknowledged label in the feedback's log, and the
memory of the processes must stay what it was. What a kill costs is a broken connection: the caller
asks again, which is counted, and no answer is ever an error of the server.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import numpy as np

from everloop.core.wire import Target
from everloop.serve.log import list_files
from everloop.serve.log.reader import read_feedback, read_rows
from everloop.serve.runtime import open_model
from tests.parts.raw_http import Answer, RawLink, request
from tests.unit.serve.served import MODEL, TOKEN, Served, make_folder, shifted_model, version_id

WEATHER = ("clear", "mist", "rain", "snow")
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
VERSIONS = 3
CALLERS = 4
BATCH = 5
PROBE_S = 1.0
TRIES = 50


@dataclass(frozen=True)
class Plan:
    """What a soak does, in seconds.

    Attributes:
        share: Load as part of the greatest rate that the callers reach before.
    """

    seconds: float
    kill_every_s: float
    swap_every_s: float
    share: float = 0.5
    workers: int = 2
    seed: int = 0


class Question(NamedTuple):
    """A request with the right answers of each version."""

    sent: bytes
    right: dict[str, list[float]]


@dataclass
class Tally:
    """What the callers of one thread saw."""

    answered: int = 0
    rows: int = 0
    retries: int = 0
    labels: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    predictions: list[int] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)
    taking: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> tuple[list[int], list[float]]:
        """Hand over what was acknowledged since the last time."""
        with self.taking:
            taken = self.predictions, self.marks
            self.predictions, self.marks = [], []
        return taken


def soak(folder: Path, plan: Plan) -> dict[str, object]:
    """Run it; return the figures, among them what was wrong, lost or refused."""
    served = make_folder(folder)
    targets = [served.seal(number, _model(number)) for number in range(1, VERSIONS + 1)]
    served.route(targets[0])
    try:
        served.start("--workers", str(plan.workers))
        rate = plan.share * _greatest_rate(served)
        return _Soak(served, targets, plan, rate).run()
    finally:
        served.close()


class _Soak:
    def __init__(self, served: Served, targets: list[Target], plan: Plan, rate: float) -> None:
        self._served = served
        self._targets = targets
        self._plan = plan
        self._rate = rate
        self._questions = _questions()
        self._ending = threading.Event()
        self._tallies = [Tally() for _ in range(CALLERS)]
        self._reader = _Reader(served.folder / "log")
        self._memory: list[float] = []
        self._killed = 0
        self._swapped = 0

    def run(self) -> dict[str, object]:
        callers = [
            threading.Thread(target=self._call, args=(place,), name=f"caller {place}")
            for place in range(CALLERS)
        ]
        for each in callers:
            each.start()
        try:
            self._disturb()
        finally:
            self._ending.set()
            for each in callers:
                each.join()
        self._served.stop()
        self._take()
        self._reader.read()
        return self._figures()

    def _disturb(self) -> None:
        begin = time.monotonic()
        kills, swaps, probes = self._plan.kill_every_s, self._plan.swap_every_s, PROBE_S
        while (spent := time.monotonic() - begin) < self._plan.seconds:
            if spent >= kills:
                kills += self._plan.kill_every_s
                self._kill()
            if spent >= swaps:
                swaps += self._plan.swap_every_s
                self._swap()
            if spent >= probes:
                probes += PROBE_S
                self._memory.append(self._anonymous_mb())
                self._take()
                self._reader.read()
            self._ending.wait(0.05)

    def _kill(self) -> None:
        workers = self._children()
        if len(workers) == self._plan.workers:
            os.kill(workers[self._killed % len(workers)], signal.SIGKILL)
            self._killed += 1

    def _swap(self) -> None:
        self._swapped += 1
        now = self._targets[self._swapped % len(self._targets)]
        before = self._targets[(self._swapped - 1) % len(self._targets)]
        canary = before if self._swapped % 3 == 0 else None
        self._served.route(now, previous=before, canary=canary, share=0.3)

    def _call(self, place: int) -> None:
        tally = self._tallies[place]
        chance = random.Random(self._plan.seed * CALLERS + place)
        caller = _Caller(self._served)
        pause = CALLERS / self._rate
        due = time.monotonic() + chance.random() * pause
        last = ""
        try:
            for turn in itertools.count():
                due += pause
                if self._ending.wait(max(0.0, due - time.monotonic())):
                    return
                if turn % 20 == 10 and last:
                    self._label(caller, tally, last, place + turn * CALLERS)
                else:
                    last = self._ask(caller, tally, chance.choice(self._questions))
        except Exception as error:  # noqa: BLE001 -- a thread must say what ended it
            tally.wrong.append(f"caller {place}: {type(error).__name__}: {error}")
        finally:
            caller.close()

    def _ask(self, caller: _Caller, tally: Tally, question: Question) -> str:
        answer = caller.ask(question.sent, tally)
        if answer is None or answer.status != 200:
            tally.refused[str(answer and (answer.status, answer.body[:200]))] += 1
            return ""
        found = json.loads(answer.body)["predictions"]
        versions = {each["version"] for each in found}
        if len(versions) != 1:
            tally.wrong.append(f"mixed versions: {versions}")
            return ""
        (version,) = versions
        outputs = [each["output"] for each in found]
        if outputs != question.right[version]:
            tally.wrong.append(f"{version}: {outputs} where {question.right[version]} is right")
        tally.answered += 1
        tally.rows += len(found)
        tally.versions[version] += 1
        ids = [UUID(each["id"]).int for each in found]
        with tally.taking:
            tally.predictions += ids
        last: str = found[-1]["id"]
        return last

    def _label(self, caller: _Caller, tally: Tally, prediction: str, mark: float) -> None:
        body = json.dumps({"prediction": prediction, "value": mark}).encode()
        answer = caller.ask(request(path="/feedback", body=body, headers=HEADERS), tally)
        if answer is None or answer.status != 202:
            tally.refused[str(answer and (answer.status, answer.body[:200]))] += 1
            return
        tally.labels += 1
        with tally.taking:
            tally.marks.append(mark)

    def _take(self) -> None:
        """Hand over to the reader what was acknowledged so far."""
        for tally in self._tallies:
            self._reader.expect(*tally.take())

    def _children(self) -> list[int]:
        assert self._served.process is not None
        pid = self._served.process.pid
        found: list[int] = []
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
        return found

    def _anonymous_mb(self) -> float:
        """Return memory that is the workers' own: files that are mapped belong to the system."""
        bytes_of = 0
        for pid in self._children():
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("RssAnon:"):
                        bytes_of += int(line.split()[1]) * 1024
        return bytes_of / 1e6

    def _figures(self) -> dict[str, object]:
        versions: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        for tally in self._tallies:
            versions += tally.versions
            refused += tally.refused
        quarter = max(1, len(self._memory) // 4)
        return {
            "rate_asked": round(self._rate),
            "answered": sum(tally.answered for tally in self._tallies),
            "rows": sum(tally.rows for tally in self._tallies),
            "labels": sum(tally.labels for tally in self._tallies),
            "retries": sum(tally.retries for tally in self._tallies),
            "killed": self._killed,
            "swapped": self._swapped,
            "versions": dict(versions),
            "refused": dict(refused),
            "wrong": [text for tally in self._tallies for text in tally.wrong][:20],
            "lost_predictions": len(self._reader.predictions),
            "lost_labels": len(self._reader.marks),
            "memory_before_mb": statistics.median(self._memory[quarter : 2 * quarter] or [0.0]),
            "memory_after_mb": statistics.median(self._memory[-quarter:] or [0.0]),
        }


class _Caller:
    """One connection that is made again when it breaks."""

    def __init__(self, served: Served) -> None:
        url = urlsplit(json.loads((served.folder / "server.json").read_bytes())["url"])
        self._at = str(url.hostname), int(url.port or 0)
        self._link: RawLink | None = None

    def ask(self, sent: bytes, tally: Tally) -> Answer | None:
        """Return the answer; a broken connection is made again and counted."""
        for _ in range(TRIES):
            with suppress(OSError, AssertionError):
                if self._link is None:
                    self._link = RawLink(*self._at)
                if self._link.send(sent) and (answer := self._link.read()) is not None:
                    return answer
            self.close()
            tally.retries += 1
        return None

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


class _Reader:
    """Reads the logs as the control plane does, and deletes what is finished.

    Attributes:
        predictions: Acknowledged and not found yet.
        marks: Values of acknowledged labels that were not found yet.
    """

    def __init__(self, folder: Path) -> None:
        self.predictions: set[int] = set()
        self.marks: set[float] = set()
        self._folder = folder
        self._offsets: dict[Path, int] = {}
        self._early: set[int] = set()
        self._early_marks: set[float] = set()

    def expect(self, predictions: list[int], marks: list[float]) -> None:
        """Look for these from now on; some were found already."""
        self.predictions.update(predictions)
        self.marks.update(marks)
        self._settle()

    def read(self) -> None:
        """Read what is new."""
        for found in list_files(self._folder):
            chunk = read_rows(self._folder, found.name, self._offset(found.name))
            self._early.update(UUID(row.id).int for row in chunk.rows)
            self._advance(self._folder / found.name, chunk.next_offset, chunk.is_finished)
        labels = self._folder / "feedback"
        if labels.is_dir():
            for found in list_files(labels):
                path = labels / found.name
                told = read_feedback(path, self._offsets.get(path, 0))
                for item in told.items:
                    self._early_marks.update(
                        float(label.value)
                        for label in item.labels
                        if isinstance(label.value, float | int)
                    )
                self._advance(path, told.next_offset, told.is_finished)
        self._settle()

    def _offset(self, name: str) -> int:
        return self._offsets.get(self._folder / name, 0)

    def _advance(self, path: Path, offset: int, is_finished: bool) -> None:
        self._offsets[path] = offset
        if is_finished:
            path.unlink(missing_ok=True)
            del self._offsets[path]

    def _settle(self) -> None:
        both = self.predictions & self._early
        self.predictions -= both
        self._early -= both
        marks = self.marks & self._early_marks
        self.marks -= marks
        self._early_marks -= marks


def _model(number: int) -> bytes:
    return MODEL if number == 1 else shifted_model(10.0 * number)


def _questions() -> list[Question]:
    """Return requests of one row and of several, with what each version answers to them."""
    chance = np.random.default_rng(5)
    models = {
        version_id(number): open_model("lightgbm", {"model.txt": _model(number)}, 4)
        for number in range(1, VERSIONS + 1)
    }
    made = []
    for place in range(96):
        count = BATCH if place % 8 == 0 else 1
        matrix = np.column_stack(
            [
                chance.integers(0, 24, count).astype(float),
                chance.normal(15, 8, count).round(2),
                chance.integers(0, 2, count).astype(float),
                chance.integers(0, 4, count).astype(float),
            ]
        )
        rows = [
            {
                "hour": int(hour),
                "temperature": temperature,
                "working_day": bool(working),
                "weather": WEATHER[int(code)],
            }
            for hour, temperature, working, code in matrix.tolist()
        ]
        right: dict[str, list[float]] = {
            id_: model.predict(matrix).tolist() for id_, model in models.items()
        }
        sent = request(body=json.dumps({"inputs": rows}).encode(), headers=HEADERS)
        made.append(Question(sent, right))
    return made


def _greatest_rate(served: Served, seconds: float = 1.0) -> float:
    """Return how many requests a second the callers get answered without a pause."""
    question = _questions()[1]
    with _callers(served) as callers:
        counts = [0] * CALLERS
        end = time.monotonic() + seconds

        def ask(place: int) -> None:
            tally = Tally()
            while time.monotonic() < end:
                assert callers[place].ask(question.sent, tally) is not None
                counts[place] += 1

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(CALLERS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    return sum(counts) / seconds


@contextmanager
def _callers(served: Served) -> Iterator[list[_Caller]]:
    made = [_Caller(served) for _ in range(CALLERS)]
    try:
        yield made
    finally:
        for each in made:
            each.close()
