"""Many processes that log to one server at once: what arrives, how fast, and what it weighs.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import Options, Report, Row, parse_options, tell, workplace
from peers import Mlflow, find_mlflow
from processes import Started, environment, everloop, free_port, run_once, running

from everloop.app.client import connect
from everloop.app.tracking import start_run
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.track.queries import RunDetails, ShowRun

TASKS = Path(__file__).with_name("store_tasks.py")
PROJECT = "bench"
WRITERS = 8
POINTS = 100_000
PEER_POINTS = 5_000
KEPT = (
    "Everloop: log_metric and finish, so each point went through the spool of its process, and is "
    "committed with synchronous=FULL; MLflow: log_batch of 1,000, committed with full fsyncs."
)


def main() -> None:
    """Measure and report."""
    if sys.argv[1:2] == ["write"]:
        write(*sys.argv[2:])
        return
    options = parse_options(__doc__)
    peer = find_mlflow(options)
    report = Report("tracking-writers", options, peer=peer.name if peer else "")
    points = POINTS // 10 if options.quick else POINTS
    title = f"{WRITERS} processes x {points:,} points, HTTP"
    rate = report.row(f"{title}, together", "points/s", "more", kept=KEPT)
    memory = report.row(f"{title}, memory of the server", "MB")
    with workplace() as folder:
        for number in range(options.rounds(3)):
            tell(f"round {number + 1}")
            measure(rate, memory, folder / f"round-{number}", points)
        if peer is not None:
            measure_peer(report, peer, folder, options)
    report.close()


def measure(rate: Row, memory: Row, folder: Path, points: int) -> None:
    """Let all processes log, and look whether everything arrived."""
    folder.mkdir()
    run_once(everloop("init", "--name", PROJECT), folder=folder)
    with connect(folder) as near:
        secret = near.perform("token.create", CreateToken(name="bench"), NewToken).secret
    port = free_port()
    with running(everloop("up", "--port", str(port)), folder=folder) as server:
        server.seconds_to_answer(port, "/healthz")
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, __file__, "write", url, secret, str(points)]
        with _weighed(server, memory):
            told = _all_of([command] * WRITERS, folder)
        begin, end = min(each["begin"] for each in told), max(each["end"] for each in told)
        rate.add("everloop", WRITERS * points / (end - begin))
        if any(each["count"] != points for each in told):
            message = f"points were lost: {told}"
            raise RuntimeError(message)
        if server.says(" 500 ") or server.says(" 503 "):
            message = "the server answered with an error of its own"
            raise RuntimeError(message)


def write(url: str, secret: str, points: str) -> None:
    """Log from this process; print when it began and ended, and what the server counts."""
    count = int(points)
    with connect(url, project=PROJECT, token=secret) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        begin = time.time()
        run = start_run("writers", client=client)
        for step in range(count):
            run.log_metric("loss", 0.5 + step, step)
        has_arrived = run.finish()
        end = time.time()
        (found,) = client.perform("run.show", ShowRun(run=run.id), RunDetails).metrics
    print(json.dumps({"begin": begin, "end": end, "count": found.count if has_arrived else 0}))


def measure_peer(report: Report, peer: Mlflow, folder: Path, options: Options) -> None:
    """Let MLflow's server take as many processes, with fewer points."""
    tell("peer")
    points = PEER_POINTS // (5 if options.quick else 1)
    report.notes.append(f"{peer.name}: {WRITERS} x {points:,} points; one worker.")
    rate, memory = report.rows
    port = free_port()
    with running(peer.server(folder, port), folder=folder) as server:
        server.seconds_to_answer(port, "/health")
        given = json.dumps({"store": f"http://127.0.0.1:{port}", "count": points})
        with _weighed(server, memory, "peer"):
            told = _all_of([[peer.python, str(TASKS), "write", given]] * WRITERS, folder)
        begin = min(each["begin"][0] for each in told)
        end = max(each["end"][0] for each in told)
        rate.add("peer", WRITERS * points / (end - begin))


def _all_of(commands: Sequence[Sequence[str]], folder: Path) -> list[dict]:  # type: ignore[type-arg]
    started = [
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment(command, None),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    for process in started:  # so that the start of the interpreters is no part of it
        assert process.stdout is not None
        process.stdout.readline()
    told = [process.communicate(timeout=600)[0] for process in _let_go(started)]
    return [json.loads(text.splitlines()[-1]) for text in told]


def _let_go(started: Sequence[subprocess.Popen[str]]) -> Sequence[subprocess.Popen[str]]:
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


@contextmanager
def _weighed(server: Started, row: Row, subject: str = "everloop") -> Iterator[None]:
    """Add the greatest memory that the server has meanwhile."""
    most, has_ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not has_ended.wait(0.2):
            most = max(most, server.memory_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        has_ended.set()
        watcher.join()
        row.add(subject, most)


if __name__ == "__main__":
    main()
