"""How points reach the store: merged into the metric's open chunk, or as blobs when many."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator

import msgspec

from everloop.core.digest import Digest
from everloop.core.ids import Id
from everloop.core.ports import BlobStore, Compare, Condition, where
from everloop.kernel.unit_of_work import View, Work
from everloop.track import columns, limits
from everloop.track.columns import Columns, Summary
from everloop.track.model import MetricChunk, MetricSummary, Run

FULL_CHUNK = 1_024
MOST_IN_A_ROW = 4_096
WHOLE_POINTS = 50_000


class PreparedSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Checked points of one metric; those too many for a row have a blob and its outline."""

    key: str
    points: Columns
    summary: Summary
    blob: Digest | None
    outline: bytes | None


def prepare_series(
    decoded: Iterable[tuple[str, Columns]], blobs: BlobStore
) -> Iterator[PreparedSeries]:
    """Summarise points and put large series into blobs; empty series are left out.

    Raises:
        LimitExceeded: ``run.too_many`` points in all.
    """
    total = 0
    merged: dict[str, list[Columns]] = {}
    for key, points in decoded:
        total += len(points.steps)
        limits.check_count(total, limits.MAX_POINTS_A_BATCH, "points in a batch")
        merged.setdefault(key, []).append(points)
    for key, parts in merged.items():
        points = columns.join(parts)
        if len(points.steps) == 0:
            continue
        is_large = len(points.steps) > MOST_IN_A_ROW
        yield PreparedSeries(
            key=key,
            points=points,
            summary=columns.summarise(points),
            blob=blobs.put(columns.encode(points)) if is_large else None,
            outline=columns.outline(points) if is_large else None,
        )


def add_series(work: Work, run: Run, prepared: tuple[PreparedSeries, ...]) -> int:
    """Store the points and bring the summaries up to date; return how many points.

    What is there already is read for all metrics at once.

    Raises:
        LimitExceeded: ``run.too_many`` metrics.
    """
    summaries = _summaries(work, run, [series.key for series in prepared])
    if len(summaries) < len(prepared):
        more = len(prepared) - len(summaries)
        count = work.count(MetricSummary, *where(run=run.id)) + more
        limits.check_count(count, limits.MAX_KEYS_A_RUN, "metrics")
    growing = _growing(work, run, prepared, summaries)
    for series in prepared:
        summary = summaries.get(series.key)
        chunks, rest = _add_points(work, run, series, summary, growing.get(series.key))
        _add_summary(work, run, series, summary, (chunks, rest))
    return sum(series.summary.points for series in prepared)


def read_series(view: View, run: Id, key: str) -> Columns:
    """Return all points of a metric in the order in which they were logged.

    Raises:
        NotFound: ``blob.not_found`` when a chunk's bytes are gone.
        IntegrityError: ``blob.corrupt``.
    """
    chunks = view.select(MetricChunk, *where(run=run, key=key), order="seq")
    return columns.join([columns.decode(chunk_bytes(view, chunk)) for chunk in chunks])


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
    return columns.join(parts)


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


def _summaries(work: Work, run: Run, keys: list[str]) -> dict[str, MetricSummary]:
    if not keys:
        return {}
    found = work.select(
        MetricSummary, *where(run=run.id), Condition("key", Compare.IN, tuple(keys))
    )
    return {row.key: row for row in found}


def _growing(
    work: Work,
    run: Run,
    prepared: tuple[PreparedSeries, ...],
    summaries: dict[str, MetricSummary],
) -> dict[str, MetricChunk]:
    """Return the last chunks that take the new points, by metric."""
    last = {
        series.key: summaries[series.key].chunks - 1
        for series in prepared
        if series.blob is None and series.key in summaries and summaries[series.key].growing
    }
    if not last:
        return {}
    found = work.select(
        MetricChunk,
        *where(run=run.id),
        Condition("key", Compare.IN, tuple(last)),
        Condition("seq", Compare.IN, tuple(sorted(set(last.values())))),
    )
    return {chunk.key: chunk for chunk in found if last[chunk.key] == chunk.seq}


def _add_points(
    work: Work,
    run: Run,
    series: PreparedSeries,
    summary: MetricSummary | None,
    last: MetricChunk | None,
) -> tuple[int, int]:
    """Store points; return how many chunks there are then, and what the growing one holds."""
    points = series.points
    if last is not None and last.data is not None:
        points = columns.join([columns.decode(last.data), points])
    count = len(points.steps)
    is_full = count >= FULL_CHUNK
    state = {
        "count": count,
        "last_step": int(points.steps[-1]),
        "data": columns.encode(points) if series.blob is None else None,
        "outline": series.outline or (columns.outline(points) if is_full else None),
    }
    seq = summary.chunks if summary is not None else 0
    if last is not None:
        work.replace(msgspec.structs.replace(last, **state))
        return seq, 0 if is_full else count
    work.insert(
        MetricChunk(
            id=work.new_id(),
            project=work.project,
            run=run.id,
            key=series.key,
            seq=seq,
            first_step=int(points.steps[0]),
            blob=series.blob,
            **state,  # type: ignore[arg-type]
        )
    )
    return seq + 1, 0 if is_full else count


def _add_summary(
    work: Work,
    run: Run,
    series: PreparedSeries,
    old: MetricSummary | None,
    chunks: tuple[int, int],
) -> None:
    new = series.summary
    if old is None:
        work.insert(
            MetricSummary(
                id=work.new_id(),
                project=work.project,
                run=run.id,
                key=series.key,
                count=new.points,
                last_step=new.last_step,
                last=_sortable(new.last),
                last_text=repr(new.last),
                last_time_us=new.last_time_us,
                minimum=new.minimum,
                maximum=new.maximum,
                not_finite=new.not_finite,
                chunks=chunks[0],
                growing=chunks[1],
            )
        )
        return
    newest = (new.last_step, new.last_time_us) >= (old.last_step, old.last_time_us)
    work.replace(
        msgspec.structs.replace(
            old,
            count=old.count + new.points,
            last_step=max(old.last_step, new.last_step),
            last=_sortable(new.last) if newest else old.last,
            last_text=repr(new.last) if newest else old.last_text,
            last_time_us=new.last_time_us if newest else old.last_time_us,
            minimum=min(_known(old.minimum, new.minimum), default=None),
            maximum=max(_known(old.maximum, new.maximum), default=None),
            not_finite=old.not_finite + new.not_finite,
            chunks=chunks[0],
            growing=chunks[1],
        )
    )


def _sortable(value: float) -> float | None:
    """Return the value with infinities as the outermost floats, so that search compares them."""
    if math.isnan(value):
        return None
    return max(-sys.float_info.max, min(sys.float_info.max, value))


def _known(*values: float | None) -> list[float]:
    return [value for value in values if value is not None]
