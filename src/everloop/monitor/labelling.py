"""The slow part of feedback: find the segments, join the truth, keep it beside the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import msgspec

from everloop.core.digest import Digest
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.core.wire import PredictionRow
from everloop.kernel.unit_of_work import Desk
from everloop.monitor.lookup import segments_around
from everloop.monitor.model import PredictionSegment
from everloop.monitor.outcomes import (
    Outcome,
    decode_labels,
    encode_labels,
    encode_outcomes,
    join,
)
from everloop.monitor.segments import read_segment, rows_of


class Labelled(Protocol):
    """A label: which prediction, and the truth."""

    @property
    def prediction(self) -> Id:
        """Id of the prediction."""
        ...

    @property
    def value(self) -> float | bool:
        """The truth."""
        ...


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What the labels of one call mean for one deployment."""

    blob: Digest
    fresh: int
    corrected: int
    segments: tuple[Id, ...]


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Joined labels, ready to be committed."""

    segments: tuple[PredictionSegment, ...]
    outcomes: dict[Id, Group]
    joined: int
    corrected: int
    repeated: int
    unknown: tuple[str, ...]


class _Open:
    """A segment being labelled."""

    def __init__(self, segment: PredictionSegment, desk: Desk) -> None:
        table = read_segment(desk.services.blobs.get(segment.blob))
        self.segment = segment
        self.rows: dict[Id, PredictionRow] = {row.id: row for row in rows_of(table)}
        known = (
            {} if segment.labels is None else decode_labels(desk.services.blobs.get(segment.labels))
        )
        self.labels: dict[Id, float] = known
        self.fresh: list[Outcome] = []
        self.corrected = 0


def prepare(labels: Sequence[Labelled], desk: Desk) -> Ready:
    """Join labels with sealed predictions.

    Raises:
        InvalidInput: ``label.not_finite``.
    """
    opened: dict[Id, _Open] = {}
    holders: dict[Id, _Open] = {}
    unknown: list[str] = []
    repeated = 0
    for label in labels:
        truth = _finite(label)
        found = holders.get(label.prediction) or _find(label.prediction, opened, desk)
        if found is None:
            unknown.append(label.prediction)
            continue
        if label.prediction not in holders:
            holders.update(dict.fromkeys(found.rows, found))
        before = found.labels.get(label.prediction)
        if before == truth:
            repeated += 1
            continue
        found.labels[label.prediction] = truth
        if before is None:
            found.fresh.append(join(found.rows[label.prediction], truth))
        else:
            found.corrected += 1
    changed = [found for found in opened.values() if found.fresh or found.corrected]
    return Ready(
        segments=tuple(_labelled(found, desk) for found in changed),
        outcomes=_group(changed, desk),
        joined=sum(len(found.fresh) for found in changed),
        corrected=sum(found.corrected for found in changed),
        repeated=repeated,
        unknown=tuple(unknown),
    )


def _finite(label: Labelled) -> float:
    truth = float(label.value)
    if not math.isfinite(truth):
        raise InvalidInput(
            "label.not_finite",
            f"The label of {label.prediction} is {truth}.",
            hint="Leave out labels that are not known.",
        )
    return truth


def _find(prediction: Id, opened: dict[Id, _Open], desk: Desk) -> _Open | None:
    with desk.read() as view:
        for segment in segments_around(view, prediction):
            if segment.id not in opened:
                opened[segment.id] = _Open(segment, desk)
            if prediction in opened[segment.id].rows:
                return opened[segment.id]
    return None


def _labelled(found: _Open, desk: Desk) -> PredictionSegment:
    blob = desk.services.blobs.put(encode_labels(found.labels))
    return msgspec.structs.replace(found.segment, labels=blob, labelled=len(found.labels))


def _group(changed: Sequence[_Open], desk: Desk) -> dict[Id, Group]:
    groups: dict[Id, Group] = {}
    for deployment in dict.fromkeys(found.segment.deployment for found in changed):
        members = [found for found in changed if found.segment.deployment == deployment]
        fresh = [outcome for found in members for outcome in found.fresh]
        groups[deployment] = Group(
            blob=desk.services.blobs.put(encode_outcomes(fresh)),
            fresh=len(fresh),
            corrected=sum(found.corrected for found in members),
            segments=tuple(found.segment.id for found in members),
        )
    return groups
