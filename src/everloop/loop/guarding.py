"""Carries what monitoring saw to the release that it concerns: the one place that joins the two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from msgspec import structs

from everloop.core.clock import Instant
from everloop.core.ids import Id
from everloop.core.wire import Applied, PredictionRow
from everloop.kernel.performer import Performer
from everloop.monitor.model import FeedbackBatch, PredictionSegment
from everloop.monitor.outcomes import Outcome, decode_outcomes, loss_of, loss_of_classes
from everloop.monitor.queries import FeedbackList, ListFeedback, ListSegments, SegmentList
from everloop.monitor.segments import read_segment, rows_of
from everloop.registry.evidence import LossName
from everloop.release.collect import (
    MIN_LATENCIES,
    Judged,
    find_latency_limit,
    find_range,
    find_record,
    news_of_labels,
    news_of_rows,
)
from everloop.release.model import Release, State
from everloop.release.observing import ObserveRelease
from everloop.release.queries import ReleaseView

RECORD_PIECES = 200
RECORD_ROWS = 5_000
S = TypeVar("S", PredictionSegment, FeedbackBatch)


class Bite(NamedTuple):
    """How much a release is told at once: segments or batches, and rows in them."""

    pieces: int = 200
    rows: int = 20_000


class Around(NamedTuple):
    """What is known beside the news.

    Attributes:
        segment_seq: The newest prediction segment; ``feedback_seq`` likewise.
        applied: What the server made of the routes; None when nobody can tell.
    """

    segment_seq: int = 0
    feedback_seq: int = 0
    applied: Applied | None = None


class Known(NamedTuple):
    """The champion's latest answers before a release, with or without their truth."""

    rows: list[PredictionRow]
    labelled: list[Outcome]


USUAL = Bite()
NOTHING = Around()


def guard(
    performer: Performer,
    release: Release,
    now: Instant,
    bite: Bite = USUAL,
    around: Around = NOTHING,
) -> Release:
    """Tell a live or watched release what happened since its cursors; return how it stands then.

    Reads at most one bite of segments and one of feedback: call again while the cursors move.
    """
    segments = _bounded(
        _segments_of(performer, release, bite.pieces), lambda segment: segment.rows, bite.rows
    )
    batches = _bounded(
        _feedback_of(performer, release, bite.pieces), lambda batch: batch.fresh, bite.rows
    )
    is_resident, refused = _read_applied(release, around.applied)
    is_due = release.live is not None and (
        now >= release.deadline or bool(refused) or (is_resident and release.state is State.STANDBY)
    )
    if not segments and not batches and not is_due:
        return release
    told = _freeze_figures(performer, release, segments, batches, around)
    rows = [row for segment in segments for row in rows_in(performer, segment)]
    labelled = [
        judged(outcome, told.limits.loss_name)
        for batch in batches
        for outcome in outcomes_in(performer, batch)
    ]
    # News are judged by the limits that the release knew before them: the first ones count.
    news = news_of_rows(release, rows).plus(news_of_labels(release, labelled))
    ask = ObserveRelease(
        release=release.id,
        after_segment=release.cursor_segment,
        after_feedback=release.cursor_feedback,
        cursor_segment=segments[-1].seq if segments else release.cursor_segment,
        cursor_feedback=batches[-1].seq if batches else release.cursor_feedback,
        news=news,
        limits=told.limits,
        record=told.record,
        is_resident=is_resident,
        refused=refused,
        at=now,
    )
    return performer.perform("release.observe", ask, ReleaseView).release


def latency_limit(
    performer: Performer, deployment: Id, champion: Id | None, last_segment: int
) -> float | None:
    """Return the champion's 99th percentile of latency in its latest traffic, in us.

    None when the newest segments have too few of its answers.
    """
    if champion is None:
        return None
    return find_latency_limit(_newest_rows(performer, deployment, last_segment), champion)


def _freeze_figures(
    performer: Performer,
    release: Release,
    segments: Sequence[PredictionSegment],
    batches: Sequence[FeedbackBatch],
    around: Around,
) -> Release:
    """Return the release with the champion's figures that it does not know yet.

    A release that a person began knows none of them; the record is read once for each.
    """
    is_known = release.record is not None and release.limits.latency_us is not None
    if release.champion is None or is_known:
        return release
    last_segment = max(around.segment_seq, *(segment.seq for segment in segments), 0)
    last_batch = max(around.feedback_seq, *(batch.seq for batch in batches), 0)
    rows = _newest_rows(performer, release.deployment, last_segment)
    before = [row for row in rows if row.epoch < release.epoch]
    limits = release.limits
    if limits.latency_us is None:
        latency = find_latency_limit(before or rows, release.champion)
        limits = structs.replace(limits, latency_us=latency)
    found = find_range(before, release.champion) if limits.low is None else None
    if found is not None:
        limits = structs.replace(limits, low=found[0], high=found[1])
    knowing = structs.replace(release, limits=limits)
    if release.record is not None:
        return knowing
    outcomes = _newest_outcomes(performer, release.deployment, last_batch)
    labelled = [judged(outcome, limits.loss_name) for outcome in outcomes]
    return structs.replace(knowing, record=find_record(knowing, rows, labelled))


def _newest_rows(performer: Performer, deployment: Id, last: int) -> list[PredictionRow]:
    ask = ListSegments(
        deployment=deployment, after_seq=max(0, last - RECORD_PIECES), limit=RECORD_PIECES
    )
    newest = performer.perform("prediction.segments", ask, SegmentList).items[::-1]
    used = _bounded(newest, lambda segment: segment.rows, RECORD_ROWS)
    if sum(segment.rows for segment in used) < MIN_LATENCIES:
        return []
    return [row for segment in used for row in rows_in(performer, segment)]


def _newest_outcomes(performer: Performer, deployment: Id, last: int) -> list[Outcome]:
    ask = ListFeedback(
        deployment=deployment, after_seq=max(0, last - RECORD_PIECES), limit=RECORD_PIECES
    )
    newest = performer.perform("feedback.list", ask, FeedbackList).items[::-1]
    used = _bounded(newest, lambda batch: batch.fresh, RECORD_ROWS)
    return [outcome for batch in used for outcome in outcomes_in(performer, batch)]


def _read_applied(release: Release, applied: Applied | None) -> tuple[bool | None, str]:
    """Return whether the server holds the candidate, and why it refused it."""
    if applied is None or applied.seen_epoch < release.epoch:
        return None, ""
    refusals = [one for one in applied.refused if one.version_id == release.candidate]
    if refusals:
        return False, f"{refusals[0].code}: {refusals[0].message}"[:500]
    return applied.epoch >= release.epoch, ""


def _segments_of(performer: Performer, release: Release, limit: int) -> Sequence[PredictionSegment]:
    """Return the next page of segments; what was sealed before the release is none of its own."""
    ask = ListSegments(
        deployment=release.deployment,
        after_seq=release.cursor_segment,
        made_after=None if release.cursor_segment else release.id,
        limit=limit,
    )
    return performer.perform("prediction.segments", ask, SegmentList).items


def _feedback_of(performer: Performer, release: Release, limit: int) -> Sequence[FeedbackBatch]:
    ask = ListFeedback(
        deployment=release.deployment,
        after_seq=release.cursor_feedback,
        made_after=None if release.cursor_feedback else release.id,
        limit=limit,
    )
    return performer.perform("feedback.list", ask, FeedbackList).items


def _bounded(found: Iterable[S], rows_of_one: Callable[[S], int], most: int) -> list[S]:
    """Return the first ones with up to so many rows together; one at least."""
    kept: list[S] = []
    rows = 0
    for one in found:
        rows += rows_of_one(one)
        if kept and rows > most:
            break
        kept.append(one)
    return kept


def rows_in(performer: Performer, segment: PredictionSegment) -> list[PredictionRow]:
    """Return the rows of a segment."""
    return rows_of(read_segment(performer.blobs.get(segment.blob)))


def outcomes_in(performer: Performer, batch: FeedbackBatch) -> list[Outcome]:
    """Return the labelled answers of a batch."""
    return decode_outcomes(performer.blobs.get(batch.outcomes))


def judged(outcome: Outcome, kind: LossName) -> Judged:
    """Return what a release needs to know of a labelled answer."""
    return Judged(
        epoch=outcome.epoch,
        version=outcome.version,
        arm=outcome.arm,
        share=outcome.share,
        loss=_loss(kind, (outcome.output, outcome.outputs), outcome.truth),
        prediction=outcome.prediction,
        unit=outcome.unit,
        request=outcome.request,
        shadow_version=outcome.shadow_version,
        overridden=outcome.overridden,
        shadow_loss=_loss(kind, (outcome.shadow_output, outcome.shadow_outputs), outcome.truth),
    )


def _loss(
    kind: LossName,
    answer: tuple[float | None, tuple[float | None, ...] | None],
    truth: float | None,
) -> float | None:
    output, outputs = answer
    if truth is None:
        return None
    if outputs is not None:
        return loss_of_classes(kind, outputs, truth)
    return None if output is None else loss_of(kind, output, truth)
