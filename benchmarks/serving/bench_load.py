"""Latency at half of the greatest rate: an open loop that counts from the scheduled moment.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import model
import ours
from comparison import Comparison, Measure
from generators import closed_loop, open_loop
from measure import parse_options, workplace
from subjects import Subject, find_subjects, require_wrk, started, try_each

RATE = Measure("greatest rate", "answers/s", is_less_better=False)
P50 = Measure("p50 at half", "us", ratio=True)
P99 = Measure("p99 at half", "us", ratio=True)
TIMES = Measure("p99 / p50", "times")
EVEN_P99 = Measure("p99, evenly spaced", "us")
EVEN_TIMES = Measure("p99 / p50, evenly", "times")
FAILED = Measure("failed", "answers")
MEASURES = (RATE, P50, P99, TIMES, EVEN_P99, EVEN_TIMES, FAILED)


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    require_wrk()
    told = Comparison("serving-load", options, MEASURES)
    rounds, seconds = options.rounds(3), 2.0 if options.quick else 10.0
    bodies = model.rows()
    with workplace() as folder:
        text = folder / "model.txt"
        text.write_text(model.train())

        def measure(subject: Subject) -> None:
            line = told.line(subject.name, subject.kind, subject.does)
            asked = [subject.one(row[None, :]) for row in bodies]
            with started(subject, folder) as server:
                closed_loop(server, asked, folder, connections=8, seconds=1)  # warm
                for _ in range(rounds):
                    most = closed_loop(server, asked, folder, connections=64, seconds=seconds)
                    half = most.rate / 2
                    random = open_loop(server, asked, folder, rate=half, seconds=seconds)
                    evenly = open_loop(
                        server, asked, folder, rate=half, seconds=seconds, evenly=True
                    )
                    line.add(RATE, most.rate)
                    line.add(P50, random.p50_us)
                    line.add(P99, random.p99_us)
                    line.add(TIMES, random.p99_us / random.p50_us)
                    line.add(EVEN_P99, evenly.p99_us)
                    line.add(EVEN_TIMES, evenly.p99_us / evenly.p50_us)
                    line.add(FAILED, most.failed + random.failed + evenly.failed)

        mine = [ours.subject(folder, text), *ours.echoes(text)]
        told.notes += try_each(find_subjects(options, folder, mine), measure)
    told.notes.append(
        "arrivals are a Poisson process, or evenly spaced; a latency counts from the moment that "
        "the request was due, waiting for a free connection (of 64) included"
    )
    told.close()


if __name__ == "__main__":
    main()
