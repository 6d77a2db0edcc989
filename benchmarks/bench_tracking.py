"""What logging costs a training loop, and how soon the points can be queried.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import Options, Report, Row, parse_options, quantile, tell, times_of_calls, workplace
from peers import Mlflow, find_mlflow
from processes import everloop, free_port, run_once, running

from everloop.app.client import Client, connect
from everloop.app.sdk import start_run
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.track import RunHandle
from everloop.track.queries import RunDetails, ShowRun

POINTS = 100_000
QUICK_POINTS = 10_000
PEER_CALLS = 200
PEER_POINTS = 10_000
PROJECT = "bench"
KEPT_CALL = (
    "Everloop: in memory, at most 50 ms later in a file that survives the process (not a power "
    "cut); MLflow SQLite: committed with full fsyncs, survives a power cut; "
    "limit: in the process's buffer."
)
KEPT_QUERY = (
    "all survive a power cut: committed with synchronous=FULL (limit: one commit for all rows)."
)


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    peer = find_mlflow(options)
    report = Report("tracking", options, peer=peer.name if peer else "")
    points = QUICK_POINTS if options.quick else POINTS
    with workplace() as folder:
        run_once(everloop("init", "--name", PROJECT), folder=folder)
        with connect(folder) as near:
            made = near.perform("token.create", CreateToken(name="bench"), NewToken)
            measure_calls(report, points, folder, near, made.secret)
            measure_arrival(report, options, points, folder, near, made.secret)
        measure_limits(report, options, points, folder)
        if peer is not None:
            measure_peer(report, options, peer, folder)
    report.close()


def measure_calls(report: Report, points: int, folder: Path, near: Client, secret: str) -> None:
    """Time single calls while the server is there, is away, and is this process."""
    with _server(folder) as url:
        tell("calls with the server present")
        with connect(url, project=PROJECT, token=secret) as far:
            _time_calls(report, "server present", points, far)
    tell("calls with the server away")
    with connect(f"http://127.0.0.1:{free_port()}", project=PROJECT, token=secret) as away:
        _time_calls(report, "server away", points, away)
    tell("calls embedded")
    _time_calls(report, "embedded", points, near)


def _time_calls(report: Report, where: str, points: int, client: Client) -> None:
    middle = report.row(f"log_metric, one call, {where}, p50", "us", kept=KEPT_CALL)
    tail = report.row(f"log_metric, one call, {where}, p99", "us")
    rate = report.row(f"log_metric in a loop, {where}", "points/s", "more")
    for _ in range(3):
        run = start_run("calls", client=client)
        spent = times_of_calls(lambda step, run=run: run.log_metric("loss", 0.5, step), points)  # type: ignore[misc]
        middle.add("everloop", quantile(spent, 0.5) / 1e3)
        tail.add("everloop", quantile(spent, 0.99) / 1e3)
        begin = time.perf_counter()
        _log(run, points)
        rate.add("everloop", points / (time.perf_counter() - begin))
        run.finish()


def measure_arrival(  # noqa: PLR0917 -- what a benchmark needs
    report: Report, options: Options, points: int, folder: Path, near: Client, secret: str
) -> None:
    """Time from the first call until the server counts every point."""
    embedded = report.row(
        f"{points:,} points until queried, embedded", "points/s", "more", kept=KEPT_QUERY
    )
    remote = report.row(f"{points:,} points until queried, HTTP", "points/s", "more")
    with _server(folder) as url, connect(url, project=PROJECT, token=secret) as far:
        for number in range(options.rounds(5)):
            tell(f"{points:,} points until queried, round {number + 1}")
            embedded.add("everloop", _until_queried(near, points))
            remote.add("everloop", _until_queried(far, points))


def _until_queried(client: Client, points: int) -> float:
    run = start_run("arrival", client=client)
    begin = time.perf_counter()
    _log(run, points)
    if not run.finish():
        message = "the points did not arrive"
        raise RuntimeError(message)
    (found,) = client.perform("run.show", ShowRun(run=run.id), RunDetails).metrics
    spent = time.perf_counter() - begin
    if found.count != points:
        message = f"{found.count} points arrived of {points}"
        raise RuntimeError(message)
    return points / spent


def _log(run: RunHandle, points: int) -> None:
    for step in range(points):
        run.log_metric("accuracy", 0.5 + step, step)


def measure_limits(report: Report, options: Options, points: int, folder: Path) -> None:
    """Time a plain append and raw SQLite: what Python and this disk allow."""
    tell("limits")
    for _ in range(options.rounds(3)):
        with (folder / "points.bin").open("ab") as file:
            pack = struct.Struct("<qdd").pack
            spent = times_of_calls(lambda step: file.write(pack(step, 1.7e9, 0.5)), points)  # noqa: B023 -- used within the round
            begin = time.perf_counter()
            for step in range(points):
                file.write(pack(step, time.time(), 0.5))
            append_rate = points / (time.perf_counter() - begin)
            file.flush()
            os.fsync(file.fileno())
        sqlite_rate = _sqlite_rate(folder / "limit.db", points)
        for row in report.rows:
            if row.name.endswith("p50"):
                row.add("limit", quantile(spent, 0.5) / 1e3)
            elif row.name.endswith("p99"):
                row.add("limit", quantile(spent, 0.99) / 1e3)
            else:
                row.add("limit", append_rate if "in a loop" in row.name else sqlite_rate)


def _sqlite_rate(path: Path, points: int) -> float:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS point (run, key, step, at, value)")
    begin = time.perf_counter()
    database.execute("BEGIN IMMEDIATE")
    database.executemany(
        "INSERT INTO point VALUES ('run', 'accuracy', ?, ?, ?)",
        ((step, time.time(), 0.5 + step) for step in range(points)),
    )
    database.execute("COMMIT")
    database.execute("SELECT count(*) FROM point").fetchone()
    spent = time.perf_counter() - begin
    database.close()
    return points / spent


def measure_peer(report: Report, options: Options, peer: Mlflow, folder: Path) -> None:
    """Let MLflow log to SQLite and to its server."""
    calls = PEER_CALLS // 4 if options.quick else PEER_CALLS
    points = PEER_POINTS // 5 if options.quick else PEER_POINTS
    report.notes.append(
        f"{peer.name}: {calls} single calls, {points:,} points by log_batch of 1,000; one worker."
    )
    store = f"sqlite:///{folder}/mlflow-local.db"
    tell("peer, SQLite")
    single = peer.task("log_metric", folder, store=store, count=calls)
    _add_peer(report, "embedded", single)
    for _ in range(options.rounds(2)):
        batch = peer.task("log_batch", folder, store=store, count=points)
        _row(report, "until queried, embedded").add("peer", *batch["rate"])
    port = free_port()
    with running(peer.server(folder, port), folder=folder) as server:
        server.seconds_to_answer(port, "/health")
        tell("peer, HTTP")
        url = f"http://127.0.0.1:{port}"
        single = peer.task("log_metric", folder, store=url, count=calls)
        _add_peer(report, "server present", single)
        for _ in range(options.rounds(2)):
            batch = peer.task("log_batch", folder, store=url, count=points)
            _row(report, "until queried, HTTP").add("peer", *batch["rate"])


def _add_peer(report: Report, where: str, single: dict[str, list[float]]) -> None:
    spent = single["each_s"]
    _row(report, f"{where}, p50").add("peer", 1e6 * quantile(spent, 0.5))
    _row(report, f"{where}, p99").add("peer", 1e6 * quantile(spent, 0.99))
    _row(report, f"in a loop, {where}").add("peer", *single["rate"])


def _row(report: Report, end: str) -> Row:
    return next(row for row in report.rows if row.name.endswith(end))


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    port = free_port()
    with running(everloop("up", "--port", str(port)), folder=folder) as server:
        server.seconds_to_answer(port, "/healthz")
        yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    main()
