"""Freezing what is known now: answered requests with their truths become dataset versions.

Whole days are kept from training, every n-th one, so that the gate judges on rows of the same
period that neither version was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from everloop.core.clock import Instant, to_text
from everloop.core.errors import NotFound
from everloop.core.ids import Id
from everloop.data.model import DatasetVersion, SourceInfo
from everloop.data.queries import ShowDataset
from everloop.data.snapshot import commit_table
from everloop.data.tables import read_table
from everloop.kernel.performer import Performer
from everloop.loop.model import LoopConfig
from everloop.monitor.model import PredictionSegment
from everloop.monitor.outcomes import decode_labels
from everloop.monitor.queries import ListSegments, SegmentList
from everloop.monitor.segments import inputs_of, kept_rows, read_segment

SECONDS_A_DAY = 86_400
DAY_COLUMN = "day"
"""Days since 1970 of the event time, for gates that compare by day (``gate.block: day``)."""
PAGE = 1_000


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """The two dataset versions of a snapshot."""

    training: DatasetVersion
    holdout: DatasetVersion


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled answers as rows, and the segments that they come from."""

    table: pa.Table
    segments: tuple[Id, ...]


def labelled_rows(
    performer: Performer, deployment: Id, target: str, time_column: str, since: Instant | None
) -> Served | None:
    """Return inputs, truth and event time of all labelled answers since an instant, or None."""
    used: list[Id] = []
    pieces: list[pa.Table] = []
    for segment in _segments(performer, deployment, since):
        for piece in _labelled(performer, segment, target, time_column):
            pieces.append(piece)
            used.append(segment.id)
    if not pieces:
        return None
    table = pa.concat_tables(pieces, promote_options="permissive")
    if since is not None:
        table = table.filter(pc.field(time_column) >= pa.scalar(since))
    return Served(table=table, segments=tuple(used))


def _segments(
    performer: Performer, deployment: Id, since: Instant | None
) -> Iterator[PredictionSegment]:
    cursor = 0
    while True:
        ask = ListSegments(deployment=deployment, after_seq=cursor, since=since, limit=PAGE)
        page = performer.perform("prediction.segments", ask, SegmentList).items
        yield from (segment for segment in page if segment.labels is not None)
        if len(page) < PAGE:
            return
        cursor = page[-1].seq


def _labelled(
    performer: Performer, segment: PredictionSegment, target: str, time_column: str
) -> Iterable[pa.Table]:
    assert segment.labels is not None
    labels = decode_labels(performer.blobs.get(segment.labels))
    table = kept_rows(read_segment(performer.blobs.get(segment.blob)))
    known = [labels.get(Id(key)) for key in table.column("id").to_pylist()]
    inputs = inputs_of(table)
    inputs = inputs.append_column(target, pa.array(known, pa.float64()))
    inputs = inputs.append_column(time_column, table.column("at"))
    kept = inputs.filter(pa.array([value is not None for value in known]))
    return [kept] if kept.num_rows else []


def freeze(
    performer: Performer,
    *,
    deployment: Id,
    target: str,
    config: LoopConfig,
    now: Instant,
) -> Frozen | None:
    """Commit the labelled rows of the envelope's period; None while there are too few.

    Rows of the dataset's first version count too, as far as they lie in the period: the loop
    begins with the data that its first model was trained on. Repeating it with the same rows gives
    the same versions; after a crash more labels may be known, and then they count.
    """
    since = None if config.train_days is None else now - timedelta(days=config.train_days)
    served = labelled_rows(performer, deployment, target, config.time_column, since)
    table = _with_first_version(performer, served and served.table, config, since)
    if table is None or table.num_rows < config.min_rows:
        return None
    days = [_day(value) for value in table.column(config.time_column).to_pylist()]
    held = pa.array([day % config.holdout_every == 0 for day in days])
    table = table.append_column(DAY_COLUMN, pa.array(days, pa.int64()))
    message = f"Snapshot by the loop at {to_text(now)}."
    segments = served.segments if served else ()
    source = SourceInfo(
        kind="join",
        description=f"Answers of deployment {deployment} with their labels.",
        origins=tuple(f"prediction_segment:{key}" for key in segments),
    )
    training = commit_table(
        performer,
        config.dataset,
        table.filter(pc.invert(held)),
        message=message,
        source=source,
    )
    holdout = commit_table(
        performer,
        f"{config.dataset}-holdout",
        table.filter(held),
        message=message,
        source=source,
    )
    return Frozen(training=training, holdout=holdout)


def _with_first_version(
    performer: Performer, served: pa.Table | None, config: LoopConfig, since: Instant | None
) -> pa.Table | None:
    parts = [] if served is None else [served]
    for name in (config.dataset, f"{config.dataset}-holdout"):
        table = _first_version(performer, name)
        if table is None or config.time_column not in table.column_names:
            continue
        names = [name for name in table.column_names if name != DAY_COLUMN]
        wanted = names if served is None else served.column_names
        if set(wanted) <= set(names):
            parts.append(table.select(wanted))
    if not parts:
        return None
    whole = pa.concat_tables(parts, promote_options="permissive")
    time = pc.cast(whole.column(config.time_column), pa.timestamp("us", tz="UTC"))
    position = whole.column_names.index(config.time_column)
    whole = whole.set_column(position, config.time_column, time)
    if since is not None:
        whole = whole.filter(pc.field(config.time_column) >= pa.scalar(since))
    return whole.sort_by(config.time_column)


def _first_version(performer: Performer, name: str) -> pa.Table | None:
    """Return the rows of a dataset's first version; None when nobody committed one."""
    try:
        first = performer.perform("data.show", ShowDataset(ref=f"{name}@1"), DatasetVersion)
    except NotFound:
        return None
    return read_table(performer.blobs, first)


def _day(at: datetime) -> int:
    return int(at.astimezone(UTC).timestamp() // SECONDS_A_DAY)
