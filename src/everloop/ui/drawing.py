"""Small pictures as plain numbers for SVG: sparklines and histograms; no colours, no styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from everloop.data.profile import ColumnProfile, quantile
from everloop.data.sketch import Bins

BARS: Final = 24
MOST_NAMES: Final = 8


@dataclass(frozen=True, slots=True)
class Spark:
    """A line through values, with marks where something changed."""

    width: int
    height: int
    points: str
    marks: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram: its place and size in the picture and what it says."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class NamedShare:
    """One value of a category and the part of the rows that have it."""

    name: str
    count: int
    share: float


def spark(
    values: Sequence[float], marks: Sequence[int] = (), *, width: int = 240, height: int = 48
) -> Spark | None:
    """Return a line through the values from left to right, None for fewer than two.

    Args:
        values: Finite numbers.
        marks: Indices of values at which something changed.
        width: Of the picture.
        height: Of the picture.
    """
    if len(values) < 2:
        return None
    low, high = min(values), max(values)
    room = (high - low) or 1.0
    step = width / (len(values) - 1)
    points = " ".join(
        f"{index * step:.1f},{height - 3 - (value - low) / room * (height - 6):.1f}"
        for index, value in enumerate(values)
    )
    return Spark(width, height, points, tuple(round(mark * step, 1) for mark in marks))


def histogram(column: ColumnProfile, *, width: int = 240, height: int = 56) -> tuple[Bar, ...]:
    """Return bars of equal width over the range of a numeric column; empty without numbers."""
    moments = column.moments
    if moments is None or not moments.n:
        return ()
    low, high = moments.minimum, moments.maximum
    if high <= low:
        return (Bar(width / 2 - 4, 0, 8, height, f"{low:.4g}: all {moments.n:,} rows"),)
    edges = [low + (high - low) * index / BARS for index in range(BARS + 1)]
    below = [_share_below(column, edge) for edge in edges]
    below[0], below[-1] = 0.0, 1.0
    shares = [max(after - before, 0.0) for before, after in pairwise(below)]
    tallest = max(shares) or 1.0
    slot = width / BARS
    return tuple(
        Bar(
            x=round(index * slot + 0.5, 2),
            y=round(height * (1 - share / tallest), 2),
            width=round(slot - 1, 2),
            height=round(height * share / tallest, 2),
            title=f"{edges[index]:.4g} to {edges[index + 1]:.4g}: {share:.1%} of rows",
        )
        for index, share in enumerate(shares)
    )


def top_names(column: ColumnProfile) -> tuple[NamedShare, ...]:
    """Return the most frequent values of a category, the rest as one."""
    counted = column.categories
    if counted is None or not counted.n:
        return ()
    ranked = sorted(counted.counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [NamedShare(name, count, count / counted.n) for name, count in ranked[:MOST_NAMES]]
    rest = counted.other + sum(count for _, count in ranked[MOST_NAMES:])
    if rest:
        shown.append(NamedShare("all others", rest, rest / counted.n))
    return tuple(shown)


def _share_below(column: ColumnProfile, edge: float) -> float:
    if column.bins is not None:
        return _share_in_bins(column.bins, edge)
    low, high = 0.0, 1.0
    for _ in range(12):  # a twelfth halving is finer than a pixel
        middle = (low + high) / 2
        value = quantile(column, middle)
        if value is not None and value <= edge:
            low = middle
        else:
            high = middle
    return low


def _share_in_bins(bins: Bins, edge: float) -> float:
    """Interpolate the distribution function, which is exact at the edges of the bins."""
    if not bins.edges or not bins.n:
        return 0.0
    total = bins.below
    previous = bins.edges[0]
    for upper, count in zip(bins.edges, bins.counts, strict=True):
        if upper > edge:
            inside = (edge - previous) / (upper - previous) if upper > previous else 0.0
            part = 0.0 if bins.discrete else max(inside, 0.0) * count
            return (total + part) / bins.n
        total += count
        previous = upper
    return total / bins.n
