"""A table of servers by measures, with what each of ours is of the others; printed and as JSON."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from measure import Options, load, machine


@dataclass(frozen=True)
class Measure:
    """One column.

    Attributes:
        ratio: Whether a column beside it says how many times better ours is.
    """

    name: str
    unit: str
    is_less_better: bool = True
    ratio: bool = False


@dataclass
class Line:
    """One server with its samples by measure."""

    name: str
    kind: str
    does: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, measure: Measure, value: float) -> None:
        """Add one sample."""
        self.samples.setdefault(measure.name, []).append(value)

    def median(self, measure: Measure) -> float | None:
        """Return the median of the samples, or None without any."""
        found = self.samples.get(measure.name)
        return statistics.median(found) if found else None


class Comparison:
    """The lines of one benchmark."""

    def __init__(self, name: str, options: Options, measures: Sequence[Measure]) -> None:
        self._name = name
        self._options = options
        self._measures = measures
        self._begin = time.perf_counter()
        self._loads = [load()]
        self.lines: list[Line] = []
        self.notes: list[str] = []

    def line(self, name: str, kind: str, does: str = "") -> Line:
        """Return the line of a server, begun if need be."""
        for line in self.lines:
            if line.name == name:
                return line
        self.lines.append(Line(name, kind, does))
        return self.lines[-1]

    def advantage(self, line: Line, measure: Measure) -> float | None:
        """Return how many times better ours is than a line; below 1 it is worse."""
        ours = next((own for own in self.lines if own.kind == "everloop"), None)
        mine = ours.median(measure) if ours else None
        theirs = line.median(measure)
        if not mine or not theirs:
            return None
        return theirs / mine if measure.is_less_better else mine / theirs

    def close(self) -> None:
        """Print the table and write the JSON."""
        self._loads.append(load())
        print(self._table(), flush=True)
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
            "notes": self.notes,
            "units": {measure.name: measure.unit for measure in self._measures},
            "lines": [
                {
                    "name": line.name,
                    "kind": line.kind,
                    "does": line.does,
                    "samples": line.samples,
                    "ours_is_better_by": {
                        measure.name: self.advantage(line, measure)
                        for measure in self._measures
                        if measure.ratio
                    },
                }
                for line in self.lines
            ],
        }

    def _table(self) -> str:
        titles = ["server"]
        for measure in self._measures:
            titles.append(f"{measure.name}, {measure.unit}")
            if measure.ratio:
                titles.append("ours")
        rows = [titles] + [self._cells(line) for line in self.lines]
        widths = [max(len(row[place]) for row in rows) for place in range(len(titles))]
        text = [
            "  ".join(
                cell.rjust(width) if place else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        text.insert(1, "-" * len(text[0]))
        return "\n".join(text)

    def _cells(self, line: Line) -> list[str]:
        cells = [line.name]
        for measure in self._measures:
            found = line.samples.get(measure.name)
            cells.append(figures(found))
            if measure.ratio:
                times = self.advantage(line, measure)
                cells.append("-" if times is None else f"{figure(times)}x")
        return cells


def figures(samples: Sequence[float] | None) -> str:
    """Return the median with the range, short."""
    if not samples:
        return "-"
    middle = figure(statistics.median(samples))
    if len(samples) == 1:
        return middle
    return f"{middle} ({figure(min(samples))}-{figure(max(samples))})"


def figure(value: float) -> str:
    """Return a number with three digits or as a whole."""
    if value >= 1_000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
