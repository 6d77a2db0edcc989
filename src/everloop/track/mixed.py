"""Points of many metrics in one piece: what small batches are sent and stored as.

A training loop that logs a thousand metrics once a step sends a thousand points of a thousand
metrics. As a chunk each they would cost a thousand rows a step; mixed, they are one row, and are
sorted into chunks when enough of them wait (see ``series``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from everloop.core.errors import InvalidInput
from everloop.track import columns, limits
from everloop.track.columns import Columns, Summary

PLACE: Final = np.dtype("<u2")


class MixedPoints(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """New points of several metrics, in the order in which they were logged.

    Attributes:
        places: For each point the place of its metric in ``keys``, as 16-bit little-endian numbers.
        data: The points as a chunk in the format of ``everloop.track.columns``.
    """

    keys: tuple[str, ...]
    places: bytes
    data: bytes


class Mixed(NamedTuple):
    """Decoded points of several metrics."""

    keys: tuple[str, ...]
    places: npt.NDArray[np.uint16]
    points: Columns


def mix(series: Iterable[tuple[str, Columns]]) -> Mixed:
    """Put points of several metrics into one piece; those of one metric keep their order."""
    keys: dict[str, int] = {}
    places: list[int] = []
    parts: list[Columns] = []
    for key, points in series:
        places += repeat(keys.setdefault(key, len(keys)), len(points.steps))
        parts.append(points)
    return Mixed(tuple(keys), np.array(places, dtype=PLACE), columns.join(parts))


def encode_mixed(mixed: Mixed, compression: int = columns.ZSTD) -> MixedPoints:
    """Return the points as they are sent and stored."""
    return MixedPoints(
        keys=mixed.keys,
        places=mixed.places.astype(PLACE).tobytes(),
        data=columns.encode(mixed.points, compression),
    )


def decode_mixed(given: MixedPoints) -> Mixed:
    """Check and read points of several metrics.

    Raises:
        InvalidInput: ``metric.chunk_invalid`` or ``run.key_invalid``.
    """
    for key in given.keys:
        limits.check_key(key, "Metric")
    points = columns.decode(given.data)
    if len(given.places) != PLACE.itemsize * len(points.steps):
        raise _invalid("it has not one place a point")
    places = np.frombuffer(given.places, dtype=PLACE)
    if len(places) and int(places.max()) >= len(given.keys):
        raise _invalid("it has a point of no metric")
    if len(set(given.keys)) != len(given.keys):
        raise _invalid("it names a metric twice")
    return Mixed(given.keys, places, points)


def pick(mixed: Mixed, key: str) -> Columns:
    """Return the points of one metric in their order."""
    try:
        place = mixed.keys.index(key)
    except ValueError:
        return columns.to_columns((), (), ())
    return _take(mixed.points, np.flatnonzero(mixed.places == place))


def sort_out(pieces: Sequence[Mixed]) -> list[tuple[str, Columns]]:
    """Return the points of several pieces by metric, each in the order of the pieces."""
    keys: dict[str, int] = {}
    places = [
        np.array([keys.setdefault(key, len(keys)) for key in piece.keys], dtype=np.int64)[
            piece.places
        ]
        for piece in pieces
        if piece.keys
    ]
    if not places:
        return []
    every = np.concatenate(places)
    points = columns.join([piece.points for piece in pieces if piece.keys])
    order = np.argsort(every, kind="stable")
    ends = np.cumsum(np.bincount(every, minlength=len(keys)))
    groups = np.split(order, ends[:-1])
    return [(key, _take(points, group)) for key, group in zip(keys, groups, strict=True)]


def summarise_mixed(mixed: Mixed) -> dict[str, Summary]:
    """Return the summary of each metric; equal to ``columns.summarise`` of its points alone.

    A loop over Python numbers: most metrics have one point here, and numpy's calls cost more.
    """
    found: dict[int, Summary] = {}
    rows = zip(
        mixed.places.tolist(),
        mixed.points.steps.tolist(),
        mixed.points.times_us.tolist(),
        mixed.points.values.tolist(),
        strict=True,
    )
    for place, step, at, value in rows:
        finite = value if math.isfinite(value) else None
        new = Summary(1, step, value, at, finite, finite, 1 if finite is None else 0)
        old = found.get(place)
        found[place] = new if old is None else add_summaries(old, new)
    return {mixed.keys[place]: summary for place, summary in found.items()}


def add_summaries(old: Summary, new: Summary) -> Summary:
    """Return the summary of points and later points together."""
    newest = new if (new.last_step, new.last_time_us) >= (old.last_step, old.last_time_us) else old
    return Summary(
        points=old.points + new.points,
        last_step=newest.last_step,
        last=newest.last,
        last_time_us=newest.last_time_us,
        minimum=_least(old.minimum, new.minimum),
        maximum=_greatest(old.maximum, new.maximum),
        not_finite=old.not_finite + new.not_finite,
    )


def _least(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def _greatest(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return max(one, other)


def _take(points: Columns, chosen: npt.NDArray[np.intp]) -> Columns:
    return Columns(points.steps[chosen], points.times_us[chosen], points.values[chosen])


def _invalid(reason: str) -> InvalidInput:
    return InvalidInput(
        "metric.chunk_invalid",
        f"Points of several metrics cannot be read: {reason}.",
        hint="Log through everloop's client, which writes the current format.",
    )
