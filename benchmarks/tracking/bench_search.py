"""Search among many runs: filter and order, the first 100, in filters of several shapes.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from many_runs import MadeRun, fill_mlflow, fill_postgres, fill_sqlite, made_runs, project_id
from measure import Options, Report, parse_options, tell, workplace
from peers import Mlflow, find_mlflow
from processes import everloop, run_once

from everloop.app.client import Client, connect
from everloop.app.wiring import DATABASE_VARIABLE
from everloop.track.search import FoundRuns, SearchRuns
from tests.parts.found import find_postgres_folder
from tests.parts.postgres import DURABLE, running_cluster

TASKS = Path(__file__).with_name("store_tasks.py")
PROJECT = "bench"
ROUNDS = 15


class Shape(NamedTuple):
    """One question, in our words, MLflow's where it can ask that, and SQL's for the limit."""

    name: str
    filter: str
    order: str
    peer: str | None = None
    peer_order: str = "start_time DESC"
    limit: str = ""


RECENT = "started_at DESC"
BY_METRIC = "metrics.m0 DESC, started_at DESC"
SHAPES = (
    Shape(
        "rare param and metric, by metric",
        "params.seed = '7' AND metrics.m1 > 0.5",
        BY_METRIC,
        "params.seed = '7' AND metrics.m1 > 0.5",
        "metrics.m0 DESC",
        "seed = '7' AND m1 > 0.5 ORDER BY m0 DESC",
    ),
    Shape(
        "metric in half of the runs, by start",
        "metrics.m1 > 0.5",
        RECENT,
        "metrics.m1 > 0.5",
        limit="m1 > 0.5 ORDER BY started_at DESC",
    ),
    Shape(
        "metric and param in a tenth, by metric",
        "metrics.m1 > 0.5 AND params.model = 'xgb'",
        BY_METRIC,
        "metrics.m1 > 0.5 AND params.model = 'xgb'",
        "metrics.m0 DESC",
        "m1 > 0.5 AND model = 'xgb' ORDER BY m0 DESC",
    ),
    Shape(
        "metric in a thousandth, by start",
        "metrics.m1 > 0.999",
        RECENT,
        "metrics.m1 > 0.999",
        limit="m1 > 0.999 ORDER BY started_at DESC",
    ),
    Shape(
        "OR and NOT, by metric",
        "metrics.m1 > 0.9 OR (params.model = 'xgb' AND NOT tags.team = 'a')",
        BY_METRIC,
        limit="m1 > 0.9 OR (model = 'xgb' AND NOT team = 'a') ORDER BY m0 DESC",
    ),
    Shape(
        "OR of two rare ones, by start",
        "metrics.m1 > 0.9995 OR params.seed = '7'",
        RECENT,
        limit="m1 > 0.9995 OR seed = '7' ORDER BY started_at DESC",
    ),
    Shape(
        "param as a number, by param",
        "params.depth > 25",
        "params.lr DESC, started_at DESC",
        limit="CAST(depth AS REAL) > 25 ORDER BY lr DESC, started_at DESC",
    ),
    Shape(
        "lineage: runs that read a dataset, by start",
        "dataset = 'credit@3' AND metrics.m1 > 0.5",
        RECENT,
        limit="dataset = 3 AND m1 > 0.5 ORDER BY started_at DESC",
    ),
    Shape("everything, by metric", "", BY_METRIC, "", "metrics.m0 DESC", "1 ORDER BY m0 DESC"),
    Shape("everything, by start", "", RECENT, "", limit="1 ORDER BY started_at DESC"),
)


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    peer = find_mlflow(options)
    report = Report("tracking-search", options, peer=peer.name if peer else "")
    for count in (10_000,) if options.quick else (10_000, 100_000):
        with workplace() as folder:
            measure(report, options, peer, folder, count)
    report.close()


def measure(
    report: Report, options: Options, peer: Mlflow | None, folder: Path, count: int
) -> None:
    """Ask everybody for the same among so many runs."""
    rows = {
        store: {s.name: report.row(f"{count:,} runs, {store}: {s.name}", "ms") for s in SHAPES}
        for store in ("SQLite", "PostgreSQL")
    }
    tell(f"{count:,} runs in SQLite")
    run_once(everloop("init", "--name", PROJECT), folder=folder)
    database = folder / ".everloop" / "everloop.db"
    before = database.stat().st_size
    fill_sqlite(database, count, project_id(database))
    size = report.row(f"{count:,} runs, size in SQLite", "bytes/run")
    size.add("everloop", (database.stat().st_size - before) / count)
    with connect(folder) as client:
        for name, spent in _asked(client, options).items():
            rows["SQLite"][name].add("everloop", *spent)
    if find_postgres_folder() is not None:
        _measure_postgres(rows["PostgreSQL"], options, folder, count)
    tell("the limit")
    for name, spent in _limits(folder / "limit.db", count, options).items():
        for store in rows.values():
            store[name].add("limit", *spent)
    if peer is not None:
        _measure_peer(rows["SQLite"], peer, folder, count)


def _asked(client: Client, options: Options) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for shape in SHAPES:
        ask = SearchRuns(filter=shape.filter, order=shape.order, limit=100)
        client.perform("run.search", ask, FoundRuns)
        for _ in range(options.rounds(ROUNDS)):
            begin = time.perf_counter()
            client.perform("run.search", ask, FoundRuns)
            found.setdefault(shape.name, []).append(1e3 * (time.perf_counter() - begin))
    return found


def _measure_postgres(rows: dict, options: Options, folder: Path, count: int) -> None:  # type: ignore[type-arg]
    tell(f"{count:,} runs in PostgreSQL")
    with running_cluster(DURABLE) as server:
        url = server.create_database()
        os.environ[DATABASE_VARIABLE] = url
        try:
            home = folder / "postgres"
            home.mkdir()
            variables = {DATABASE_VARIABLE: url}
            run_once(everloop("init", "--name", PROJECT), folder=home, variables=variables)
            fill_postgres(url, count, project_id(url))
            with connect(home) as client:
                for name, spent in _asked(client, options).items():
                    rows[name].add("everloop", *spent)
        finally:
            del os.environ[DATABASE_VARIABLE]


def _limits(path: Path, count: int, options: Options) -> dict[str, list[float]]:
    """Time one table with a column and a covering index for all that is asked."""
    names = ("id", "started_at", "seed", "model", "depth", "lr", "team", "dataset", "m0", "m1")
    with _opened(path) as database:
        database.execute(f"CREATE TABLE run ({', '.join(names)}, document)")
        database.executemany(
            f"INSERT INTO run VALUES ({', '.join('?' * (len(names) + 1))})",
            map(_limit_row, made_runs(count)),
        )
        rest = ", ".join(names[1:])
        for first in ("m0", "m1", "started_at", "seed", "dataset"):
            database.execute(f"CREATE INDEX by_{first} ON run ({first}, {rest}, id)")
        database.execute("ANALYZE")
        found: dict[str, list[float]] = {}
        for shape in SHAPES:
            for _ in range(options.rounds(ROUNDS)):
                begin = time.perf_counter()
                text = f"SELECT id FROM run WHERE {shape.limit} LIMIT 100"
                ids = [key for (key,) in database.execute(text)]
                marks = ", ".join("?" * len(ids))
                database.execute(f"SELECT * FROM run WHERE id IN ({marks})", ids).fetchall()
                found.setdefault(shape.name, []).append(1e3 * (time.perf_counter() - begin))
            if shape is SHAPES[0]:
                database.execute("CREATE UNIQUE INDEX by_id ON run (id)")
        return found


def _limit_row(run: MadeRun) -> tuple[object, ...]:
    texts = [run.params[name] for name in ("seed", "model", "depth", "lr")]
    metrics = (run.metrics["m0"], run.metrics["m1"])
    document = repr((run.params, run.tags))
    begun = run.started_at.isoformat()
    return (run.key, begun, *texts, run.tags["team"], run.dataset, *metrics, document)


def _measure_peer(rows: dict, peer: Mlflow, folder: Path, count: int) -> None:  # type: ignore[type-arg]
    tell(f"{count:,} runs in {peer.name}")
    store = f"sqlite:///{folder}/mlflow.db"
    peer.ask(TASKS, "write", folder, store=store, count=0)
    fill_mlflow(folder / "mlflow.db", count)
    shapes = [shape for shape in SHAPES if shape.peer is not None]
    found = peer.ask(
        TASKS,
        "search",
        folder,
        store=store,
        filters=[shape.peer for shape in shapes],  # type: ignore[arg-type]
        orders=[[shape.peer_order] for shape in shapes],  # type: ignore[arg-type]
    )
    for number, shape in enumerate(shapes):
        rows[shape.name].add("peer", *found[str(number)])


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(path)
    try:
        with database:
            yield database
    finally:
        database.close()


if __name__ == "__main__":
    main()
