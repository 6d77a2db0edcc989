"""Readings of one run, set side by side: Everloop, the peer and what the machine allows.

Every benchmark fills a `Report`: rows of samples by subject, all taken in the same run on the same
machine. The report prints medians with their range and the two ratios, and writes the samples as
JSON, together with the load of the machine, without which no figure is worth much.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

RESULTS = Path(__file__).parent / "results"
SUBJECTS = ("everloop", "peer", "limit")
Better = Literal["less", "more"]


@dataclass(frozen=True)
class Options:
    """What every benchmark's command line takes."""

    peer: bool
    quick: bool
    results: Path

    def rounds(self, usual: int) -> int:
        """Return how often to repeat something that is usually repeated so often."""
        return 1 if self.quick else usual


def parse_options(about: str | None) -> Options:
    """Read the command line of a benchmark."""
    parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    parser.add_argument("--no-peer", action="store_true", help="leave the peer out")
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON")
    given = parser.parse_args()
    # Stopped from outside, it still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return Options(peer=not given.no_peer, quick=given.quick, results=given.results)


@dataclass
class Row:
    """One question, with the samples that answer it for each subject.

    Attributes:
        better: Whether less or more of the unit is better.
        kept: In words, what of this work survives a crash, for each subject; empty when nothing
            is to be kept.
    """

    name: str
    unit: str
    better: Better = "less"
    samples: dict[str, list[float]] = field(default_factory=dict)
    kept: str = ""

    def add(self, subject: str, *values: float) -> None:
        """Add samples of one subject."""
        self.samples.setdefault(subject, []).extend(values)

    def median(self, subject: str) -> float | None:
        """Return the median of a subject's samples, or None without any."""
        found = self.samples.get(subject)
        return statistics.median(found) if found else None

    def advantage(self, subject: str) -> float | None:
        """Return how many times better Everloop is than a subject; below 1 it is worse."""
        ours, theirs = self.median("everloop"), self.median(subject)
        if not ours or not theirs:
            return None
        return theirs / ours if self.better == "less" else ours / theirs


class Report:
    """The rows of one benchmark."""

    def __init__(self, name: str, options: Options, *, peer: str = "", notes: str = "") -> None:
        self._name = name
        self._options = options
        self._begin = time.perf_counter()
        self._loads = [load()]
        self.peer = peer
        self.notes = [notes] if notes else []
        self.rows: list[Row] = []

    def row(self, name: str, unit: str, better: Better = "less", *, kept: str = "") -> Row:
        """Begin a row."""
        self.rows.append(Row(name, unit, better, kept=kept))
        return self.rows[-1]

    def close(self) -> None:
        """Print the table and write the JSON."""
        self._loads.append(load())
        print(_table(self.rows, self.peer), flush=True)
        for kept in dict.fromkeys(row.kept for row in self.rows if row.kept):
            names = [row.name for row in self.rows if row.kept == kept]
            print(f"  {'; '.join(names)}:\n    {kept}")
        for note in self.notes:
            print(f"  {note}")
        took = time.perf_counter() - self._begin
        before, after = self._loads
        print(f"  load average {before:.1f} to {after:.1f} on {os.cpu_count()} CPUs, {took:.0f} s")
        self._options.results.mkdir(parents=True, exist_ok=True)
        file = self._options.results / f"{self._name}.json"
        file.write_text(json.dumps(self._document(took), indent=1) + "\n")
        print(f"  samples in {file}\n", flush=True)

    def _document(self, took: float) -> dict[str, object]:
        return {
            "benchmark": self._name,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "took_s": round(took, 1),
            "load_average": self._loads,
            "machine": machine(),
            "peer": self.peer,
            "notes": self.notes,
            "rows": [
                asdict(row)
                | {
                    "times_the_peer": row.advantage("peer"),
                    "share_of_the_limit": row.advantage("limit"),
                }
                for row in self.rows
            ],
        }


def load() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def machine() -> dict[str, object]:
    """Return what the figures depend on."""
    return {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "everloop": _version("everloop"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "source tree"


def time_of(work: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def times_of_calls(call: Callable[[int], object], count: int) -> list[int]:
    """Return the nanoseconds of each of many calls; a reading of the clock is part of each."""
    now = time.perf_counter_ns
    spent = []
    for number in range(count):
        begin = now()
        call(number)
        spent.append(now() - begin)
    return spent


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextmanager
def workplace() -> Iterator[Path]:
    """Give a temporary folder beside the checkout: /tmp may be no disk at all."""
    cache = Path(__file__).parent / "results"
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache, prefix="work-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def tell(text: str) -> None:
    """Say on stderr what is going on."""
    sys.stderr.write(f"  ... {text}\n")
    sys.stderr.flush()


def _table(rows: list[Row], peer: str) -> str:
    titles = ("row", "unit", "Everloop", peer or "peer", "limit", "x peer", "of limit")
    lines = [titles, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    text = [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    text.insert(1, "-" * len(text[0]))
    return "\n".join(text)


def _cells(row: Row) -> tuple[str, ...]:
    to_peer, to_limit = row.advantage("peer"), row.advantage("limit")
    return (
        row.name,
        row.unit,
        *(_shown(row.samples.get(subject)) for subject in SUBJECTS),
        "-" if to_peer is None else f"{_figure(to_peer)}x",
        "-" if to_limit is None else f"{to_limit:.0%}" if to_limit < 10 else f"{to_limit:.0f}x",
    )


def _shown(samples: list[float] | None) -> str:
    if not samples:
        return "-"
    middle = _figure(statistics.median(samples))
    if len(samples) == 1:
        return f"{middle} (n=1)"
    return f"{middle} ({_figure(min(samples))}-{_figure(max(samples))})"


def _figure(value: float) -> str:
    if value >= 1_000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
