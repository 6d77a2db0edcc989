"""Times in filters: every value is a stretch of time, as long as what was left out of it.

``2026-11-21`` is that day in UTC, ``2026-11-21T09:30`` that minute, and a number the millisecond
that it counts from 1970. So ``<= '2026-11-21'`` takes in the whole day, and a time that is stored
with microseconds equals the millisecond that another system knows of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from everloop.core.clock import Instant
from everloop.core.filter.faults import shown
from everloop.core.filter.scene import Scene
from everloop.core.filter.tree import Comparison, How, Literal, Moment, Number

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime(1, 1, 2, tzinfo=UTC)
_LAST = datetime(9999, 12, 30, tzinfo=UTC)
_FORM = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?P<minute>\d{2}:\d{2})(?P<second>:\d{2})?(?P<fraction>\.\d{1,6})?)?"
    r"(?P<zone>[Zz]|[+-]\d{2}:?\d{2})?",
    re.ASCII,
)


class Span(NamedTuple):
    """A stretch of time, the end excluded; None is before or after all times."""

    start: Instant | None
    end: Instant | None
    is_empty: bool = False


def span_of(value: Literal, scene: Scene) -> Span:
    """Return the stretch of time that a value of a filter names.

    Raises:
        InvalidInput: ``filter.invalid`` for a text that is no time.
    """
    if isinstance(value, Moment):
        start = scene.now + timedelta(seconds=value.seconds)
        return Span(start, start + timedelta(microseconds=1))
    if isinstance(value, Number):
        return _milliseconds(value.value)
    found = _read(value.value)
    if found is None:
        raise scene.fault(
            value.at,
            f"{shown(value.value)} is no time",
            "Write it like '2026-11-21', '2026-11-21T09:30:00Z' or now - 7d.",
        )
    return found


def meets_spans(value: Instant | None, test: Comparison, spans: Sequence[Span]) -> bool:
    """Return whether a time meets a test whose values are these stretches of time."""
    if test.how is How.NULL:
        return (value is None) is not test.negated
    if value is None:
        return False
    first = spans[0]
    match test.how:
        case How.IN:
            return any(_side(value, span) == 0 for span in spans) is not test.negated
        case How.BETWEEN:
            inside = _side(value, first) >= 0 and _side(value, spans[1]) <= 0
            return inside is not test.negated
        case How.EQ:
            return _side(value, first) == 0
        case How.NE:
            return _side(value, first) != 0
        case How.LT:
            return _side(value, first) < 0
        case How.LE:
            return _side(value, first) <= 0
        case How.GT:
            return _side(value, first) > 0
    return _side(value, first) >= 0


def _side(value: Instant, span: Span) -> int:
    """Return -1 before a stretch, 0 inside, 1 behind it."""
    if span.is_empty:
        return -1 if span.start is not None and value < span.start else 1
    if span.start is not None and value < span.start:
        return -1
    return 0 if span.end is None or value < span.end else 1


def _milliseconds(value: int | float) -> Span:
    first, last = (_FIRST - EPOCH).total_seconds() * 1e3, (_LAST - EPOCH).total_seconds() * 1e3
    if value < first:
        return Span(None, _FIRST)
    if value > last:
        return Span(_LAST, None)
    floor, ceiling = math.floor(value), math.ceil(value)
    start = EPOCH + timedelta(milliseconds=ceiling)
    return Span(start, EPOCH + timedelta(milliseconds=floor + 1), is_empty=floor != ceiling)


def _read(text: str) -> Span | None:
    match = _FORM.fullmatch(text.strip())
    if match is None or (match["fraction"] and not match["second"]):
        return None
    zone = (match["zone"] or "Z").upper().replace("Z", "+00:00")
    second = match["second"] or ":00"
    stamp = f"{match['day']}T{match['minute'] or '00:00'}{second}{match['fraction'] or ''}{zone}"
    try:
        start = datetime.fromisoformat(stamp).astimezone(UTC)
        return Span(start, start + _length(match))
    except (ValueError, OverflowError):
        return None


def _length(match: re.Match[str]) -> timedelta:
    if match["minute"] is None:
        return timedelta(days=1)
    if match["second"] is None:
        return timedelta(minutes=1)
    if match["fraction"] is None:
        return timedelta(seconds=1)
    return timedelta(microseconds=10 ** (7 - len(match["fraction"])))
