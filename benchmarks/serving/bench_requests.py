"""One row: rate, latency and processor time a request, with 1 and with 64 connections.

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
from generators import closed_loop
from measure import parse_options, workplace
from subjects import Subject, find_subjects, require_wrk, started, try_each

ALONE_P50 = Measure("1 connection p50", "us", ratio=True)
ALONE_P99 = Measure("p99", "us")
RATE = Measure("64 connections", "answers/s", is_less_better=False, ratio=True)
MANY_P50 = Measure("p50 of 64", "us")
CPU = Measure("CPU a request", "us", ratio=True)
MEMORY = Measure("memory, PSS", "MB", ratio=True)
FAILED = Measure("failed", "answers")
MEASURES = (ALONE_P50, ALONE_P99, RATE, MANY_P50, CPU, MEMORY, FAILED)


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    require_wrk()
    told = Comparison("serving-requests", options, MEASURES)
    rounds, seconds = options.rounds(3), 2.0 if options.quick else 5.0
    bodies = model.rows()
    with workplace() as folder:
        text = folder / "model.txt"
        text.write_text(model.train())
        mine = [ours.subject(folder, text), *ours.echoes(text)]

        def measure(subject: Subject) -> None:
            line = told.line(subject.name, subject.kind, subject.does)
            asked = [subject.one(row[None, :]) for row in bodies]
            with started(subject, folder) as server:
                closed_loop(server, asked, folder, connections=8, seconds=1)  # warm
                for _ in range(rounds):
                    alone = closed_loop(server, asked, folder, connections=1, seconds=seconds)
                    many = closed_loop(server, asked, folder, connections=64, seconds=seconds)
                    line.add(ALONE_P50, alone.p50_us)
                    line.add(ALONE_P99, alone.p99_us)
                    line.add(RATE, many.rate)
                    line.add(MANY_P50, many.p50_us)
                    line.add(CPU, many.cpu_us)
                    line.add(MEMORY, server.process.memory_mb())
                    line.add(FAILED, alone.failed + many.failed)

        told.notes += try_each(find_subjects(options, folder, mine), measure)
    told.notes.append(f"Everloop: {ours.DOES}; every other keeps and checks nothing.")
    told.close()


if __name__ == "__main__":
    main()
