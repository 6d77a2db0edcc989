"""Carries what monitoring saw to the release that it concerns: the one place that joins the two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from everloop.core.clock import Instant
from everloop.core.ids import Id
from everloop.core.wire import PredictionRow
from everloop.kernel.performer import Performer
from everloop.monitor.model import FeedbackBatch, PredictionSegment
from everloop.monitor.outcomes import Outcome, decode_outcomes, loss_of
from everloop.monitor.queries import FeedbackList, ListFeedback, ListSegments, SegmentList
from everloop.monitor.segments import read_segment, rows_of
from everloop.registry.evidence import LossName
from everloop.release.collect import (
    MIN_LATENCIES,
    Judged,
    find_latency_limit,
    news_of_labels,
    news_of_rows,
)
from everloop.release.model import Limits, Release
from everloop.release.queries import ReleaseView
from everloop.release.verbs import ObserveRelease

LATENCY_SEGMENTS = 200
LATENCY_ROWS = 2_000
S = TypeVar("S", PredictionSegment, FeedbackBatch)


class Bite(NamedTuple):
    """How much a release is told at once: segments or batches, and rows in them."""

    pieces: int = 200
    rows: int = 20_000


USUAL = Bite()


def guard(performer: Performer, release: Release, now: Instant, bite: Bite = USUAL) -> Release:
    """Tell a live release what happened since its cursors; return it as it stands then.

    Reads at most one bite of segments and one of feedback: call again while the cursors move.
    """
    segments = _bounded(
        _segments_of(performer, release, bite.pieces), lambda segment: segment.rows, bite.rows
    )
    batches = _bounded(
        _feedback_of(performer, release, bite.pieces), lambda batch: batch.fresh, bite.rows
    )
    if not segments and not batches and now < release.deadline:
        return release
    rows = [row for segment in segments for row in rows_in(performer, segment)]
    labelled = (
        judged(outcome, release.limits.loss_name)
        for batch in batches
        for outcome in outcomes_in(performer, batch)
    )
    news = news_of_rows(release, rows).plus(news_of_labels(release, labelled))
    ask = ObserveRelease(
        release=release.id,
        after_segment=release.cursor_segment,
        after_feedback=release.cursor_feedback,
        cursor_segment=segments[-1].seq if segments else release.cursor_segment,
        cursor_feedback=batches[-1].seq if batches else release.cursor_feedback,
        news=news,
        limits=_limits(performer, release, segments),
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
    start = max(0, last_segment - LATENCY_SEGMENTS)
    ask = ListSegments(deployment=deployment, after_seq=start, limit=LATENCY_SEGMENTS)
    newest = performer.perform("prediction.segments", ask, SegmentList).items[::-1]
    used = _bounded(newest, lambda segment: segment.rows, LATENCY_ROWS)
    if sum(segment.rows for segment in used) < MIN_LATENCIES:
        return None
    return find_latency_limit(
        [row for segment in used for row in rows_in(performer, segment)], champion
    )


def _limits(
    performer: Performer, release: Release, segments: Sequence[PredictionSegment]
) -> Limits:
    """Return what is known only now of the champion's figures: a person began without them."""
    if release.limits.latency_us is not None or not segments:
        return Limits()
    found = latency_limit(performer, release.deployment, release.champion, segments[-1].seq)
    return Limits(latency_us=found)


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
        loss=_loss(kind, outcome.output, outcome.truth),
        unit=outcome.unit,
        shadow_version=outcome.shadow_version,
        shadow_loss=_loss(kind, outcome.shadow_output, outcome.truth),
    )


def _loss(kind: LossName, output: float | None, truth: float) -> float | None:
    return None if output is None else loss_of(kind, output, truth)
