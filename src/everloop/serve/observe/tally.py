"""Counts of what a worker did, cheap to keep and easy to add up over workers.

Each worker keeps its own and writes them down every second; whoever is asked reads those of the
others. A worker that takes a dead one's place goes on from its counts, so that sums never fall.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from everloop.serve.files import write_atomically

BUCKETS_S: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 10.0,
)  # fmt: skip
MOST_SERIES: Final = 200
OTHER: Final = "other"
SUFFIX: Final = ".tally"
# Each worker has the same, so that a sum would tell of more than there are.
SHARED: Final = frozenset({"models_resident", "bundles_refused"})
_BOUNDS_US: Final = tuple(bound * 1e6 for bound in BUCKETS_S)


class Spread(msgspec.Struct):
    """How long something took: counts by bucket, the last one without a bound, and the sum."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_us: float = 0.0

    def add(self, took_us: float) -> None:
        """Count one."""
        self.counts[bisect_left(_BOUNDS_US, took_us)] += 1
        self.sum_us += took_us

    def plus(self, other: Spread) -> None:
        """Add another's counts."""
        self.counts = [
            mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)
        ]
        self.sum_us += other.sum_us


class Answers(msgspec.Struct):
    """What one version did in one arm of a deployment.

    Attributes:
        rows: Predictions by status.
        fallbacks: Those that the champion answered in its place.
        unlogged: Those for which the log had no room.
        scoring: Time of each call of the model.
    """

    rows: dict[str, int] = {}
    fallbacks: int = 0
    unlogged: int = 0
    scoring: Spread = msgspec.field(default_factory=Spread)

    def plus(self, other: Answers) -> None:
        """Add another's counts."""
        for status, count in other.rows.items():
            self.rows[status] = self.rows.get(status, 0) + count
        self.fallbacks += other.fallbacks
        self.unlogged += other.unlogged
        self.scoring.plus(other.scoring)


class Tally(msgspec.Struct):
    """All counts of a worker.

    Attributes:
        answers: By deployment, version and arm.
        replies: HTTP replies by status.
        requests: Time from a request's first byte to its reply.
        gauges: What is so at this moment, by name.
        awaited: Rows that shadows have not answered yet, by deployment.
        inputs: Counts of the inputs' groups, by deployment and version.
    """

    answers: dict[tuple[str, str, str], Answers] = {}
    replies: dict[int, int] = {}
    requests: Spread = msgspec.field(default_factory=Spread)
    gauges: dict[str, float] = {}
    awaited: dict[str, int] = {}
    inputs: dict[tuple[str, str], list[list[float]]] = {}

    def of(self, deployment: str, version: str, arm: str) -> Answers:
        """Return the counts of a version; versions beyond the first many share one name."""
        key = (deployment, version, arm)
        found = self.answers.get(key)
        if found is None:
            if len(self.answers) >= MOST_SERIES:
                key = (OTHER, OTHER, arm)
            found = self.answers.setdefault(key, Answers())
        return found

    def replied(self, status: int, took_us: float) -> None:
        """Count a reply."""
        self.replies[status] = self.replies.get(status, 0) + 1
        self.requests.add(took_us)

    def plus(self, other: Tally) -> None:
        """Add another worker's counts."""
        for (deployment, version, arm), found in other.answers.items():
            self.of(deployment, version, arm).plus(found)
        for status, count in other.replies.items():
            self.replies[status] = self.replies.get(status, 0) + count
        self.requests.plus(other.requests)
        for name, value in other.gauges.items():
            mine_now = self.gauges.get(name, 0.0)
            self.gauges[name] = max(mine_now, value) if name in SHARED else mine_now + value
        for name, rows in other.awaited.items():
            self.awaited[name] = self.awaited.get(name, 0) + rows
        for where, counts in other.inputs.items():
            mine = self.inputs.get(where)
            self.inputs[where] = counts if mine is None else _sums(mine, counts)


def _sums(mine: list[list[float]], theirs: list[list[float]]) -> list[list[float]]:
    if [len(each) for each in mine] != [len(each) for each in theirs]:
        return mine  # of a bundle that was sealed anew: the newer counts win in time
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(mine, theirs, strict=True)]


def save_tally(folder: Path, worker: str, tally: Tally) -> None:
    """Write a worker's counts down for the others."""
    write_atomically(folder / f"{worker}{SUFFIX}", msgspec.msgpack.encode(tally))


def lay_down(folder: Path) -> None:
    """Keep the counts of an earlier group of workers, and none of what was so at its end."""
    for path in folder.glob(f"*{SUFFIX}"):
        found = _read(path)
        if found is not None:
            found.gauges, found.awaited, found.inputs = {}, {}, {}
            save_tally(folder, path.name.removesuffix(SUFFIX), found)


def take_up(folder: Path | None, worker: str) -> Tally:
    """Return the counts that the worker before left, or none."""
    found = None if folder is None else _read(folder / f"{worker}{SUFFIX}")
    if found is None:
        return Tally()
    found.gauges, found.awaited, found.inputs = {}, {}, {}
    return found


def add_up(mine: Tally, folder: Path | None, worker: str) -> Tally:
    """Return this worker's counts and those that the others wrote down."""
    whole = Tally()
    whole.plus(mine)
    for other in _others(folder, worker):
        whole.plus(other)
    return whole


def _others(folder: Path | None, worker: str) -> Iterable[Tally]:
    if folder is None:
        return
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        found = None if path.name == f"{worker}{SUFFIX}" else _read(path)
        if found is not None:
            yield found


def _read(path: Path) -> Tally | None:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Tally)
    except (OSError, msgspec.MsgspecError):
        return None
