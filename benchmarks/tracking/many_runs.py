"""The same many runs for every subject: made by arithmetic, and loaded by SQL for speed.

A run has 20 parameters, 20 metrics and 2 tags, and read one of 20 dataset versions. Values are
chosen so that filters of every selectivity can be asked.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import psycopg

from everloop.app.verbs import load_verbs
from everloop.core.canonical import canonical_json
from everloop.core.records import declared_kinds
from everloop.storage.tables import table_of
from everloop.track.fields import number_in

KEYS = 20
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MODELS = ("xgb", "lgbm", "forest", "linear", "mlp")
RATES = ("0.001", "0.003", "0.01", "0.03", "0.1", "0.3")


@dataclass(frozen=True)
class MadeRun:
    """One run as every subject holds it."""

    number: int
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    started_at: datetime
    dataset: int

    @property
    def key(self) -> str:
        """A UUIDv7 of its time and number."""
        stamp = int(self.started_at.timestamp() * 1000)
        noise = (self.number * 0x9E3779B97F4A7C15) % 2**60
        text = f"{stamp:012x}7{self.number % 4096:03x}8{noise:015x}"
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def made_runs(count: int) -> Iterator[MadeRun]:
    """Yield the runs, the oldest first."""
    random = np.random.default_rng(7)
    for number in range(count):
        values = random.random(KEYS)
        draws = random.integers(0, 1000, KEYS)
        params = {
            "model": MODELS[draws[0] % len(MODELS)],
            "lr": RATES[draws[1] % len(RATES)],
            "depth": str(draws[2] % 30),
            "rare": "yes" if draws[3] < 10 else "no",
            "seed": str(number % 1000),
        }
        params |= {f"p{i}": f"value {draws[i] % 100}" for i in range(len(params), KEYS)}
        yield MadeRun(
            number=number,
            params=params,
            tags={"team": "abcd"[draws[4] % 4], "note": f"try {number}"},
            metrics={f"m{i}": float(values[i]) for i in range(KEYS)},
            started_at=BEGIN + timedelta(seconds=97 * number),
            dataset=number % 20,
        )


def dataset_id(number: int) -> str:
    """Return the id of a dataset version."""
    return f"00000000-0000-7000-8000-{number:012x}"


def _plain_id(name: int, number: int) -> str:
    return f"01900000-{name:04x}-7000-8000-{number:012x}"


EXPERIMENT = _plain_id(0, 0)


def project_id(database: Path | str) -> str:
    """Return the id of the one project in a database: a file of SQLite or PostgreSQL's address."""
    query = "SELECT id FROM project"
    with (
        psycopg.connect(database.replace("+psycopg", ""))
        if isinstance(database, str)
        else closing(sqlite3.connect(database)) as connection
    ):
        found = connection.execute(query).fetchone()
    assert found is not None
    return str(found[0])


def our_rows(runs: Iterable[MadeRun], project: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield rows of our tables, as table name and columns."""
    at = BEGIN.isoformat(timespec="microseconds")[:26] + "Z"
    yield (
        "experiment",
        {"id": EXPERIMENT, "project": project, "name": "many", "created_at": at,
         "created_by": "user:ann", "tags": "{}"},
    )  # fmt: skip
    for number in range(20):
        yield (
            "dataset_version",
            {"id": dataset_id(number), "project": project, "dataset": dataset_id(99),
             "name": "credit", "number": number, "root": "-", "manifest": "-", "format": "parquet",
             "size_bytes": 1, "source": "{}", "message": "", "created_at": at,
             "created_by": "user:ann"},
        )  # fmt: skip
    for run in runs:
        key, numbers = run.key, itertools.count(1_000 * run.number)
        begun = run.started_at.isoformat(timespec="microseconds")[:26] + "Z"
        common = {"project": project, "run": key}
        yield (
            "run",
            {"id": key, "project": project, "experiment": EXPERIMENT, "name": f"run {run.number}",
             "status": "finished", "started_at": begun, "ended_at": begun,
             "params": canonical_json(run.params).decode(),
             "tags": canonical_json(run.tags).decode(), "created_by": "user:ann"},
        )  # fmt: skip
        for space, texts in (("param", run.params), ("tag", run.tags)):
            for name, value in texts.items():
                yield (
                    "run_field",
                    {"id": _plain_id(1, next(numbers)), **common, "space": space, "key": name,
                     "value": value, "head": value[:100], "number": number_in(value), "at": begun},
                )  # fmt: skip
        for name, measured in run.metrics.items():
            yield (
                "metric_summary",
                {"id": _plain_id(2, next(numbers)), **common, "key": name, "count": 1,
                 "last_step": 0, "last": measured, "last_text": repr(measured),
                 "minimum": measured, "maximum": measured, "not_finite": 0, "chunks": 1,
                     "last_time_us": int(run.started_at.timestamp() * 1e6)},
            )  # fmt: skip
        yield (
            "edge",
            {"id": _plain_id(3, next(numbers)), "project": project, "source": f"run:{key}",
             "relation": "read", "target": f"dataset_version:{dataset_id(run.dataset)}",
             "at": begun},
        )  # fmt: skip


ONCE = ("experiment", "dataset_version")
TABLES = (*ONCE, "run", "run_field", "metric_summary", "edge")


def _grouped(count: int, project: str) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    """Yield batches of rows in the order of the tables' columns."""
    load_verbs()
    kinds = declared_kinds()
    names = {table: [c.name for c in table_of(kinds[table]).columns] for table in TABLES}
    defaults = {table: _defaults(table) for table in TABLES}
    done: set[str] = set()
    for some in _batched(made_runs(count), 2_000):
        batches: dict[str, list[tuple[object, ...]]] = {table: [] for table in TABLES}
        for table, row in our_rows(some, project):
            full = defaults[table] | row
            batches[table].append(tuple(full.get(name) for name in names[table]))
        yield from ((table, rows) for table, rows in batches.items() if rows and table not in done)
        done.update(ONCE)


def _defaults(table: str) -> dict[str, object]:
    """Return what fields hold that are not given, as columns."""
    kind = declared_kinds()[table]
    columns = table_of(kind).by_name
    return {
        item.name: columns[item.name].to_sql(item.default)
        for item in msgspec.structs.fields(kind.type)
        if item.default is not msgspec.NODEFAULT
    }


def _names(table: str) -> str:
    return ", ".join(f'"{column.name}"' for column in table_of(declared_kinds()[table]).columns)


def _batched(runs: Iterator[MadeRun], size: int) -> Iterator[list[MadeRun]]:
    while some := list(itertools.islice(runs, size)):
        yield some


def fill_sqlite(path: Path, count: int, project: str) -> None:
    """Put the runs into a database that our own store has made."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -1000000")
        for table, rows in _grouped(count, project):
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(
                f'INSERT INTO "{table}" ({_names(table)}) VALUES ({marks})',
                rows,
            )
    connection.close()


def fill_postgres(url: str, count: int, project: str) -> None:
    """Put the runs into a database that our own store has made, and let it count them."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for table, rows in _grouped(count, project):
            with connection.cursor().copy(
                f'COPY "{table}" ({_names(table)}) FROM STDIN'.encode()
            ) as copy:
                for row in rows:
                    copy.write_row(row)
        connection.execute("VACUUM ANALYZE")


def fill_mlflow(path: Path, count: int) -> None:
    """Put the runs into a database that MLflow has made."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -1000000")
        for some in _batched(made_runs(count), 2_000):
            for table, rows in _mlflow_rows(some).items():
                named = ", ".join(rows[0])
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(
                    f"INSERT INTO {table} ({named}) VALUES ({marks})",
                    [tuple(row.values()) for row in rows],
                )
    connection.close()


def _mlflow_rows(runs: Sequence[MadeRun]) -> dict[str, list[dict[str, object]]]:
    rows: dict[str, list[dict[str, object]]] = {
        name: [] for name in ("runs", "params", "tags", "latest_metrics")
    }
    for run in runs:
        key, at = run.key.replace("-", ""), int(run.started_at.timestamp() * 1000)
        rows["runs"].append(
            {"run_uuid": key, "name": f"run {run.number}", "source_type": "LOCAL",
             "user_id": "ann", "status": "FINISHED", "start_time": at, "end_time": at,
             "lifecycle_stage": "active", "artifact_uri": f"/x/{key}", "experiment_id": 0}
        )  # fmt: skip
        rows["params"] += [{"key": k, "value": v, "run_uuid": key} for k, v in run.params.items()]
        rows["tags"] += [{"key": k, "value": v, "run_uuid": key} for k, v in run.tags.items()]
        rows["latest_metrics"] += [
            {"key": k, "value": v, "timestamp": at, "step": 0, "is_nan": 0, "run_uuid": key}
            for k, v in run.metrics.items()
        ]
    return rows
