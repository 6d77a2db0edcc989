"""Erases what predictions say after their time, and keeps what proves that they were there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import query, verb
from everloop.monitor.lookup import drop_keys
from everloop.monitor.model import FeedbackBatch, PredictionSegment
from everloop.monitor.outcomes import encode_outcomes
from everloop.monitor.refusals import forget_names
from everloop.monitor.segments import erase_rows, read_segment

IdText = Annotated[Id, Meta(max_length=40)]
SEGMENTS_AT_ONCE = 50


class ErasePredictions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask to erase the rows of a deployment's old segments.

    Attributes:
        before: Segments and batches of labels that were sealed or received before this.
    """

    deployment: IdText
    before: Instant


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased.

    Attributes:
        has_more: Whether to ask again: only so many segments are erased at once.
    """

    segments: int
    rows: int
    batches: int
    has_more: bool


class _Ready(msgspec.Struct, frozen=True, kw_only=True):
    segments: tuple[tuple[PredictionSegment, Digest], ...]
    batches: tuple[FeedbackBatch, ...]
    empty: Digest


class ListErasable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask whether there is something to erase; the fields are those of ``prediction.erase``."""

    deployment: IdText
    before: Instant


class Erasable(msgspec.Struct, frozen=True, kw_only=True):
    """Segments and batches of labels that would be erased next."""

    segments: int
    batches: int


@query("prediction.erasable", permission="prediction:read")
def list_erasable(ask: ListErasable, view: View) -> Erasable:
    """Count what is old enough to be erased, up to what is erased at once."""
    return Erasable(segments=len(_old_segments(view, ask)), batches=len(_old_batches(view, ask)))


def _old_segments(view: View, ask: ErasePredictions | ListErasable) -> Sequence[PredictionSegment]:
    return view.select(
        PredictionSegment,
        *where(deployment=ask.deployment),
        Condition("sealed_at", Compare.LT, ask.before),
        Condition("erased_at", Compare.EQ, None),
        order="seq",
        limit=SEGMENTS_AT_ONCE,
    )


def _old_batches(view: View, ask: ErasePredictions | ListErasable) -> Sequence[FeedbackBatch]:
    return view.select(
        FeedbackBatch,
        *where(deployment=ask.deployment),
        Condition("received_at", Compare.LT, ask.before),
        Condition("labels", Compare.NE, None),
        order="seq",
        limit=SEGMENTS_AT_ONCE,
    )


def _prepare(ask: ErasePredictions, desk: Desk) -> _Ready:
    blobs = desk.services.blobs
    with desk.read() as view:
        segments, batches = _old_segments(view, ask), _old_batches(view, ask)
    left = [blobs.put(erase_rows(read_segment(blobs.get(segment.blob)))) for segment in segments]
    return _Ready(
        segments=tuple(zip(segments, left, strict=True)),
        batches=tuple(batches),
        empty=blobs.put(encode_outcomes([])),
    )


@verb("prediction.erase", permission="prediction:admin", prepare=_prepare)
def erase_predictions(ask: ErasePredictions, work: Work, ready: _Ready) -> Erased:
    """Erase inputs, answers, labels and business keys of old predictions for good.

    Ids, the hash of each row, the profile and the Merkle root stay: whoever kept a row can still
    prove it. The bytes themselves go with the next `everloop gc`.
    """
    for segment, left in ready.segments:
        work.replace(replace(segment, blob=left, labels=None, erased_at=work.now))
        drop_keys(work, segment)
        work.touch(f"prediction_segment:{segment.id}")
    for batch in ready.batches:
        work.replace(replace(batch, outcomes=ready.empty, labels=None))
    forget_names(work, ask.deployment, ask.before)
    if ready.segments or ready.batches:
        work.touch(f"deployment:{ask.deployment}")
    return Erased(
        segments=len(ready.segments),
        rows=sum(segment.rows for segment, _ in ready.segments),
        batches=len(ready.batches),
        has_more=SEGMENTS_AT_ONCE in {len(ready.segments), len(ready.batches)},
    )
