"""How points reach the store, and come back.

Batches with few points a metric wait as they came, one row each; when many wait, or the run ends,
they are sorted into chunks. Larger ones become chunks at once, very large ones blobs. A metric's
last chunk grows until it is full.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from everloop.core.digest import Digest
from everloop.core.ids import Id
from everloop.core.ports import BlobStore, Compare, Condition, where
from everloop.kernel.unit_of_work import View, Work
from everloop.track import columns, limits
from everloop.track.columns import Columns, Summary
from everloop.track.mixed import (
    Mixed,
    MixedPoints,
    add_summaries,
    decode_mixed,
    encode_mixed,
    mix,
    pick,
    sort_out,
    summarise_mixed,
)
from everloop.track.model import MetricBatch, MetricChunk, MetricSummary, Run

FULL_CHUNK = 1_024
MOST_IN_A_ROW = 4_096
FEW_POINTS = 64
MOST_BATCHES = 64
MOST_WAITING = 16_384
KEYS_A_QUERY = 500
WHOLE_POINTS = 50_000


class PreparedSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Checked points of one metric; those too many for a row have a blob and its outline."""

    key: str
    points: Columns
    blob: Digest | None = None
    outline: bytes | None = None


class PreparedPoints(msgspec.Struct, frozen=True, kw_only=True):
    """Checked points of one call.

    Attributes:
        mixed: Few points a metric, to wait as they are; None when there are none.
        series: Metrics with many points.
        summaries: What each metric gains.
    """

    mixed: MixedPoints | None
    series: tuple[PreparedSeries, ...]
    summaries: dict[str, Summary]

    @property
    def count(self) -> int:
        """How many points there are."""
        return sum(summary.points for summary in self.summaries.values())


def prepare_points(
    decoded: Iterable[tuple[str, Columns]], mixed: Mixed | None, blobs: BlobStore
) -> PreparedPoints:
    """Summarise points and put very large series into blobs; empty series are left out.

    Raises:
        LimitExceeded: ``run.too_many`` points in all.
    """
    total = len(mixed.points.steps) if mixed else 0
    merged: dict[str, list[Columns]] = {}
    for key, points in decoded:
        total += len(points.steps)
        limits.check_count(total, limits.MAX_POINTS_A_BATCH, "points in a batch")
        merged.setdefault(key, []).append(points)
    if mixed is not None and (merged or total > MOST_WAITING):
        for key, points in sort_out([mixed]):
            merged.setdefault(key, []).append(points)
        mixed = None
    series = [(key, columns.join(parts)) for key, parts in merged.items()]
    if series and all(len(points.steps) < FEW_POINTS for _, points in series):
        mixed, series = mix(series), []
    if mixed is not None:
        found = summarise_mixed(mixed)
        waiting = encode_mixed(mixed) if found else None
        return PreparedPoints(mixed=waiting, series=(), summaries=found)
    filled = [(key, points) for key, points in series if len(points.steps)]
    return PreparedPoints(
        mixed=None,
        series=tuple(_prepare_series(key, points, blobs) for key, points in filled),
        summaries={key: columns.summarise(points) for key, points in filled},
    )


def _prepare_series(key: str, points: Columns, blobs: BlobStore) -> PreparedSeries:
    if len(points.steps) <= MOST_IN_A_ROW:
        return PreparedSeries(key=key, points=points)
    blob, outline = blobs.put(columns.encode(points)), columns.outline(points)
    return PreparedSeries(key=key, points=points, blob=blob, outline=outline)


def add_points(work: Work, run: Run, prepared: PreparedPoints) -> None:
    """Store the points and bring the summaries up to date.

    Raises:
        LimitExceeded: ``run.too_many`` metrics.
    """
    if not prepared.summaries:
        return
    last = _last_batch(work, run)
    if last is not None and (prepared.series or _is_full(last, prepared.count)):
        settle_points(work, run)  # what waits was logged before
        last = None
    known = _summaries(work, run, prepared.summaries)
    if len(known) < len(prepared.summaries):
        count = work.count(MetricSummary, *where(run=run.id)) + len(prepared.summaries) - len(known)
        limits.check_count(count, limits.MAX_KEYS_A_RUN, "metrics")
    after = _add_chunks(work, run, prepared.series, known)
    if prepared.mixed is not None:
        _add_batch(work, run, prepared.mixed, prepared.count, last)
    fresh = []
    for key, new in prepared.summaries.items():
        old = known.get(key)
        if old is None:
            fresh.append(to_summary(work.new_id(), run, key, new, after.get(key, (0, 0))))
        else:
            now = after.get(key, (old.chunks, old.growing))
            known[key] = _next_summary(old, new, now)
    work.insert_many(fresh)
    work.replace_many(list(known.values()))


def settle_points(work: Work, run: Run) -> None:
    """Sort the points of a run that wait into the chunks of their metrics."""
    waiting = work.select(MetricBatch, *where(run=run.id), order="seq")
    if not waiting:
        return
    sorted_out = sort_out([_read_batch(batch) for batch in waiting])
    known = _summaries(work, run, (key for key, _ in sorted_out))
    series = [PreparedSeries(key=key, points=points) for key, points in sorted_out]
    after = _add_chunks(work, run, series, known)
    work.replace_many(
        [
            msgspec.structs.replace(known[key], chunks=chunks, growing=growing)
            for key, (chunks, growing) in after.items()
        ]
    )
    for batch in waiting:
        work.delete(batch)


def read_series(view: View, run: Id, key: str) -> Columns:
    """Return all points of a metric in the order in which they were logged.

    Raises:
        NotFound: ``blob.not_found`` when a chunk's bytes are gone.
        IntegrityError: ``blob.corrupt``.
    """
    chunks = view.select(MetricChunk, *where(run=run, key=key), order="seq")
    sorted_out = [columns.decode(chunk_bytes(view, chunk)) for chunk in chunks]
    return columns.join([*sorted_out, read_waiting(view, run, key)])


def read_waiting(view: View, run: Id, key: str) -> Columns:
    """Return the points of a metric that are in no chunk yet."""
    waiting = view.select(MetricBatch, *where(run=run), order="seq")
    return columns.join([pick(_read_batch(batch), key) for batch in waiting if key in batch.keys])


def read_for_plot(view: View, metric: MetricSummary, points: int) -> Columns:
    """Return enough of a metric to draw so many points of all of it.

    All of its points, or the outlines of its chunks where those hold more than will be drawn.

    Raises:
        NotFound: ``blob.not_found`` when a chunk's bytes are gone.
        IntegrityError: ``blob.corrupt``.
    """
    is_dense = metric.count > max(WHOLE_POINTS, columns.OUTLINED_POINTS * points // 2)
    read = read_outlined if is_dense else read_series
    return read(view, metric.run, metric.key)


def read_outlined(view: View, run: Id, key: str) -> Columns:
    """Return the points of a metric that a plot of all of it needs, without reading the rest.

    Of each ``columns.OUTLINED_POINTS`` neighbours the extremes are there, and the first NaN.

    Raises:
        NotFound: ``blob.not_found`` when a chunk's bytes are gone.
        IntegrityError: ``blob.corrupt``.
    """
    parts: list[Columns] = []
    outlines: list[bytes] = []
    for chunk in view.select(MetricChunk, *where(run=run, key=key), order="seq"):
        if chunk.outline is not None:
            outlines.append(chunk.outline)
            continue
        if outlines:
            parts.append(columns.read_outlines(outlines))
            outlines = []
        parts.append(columns.decode(chunk_bytes(view, chunk)))
    if outlines:
        parts.append(columns.read_outlines(outlines))
    return columns.join([*parts, read_waiting(view, run, key)])


def chunk_bytes(view: View, chunk: MetricChunk) -> bytes:
    """Return the encoded points of a chunk, from its row or from its blob.

    Raises:
        NotFound: ``blob.not_found``.
        IntegrityError: ``blob.corrupt``.
    """
    if chunk.data is not None:
        return chunk.data
    assert chunk.blob is not None
    return view.services.blobs.get(chunk.blob)


def _read_batch(batch: MetricBatch) -> Mixed:
    return decode_mixed(MixedPoints(keys=batch.keys, places=batch.places, data=batch.data))


def _last_batch(view: View, run: Run) -> MetricBatch | None:
    found = view.select(MetricBatch, *where(run=run.id), order="seq", descending=True, limit=1)
    return found[0] if found else None


def _is_full(last: MetricBatch, more: int) -> bool:
    return last.seq + 1 >= MOST_BATCHES or last.waiting + more > MOST_WAITING


def _add_batch(
    work: Work, run: Run, mixed: MixedPoints, count: int, last: MetricBatch | None
) -> None:
    work.insert(
        MetricBatch(
            id=work.new_id(),
            project=work.project,
            run=run.id,
            seq=last.seq + 1 if last else 0,
            waiting=count + (last.waiting if last else 0),
            keys=mixed.keys,
            places=mixed.places,
            data=mixed.data,
        )
    )


def _summaries(view: View, run: Run, keys: Iterable[str]) -> dict[str, MetricSummary]:
    wanted = tuple(keys)
    found: dict[str, MetricSummary] = {}
    for first in range(0, len(wanted), KEYS_A_QUERY):
        group = Condition("key", Compare.IN, wanted[first : first + KEYS_A_QUERY])
        found |= {row.key: row for row in view.select(MetricSummary, *where(run=run.id), group)}
    return found


def _add_chunks(
    work: Work, run: Run, series: Sequence[PreparedSeries], known: dict[str, MetricSummary]
) -> dict[str, tuple[int, int]]:
    """Store points as chunks; return for each metric its ``chunks`` and ``growing`` after that."""
    growing = _growing(work, run, series, known)
    grown: list[MetricChunk] = []
    fresh: list[MetricChunk] = []
    after: dict[str, tuple[int, int]] = {}
    for each in series:
        last = growing.get(each.key)
        chunks = known[each.key].chunks if each.key in known else 0
        points = each.points
        if last is not None and last.data is not None:
            points = columns.join([columns.decode(last.data), points])
        is_full = len(points.steps) >= FULL_CHUNK
        chunk = last or _empty_chunk(work, run, each.key, chunks, int(points.steps[0]))
        chunk = msgspec.structs.replace(
            chunk,
            count=len(points.steps),
            last_step=int(points.steps[-1]),
            data=columns.encode(points) if each.blob is None else None,
            blob=each.blob,
            outline=each.outline or (columns.outline(points) if is_full else None),
        )
        (fresh if last is None else grown).append(chunk)
        after[each.key] = (chunks + (last is None), 0 if is_full else len(points.steps))
    work.replace_many(grown)
    work.insert_many(fresh)
    return after


def _growing(
    view: View, run: Run, series: Sequence[PreparedSeries], known: dict[str, MetricSummary]
) -> dict[str, MetricChunk]:
    """Return the last chunks that take the new points, by metric."""
    by_seq: dict[int, list[str]] = {}
    for each in series:
        summary = known.get(each.key)
        if each.blob is None and summary is not None and summary.growing:
            by_seq.setdefault(summary.chunks - 1, []).append(each.key)
    found: dict[str, MetricChunk] = {}
    for seq, keys in by_seq.items():
        for first in range(0, len(keys), KEYS_A_QUERY):
            group = Condition("key", Compare.IN, tuple(keys[first : first + KEYS_A_QUERY]))
            rows = view.select(MetricChunk, *where(run=run.id, seq=seq), group)
            found |= {row.key: row for row in rows}
    return found


def _empty_chunk(work: Work, run: Run, key: str, seq: int, first_step: int) -> MetricChunk:
    return MetricChunk(
        id=work.new_id(),
        project=work.project,
        run=run.id,
        key=key,
        seq=seq,
        count=0,
        first_step=first_step,
        last_step=first_step,
    )


def to_summary(id: Id, run: Run, key: str, new: Summary, chunks: tuple[int, int]) -> MetricSummary:
    """Return the row that says of a metric what its points say, ``chunks`` and ``growing`` too."""
    return MetricSummary(
        id=id,
        project=run.project,
        run=run.id,
        key=key,
        chunks=chunks[0],
        growing=chunks[1],
        **_said(new),
    )


def _next_summary(old: MetricSummary, new: Summary, chunks: tuple[int, int]) -> MetricSummary:
    before = Summary(
        points=old.count,
        last_step=old.last_step,
        last=float(old.last_text),
        last_time_us=old.last_time_us,
        minimum=old.minimum,
        maximum=old.maximum,
        not_finite=old.not_finite,
    )
    after = _said(add_summaries(before, new))
    return msgspec.structs.replace(old, chunks=chunks[0], growing=chunks[1], **after)


def _said(summary: Summary) -> dict[str, Any]:
    """Return what a row says of points, by its fields."""
    return {
        "count": summary.points,
        "last_step": summary.last_step,
        "last": _sortable(summary.last),
        "last_text": repr(summary.last),
        "minimum": summary.minimum,
        "maximum": summary.maximum,
        "not_finite": summary.not_finite,
        "last_time_us": summary.last_time_us,
    }


def _sortable(value: float) -> float | None:
    """Return the value with infinities as the outermost floats, so that search compares them."""
    if math.isnan(value):
        return None
    return max(-sys.float_info.max, min(sys.float_info.max, value))
