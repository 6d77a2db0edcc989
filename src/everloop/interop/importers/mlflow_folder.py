"""Reads an ``mlruns`` folder, MLflow's file store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from everloop.core.errors import InvalidInput
from everloop.interop.importers.mlflow_files import Locator
from everloop.interop.importers.mlflow_sql import COMMIT, PARENT, STATUSES
from everloop.interop.importers.source import (
    Contents,
    Skip,
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

META = "meta.yaml"
# RunStatus of MLflow's protocol: the file store writes numbers.
NUMBERED = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


class MlflowFolder:
    """The records in an ``mlruns`` folder."""

    system = "mlflow"

    def __init__(self, folder: Path) -> None:
        """Find the experiments in a folder.

        Raises:
            InvalidInput: ``import.source_invalid``.
        """
        self.place = str(folder)
        self._folder = folder
        self._locate = Locator(folder.parent)
        live = [(path, False) for path in folder.glob(f"*/{META}")]
        gone = [(path, True) for path in folder.glob(f".trash/*/{META}")]
        self._experiments = {
            path.parent: (_meta(path), is_gone)
            for path, is_gone in sorted([*live, *gone])
            if path.parent.name != "models"
        }
        if not self._experiments:
            raise InvalidInput(
                "import.source_invalid",
                f"{folder} is no mlruns folder: no experiment lies in it.",
                hint="Give the folder that holds one folder for each experiment.",
            )

    def close(self) -> None:
        """Do nothing; no file stays open."""

    def experiments(self) -> list[SourceExperiment]:
        """Return all experiments."""
        return [
            SourceExperiment(
                id=str(meta.get("experiment_id", path.name)),
                name=str(meta.get("name", path.name)),
                tags=_texts(path / "tags"),
                is_deleted=is_gone or meta.get("lifecycle_stage") == "deleted",
            )
            for path, (meta, is_gone) in self._experiments.items()
        ]

    def runs(self) -> list[SourceRun]:
        """Return the heads of all runs."""
        return [
            self._run(path.parent, str(meta.get("name")), is_gone)
            for folder, (meta, is_gone) in self._experiments.items()
            for path in sorted(folder.glob(f"*/{META}"))
            if path.parent.name not in {"models", "tags", "datasets", "traces"}
        ]

    def logged_models(self) -> list[SourceLoggedModel]:
        """Return none: they are not kept apart there."""
        return []

    def models(self) -> list[SourceModel]:
        """Return all registered models."""
        return [
            SourceModel(
                name=str(meta.get("name", path.parent.name)),
                versions=tuple(
                    sorted(self._versions(path.parent), key=lambda version: version.number)
                ),
                description=str(meta.get("description") or ""),
                tags=_texts(path.parent / "tags"),
                aliases={
                    alias: int(number) for alias, number in _texts(path.parent / "aliases").items()
                },
            )
            for path in sorted((self._folder / "models").glob(f"*/{META}"))
            for meta in (_meta(path),)
        ]

    def _run(self, folder: Path, experiment: str, is_gone: bool) -> SourceRun:
        meta, tags = _meta(folder / META), _texts(folder / "tags")
        status = meta.get("status")
        word = NUMBERED.get(status, "") if isinstance(status, int) else str(status)
        return SourceRun(
            id=str(meta.get("run_id") or folder.name),
            experiment=experiment,
            name=str(meta.get("run_name") or tags.get("mlflow.runName") or folder.name),
            status=STATUSES.get(word, RunStatus.KILLED),
            started_at=at_ms(meta.get("start_time")) or UNKNOWN,
            ended_at=at_ms(meta.get("end_time")),
            read=partial(_contents, folder),
            files=partial(self._files, folder, str(meta.get("artifact_uri") or "")),
            parent=tags.get(PARENT),
            code_commit=tags.get(COMMIT),
            is_deleted=is_gone or meta.get("lifecycle_stage") == "deleted",
        )

    def _files(self, folder: Path, uri: str) -> Iterator[SourceFile]:
        # The folder may have been moved since; what lies in it goes before the address.
        own = folder / "artifacts"
        yield from self._locate.files(str(own.resolve()) if own.is_dir() else uri)
        for path in sorted((folder.parent / "models").glob(f"*/{META}")):
            meta = _meta(path)
            if meta.get("source_run_id") == folder.name:
                for file in self._locate.files(str((path.parent / "artifacts").resolve())):
                    name = meta.get("name") or path.parent.name
                    yield SourceFile(f"{name}/{file.path}", file.size_bytes, local=file.local)

    def _versions(self, folder: Path) -> Iterator[SourceVersion]:
        for path in folder.glob(f"version-*/{META}"):
            meta = _meta(path)
            stage = str(meta.get("current_stage") or "")
            if stage == "Deleted_Internal":
                continue
            yield SourceVersion(
                number=int(meta.get("version", 0)),
                run=str(meta.get("run_id") or "") or None,
                created_at=at_ms(meta.get("creation_timestamp")) or UNKNOWN,
                files=partial(self._version_files, meta),
                description=str(meta.get("description") or ""),
                tags=_texts(path.parent / "tags"),
                stage="" if stage == "None" else stage,
            )

    def _version_files(self, meta: dict[str, Any]) -> Iterable[SourceFile]:
        uri = str(meta.get("storage_location") or meta.get("source") or "")
        if uri.startswith("models:/"):
            found = list(self._folder.glob(f"*/models/{uri.removeprefix('models:/')}/artifacts"))
            uri = str(found[0].resolve()) if found else uri
        elif uri.startswith("runs:/"):
            run, _, rest = uri.removeprefix("runs:/").partition("/")
            found = list(self._folder.glob(f"*/{run}/artifacts"))
            uri = str((found[0] / rest).resolve()) if found else uri
        return self._locate.files(uri)


def _meta(path: Path) -> dict[str, Any]:
    try:
        read: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def _texts(folder: Path) -> dict[str, str]:
    """Return the texts of files below a folder by their paths, which are the keys."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8", errors="replace")
        for path in _plain_files(folder)
    }


def _plain_files(folder: Path) -> list[Path]:
    """Return the files below a folder, without links: those may lead to anything on the machine."""
    if folder.is_symlink():
        return []
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]


def _contents(folder: Path) -> Contents:
    return Contents(
        params=_texts(folder / "params"),
        tags=_texts(folder / "tags"),
        metrics={
            path.relative_to(folder / "metrics").as_posix(): _points(path)
            for path in _plain_files(folder / "metrics")
        },
        inputs=tuple(_inputs(folder)),
    )


def _points(path: Path) -> Columns:
    """Read lines of milliseconds, value and step."""
    rows: list[tuple[int, int, float]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        parts = line.split()
        try:
            step = int(parts[2]) if len(parts) > 2 else 0
            rows.append((int(parts[0]), step, float(parts[1])))
        except (ValueError, IndexError) as error:
            message = f"the file of metric {path.name} is damaged"
            raise Skip(message) from error
    rows.sort(key=lambda row: (row[0], row[1]))
    return Columns(
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[0] for row in rows], dtype=np.int64) * 1000,
        np.array([row[2] for row in rows], dtype=np.float64),
    )


def _inputs(folder: Path) -> Iterator[SourceInput]:
    for path in sorted((folder / "inputs").glob(f"*/{META}")):
        link = _meta(path)
        data = _meta(folder.parent / "datasets" / str(link.get("source_id", "")) / META)
        if data:
            yield SourceInput(
                name=str(data.get("name", "")),
                digest=str(data.get("digest", "")),
                source_type=str(data.get("source_type") or ""),
                source=str(data.get("source") or ""),
                schema=str(data.get("schema") or ""),
                profile=str(data.get("profile") or ""),
                tags={str(key): str(value) for key, value in (link.get("tags") or {}).items()},
            )
