"""Reads what neptune-exporter wrote: one row for each value or point of an attribute, as Parquet.

The layout is that of its README: folders of projects with ``<run>_part_<n>.parquet``, and the
files of runs beside, below a folder of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from everloop.core.clock import Instant
from everloop.core.errors import InvalidInput
from everloop.interop.importers.source import (
    Contents,
    Skip,
    SourceExperiment,
    SourceFile,
    SourceLoggedModel,
    SourceModel,
    SourceRun,
    either,
)
from everloop.interop.importers.times import UNKNOWN
from everloop.track.columns import Columns, to_columns
from everloop.track.model import RunStatus

COLUMNS = ("project_id", "run_id", "attribute_path", "attribute_type")
VALUES = {
    "float": "float_value",
    "int": "int_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
}
LINES = {"string_series": "string_value", "histogram_series": "histogram_value"}
Row = dict[str, Any]


class NeptuneFolder:
    """A folder that neptune-exporter wrote."""

    system = "neptune"

    def __init__(self, folder: Path, files: Path | None = None, step_multiplier: int = 1) -> None:
        """Find the runs below a folder.

        Args:
            folder: The exporter's data path.
            files: Its files path; the folder ``files`` beside the data when left out.
            step_multiplier: What Neptune's decimal steps are multiplied by to become whole.

        Raises:
            InvalidInput: ``import.source_invalid`` when there is no export.
        """
        self.place = str(folder)
        self._multiplier = step_multiplier
        self._files = files or folder.parent / "files"
        self._parts: dict[tuple[str, str], list[Path]] = {}
        for path in sorted(folder.rglob("*part_*.parquet")):
            for key in _keys(path):
                self._parts.setdefault(key, []).append(path)
        if not self._parts:
            raise InvalidInput(
                "import.source_invalid",
                f"There is no export of Neptune below {folder}.",
                hint="Give the --data-path of neptune-exporter.",
            )

    def close(self) -> None:
        """Do nothing; no file stays open."""

    def experiments(self) -> list[SourceExperiment]:
        """Return one experiment for each Neptune project."""
        names = dict.fromkeys(project for project, _ in self._parts)
        return [SourceExperiment(id=name, name=name) for name in names]

    def logged_models(self) -> list[SourceLoggedModel]:
        """Return none: they are not kept apart there."""
        return []

    def models(self) -> list[SourceModel]:
        """Return none: the exporter writes no registry that is known here."""
        return []

    def runs(self) -> list[SourceRun]:
        """Return the heads of all runs."""
        return [
            either("/".join(key), partial(self._run, *key, paths))
            for key, paths in self._parts.items()
        ]

    def _run(self, project: str, run: str, paths: list[Path]) -> SourceRun:
        known = {
            row["attribute_path"]: row
            for row in _rows(paths, project, run)
            if str(row["attribute_path"]).startswith("sys/")
        }
        failed = known.get("sys/failed", {}).get("bool_value")
        return SourceRun(
            id=f"{project}/{run}",
            experiment=project,
            name=str(known.get("sys/name", {}).get("string_value") or run),
            status=RunStatus.FAILED if failed else RunStatus.FINISHED,
            started_at=_time(known.get("sys/creation_time")) or UNKNOWN,
            ended_at=_time(known.get("sys/modification_time")),
            read=partial(self._contents, project, run, paths),
            files=partial(self._list, project, run, paths),
        )

    def _contents(self, project: str, run: str, paths: list[Path]) -> Contents:
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        series: dict[str, list[Row]] = {}
        for row in _rows(paths, project, run):
            path, kind = str(row["attribute_path"]), row["attribute_type"]
            if kind == "float_series":
                series.setdefault(path, []).append(row)
            elif kind in VALUES:
                text = _to_text(row[VALUES[kind]])
                (tags if path.startswith("sys/") else params)[path] = text
        metrics = {key: self._points(rows) for key, rows in series.items()}
        return Contents(params=params, tags=tags, metrics=metrics)

    def _points(self, rows: list[Row]) -> Columns:
        kept = [row for row in rows if row["float_value"] is not None]
        return to_columns(
            [round((row["step"] or Decimal(0)) * self._multiplier) for row in kept],
            [round(_seconds(row["timestamp"]) * 1e6) for row in kept],
            [float(row["float_value"]) for row in kept],
        )

    def _list(self, project: str, run: str, paths: list[Path]) -> Iterator[SourceFile]:
        lines: dict[str, list[str]] = {}
        for row in _rows(paths, project, run):
            path, kind = str(row["attribute_path"]), row["attribute_type"]
            if kind in LINES:
                point = {
                    "step": float(row["step"] or 0),
                    "time": _seconds(row["timestamp"]),
                    "value": row[LINES[kind]],
                }
                lines.setdefault(path, []).append(json.dumps(point, sort_keys=True))
            elif row.get("file_value"):
                yield self._file(paths[0].parent.name, path, row, is_series=kind == "file_series")
        for path, found in lines.items():
            data = ("\n".join(found) + "\n").encode()
            yield SourceFile(f"{path}.jsonl", len(data), fetch=partial(_once, data))

    def _file(self, folder: str, path: str, row: Row, *, is_series: bool) -> SourceFile:
        named = Path(str(row["file_value"]["path"]))
        places = (self._files / folder / named, self._files / named)
        place = next((each for each in places if each.is_file()), None)
        root = self._files.resolve()
        if place is None or not place.resolve().is_relative_to(root):
            message = f"the file {named} of {path} is not below {self._files}"
            raise Skip(message)
        suffix = "".join(named.suffixes[-1:])
        name = path if path.endswith(suffix) else path + suffix
        if is_series:
            name = f"{path}/{row['step'].normalize():f}{suffix}"
        return SourceFile(name, place.stat().st_size, local=place)


def _once(data: bytes) -> Iterator[bytes]:
    yield data


def _keys(path: Path) -> list[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["project_id", "run_id"])
    except (pa.ArrowException, OSError, KeyError):
        return []
    if table.column_names != ["project_id", "run_id"]:
        return []
    pairs = table.group_by(["project_id", "run_id"]).aggregate([]).to_pylist()
    return [(str(pair["project_id"]), str(pair["run_id"])) for pair in pairs]


def _rows(paths: list[Path], project: str, run: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        try:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=20_000):
                for row in batch.to_pylist():
                    if row.get("project_id") == project and row.get("run_id") == run:
                        yield row
        except (pa.ArrowException, OSError) as error:
            message = f"{path.name} can't be read: {str(error)[:200]}"
            raise Skip(message) from error


def _time(row: Row | None) -> Instant | None:
    found = row.get("datetime_value") if row else None
    return found.astimezone(UTC) if isinstance(found, datetime) else None


def _seconds(value: Any) -> float:
    return value.timestamp() if isinstance(value, datetime) else 0.0


def _to_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return "" if value is None else str(value)
