"""Cuts what an import has to say into calls of a fair size, and orders them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from everloop.core.ids import Id
from everloop.interop.importers.source import Contents, SourceRun
from everloop.track import columns
from everloop.track.columns import Columns, Ints
from everloop.track.inputs import NamedData
from everloop.track.verbs import ArtifactFile, Ending, LogRun, MetricSeries

POINTS_A_BATCH = 100_000
SERIES_A_BATCH = 1_000
FILES_A_BATCH = 500
FEW_PARTS = 50


def to_batches(
    run: Id,
    series: dict[str, Columns],
    files: list[ArtifactFile],
    ending: Ending | None,
    *,
    params: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> list[LogRun]:
    """Return as few batches as fit, at least one; the last one says how the run ended."""
    batches = [LogRun(run=run, metrics=batch, amend=True) for batch in _metric_batches(series)]
    batches += [
        LogRun(run=run, artifacts=tuple(files[at : at + FILES_A_BATCH]), amend=True)
        for at in range(0, len(files), FILES_A_BATCH)
    ]
    if len(batches) > 1 and len(batches[-1].artifacts) + len(batches[0].metrics) < FEW_PARTS:
        # Most runs are small: one commit for all of it.
        batches[-1] = msgspec.structs.replace(batches[-1], metrics=batches.pop(0).metrics)
    last = batches.pop() if batches else LogRun(run=run, amend=True)
    last = msgspec.structs.replace(last, params=params or {}, tags=tags or {}, ending=ending)
    return [*batches, last]


def named_data(contents: Contents) -> tuple[NamedData, ...]:
    """Return the data that a run read, as a verb takes them."""
    return tuple(
        NamedData(
            name=read.name,
            digest=read.digest,
            source_type=read.source_type,
            source=read.source,
            schema=read.schema or None,
            profile=read.profile or None,
            tags=dict(read.tags),
        )
        for read in contents.inputs
    )


def part_of(points: Columns, chosen: slice | Ints) -> Columns:
    """Return some of the points."""
    return Columns(points.steps[chosen], points.times_us[chosen], points.values[chosen])


def parents_first(runs: list[SourceRun]) -> list[SourceRun]:
    """Return the runs by start, but each parent before its children."""
    by_id = {run.id: run for run in runs}
    placed: dict[str, SourceRun] = {}
    for run in sorted(runs, key=lambda each: (each.started_at, each.id)):
        chain = [run]
        while (above := chain[-1].parent) in by_id and above not in placed:
            if any(each.id == above for each in chain):
                break  # a circle: nobody is first
            chain.append(by_id[str(above)])
        for each in reversed(chain):
            placed.setdefault(each.id, each)
    return list(placed.values())


def _metric_batches(series: dict[str, Columns]) -> Iterator[tuple[MetricSeries, ...]]:
    batch: list[MetricSeries] = []
    points = 0
    for key, whole in series.items():
        for at in range(0, len(whole.steps), POINTS_A_BATCH):
            part = part_of(whole, slice(at, at + POINTS_A_BATCH))
            count = len(part.steps)
            if batch and (points + count > POINTS_A_BATCH or len(batch) >= SERIES_A_BATCH):
                yield tuple(batch)
                batch, points = [], 0
            batch.append(MetricSeries(key=key, data=columns.encode(part)))
            points += count
    if batch:
        yield tuple(batch)
