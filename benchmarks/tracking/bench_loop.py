"""What logging costs a training loop: Everloop, MLflow three ways, W&B, Aim, and the limits.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import (
    Options,
    Report,
    parse_options,
    quantile,
    tell,
    times_of_calls,
    workplace,
)
from peers import Samples, find_mlflow, find_peer
from processes import everloop, free_port, run_once, running

from everloop.app.client import SPOOL_VARIABLE, Client, connect
from everloop.app.tracking import start_run
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.track.queries import RunDetails, ShowRun

TASKS = Path(__file__).with_name("loop_tasks.py")
PROJECT = "bench"
POINTS = 300_000
RUNS = 20
OURS = "Everloop: shared memory, and a file within 50 ms, survives the process; "
SERVED = "with the run's end committed with full fsyncs, survives a power cut. "
KEPT = {
    "MLflow SQLite": f"{OURS}{SERVED}MLflow: each call committed with full fsyncs.",
    "MLflow server": f"{OURS}{SERVED}MLflow: each call committed by the server with full fsyncs.",
    "MLflow asynchronous": f"{OURS}{SERVED}MLflow: in memory until a thread has committed it.",
    "W&B offline": f"{OURS}no server in reach. W&B: handed to its core process, which appends to "
    "a file; survives the training process, nothing can be queried before a sync.",
    "Aim": f"{OURS}{SERVED}Aim: handed to a thread that writes RocksDB without fsync.",
    "buffered append": f"{OURS}limit: in the process's own buffer; one fsync at the end.",
    "raw SQLite": f"{OURS}limit: in a list; one transaction with synchronous=FULL at the end.",
}


@dataclass(frozen=True)
class Rival:
    """One peer or limit, and how much it is asked for.

    Attributes:
        title: Its name in the rows.
        where: Which of our own three places it is compared with.
    """

    title: str
    where: str
    subject: str = "peer"


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    logging.disable(logging.WARNING)
    report = Report("tracking-loop", options, peer="the other")
    with workplace() as folder:
        os.environ[SPOOL_VARIABLE] = str(folder / "spool")
        ours = measure_ours(options, folder)
        for rival, samples in measure_others(report, options, folder):
            add_rows(report, rival, ours[rival.where], samples)
    report.close()


def measure_ours(options: Options, folder: Path) -> dict[str, Samples]:
    """Log embedded, to a server, and with the server away."""
    points = POINTS // 10 if options.quick else POINTS
    run_once(everloop("init", "--name", PROJECT), folder=folder)
    found: dict[str, Samples] = {}
    with connect(folder) as near:
        made = near.perform("token.create", CreateToken(name="bench"), NewToken)
        tell("Everloop, embedded")
        found["embedded"] = _measure(near, points, options)
        with _server(folder) as url, connect(url, project=PROJECT, token=made.secret) as far:
            tell("Everloop, server present")
            found["server present"] = _measure(far, points, options)
    url = f"http://127.0.0.1:{free_port()}"
    with connect(url, project=PROJECT, token=made.secret) as away:
        tell("Everloop, server away")
        found["server away"] = _measure(away, points, options)
    return found


def _measure(client: Client, points: int, options: Options) -> Samples:
    """Do what ``loop_tasks`` asks of the peers, over more points."""
    now = time.perf_counter
    start_run("warm", client=client).finish()
    found: Samples = {name: [] for name in ("p50", "p99", "rate", "kept_rate")}
    for _ in range(options.rounds(3)):
        run = start_run("loop", client=client)
        log = run.log_metric
        spent = times_of_calls(lambda step: log("loss", step * 0.5, step), points)  # noqa: B023 -- used within the round
        found["p50"].append(quantile(spent, 0.5) / 1e3)
        found["p99"].append(quantile(spent, 0.99) / 1e3)
        run.finish()
        run = start_run("loop", client=client)
        begin = now()
        for step in range(points):
            run.log_metric("loss", step * 0.5, step)
        found["rate"].append(points / (now() - begin))
        has_arrived = run.finish()
        found["kept_rate"].append(points / (now() - begin))
        if has_arrived:
            _require(client, run.id, points)
    starts, ends = [], []
    for _ in range(RUNS):
        begin = now()
        run = start_run("short", client=client)
        starts.append(1e3 * (now() - begin))
        run.log_metric("loss", 0.5)
        begin = now()
        run.finish()
        ends.append(1e3 * (now() - begin))
    return found | {"start": starts, "finish": ends}


def _require(client: Client, run: str, points: int) -> None:
    """See that what arrived can be queried: a rate of points that are lost is none."""
    (found,) = client.perform("run.show", ShowRun(run=run), RunDetails).metrics
    if found.count != points:
        message = f"{found.count} points arrived of {points}"
        raise RuntimeError(message)


def measure_others(
    report: Report, options: Options, folder: Path
) -> Iterator[tuple[Rival, Samples]]:
    """Let every peer and the limits do the same."""
    part = 10 if options.quick else 1
    yield Rival("buffered append", "embedded", "limit"), _append(folder, POINTS // part)
    yield Rival("raw SQLite", "embedded", "limit"), _sqlite(folder, POINTS // part)
    mlflow = find_mlflow(options)
    if mlflow is not None:
        report.notes.append(f"{mlflow.name}, server with one worker")
        store = f"sqlite:///{folder}/mlflow-local.db"
        tell("MLflow, SQLite")
        yield (
            Rival("MLflow SQLite", "embedded"),
            _told(mlflow.ask(TASKS, "mlflow", folder, store=store, count=300 // part)),
        )
        tell("MLflow, asynchronous")
        given = {"store": store, "count": 2_000 // part, "asynchronous": 1}
        yield (
            Rival("MLflow asynchronous", "embedded"),
            _told(mlflow.ask(TASKS, "mlflow", folder, **given)),
        )
        port = free_port()
        with running(mlflow.server(folder, port), folder=folder) as server:
            server.seconds_to_answer(port, "/health")
            tell("MLflow, server")
            url = f"http://127.0.0.1:{port}"
            samples = mlflow.ask(TASKS, "mlflow", folder, store=url, count=200 // part)
        yield Rival("MLflow server", "server present"), _told(samples)
    for title, package, where, count in (
        ("W&B offline", "wandb", "server away", 20_000),
        ("Aim", "aim", "embedded", 5_000),
    ):
        peer = find_peer(options, title, package)
        if peer is None:
            if options.peer:
                report.notes.append(f"LEFT OUT: {title} could not be installed")
            continue
        report.notes.append(peer.name)
        tell(title)
        given = {"place": str(folder / package), "count": count // part}
        try:
            yield Rival(title, where), _told(peer.ask(TASKS, package, folder, **given))
        except RuntimeError as error:
            tell(f"LEFT OUT: {title} failed ({str(error)[-500:]})")
            report.notes.append(f"LEFT OUT: {title} failed")


def add_rows(report: Report, rival: Rival, ours: Samples, theirs: Samples) -> None:
    """Set our samples beside those of one peer or limit."""
    kept = KEPT[rival.title]
    for name, unit, better in (
        ("p50", "us", "less"), ("p99", "us", "less"), ("rate", "points/s", "more"),
        ("kept_rate", "points/s", "more"), ("start", "ms", "less"), ("finish", "ms", "less"),
    ):  # fmt: skip
        words = {
            "p50": "one call p50", "p99": "one call p99", "rate": "in the loop",
            "kept_rate": "until kept as said below", "start": "start_run", "finish": "finish",
        }[name]  # fmt: skip
        if name not in theirs:
            continue
        row = report.row(
            f"{words}, {rival.where}: {rival.title}", unit,
            "more" if better == "more" else "less", kept=kept if name == "p50" else "",
        )  # fmt: skip
        row.add("everloop", *ours[name])
        row.add(rival.subject, *theirs[name])


def _told(samples: Samples) -> Samples:
    each = samples["each_s"]
    return {
        "p50": [1e6 * quantile(each, 0.5)],
        "p99": [1e6 * quantile(each, 0.99)],
        "rate": samples["rate"],
        "kept_rate": samples["kept_rate"],
        "start": [1e3 * spent for spent in samples["start_s"]],
        "finish": [1e3 * spent for spent in samples["finish_s"]],
    }


def _append(folder: Path, points: int) -> Samples:
    tell("limits")
    pack = struct.Struct("<qdd").pack
    with (folder / "points.bin").open("ab") as file:
        spent = times_of_calls(lambda step: file.write(pack(step, 1.7e9, 0.5)), points)
        begin = time.perf_counter()
        for step in range(points):
            file.write(pack(step, time.time(), 0.5))
        looped = time.perf_counter() - begin
        file.flush()
        os.fsync(file.fileno())
        kept = time.perf_counter() - begin
    return {
        "p50": [quantile(spent, 0.5) / 1e3], "p99": [quantile(spent, 0.99) / 1e3],
        "rate": [points / looped], "kept_rate": [points / kept],
    }  # fmt: skip


def _sqlite(folder: Path, points: int) -> Samples:
    rows: list[tuple[int, float, float]] = []
    spent = times_of_calls(lambda step: rows.append((step, time.time(), 0.5)), points)
    database = sqlite3.connect(folder / "limit.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE point (run, key, step, at, value)")
    waiting: list[tuple[int, float, float]] = []
    begin = time.perf_counter()
    for step in range(points):
        waiting.append((step, time.time(), 0.5))
    looped = time.perf_counter() - begin
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT INTO point VALUES ('run', 'loss', ?, ?, ?)", waiting)
    database.execute("COMMIT")
    kept = time.perf_counter() - begin
    database.close()
    return {
        "p50": [quantile(spent, 0.5) / 1e3], "p99": [quantile(spent, 0.99) / 1e3],
        "rate": [points / looped], "kept_rate": [points / kept],
    }  # fmt: skip


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    port = free_port()
    with running(everloop("up", "--port", str(port)), folder=folder) as server:
        server.seconds_to_answer(port, "/healthz")
        yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    main()
