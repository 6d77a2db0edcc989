"""How points reach the store: merged into the metric's open chunk, or as blobs when many."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator

import msgspec

from everloop.core.digest import Digest
from everloop.core.ids import Id
from everloop.core.ports import BlobStore, where
from everloop.kernel.unit_of_work import View, Work
from everloop.track import columns, limits
from everloop.track.columns import Columns, Summary
from everloop.track.model import MetricChunk, MetricSummary, Run

FULL_CHUNK = 1_024
MOST_IN_A_ROW = 4_096


class PreparedSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Checked points of one metric; ``blob`` is set when they are too many for a row."""

    key: str
    points: Columns
    summary: Summary
    blob: Digest | None


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
        )


def add_series(work: Work, run: Run, prepared: tuple[PreparedSeries, ...]) -> int:
    """Store the points and bring the summaries up to date; return how many points.

    Raises:
        LimitExceeded: ``run.too_many`` metrics.
    """
    for series in prepared:
        _add_points(work, run, series)
        _add_summary(work, run, series)
    if prepared:
        count = work.count(MetricSummary, *where(run=run.id))
        limits.check_count(count, limits.MAX_KEYS_A_RUN, "metrics")
    return sum(series.summary.points for series in prepared)


def read_series(view: View, run: Id, key: str) -> Columns:
    """Return all points of a metric in the order in which they were logged.

    Raises:
        NotFound: ``blob.not_found`` when a chunk's bytes are gone.
        IntegrityError: ``blob.corrupt``.
    """
    chunks = view.select(MetricChunk, *where(run=run, key=key), order="seq")
    return columns.join([_read_chunk(view, chunk) for chunk in chunks])


def _read_chunk(view: View, chunk: MetricChunk) -> Columns:
    if chunk.data is not None:
        return columns.decode(chunk.data)
    assert chunk.blob is not None
    return columns.decode(view.services.blobs.get(chunk.blob))


def _add_points(work: Work, run: Run, series: PreparedSeries) -> None:
    found = work.select(
        MetricChunk, *where(run=run.id, key=series.key), order="seq", descending=True, limit=1
    )
    last = found[0] if found else None
    points = series.points
    if (
        last is not None
        and last.data is not None
        and series.blob is None
        and last.count + len(points.steps) <= FULL_CHUNK
    ):
        points = columns.join([columns.decode(last.data), points])
        work.replace(
            msgspec.structs.replace(
                last,
                count=len(points.steps),
                last_step=int(points.steps[-1]),
                data=columns.encode(points),
            )
        )
        return
    work.insert(
        MetricChunk(
            id=work.new_id(),
            project=work.project,
            run=run.id,
            key=series.key,
            seq=last.seq + 1 if last else 0,
            count=len(points.steps),
            first_step=int(points.steps[0]),
            last_step=int(points.steps[-1]),
            data=columns.encode(points) if series.blob is None else None,
            blob=series.blob,
        )
    )


def _add_summary(work: Work, run: Run, series: PreparedSeries) -> None:
    new = series.summary
    old = work.first(MetricSummary, *where(run=run.id, key=series.key))
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
                minimum=new.minimum,
                maximum=new.maximum,
                not_finite=new.not_finite,
                last_time_us=new.last_time_us,
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
        )
    )


def _sortable(value: float) -> float | None:
    """Return the value with infinities as the outermost floats, so that search compares them."""
    if math.isnan(value):
        return None
    return max(-sys.float_info.max, min(sys.float_info.max, value))


def _known(*values: float | None) -> list[float]:
    return [value for value in values if value is not None]
