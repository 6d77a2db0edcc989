"""Reads TensorBoard's event files: scalars and hyper-parameters, without TensorFlow.

Each folder with event files is a run, as in TensorBoard itself. The layout of the messages is that
of tensorflow/core/util/event.proto, framework/summary.proto and TensorBoard's hparams plugin.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from everloop.core.clock import Instant
from everloop.core.errors import InvalidInput
from everloop.interop.importers import wire
from everloop.interop.importers.source import (
    Contents,
    Skip,
    SourceExperiment,
    SourceLoggedModel,
    SourceModel,
    SourceRun,
)
from everloop.interop.importers.times import UNKNOWN
from everloop.track.columns import Columns, to_columns
from everloop.track.model import RunStatus

EVENTS = "*tfevents*"
HPARAMS = "hparams"
DT_FLOAT, DT_DOUBLE = 1, 2
Points = dict[str, list[tuple[int, float, float]]]


@dataclass
class _Read:
    points: Points = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)


class TensorboardFolder:
    """A folder of event files."""

    system = "tensorboard"

    def __init__(self, folder: Path, experiment: str | None = None) -> None:
        """Find the runs below a folder.

        Raises:
            InvalidInput: ``import.source_invalid`` when there are no event files.
        """
        self.place = str(folder)
        self._folder = folder
        self._experiment = experiment or folder.resolve().name or "tensorboard"
        self._found: dict[Path, list[Path]] = {}
        for path in sorted(folder.rglob(EVENTS)):
            if path.is_file():
                self._found.setdefault(path.parent, []).append(path)
        if not self._found:
            raise InvalidInput(
                "import.source_invalid",
                f"There are no event files below {folder}.",
                hint="Give the folder that `tensorboard --logdir` takes.",
            )

    def close(self) -> None:
        """Do nothing; no file stays open."""

    def experiments(self) -> list[SourceExperiment]:
        """Return the one experiment."""
        return [SourceExperiment(id=self._experiment, name=self._experiment)]

    def logged_models(self) -> list[SourceLoggedModel]:
        """Return none: they are not kept apart there."""
        return []

    def models(self) -> list[SourceModel]:
        """Return none: there is no registry."""
        return []

    def runs(self) -> list[SourceRun]:
        """Return the heads of all runs."""
        return [self._run(folder, files) for folder, files in self._found.items()]

    def _run(self, folder: Path, files: list[Path]) -> SourceRun:
        name = folder.relative_to(self._folder).as_posix()
        first, last = _span(files)
        return SourceRun(
            id=f"{self._experiment}/{name}@{first.timestamp():.6f}",
            experiment=self._experiment,
            name=self._experiment if name == "." else name,
            status=RunStatus.FINISHED,
            started_at=first,
            ended_at=last,
            read=partial(_contents, files),
        )


def _span(files: list[Path]) -> tuple[Instant, Instant | None]:
    """Return when a run began, and when its last file was written last."""
    begun: list[Instant] = []
    for path in files:
        try:
            with path.open("rb") as file:
                event = wire.message(next(wire.tf_records(file), b""))
        except Skip:
            continue
        at = wire.double(event.get(1))
        if at > 0:
            begun.append(datetime.fromtimestamp(at, UTC))
    last = max(path.stat().st_mtime for path in files)
    return min(begun, default=UNKNOWN), datetime.fromtimestamp(last, UTC)


def _contents(files: list[Path]) -> Contents:
    read = _Read()
    for path in files:
        with path.open("rb") as file:
            for record in wire.tf_records(file):
                _take(wire.message(record), read)
    tags = {"tensorboard.left_out": ", ".join(sorted(read.others))} if read.others else {}
    metrics = {key: _to_columns(points) for key, points in read.points.items()}
    return Contents(params=read.params, tags=tags, metrics=metrics)


def _to_columns(points: list[tuple[int, float, float]]) -> Columns:
    steps, times, values = zip(*points, strict=True)
    return to_columns(steps, [round(time * 1e6) for time in times], values)


def _take(event: dict[int, list[wire.Value]], read: _Read) -> None:
    at, step = wire.double(event.get(1)), wire.number(event.get(2))
    for summary in event.get(5, []):
        if not isinstance(summary, bytes):
            continue
        for number, value in wire.fields(summary):
            if number == 1 and isinstance(value, bytes):
                _take_value(wire.message(value), at, step, read)


def _take_value(value: dict[int, list[wire.Value]], at: float, step: int, read: _Read) -> None:
    tag = wire.text(value.get(1))
    plugin = wire.inner(wire.inner(value.get(9)).get(1))
    name = wire.text(plugin.get(1))
    if name == HPARAMS:
        read.params.update(_hparams(wire.inner(plugin.get(2))))
        return
    scalar = _scalar(value)
    if scalar is not None and name in {"", "scalars"}:
        read.points.setdefault(tag, []).append((step, at, scalar))
    elif name != "scalars":
        read.others.add(name or _kind_of(value))


def _scalar(value: dict[int, list[wire.Value]]) -> float | None:
    simple = value.get(2)
    if simple and isinstance(simple[-1], bytes):
        return float(struct.unpack("<f", simple[-1])[0])
    tensor = wire.inner(value.get(8))
    kind, content = wire.number(tensor.get(1)), tensor.get(4)
    form = {DT_FLOAT: "<f", DT_DOUBLE: "<d"}.get(kind)
    if form is None:
        return None
    raw = content[-1] if content else (tensor.get(5 if kind == DT_FLOAT else 6) or [b""])[-1]
    if not isinstance(raw, bytes) or len(raw) != struct.calcsize(form):
        return None
    return float(struct.unpack(form, raw)[0])


def _kind_of(value: dict[int, list[wire.Value]]) -> str:
    kinds = {4: "images", 5: "histograms", 6: "audio", 8: "tensors"}
    return next((words for number, words in kinds.items() if number in value), "others")


def _hparams(data: dict[int, list[wire.Value]]) -> Iterator[tuple[str, str]]:
    for start in data.get(3, []):
        for number, entry in wire.fields(start if isinstance(start, bytes) else b""):
            if number != 1 or not isinstance(entry, bytes):
                continue
            pair = wire.message(entry)
            yield wire.text(pair.get(1)), _to_text(wire.inner(pair.get(2)))


def _to_text(value: dict[int, list[wire.Value]]) -> str:
    if 2 in value:
        number = wire.double(value[2])
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    if 4 in value:
        return "True" if wire.number(value[4]) else "False"
    return wire.text(value.get(3))
