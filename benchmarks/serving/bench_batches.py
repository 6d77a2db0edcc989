"""1,000 rows a request: rows a second through JSON and binary tensors, beside the runtime alone.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import model
import ours
from comparison import Comparison, Measure
from generators import closed_loop
from measure import parse_options, quantile, workplace
from subjects import Subject, find_subjects, require_wrk, started, try_each

ALONE = Measure("1 connection", "rows/s", is_less_better=False, ratio=True)
P50 = Measure("p50", "us")
P99 = Measure("p99", "us")
MANY = Measure("4 connections", "rows/s", is_less_better=False, ratio=True)
CPU = Measure("CPU a row", "us", ratio=True)
FAILED = Measure("failed", "answers")
MEASURES = (ALONE, P50, P99, MANY, CPU, FAILED)
BODIES = 4


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    require_wrk()
    told = Comparison("serving-batches", options, MEASURES)
    rounds, seconds = options.rounds(3), 2.0 if options.quick else 5.0
    with workplace() as folder:
        text = folder / "model.txt"
        text.write_text(model.train())
        batches = [model.rows(model.BATCH, seed=number) for number in range(BODIES)]

        def measure(subject: Subject) -> None:
            line = told.line(subject.name, subject.kind, subject.does)
            asked = [subject.one(batch) for batch in batches]
            with started(subject, folder) as server:
                closed_loop(server, asked, folder, connections=2, seconds=1)  # warm
                for _ in range(rounds):
                    alone = closed_loop(server, asked, folder, connections=1, seconds=seconds)
                    many = closed_loop(server, asked, folder, connections=4, seconds=seconds)
                    line.add(ALONE, alone.rate * model.BATCH)
                    line.add(P50, alone.p50_us)
                    line.add(P99, alone.p99_us)
                    line.add(MANY, many.rate * model.BATCH)
                    line.add(CPU, many.cpu_us / model.BATCH)
                    line.add(FAILED, alone.failed + many.failed)

        mine = [*ours.batch_subjects(folder, text), *ours.echoes(text)]
        subjects = find_subjects(options, folder, mine)
        told.notes += try_each(subjects[:1], measure)
        alone = told.line("the runtime in process", "limit")
        for _ in range(rounds):
            spent = _time_in_process(text.read_text(), batches, seconds)
            alone.add(ALONE, model.BATCH / quantile(spent, 0.5))
            alone.add(P50, 1e6 * quantile(spent, 0.5))
            alone.add(P99, 1e6 * quantile(spent, 0.99))
            alone.add(CPU, 1e6 * quantile(spent, 0.5) / model.BATCH)
        told.notes += try_each(subjects[1:], measure)
    told.close()


def _time_in_process(text: str, batches: list[model.Matrix], seconds: float) -> list[float]:
    predict: Callable[[model.Matrix], object] = ours.in_process(text)
    spent: list[float] = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        predict(batches[len(spent) % len(batches)])
        spent.append(time.perf_counter() - begin)
    return spent


if __name__ == "__main__":
    main()
