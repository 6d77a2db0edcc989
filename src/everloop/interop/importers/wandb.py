"""Reads what W&B left on this machine: offline runs, and histories exported as Parquet.

An offline run is a folder with ``run-<id>.wandb``, a log of protocol buffers in LevelDB's format
(wandb_internal.proto). A Parquet export is what the ``run-<id>-history`` artifacts hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from everloop.core.clock import Instant
from everloop.core.errors import InvalidInput
from everloop.interop.importers import wire
from everloop.interop.importers.source import (
    Contents,
    Skip,
    SourceExperiment,
    SourceFile,
    SourceLoggedModel,
    SourceModel,
    SourceRun,
    either,
    files_below,
)
from everloop.interop.importers.times import UNKNOWN
from everloop.track.columns import to_columns
from everloop.track.model import RunStatus

LOG_HEADER = b":W&B\xe1\xbe\x00"
_HISTORY, _SUMMARY, _CONFIG, _RUN, _EXIT = 2, 3, 5, 17, 18
_ARTIFACT = re.compile(r"(?:run-)?(?P<id>.+?)-history(?:[:-]v\d+)?$")
Series = dict[str, list[tuple[int, float, float]]]


@dataclass
class _Log:
    head: dict[int, list[wire.Value]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    series: Series = field(default_factory=dict)
    exit_code: int | None = None
    last_at: float = 0.0
    last_step: int = 0


class WandbFolder:
    """A folder with offline runs, or with histories as Parquet files."""

    system = "wandb"

    def __init__(self, folder: Path, experiment: str | None = None) -> None:
        """Find the runs below a folder.

        Raises:
            InvalidInput: ``import.source_invalid`` when there are none.
        """
        self.place = str(folder)
        self._experiment = experiment
        self._logs = sorted(folder.rglob("run-*.wandb"))
        self._tables: dict[Path, list[Path]] = {}
        for path in sorted(folder.rglob("*.parquet")):
            key = path.parent if _ARTIFACT.fullmatch(path.parent.name) else path
            self._tables.setdefault(key, []).append(path)
        if not self._logs and not self._tables:
            raise InvalidInput(
                "import.source_invalid",
                f"There are neither offline runs nor Parquet files below {folder}.",
                hint="Give the `wandb` folder of offline runs, or a folder of history artifacts.",
            )
        self._default = folder.resolve().name or "wandb"

    def close(self) -> None:
        """Do nothing; no file stays open."""

    def experiments(self) -> list[SourceExperiment]:
        """Return one experiment for each W&B project."""
        names = dict.fromkeys(run.experiment for run in self.runs())
        return [SourceExperiment(id=name, name=name) for name in names]

    def logged_models(self) -> list[SourceLoggedModel]:
        """Return none: they are not kept apart there."""
        return []

    def models(self) -> list[SourceModel]:
        """Return none: artifacts are files of their runs."""
        return []

    def runs(self) -> list[SourceRun]:
        """Return the heads of all runs."""
        found = [either(path.stem, partial(self._logged, path)) for path in self._logs]
        return found + [self._tabled(key, paths) for key, paths in self._tables.items()]

    def _logged(self, path: Path) -> SourceRun:
        log = _read_log(path, is_head=True)
        key = wire.text(log.head.get(1)) or path.stem.removeprefix("run-")
        begun = _timestamp(log.head.get(17))
        whole = partial(_contents_of_log, path)
        state = _read_end(path)
        ended = datetime.fromtimestamp(state.last_at, UTC) if state.last_at else None
        code = state.exit_code
        return SourceRun(
            id=key,
            experiment=self._experiment or wire.text(log.head.get(3)) or self._default,
            name=wire.text(log.head.get(8)) or key,
            status=_status(code),
            started_at=begun,
            ended_at=ended,
            read=whole,
            files=partial(_files_beside, path),
            error=f"exit code {code}" if code else None,
        )

    def _tabled(self, key: Path, paths: list[Path]) -> SourceRun:
        found = _ARTIFACT.fullmatch(key.name if key.is_dir() else key.stem)
        name = found["id"] if found else key.stem
        meta = _read_json(paths[0].parent / "wandb-metadata.json")
        begun = UNKNOWN
        with suppress(ValueError, KeyError):
            begun = datetime.fromisoformat(str(meta["startedAt"])).astimezone(UTC)
        return SourceRun(
            id=name,
            experiment=self._experiment or self._default,
            name=name,
            status=RunStatus.FINISHED,
            started_at=begun if begun != UNKNOWN else _first_time(paths),
            ended_at=None,
            read=partial(_contents_of_tables, paths),
        )


def flattened(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings under names joined by dots."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flattened(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def to_param(value: Any) -> str:
    """Return a configuration value as text; structures as JSON."""
    if isinstance(value, str):
        return value
    is_plain = isinstance(value, bool | int | float)
    return str(value) if is_plain else json.dumps(value, default=str)


def _status(code: int | None) -> RunStatus:
    if code is None:
        return RunStatus.KILLED
    return RunStatus.FAILED if code else RunStatus.FINISHED


def _read_end(path: Path) -> _Log:
    return _read_log(path)


def _read_log(path: Path, *, is_head: bool = False) -> _Log:
    log = _Log()
    for record in wire.block_records(path, LOG_HEADER):
        for number, value in wire.fields(record):
            if isinstance(value, bytes):
                _take(number, value, log)
        if is_head and log.head:
            break
    return log


def _take(number: int, value: bytes, log: _Log) -> None:
    if number == _RUN:
        log.head = wire.message(value)
        _update(log.config, log.head.get(4))
        _update(log.summary, log.head.get(5))
    elif number == _CONFIG:
        _update(log.config, [value])
    elif number == _SUMMARY:
        _update(log.summary, [value])
    elif number == _EXIT:
        log.exit_code = wire.number(wire.message(value).get(1))
    elif number == _HISTORY:
        _take_history(wire.message(value), log)


def _update(into: dict[str, Any], values: list[wire.Value] | None) -> None:
    for item in wire.inner(values).get(1, []):
        assert isinstance(item, bytes)
        key, value = _item(wire.message(item))
        into[key] = value


def _item(item: dict[int, list[wire.Value]]) -> tuple[str, Any]:
    nested = _texts(item.get(2))
    key = ".".join(nested) if nested else wire.text(item.get(1))
    with suppress(ValueError):
        return key, json.loads(wire.text(item.get(16)))
    return key, None


def _texts(values: list[wire.Value] | None) -> list[str]:
    return [value.decode("utf-8", "replace") for value in values or () if isinstance(value, bytes)]


def _take_history(row: dict[int, list[wire.Value]], log: _Log) -> None:
    values = dict(_item(wire.message(item)) for item in row.get(1, []) if isinstance(item, bytes))
    step = wire.number(wire.inner(row.get(2)).get(1)) if 2 in row else values.get("_step", 0)
    at = values.get("_timestamp") or log.last_at
    log.last_at, log.last_step = float(at), int(step)
    for key, value in flattened(values):
        if not key.startswith("_") and _is_number(value):
            log.series.setdefault(key, []).append((int(step), float(at), float(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _contents_of_log(path: Path) -> Contents:
    log = _read_log(path)
    config = {key: value for key, value in log.config.items() if key != "_wandb"}
    params = {key: to_param(value) for key, value in flattened(config) if key}
    tags = {
        "wandb.group": wire.text(log.head.get(6)),
        "wandb.job_type": wire.text(log.head.get(7)),
        "wandb.notes": wire.text(log.head.get(9)),
        "wandb.tags": ", ".join(_texts(log.head.get(10))),
        "wandb.sweep": wire.text(log.head.get(12)),
    }
    for key, value in flattened(log.summary):
        if key.startswith("_") or key in log.series or not key:
            continue
        if _is_number(value):  # set by hand: it stands in no row of the history
            log.series[key] = [(log.last_step, log.last_at, float(value))]
        elif isinstance(value, str) and not key.endswith("._type"):
            tags[f"summary.{key}"] = value
    metrics = {
        key: to_columns([p[0] for p in points], [round(p[1] * 1e6) for p in points],
                        [p[2] for p in points])
        for key, points in log.series.items()
    }  # fmt: skip
    return Contents(
        params=params, tags={key: value for key, value in tags.items() if value}, metrics=metrics
    )


def _timestamp(values: list[wire.Value] | None) -> Instant:
    found = wire.inner(values)
    seconds, nanos = wire.number(found.get(1)), wire.number(found.get(2))
    return datetime.fromtimestamp(seconds + nanos / 1e9, UTC) if seconds > 0 else UNKNOWN


def _files_beside(path: Path) -> Iterable[SourceFile]:
    return files_below(path.parent / "files")


def _read_json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _read_config(folder: Path) -> dict[str, Any]:
    found = _read_json(folder / "config.json")
    with suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
        read: object = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        found = read if isinstance(read, dict) else found
    # W&B writes each value below a key of that name, beside its description.
    return {
        key: value["value"] if isinstance(value, dict) and "value" in value else value
        for key, value in found.items()
        if key not in {"_wandb", "wandb_version"}
    }


def _tables(paths: list[Path]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pa.concat_tables([pq.read_table(path) for path in paths], promote_options="default")
    except (pa.ArrowException, OSError) as error:
        message = f"{paths[0].name} can't be read: {str(error)[:200]}"
        raise Skip(message) from error
    while any(pa.types.is_struct(column.type) for column in table.schema):
        table = table.flatten()
    if "_step" not in table.column_names:
        message = f"{paths[0].name} is no history: it has no column _step"
        raise Skip(message)
    return table


def _first_time(paths: list[Path]) -> Instant:
    with suppress(Skip):
        table = _tables(paths)
        if "_timestamp" in table.column_names and table.num_rows:
            known = [at for at in table.column("_timestamp").to_pylist() if _is_number(at)]
            if known and known[0] > 0:
                return datetime.fromtimestamp(float(known[0]), UTC)
    return UNKNOWN


def _contents_of_tables(paths: list[Path]) -> Contents:
    import pyarrow as pa

    table = _tables(paths).sort_by("_step")
    steps = table.column("_step").to_pylist()
    times = steps
    if "_timestamp" in table.column_names:
        times = table.column("_timestamp").to_pylist()
    metrics = {}
    for name in table.column_names:
        column = table.column(name)
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        if name.startswith("_") or not is_number:
            continue
        rows = [
            (int(step), float(at or 0), float(value))
            for step, at, value in zip(steps, times, column.to_pylist(), strict=True)
            if value is not None and step is not None
        ]
        if rows:
            metrics[name] = to_columns(
                [r[0] for r in rows], [round(r[1] * 1e6) for r in rows], [r[2] for r in rows]
            )
    folder = paths[0].parent
    config = {key: to_param(value) for key, value in flattened(_read_config(folder)) if key}
    return Contents(params=config, metrics=metrics)
