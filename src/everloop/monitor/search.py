"""Searching predictions: their segments are narrowed by the store, their rows judged one by one.

Predictions are never rows of the database. A search reads the sealed segments that can hold what
is asked for, the last sealed first, and stops after so many rows; the answer says where to go on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import Meta

from everloop.core.errors import InvalidInput
from everloop.core.filter.parser import parse_filter
from everloop.core.filter.scene import Scene
from everloop.core.filter.targets import ANYTHING
from everloop.core.filter.tree import Both, Comparison, Either, Negated, Node
from everloop.core.filter.vocabulary import Vocabulary, declare, resolve
from everloop.core.ids import Id, is_id
from everloop.core.ports import Compare
from everloop.core.search import All, Any, Filter, Order, Test
from everloop.core.wire import Arm, PredictionRow, Status
from everloop.kernel.searching import CursorText, FilterText, PageLimit, scene_of
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.monitor.model import PredictionSegment
from everloop.monitor.outcomes import decode_labels
from everloop.monitor.seen import (
    Judge,
    Seen,
    SeenId,
    SeenInputs,
    SeenNumber,
    SeenText,
    SeenThing,
    SeenTime,
    SeenWord,
)
from everloop.monitor.segments import read_segment, rows_of

MOST_ROWS = 100_000
SEGMENTS_AT_ONCE = 16

_VERSION = SeenThing("version", lambda seen: seen.row.version, "the version that was asked")
_DEPLOYMENT = SeenThing(
    "deployment", lambda seen: seen.deployment, "where it was answered", column="deployment"
)
_SHADOW = SeenThing(
    "version", lambda seen: seen.row.shadow_version, "the version that answered in the shadow"
)
PREDICTIONS = declare(
    Vocabulary(
        noun="prediction",
        kind="prediction_segment",
        fields={
            "id": SeenId(lambda seen: seen.row.id, "its id"),
            "at": SeenTime(lambda seen: seen.row.at, "its event time"),
            "deployment": _DEPLOYMENT,
            "version": _VERSION,
            "shadow": _SHADOW,
            "arm": SeenWord(lambda seen: seen.row.arm, "the arm that it was given to", tuple(Arm)),
            "status": SeenWord(lambda seen: seen.row.status, "how it turned out", tuple(Status)),
            "output": SeenNumber(lambda seen: seen.row.output, "what was answered"),
            "shadow_output": SeenNumber(
                lambda seen: seen.row.shadow_output, "what the shadow answered"
            ),
            "label": SeenNumber(lambda seen: seen.label, "the truth, when it is known"),
            "latency_us": SeenNumber(
                lambda seen: seen.row.latency_us, "how long it took, in microseconds"
            ),
            "share": SeenNumber(
                lambda seen: seen.row.share, "the canary's share of the traffic then"
            ),
            "key": SeenText(lambda seen: seen.row.key, "the caller's own name of the row"),
            "request": SeenText(
                lambda seen: seen.row.request, "the caller's own name of the request"
            ),
            "unit": SeenText(lambda seen: seen.row.unit, "whom its assignment sticks to"),
        },
        synonyms={
            "time": "at",
            "timestamp": "at",
            "model": "version",
            "input": "inputs",
            "truth": "label",
        },
        spaces={
            "inputs": SeenInputs(),
            "version": _VERSION,
            "deployment": _DEPLOYMENT,
            "shadow": _SHADOW,
        },
        selves=frozenset({"attribute", "attributes", "attr", "prediction"}),
    )
)


class SearchPredictions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``prediction.search`` takes; the last sealed come first.

    Attributes:
        deployment: Id of the deployment to look in; all of them when left out.
        filter: Which predictions, such as "status = 'error' AND at > now - 1d"; see the reference
            of filters.
        limit: Predictions on a page at most.
        after: The cursor that came with the page before, for the same filter.
    """

    deployment: Annotated[Id, Meta(max_length=40)] | None = None
    filter: FilterText = ""
    limit: PageLimit = 100
    after: CursorText | None = None


class FoundPrediction(PredictionRow, frozen=True, kw_only=True):
    """One prediction that a search found.

    Attributes:
        deployment: Id of the deployment that answered it.
        label: Its truth; None while that is not known.
    """

    deployment: Id
    label: float | None


class FoundPredictions(msgspec.Struct, frozen=True, kw_only=True):
    """One page of predictions.

    Attributes:
        next: Where to go on. A page may be short or even empty and have it: then the search has
            looked at as many predictions as one call may.
        looked_at: How many predictions were read for the page.
    """

    items: tuple[FoundPrediction, ...]
    next: str | None
    looked_at: int


@query("prediction.search", permission="prediction:read")
def find_predictions(ask: SearchPredictions, view: View) -> FoundPredictions:
    """Find sealed predictions by filter, the last sealed first, a page at a time.

    Raises:
        InvalidInput: ``filter.invalid`` with the position, or ``query.cursor_invalid``.
        IntegrityError: ``blob.corrupt``.
    """
    node = parse_filter(ask.filter)
    here = replace(scene_of(view), text=ask.filter)
    judge, wanted = _judge(node, here), _segments(node, here)
    also = [] if ask.deployment is None else [Test("deployment", Compare.EQ, ask.deployment)]
    mark = _from_cursor(ask.after)
    if mark is not None:
        # Without a prediction the segment was read to its end: going on there would never end.
        also.append(Test("id", Compare.LE if mark[1] else Compare.LT, mark[0]))
    found: list[FoundPrediction] = []
    looked_at, page_mark = 0, None
    while True:
        page = view.search(
            PredictionSegment,
            All((*also, wanted)),
            order=[Order("id", descending=True)],
            limit=SEGMENTS_AT_ONCE,
            after=page_mark,
        )
        for segment in page.rows:
            looked_at += segment.rows
            for seen in _rows(view, segment):
                if mark is not None and (segment.id, seen.row.id) >= mark:
                    continue
                if judge(seen):
                    found.append(_to_found(seen))
                    if len(found) == ask.limit:
                        cursor = f"{segment.id}.{seen.row.id}"
                        return FoundPredictions(
                            items=tuple(found), next=cursor, looked_at=looked_at
                        )
            if looked_at >= MOST_ROWS:
                return FoundPredictions(
                    items=tuple(found), next=f"{segment.id}.", looked_at=looked_at
                )
        page_mark = page.next
        if page_mark is None:
            return FoundPredictions(items=tuple(found), next=None, looked_at=looked_at)


def _to_found(seen: Seen) -> FoundPrediction:
    row = msgspec.structs.asdict(seen.row)
    return FoundPrediction(**row, deployment=seen.deployment, label=seen.label)


def _rows(view: View, segment: PredictionSegment) -> list[Seen]:
    """Return the predictions of a segment with their truths, the newest first."""
    labels: dict[Id, float] = {}
    if segment.labels is not None:
        labels = dict(decode_labels(view.services.blobs.get(segment.labels)))
    rows = rows_of(read_segment(view.services.blobs.get(segment.blob)))
    rows.sort(key=lambda row: row.id, reverse=True)
    return [Seen(row, segment.deployment, labels.get(row.id)) for row in rows]


def _judge(node: Node, scene: Scene) -> Judge:
    """Return what tells whether a prediction meets a filter."""
    match node:
        case Comparison():
            target = resolve(PREDICTIONS, node.name, scene)
            made: Judge = target.judge(node, scene)  # type: ignore[attr-defined]  # all of them do
            return made
        case Both(parts):
            judges = [_judge(part, scene) for part in parts]
            return lambda seen: all(judge(seen) for judge in judges)
        case Either(parts):
            judges = [_judge(part, scene) for part in parts]
            return lambda seen: any(judge(seen) for judge in judges)
        case Negated(part):
            inner = _judge(part, scene)
            return lambda seen: not inner(seen)


def _segments(node: Node, scene: Scene) -> Filter:
    """Return the segments that can hold what meets a filter: never too few."""
    match node:
        case Comparison():
            return resolve(PREDICTIONS, node.name, scene).lower(node, scene)
        case Both(parts):
            return All(tuple(_segments(part, scene) for part in parts))
        case Either(parts):
            return Any(tuple(_segments(part, scene) for part in parts))
        case Negated():
            return ANYTHING


def _from_cursor(text: str | None) -> tuple[str, str] | None:
    """Return the segment and the prediction that the next page comes after."""
    if text is None:
        return None
    segment, dot, prediction = text.partition(".")
    if not (dot and is_id(segment) and (not prediction or is_id(prediction))):
        raise InvalidInput(
            "query.cursor_invalid",
            "This is no cursor of a page of predictions.",
            hint="Give `after` the `next` of the page before.",
        )
    return segment, prediction
