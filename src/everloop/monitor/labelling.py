"""The slow part of feedback: find the predictions, join the truth, keep it beside the rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.core.wire import Label, PredictionRow
from everloop.kernel.unit_of_work import Desk
from everloop.monitor.lookup import newest_of_keys, segments_around
from everloop.monitor.model import LabelRefusal, PredictionSegment
from everloop.monitor.outcomes import (
    Outcome,
    Truth,
    decode_truths,
    encode_outcomes,
    encode_truths,
    join,
)
from everloop.monitor.segments import read_segment, rows_of
from everloop.registry.model import ModelVersion

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What the labels of one call mean for one deployment.

    Attributes:
        fresh: Rows of ``blob``; ``labelled`` of them have a truth for the first time.
    """

    blob: Digest
    labels: Digest
    fresh: int
    labelled: int
    corrected: int
    segments: tuple[Id, ...]


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A label that judges nothing, by what it named."""

    name: str
    deployment: Id
    reason: LabelRefusal


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Joined labels, ready to be committed.

    Attributes:
        unknown: Labels whose prediction is not known; ``refused`` those that mean nothing there.
        waiting: Blob of the unknown ones, when they shall wait.
    """

    segments: tuple[PredictionSegment, ...]
    outcomes: dict[Id, Group]
    joined: int
    corrected: int
    repeated: int
    unknown: tuple[Label, ...]
    refused: tuple[Refusal, ...]
    waiting: Digest | None = None


class _Open:
    """A segment being labelled."""

    def __init__(self, segment: PredictionSegment, desk: Desk) -> None:
        table = read_segment(desk.services.blobs.get(segment.blob))
        self.segment = segment
        self.rows: dict[Id, PredictionRow] = {row.id: row for row in rows_of(table)}
        known = segment.labels
        self.truths = {} if known is None else decode_truths(desk.services.blobs.get(known))
        self.labels: list[Label] = []
        self.fresh: list[Outcome] = []
        self.labelled = 0
        self.corrected = 0

    def is_changed(self) -> bool:
        return bool(self.labels)

    def take(self, prediction: Id, label: Label, told: Truth) -> None:
        """Note a truth that says something new."""
        before, row = self.truths.get(prediction), self.rows[prediction]
        was_known = before is not None and before.value is not None
        is_override = told.overridden and not (before is not None and before.overridden)
        value = told.value if told.value is not None or before is None else before.value
        if told.value is not None and was_known:
            self.corrected += 1
        if told.value is not None and not was_known:
            self.labelled += 1
            self.fresh.append(join(row, told.value, overridden=is_override))
        elif is_override:
            self.fresh.append(join(row, None, overridden=True))
        has_overridden = told.overridden or (before is not None and before.overridden)
        self.truths[prediction] = Truth(value, told.at_us, has_overridden)
        self.labels.append(label)


class _Finder:
    """Finds the segments of predictions, by id and by business key; opens each of them once."""

    def __init__(self, desk: Desk, deployment: Id | None) -> None:
        self.opened: dict[Id, _Open] = {}
        self._desk = desk
        self._deployment = deployment
        self._holders: dict[Id, _Open] = {}
        self._classes: dict[Id, tuple[str, ...]] = {}

    def by_keys(self, keys: set[str]) -> dict[str, Id]:
        """Return the newest prediction of each business key that is known."""
        if self._deployment is None or not keys:
            return {}
        with self._desk.read() as view:
            return newest_of_keys(view, self._deployment, keys)

    def holder(self, prediction: Id) -> _Open | None:
        """Return the opened segment that holds a prediction."""
        if prediction in self._holders:
            return self._holders[prediction]
        with self._desk.read() as view:
            for segment in segments_around(view, prediction):
                if self._deployment not in {None, segment.deployment}:
                    continue
                if segment.id not in self.opened:
                    opened = self.opened[segment.id] = _Open(segment, self._desk)
                    self._holders.update(dict.fromkeys(opened.rows, opened))
                if prediction in self.opened[segment.id].rows:
                    return self.opened[segment.id]
        return None

    def classes(self, version: Id) -> tuple[str, ...]:
        """Return the names of the classes that a version tells apart, in their order."""
        if version not in self._classes:
            with self._desk.read() as view:
                found = view.find(ModelVersion, version)
            names: tuple[str, ...] = ()
            if found is not None:
                signature = found.signature
                names = tuple(map(str, signature.output.categories or ()))
                names = names or tuple(field.name for field in signature.outputs)
            self._classes[version] = names
        return self._classes[version]


def prepare(
    labels: Sequence[Label], desk: Desk, deployment: Id | None = None, *, keep: bool = False
) -> Ready:
    """Join labels with sealed predictions.

    Args:
        labels: In the order in which they count, if they were given at the same time.
        desk: Where to read.
        deployment: Whose predictions alone may be meant, and where keys are looked up.
        keep: Whether to store those whose predictions are unknown.

    Raises:
        InvalidInput: ``label.not_finite`` or ``label.incomplete``.
    """
    for label in labels:
        _require_meaning(label, deployment)
    finder = _Finder(desk, deployment)
    keys = finder.by_keys({label.key for label in labels if label.key and not label.prediction})
    unknown: list[Label] = []
    refused: list[Refusal] = []
    repeated = 0
    now = desk.services.clock.now()
    for label in labels:
        prediction = label.prediction or keys.get(label.key or "")
        found = None if prediction is None else finder.holder(prediction)
        if prediction is None or found is None:
            unknown.append(label)
            continue
        row = found.rows[prediction]
        told = _truth(label, row, finder.classes(row.version), label.at or now)
        if isinstance(told, LabelRefusal):
            refused.append(
                Refusal(name=label.name, deployment=found.segment.deployment, reason=told)
            )
        elif _says_nothing_new(told, found.truths.get(prediction)):
            repeated += 1
        else:
            found.take(prediction, label, told)
    changed = [found for found in finder.opened.values() if found.is_changed()]
    return Ready(
        segments=tuple(_labelled(found, desk) for found in changed),
        outcomes=_group(changed, desk),
        joined=sum(len(found.fresh) for found in changed),
        corrected=sum(found.corrected for found in changed),
        repeated=repeated,
        unknown=tuple(unknown),
        refused=tuple(refused),
        waiting=desk.services.blobs.put(encode_raw(unknown)) if keep and unknown else None,
    )


def encode_raw(labels: Sequence[Label]) -> bytes:
    """Return labels as they came."""
    return msgspec.json.encode(labels)


def decode_raw(data: bytes) -> tuple[Label, ...]:
    """Return labels as they came."""
    return msgspec.json.decode(data, type=tuple[Label, ...])


def _require_meaning(label: Label, deployment: Id | None) -> None:
    if isinstance(label.value, float) and not math.isfinite(label.value):
        raise InvalidInput(
            "label.not_finite",
            f"The label of {label.name[:60]} is {label.value}.",
            hint="Leave out labels that are not known.",
        )
    problem = ""
    if not label.name:
        problem = "names no prediction"
    elif label.value is None and not label.overridden:
        problem = f"of {label.name[:60]} tells nothing"
    elif label.prediction is None and deployment is None:
        problem = f"of {label.name[:60]} has a key and no deployment to look it up in"
    if problem:
        raise InvalidInput(
            "label.incomplete",
            f"A label {problem}.",
            hint="Give each a `prediction` or a `key` with the deployment, and a `value`.",
        )


def _truth(
    label: Label, row: PredictionRow, classes: tuple[str, ...], at: Instant
) -> Truth | LabelRefusal:
    """Return what a label says in numbers, or why it judges nothing."""
    is_both = label.prediction is not None and label.key is not None
    if is_both and row.key is not None and label.key != row.key:
        return LabelRefusal.OTHER_KEY  # one of the two is wrong, and nobody knows which
    at_us = round((at - _EPOCH).total_seconds() * 1e6)
    value = label.value
    if isinstance(value, str):
        if value not in classes:
            return LabelRefusal.UNKNOWN_CLASS if classes else LabelRefusal.NOT_A_NUMBER
        value = classes.index(value)
    return Truth(None if value is None else float(value), at_us, label.overridden)


def _says_nothing_new(told: Truth, before: Truth | None) -> bool:
    if before is None:
        return False
    is_same = told.value is None or told.value == before.value
    if told.overridden and not before.overridden:
        return False
    # An older one that comes late does not undo the newer one.
    return is_same or (before.value is not None and told.at_us < before.at_us)


def _labelled(found: _Open, desk: Desk) -> PredictionSegment:
    blob = desk.services.blobs.put(encode_truths(found.truths))
    count = sum(truth.value is not None for truth in found.truths.values())
    return msgspec.structs.replace(found.segment, labels=blob, labelled=count)


def _by_deployment(changed: Sequence[_Open]) -> Iterator[tuple[Id, list[_Open]]]:
    for deployment in dict.fromkeys(found.segment.deployment for found in changed):
        yield deployment, [one for one in changed if one.segment.deployment == deployment]


def _group(changed: Sequence[_Open], desk: Desk) -> dict[Id, Group]:
    groups: dict[Id, Group] = {}
    for deployment, members in _by_deployment(changed):
        fresh = [outcome for found in members for outcome in found.fresh]
        labels = [label for found in members for label in found.labels]
        groups[deployment] = Group(
            blob=desk.services.blobs.put(encode_outcomes(fresh)),
            labels=desk.services.blobs.put(encode_raw(labels)),
            fresh=len(fresh),
            labelled=sum(found.labelled for found in members),
            corrected=sum(found.corrected for found in members),
            segments=tuple(found.segment.id for found in members),
        )
    return groups
