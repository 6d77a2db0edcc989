"""How fast points can be queried, what they weigh, and how fast a history is read.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from measure import Options, Report, parse_options, tell, workplace
from peers import Mlflow, find_mlflow
from processes import everloop, free_port, run_once, running

from everloop.app.client import Client, connect
from everloop.core.ids import IdSource
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.track import columns
from everloop.track.columns import Columns
from everloop.track.history import history_of
from everloop.track.plots import Plot, PlotLines
from everloop.track.queries import RunDetails, ShowRun
from everloop.track.verbs import LogRun, MetricSeries, RunLogged, RunStarted, StartRun

TASKS = Path(__file__).with_name("store_tasks.py")
IDS = IdSource(lambda: time.time_ns() // 1_000_000, os.urandom)
PROJECT = "bench"
POINTS = 1_000_000
BATCH = 50_000
PEER_POINTS = 20_000
KEPT = (
    "all survive a power cut when the call returns: Everloop's records are committed with "
    "synchronous=FULL and its blobs are synced; MLflow and the limit commit with full fsyncs."
)


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    peer = find_mlflow(options)
    report = Report("tracking-store", options, peer=peer.name if peer else "")
    count = POINTS // 10 if options.quick else POINTS
    seeds = itertools.count(1)  # the same points again would cost no bytes
    rows = Rows(report, count)
    with workplace() as folder:
        run_once(everloop("init", "--name", PROJECT), folder=folder)
        with connect(folder) as near:
            secret = near.perform("token.create", CreateToken(name="bench"), NewToken).secret
            for number in range(options.rounds(5)):
                tell(f"embedded, round {number + 1}")
                rows.measure(near, made(count, next(seeds)), folder, "embedded")
            with _server(folder) as url, connect(url, project=PROJECT, token=secret) as far:
                for number in range(options.rounds(5)):
                    tell(f"HTTP, round {number + 1}")
                    rows.measure(far, made(count, next(seeds)), folder, "HTTP")
            for _ in range(options.rounds(3)):
                rows.measure_keys(near)
        rows.measure_limits(folder, made(count), options)
        if peer is not None:
            rows.measure_peer(peer, folder, options)
    report.close()


def made(count: int, seed: int = 7) -> Columns:
    """Return points as training makes them: a noisy curve, some milliseconds apart."""
    random = np.random.default_rng(seed)
    steps = np.arange(count, dtype=np.int64)
    times = 1_700_000_000_000_000 + np.cumsum(random.integers(500, 8_000, count))
    values = np.exp(-steps / (count / 5)) + random.normal(0, 0.01, count)
    return Columns(steps, times, values)


class Rows:
    """The rows of this benchmark."""

    def __init__(self, report: Report, count: int) -> None:
        self._count = count
        title = f"{count:,} points"
        self._logged = {
            where: report.row(f"{title} until queried, {where}", "s", kept=KEPT)
            for where in ("embedded", "HTTP")
        }
        self._read = {
            where: report.row(f"history of {title} into numpy, {where}", "ms")
            for where in ("embedded", "HTTP")
        }
        self._plot = {
            where: report.row(f"{title} thinned out for a plot, {where}", "ms")
            for where in ("embedded", "HTTP")
        }
        self._size = report.row("size of the store", "bytes/point")
        self._keys = report.row("one batch of 1,000 metrics x 100 points", "points/s", "more")
        self._notes = report.notes

    def measure(self, client: Client, points: Columns, folder: Path, where: str) -> None:
        """Log all points, then ask for them."""
        before = _bytes_in(folder)
        run = IDS.new()
        client.perform("run.start", StartRun(run=run), RunStarted)
        begin = time.perf_counter()
        for first in range(0, self._count, BATCH):
            part = slice(first, first + BATCH)
            piece = Columns(points.steps[part], points.times_us[part], points.values[part])
            data = columns.encode(piece)
            ask = LogRun(run=run, metrics=(MetricSeries(key="loss", data=data),))
            client.perform("run.log", ask, RunLogged)
        (found,) = client.perform("run.show", ShowRun(run=run), RunDetails).metrics
        self._logged[where].add("everloop", time.perf_counter() - begin)
        _require(found.count == self._count)
        if where == "embedded":
            self._size.add("everloop", (_bytes_in(folder) - before) / self._count)
        for _ in range(3):
            begin = time.perf_counter()
            whole = history_of(client, run, "loss")
            self._read[where].add("everloop", 1e3 * (time.perf_counter() - begin))
        _require(whole.values.tobytes() == points.values.tobytes())
        for _ in range(3):
            begin = time.perf_counter()
            ask_plot = Plot(runs=(run,), keys=("loss",), points=1_000)
            (line,) = client.perform("run.plot", ask_plot, PlotLines).lines
            self._plot[where].add("everloop", 1e3 * (time.perf_counter() - begin))
        _require({points.values.min(), points.values.max()} <= set(line.y))

    def measure_keys(self, client: Client) -> None:
        """Log one wide batch: many metrics, few points of each."""
        piece = columns.encode(made(100))
        run = IDS.new()
        client.perform("run.start", StartRun(run=run), RunStarted)
        series = tuple(MetricSeries(key=f"m{number}", data=piece) for number in range(1_000))
        for _ in range(3):
            begin = time.perf_counter()
            client.perform("run.log", LogRun(run=run, metrics=series), RunLogged)
            self._keys.add("everloop", 100_000 / (time.perf_counter() - begin))

    def measure_limits(self, folder: Path, points: Columns, options: Options) -> None:
        """Time raw SQLite: a row a point, and a file of numpy."""
        tell("limits")
        for number in range(options.rounds(3)):
            path = folder / f"limit-{number}.db"
            database = sqlite3.connect(path, isolation_level=None)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("CREATE TABLE point (run, key, step, at, value)")
            begin = time.perf_counter()
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT INTO point VALUES ('run', 'loss', ?, ?, ?)",
                zip(*(column.tolist() for column in points), strict=True),
            )
            database.execute("COMMIT")
            database.execute("SELECT count(*) FROM point").fetchone()
            for row in self._logged.values():
                row.add("limit", time.perf_counter() - begin)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.close()
            self._size.add("limit", path.stat().st_size / self._count)
            np.save(folder / "limit.npy", np.stack([points.steps, points.times_us, points.values]))
            begin = time.perf_counter()
            np.load(folder / "limit.npy")
            for row in self._read.values():
                row.add("limit", 1e3 * (time.perf_counter() - begin))

    def measure_peer(self, peer: Mlflow, folder: Path, options: Options) -> None:
        """Let MLflow do the same with fewer points, and scale up."""
        count = PEER_POINTS // (10 if options.quick else 1)
        self._notes.append(f"{peer.name}: {count:,} points, times scaled up; one worker.")
        times = self._count / count
        port = free_port()
        with running(peer.server(folder, port), folder=folder) as server:
            server.seconds_to_answer(port, "/health")
            stores = {
                "embedded": f"sqlite:///{folder}/mlflow-local.db",
                "HTTP": f"http://127.0.0.1:{port}",
            }
            for where, store in stores.items():
                tell(f"peer, {where}")
                found = peer.ask(TASKS, "points", folder, store=store, count=count)
                self._logged[where].add("peer", times * found["logged_s"][0])
                self._read[where].add("peer", 1e3 * times * found["read_s"][0])
                if where == "embedded":
                    self._size.add("peer", *found["bytes"])


def _bytes_in(folder: Path) -> int:
    """Return the size of a home, with what its database's log holds written back."""
    home = folder / ".everloop"
    with sqlite3.connect(home / "everloop.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file())


def _require(holds: bool) -> None:
    if not holds:
        message = "the answer is not what was logged"
        raise RuntimeError(message)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    port = free_port()
    with running(everloop("up", "--port", str(port)), folder=folder) as server:
        server.seconds_to_answer(port, "/healthz")
        yield f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    main()
