"""From the start of the process to the first answer, and the memory; also 100 models in one.

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
from measure import parse_options, tell, workplace
from subjects import Subject, ask, find_subjects, started, try_each

FIRST = Measure("first answer", "s", ratio=True)
MEMORY = Measure("memory after it, PSS", "MB", ratio=True)
LATER = Measure("after 1,000 answers", "MB")
CPU = Measure("CPU to the first answer", "s", ratio=True)
PROCESSES = Measure("processes", "")
MEASURES = (FIRST, MEMORY, LATER, CPU, PROCESSES)
MODELS = 100


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    told = Comparison("serving-start", options, MEASURES)
    answers = 100 if options.quick else 1_000
    with workplace() as folder:
        text = folder / "model.txt"
        text.write_text(model.train())

        def measure(subject: Subject) -> None:
            line = told.line(subject.name, subject.kind, subject.does)
            for _ in range(options.rounds(3)):
                with started(subject, folder) as server:
                    line.add(FIRST, server.ready_s)
                    line.add(MEMORY, server.process.memory_mb())
                    line.add(CPU, server.process.cpu_s())
                    line.add(PROCESSES, server.process.processes())
                    for row in model.rows(answers):
                        body = subject.one(row[None, :])
                        ask(server.port, subject.path, body, subject.headers)
                    line.add(LATER, server.process.memory_mb())

        mine = [ours.subject(folder, text), *ours.echoes(text)]
        many = ours.many(folder, text, MODELS)
        with started(mine[0], folder):
            tell("compiled once")  # a start that is not counted: bytecode and file cache
        subjects = find_subjects(options, folder, mine)
        told.notes += try_each([*subjects[:1], *many, *subjects[1:]], measure)
    told.notes.append("the first answer is a prediction, and it is right")
    told.close()


if __name__ == "__main__":
    main()
