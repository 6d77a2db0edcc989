"""Reads an MLflow database, SQLite or PostgreSQL, with plain SQL; MLflow itself is not needed.

Knows the tables of MLflow 2 and 3. The database is opened for reading only; no lock is held
between two questions, so that a server which uses it can go on writing.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from everloop.core.errors import InvalidInput, MissingExtra, Unavailable
from everloop.interop.importers.mlflow_files import Locator
from everloop.interop.importers.mlflow_logged import read_logged_models
from everloop.interop.importers.source import (
    Contents,
    SourceExperiment,
    SourceFile,
    SourceInput,
    SourceLoggedModel,
    SourceModel,
    SourceRun,
    SourceVersion,
)
from everloop.interop.importers.times import UNKNOWN, at_ms
from everloop.track.columns import Columns
from everloop.track.model import RunStatus

PARENT = "mlflow.parentRunId"
COMMIT = "mlflow.source.git.commit"
STATUSES = {
    "RUNNING": RunStatus.RUNNING,
    "SCHEDULED": RunStatus.RUNNING,
    "FINISHED": RunStatus.FINISHED,
    "FAILED": RunStatus.FAILED,
    "KILLED": RunStatus.KILLED,
}
Rows = Sequence[Sequence[Any]]


class Closable(Protocol):
    """A connection of a driver."""

    def close(self) -> None:
        """Release it."""
        ...


class MlflowDatabase:
    """The records in an MLflow database."""

    system = "mlflow"

    def __init__(self, url: str, artifacts: Path | None = None) -> None:
        """Open the database.

        Args:
            url: ``sqlite:///path``, or ``postgresql://user@host/database``.
            artifacts: Folder that the server keeps artifacts in (its ``--artifacts-destination``),
                for runs whose files are named ``mlflow-artifacts:/...``.

        Raises:
            InvalidInput: ``import.source_invalid``.
            Unavailable: ``import.source_unavailable``.
            MissingExtra: ``extra.missing``.
        """
        self.place = without_secrets(url)
        opened = _open_sqlite(url) if url.startswith("sqlite") else _open_postgres(url)
        self._ask, self._connection = opened
        try:
            self._has_logged_models = bool(self._columns("logged_models"))
            if not self._columns("runs") or not self._columns("experiments"):
                raise InvalidInput(
                    "import.source_invalid",
                    f"{self.place} is no MLflow database: it has no table of runs.",
                    hint="Give the address that `mlflow server` has as --backend-store-uri.",
                )
        except sqlite3.Error as error:
            raise InvalidInput(
                "import.source_invalid",
                f"{self.place} can't be read: {error}.",
                hint="Give the address that `mlflow server` has as --backend-store-uri.",
            ) from error
        base = Path(_sqlite_path(url)).parent if url.startswith("sqlite") else Path.cwd()
        self._locate = Locator(base, artifacts)

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._connection.close()

    def experiments(self) -> list[SourceExperiment]:
        """Return all experiments."""
        tags: dict[Any, dict[str, str]] = {}
        for key, value, experiment in self._ask(
            "SELECT key, value, experiment_id FROM experiment_tags"
        ):
            tags.setdefault(experiment, {})[key] = value or ""
        return [
            SourceExperiment(
                id=str(key),
                name=name,
                tags=tags.get(key, {}),
                is_deleted=stage == "deleted",
            )
            for key, name, stage in self._ask(
                "SELECT experiment_id, name, lifecycle_stage FROM experiments"
                " ORDER BY experiment_id"
            )
        ]

    def runs(self) -> list[SourceRun]:
        """Return the heads of all runs."""
        tagged = self._ask("SELECT run_uuid, key, value FROM tags WHERE key IN (?, ?)",
                           PARENT, COMMIT)  # fmt: skip
        known = {(run, key): value for run, key, value in tagged}
        found = self._ask(
            "SELECT r.run_uuid, e.name, r.name, r.status, r.start_time, r.end_time,"
            " r.lifecycle_stage, r.artifact_uri, e.lifecycle_stage, e.creation_time FROM runs r"
            " JOIN experiments e ON e.experiment_id = r.experiment_id ORDER BY r.start_time"
        )
        return [self._run(row, known) for row in found]

    def logged_models(self) -> list[SourceLoggedModel]:
        """Return the models that runs wrote; MLflow 2 has none."""
        is_there = self._has_logged_models and self._columns("logged_model_metrics")
        return read_logged_models(self._ask, self._locate) if is_there else []

    def models(self) -> list[SourceModel]:
        """Return all registered models."""
        if not self._columns("registered_models"):
            return []
        tags = _grouped(self._ask("SELECT name, key, value FROM registered_model_tags"))
        aliases: dict[str, dict[str, int]] = {}
        if self._columns("registered_model_aliases"):
            for name, alias, number in self._ask(
                "SELECT name, alias, version FROM registered_model_aliases"
            ):
                aliases.setdefault(name, {})[alias] = int(number)
        versions = self._versions()
        return [
            SourceModel(
                name=name,
                versions=tuple(versions.get(name, ())),
                description=text or "",
                tags=tags.get(name, {}),
                aliases=aliases.get(name, {}),
            )
            for name, text in self._ask(
                "SELECT name, description FROM registered_models ORDER BY name"
            )
        ]

    def _run(self, row: Sequence[Any], known: dict[tuple[str, str], str]) -> SourceRun:
        key, experiment, name, status, start, end, stage, uri, parent_stage, made = row
        return SourceRun(
            id=key,
            experiment=experiment,
            name=name or key,
            status=STATUSES.get(str(status), RunStatus.KILLED),
            started_at=at_ms(start) or at_ms(made) or UNKNOWN,
            ended_at=at_ms(end),
            read=lambda: self._contents(key),
            files=lambda: self._files(key, uri),
            parent=known.get((key, PARENT)),
            code_commit=known.get((key, COMMIT)),
            is_deleted=stage == "deleted" or parent_stage == "deleted",
        )

    def _contents(self, run: str) -> Contents:
        params = self._ask("SELECT key, value FROM params WHERE run_uuid = ?", run)
        tags = self._ask("SELECT key, value FROM tags WHERE run_uuid = ?", run)
        return Contents(
            params={key: value or "" for key, value in params},
            tags={key: value or "" for key, value in tags},
            metrics=self._metrics(run),
            inputs=tuple(self._inputs(run)),
        )

    def _metrics(self, run: str) -> dict[str, Columns]:
        rows = self._ask(
            "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ?"
            " ORDER BY key, timestamp, step, value",
            run,
        )
        grouped: dict[str, list[Sequence[Any]]] = {}
        for row in rows:
            grouped.setdefault(row[0], []).append(row)
        return {key: to_points(points) for key, points in grouped.items()}

    def _inputs(self, run: str) -> Iterable[SourceInput]:
        if not self._columns("datasets"):
            return
        tags: dict[str, dict[str, str]] = {}
        rows = self._ask(
            "SELECT i.input_uuid, t.name, t.value FROM inputs i JOIN input_tags t"
            " ON t.input_uuid = i.input_uuid WHERE i.destination_id = ?",
            run,
        )
        for key, name, value in rows:
            tags.setdefault(key, {})[name] = value
        rows = self._ask(
            "SELECT i.input_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source,"
            " d.dataset_schema, d.dataset_profile FROM inputs i JOIN datasets d"
            " ON d.dataset_uuid = i.source_id"
            " WHERE i.destination_id = ? AND i.source_type = 'DATASET' ORDER BY d.name, d.digest",
            run,
        )
        for key, name, digest, kind, place, schema, profile in rows:
            yield SourceInput(
                name=name,
                digest=digest,
                source_type=kind or "",
                source=place or "",
                schema=schema or "",
                profile=profile or "",
                tags=tags.get(key, {}),
            )

    def _files(self, run: str, uri: str | None) -> Iterable[SourceFile]:
        yield from self._locate.files(uri or "")
        if not self._has_logged_models:
            return
        rows = self._ask(
            "SELECT name, model_id, artifact_location FROM logged_models WHERE source_run_id = ?"
            " AND lifecycle_stage = 'active' ORDER BY creation_timestamp_ms",
            run,
        )
        for name, model, place in rows:
            for file in self._locate.files(place):
                yield SourceFile(
                    path=f"{name or model}/{file.path}",
                    size_bytes=file.size_bytes,
                    local=file.local,
                    fetch=file.fetch,
                )

    def _versions(self) -> dict[str, list[SourceVersion]]:
        tags: dict[tuple[str, int], dict[str, str]] = {}
        for name, number, key, value in self._ask(
            "SELECT name, version, key, value FROM model_version_tags"
        ):
            tags.setdefault((name, int(number)), {})[key] = value or ""
        stored = self._columns("model_versions")
        place = "storage_location" if "storage_location" in stored else "source"
        versions: dict[str, list[SourceVersion]] = {}
        rows = self._ask(
            "SELECT name, version, creation_time, description, current_stage, source, run_id,"
            f" {place} FROM model_versions WHERE current_stage <> 'Deleted_Internal'"
            " ORDER BY name, version"
        )
        for name, number, made, text, stage, source, run, location in rows:
            versions.setdefault(name, []).append(
                SourceVersion(
                    number=int(number),
                    run=run or None,
                    created_at=at_ms(made) or UNKNOWN,
                    files=partial(self._version_files, location or source),
                    description=text or "",
                    tags=tags.get((name, int(number)), {}),
                    stage="" if stage in {None, "None"} else stage,
                )
            )
        return versions

    def _version_files(self, uri: str) -> Iterable[SourceFile]:
        if uri.startswith("models:/") and self._has_logged_models:
            rows = self._ask(
                "SELECT artifact_location FROM logged_models WHERE model_id = ?",
                uri.removeprefix("models:/"),
            )
            uri = rows[0][0] if rows else uri
        elif uri.startswith("runs:/"):
            run, _, path = uri.removeprefix("runs:/").partition("/")
            rows = self._ask("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run)
            uri = f"{rows[0][0].rstrip('/')}/{path}" if rows else uri
        return self._locate.files(uri)

    def _columns(self, table: str) -> set[str]:
        if self._ask.__name__ == "ask_sqlite":
            return {row[1] for row in self._ask(f'PRAGMA table_info("{table}")')}
        rows = self._ask(
            "SELECT column_name FROM information_schema.columns WHERE table_name = ?", table
        )
        return {row[0] for row in rows}


def to_points(rows: Sequence[Sequence[Any]]) -> Columns:
    """Return points of rows (key, step, milliseconds, value, is NaN)."""
    steps = np.array([row[1] or 0 for row in rows], dtype=np.int64)
    times = np.array([row[2] or 0 for row in rows], dtype=np.int64) * 1000
    values = [math.nan if row[4] else float(row[3]) for row in rows]
    return Columns(steps, times, np.array(values, dtype=np.float64))


def without_secrets(url: str) -> str:
    """Return an address without user and password."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _grouped(rows: Rows) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for owner, key, value in rows:
        found.setdefault(owner, {})[key] = value or ""
    return found


def _sqlite_path(url: str) -> str:
    return url.partition(":///")[2] if ":///" in url else url.partition(":")[2]


def _open_sqlite(url: str) -> tuple[Callable[..., Rows], Closable]:
    path = Path(_sqlite_path(url))
    if not path.is_file():
        raise InvalidInput(
            "import.source_invalid",
            f"There is no file {path}.",
            hint="Write sqlite:///mlflow.db, or sqlite:////absolute/path/mlflow.db.",
        )
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")

    def ask_sqlite(text: str, *values: object) -> Rows:
        return connection.execute(text, values).fetchall()

    return ask_sqlite, connection


def _open_postgres(url: str) -> tuple[Callable[..., Rows], Closable]:
    try:
        import psycopg
    except ImportError as missing:
        raise MissingExtra(
            "extra.missing",
            "PostgreSQL needs the library psycopg, which is not installed.",
            hint='Install it with: pip install "everloop[postgres]"',
        ) from missing
    scheme, _, rest = url.partition("://")
    address = f"{scheme.partition('+')[0]}://{rest}"
    try:
        options = "-c default_transaction_read_only=on"
        connection = psycopg.connect(address, autocommit=True, options=options)
    except psycopg.Error as error:
        raise Unavailable(
            "import.source_unavailable",
            f"{without_secrets(url)} does not answer: {str(error).partition(chr(10))[0]}.",
            hint="Check the address, the user and whether the database runs.",
        ) from error

    def ask_postgres(text: str, *values: object) -> Rows:
        return connection.execute(text.replace("?", "%s").encode(), values).fetchall()

    return ask_postgres, connection
