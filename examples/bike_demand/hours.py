"""The source's hours as the project sees them: inputs, target, event time and day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from features import CATEGORIES, INPUTS, MEASURES, TARGET
from training import DATA, read_hours

TIME = "at"
DAY = "day"
TRAP = ("casual", "registered")
FIRST_DAYS = 181
"""The first half of 2011."""


def load(path: Path = DATA) -> pa.Table:
    """Return all hours in order of time, with the two columns that add up to the target."""
    raw = read_hours(path)
    kinds = dict.fromkeys(CATEGORIES, pa.int64()) | dict.fromkeys(MEASURES, pa.float64())
    kinds |= dict.fromkeys((TARGET, *TRAP), pa.float64())
    columns = {name: raw.column(name).cast(kind) for name, kind in kinds.items()}
    days = raw.column("dteday").to_pylist()
    times = [
        datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
        for day, hour in zip(days, raw.column("hr").to_pylist(), strict=True)
    ]
    columns[TIME] = pa.array(times, pa.timestamp("us", tz="UTC"))
    columns[DAY] = pa.array([int(at.timestamp() // 86_400) for at in times], pa.int64())
    return pa.table(columns)


def split_first(table: pa.Table, *, every: int) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return the first half year to train on, its held-out days, and the hours that follow."""
    day = table.column(DAY).to_pylist()
    is_early = [value < day[0] + FIRST_DAYS for value in day]
    is_held = [value % every == 0 for value in day]
    trained = pa.array([e and not h for e, h in zip(is_early, is_held, strict=True)])
    judged = pa.array([e and h for e, h in zip(is_early, is_held, strict=True)])
    later = pa.array([not value for value in is_early])
    return table.filter(trained), table.filter(judged), table.filter(later)


def without_trap(table: pa.Table) -> pa.Table:
    """Return the table without the columns that are known only together with the target."""
    return table.drop_columns(list(TRAP))


def by_day(table: pa.Table) -> Iterator[tuple[datetime, list[dict[str, object]]]]:
    """Yield each day with its hours as rows."""
    day: list[dict[str, object]] = []
    for row in table.to_pylist():
        if day and row[DAY] != day[0][DAY]:
            yield _midnight(day), day
            day = []
        day.append(row)
    if day:
        yield _midnight(day), day


def inputs_of(row: dict[str, object]) -> dict[str, object]:
    """Return what a request for this hour asks with."""
    return {name: row[name] for name in INPUTS}


def _midnight(day: list[dict[str, object]]) -> datetime:
    at = day[0][TIME]
    assert isinstance(at, datetime)
    return at - timedelta(hours=at.hour)
