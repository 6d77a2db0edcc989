"""How long until it is there, and what it weighs: control plane, command line, import.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from measure import Options, Report, Row, parse_options, tell, workplace
from peers import Mlflow, find_mlflow
from processes import everloop, free_port, run_once, running

IDLE_S = 10.0
PYTHON = sys.executable
CLOCKED_IMPORT = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"
FIRST_METRIC = """
import everloop
run = everloop.start_run()
run.log_metric("loss", 0.5)
print("logged", flush=True)
run.finish()
"""
FIRST_METRIC_PEER = """
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.start_run()
mlflow.log_metric("loss", 0.5)
print("logged", flush=True)
mlflow.end_run()
"""
FIRST_LINE_PLAIN = "print('0.5', file=open('points.txt', 'a'))"


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    peer = find_mlflow(options)
    report = Report("startup", options, peer=peer.name if peer else "")
    with workplace() as folder:
        measure_servers(report, options, peer, folder)
        measure_commands(report, options, peer, folder)
    report.close()


def measure_servers(report: Report, options: Options, peer: Mlflow | None, folder: Path) -> None:
    """Time the first answer of a new and of a known store, then weigh what idles."""
    fresh = report.row("first 200 of the server, new project", "s")
    again = report.row("first 200 of the server, known project", "s")
    memory = report.row(f"idle memory, PSS after {IDLE_S:.0f} s", "MB")
    count = report.row("processes when idle", "")
    _warm(folder)
    for number in range(options.rounds(3)):
        place = folder / f"server-{number}"
        place.mkdir()
        run_once(everloop("init", "--name", "bench"), folder=place)
        subjects: dict[str, Callable[[int], list[str]]] = {
            "limit": lambda port: [
                *(PYTHON, "-m", "http.server", "--bind", "127.0.0.1", str(port))
            ],
            "everloop": lambda port: everloop("up", "--port", str(port)),
        }
        if peer is not None:
            subjects["peer"] = lambda port, place=place: peer.server(place, port)  # type: ignore[misc]
        for subject, command in subjects.items():
            tell(f"server, round {number + 1}: {subject}")
            weighing = (memory, count) if number < options.rounds(2) else ()
            _start_twice(subject, command, place, (fresh, again), weighing)


def _warm(folder: Path) -> None:
    """Start ours once, so that its bytecode is there, as pip has made it for the peer."""
    place = folder / "warm"
    place.mkdir()
    run_once(everloop("init", "--name", "bench"), folder=place)
    port = free_port()
    with running(everloop("up", "--port", str(port)), folder=place) as server:
        server.seconds_to_answer(port, "/healthz")
        time.sleep(1.0)  # until what it loads after its first answer is there too
    run_once([PYTHON, "-c", FIRST_METRIC], folder=place)


def _start_twice(
    subject: str,
    command: Callable[[int], list[str]],
    place: Path,
    timed: tuple[Row, Row],
    weighed: tuple[Row, Row] | tuple[()],
) -> None:
    path = {"limit": "/", "everloop": "/healthz", "peer": "/health"}[subject]
    for row in timed:
        port = free_port()
        with running(command(port), folder=place) as server:
            row.add(subject, server.seconds_to_answer(port, path))
            if weighed and row is timed[-1]:
                time.sleep(IDLE_S)
                weighed[0].add(subject, server.memory_mb())
                weighed[1].add(subject, server.processes())


def measure_commands(report: Report, options: Options, peer: Mlflow | None, folder: Path) -> None:
    """Time what a person at a terminal and a training script wait for."""
    place = folder / "commands"
    place.mkdir()
    run_once(everloop("init", "--name", "bench"), folder=place)
    help_row = report.row("--help, whole process", "ms")
    import_row = report.row("import", "ms")
    metric_row = report.row(
        "start of Python to the first metric logged, local store",
        "ms",
        kept="Everloop returns when the point is in memory, 50 ms later in a file that survives "
        "the process, and in the database when shipped; MLflow when SQLite has committed; "
        "the limit writes a line to a file.",
    )
    if peer is not None:  # its store exists beforehand, as ours does
        run_once([peer.python, "-c", FIRST_METRIC_PEER], folder=place)
    for number in range(options.rounds(11)):
        help_row.add("everloop", 1e3 * run_once(everloop("--help"), folder=place)[0])
        help_row.add("limit", 1e3 * run_once([PYTHON, "-c", "pass"], folder=place)[0])
        import_row.add("everloop", _clocked_import(PYTHON, "everloop", place))
        import_row.add("limit", _clocked_import(PYTHON, "sqlite3", place))
        metric_row.add("everloop", _until_logged(PYTHON, FIRST_METRIC, place))
        spent, _ = run_once([PYTHON, "-c", FIRST_LINE_PLAIN], folder=place)
        metric_row.add("limit", 1e3 * spent)
        if peer is not None and number < options.rounds(3):
            tell(f"commands of the peer, round {number + 1}")
            help_row.add("peer", 1e3 * run_once([peer.program, "--help"], folder=place)[0])
            import_row.add("peer", _clocked_import(peer.python, "mlflow", place))
            metric_row.add("peer", _until_logged(peer.python, FIRST_METRIC_PEER, place))


def _clocked_import(python: str, name: str, folder: Path) -> float:
    return 1e3 * float(run_once([python, "-c", CLOCKED_IMPORT.format(name)], folder=folder)[1])


def _until_logged(python: str, program: str, folder: Path) -> float:
    """Return the milliseconds until the program says that its first point is logged."""
    stamped = program.replace('"logged"', "__import__('time').monotonic()")
    begin = time.monotonic()  # one clock for all processes of the machine
    _, told = run_once([python, "-c", stamped], folder=folder)
    logged = next(line for line in told.splitlines() if line.replace(".", "").isdigit())
    return 1e3 * (float(logged) - begin)


if __name__ == "__main__":
    main()
