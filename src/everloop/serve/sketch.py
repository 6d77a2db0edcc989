"""How far what is asked now lies from what a version was trained on, counted beside the answers.

A request only leaves its rows; they are counted four times a second, and of a flood only the
first ones of each quarter, so that a sketch costs a request next to nothing. Old counts fade with
a half-life of an hour. Exact profiles, and alarms with a stated error, are made of the sealed log.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from everloop.core.wire import Scalar
from everloop.serve.decode import FloatArray, RowDecoder

FOLD_S: Final = 0.25
MOST_ROWS: Final = 512
HALF_LIFE_S: Final = 3_600.0
LEAST_ROWS: Final = 500.0
GROUPS: Final = 10
"""Groups of a numeric input, as is usual for the population stability index."""
Counts = list[list[float]]


class _Bins(msgspec.Struct):
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0


class _Categories(msgspec.Struct):
    counts: dict[str, int]


class _Column(msgspec.Struct):
    rows: int
    nulls: int = 0
    nans: int = 0
    bins: _Bins | None = None
    categories: _Categories | None = None


class _Profile(msgspec.Struct):
    columns: dict[str, _Column]


class Sketch:
    """Counts of the inputs of one version, beside those of its training data.

    Used by the event loop's thread.

    Attributes:
        counts: For each input the rows of each group, the last one for missing values; empty for
            an input of which the training profile says nothing.
    """

    def __init__(self, profile: bytes, decoder: RowDecoder) -> None:
        """Take over the training profile.

        Raises:
            msgspec.MsgspecError: it is none.
        """
        columns = msgspec.json.decode(profile, type=_Profile).columns
        self._decoder = decoder
        self._pending: list[tuple[Scalar, ...]] = []
        self._matrices: list[FloatArray] = []
        self._room = MOST_ROWS
        self._bounds: list[FloatArray | None] = []
        self._expected: list[list[float]] = []
        for field in decoder.fields:
            bounds, expected = _groups(columns.get(field.name), field.categories)
            self._bounds.append(bounds)
            self._expected.append(expected)
        self.counts: Counts = [[0.0] * len(expected) for expected in self._expected]

    def add(self, values: Sequence[tuple[Scalar, ...]] | None, matrix: FloatArray | None) -> None:
        """Leave rows to be counted, as they were sent or as a matrix."""
        room = self._room
        if room <= 0:
            return
        if values is not None:
            self._pending.extend(values[:room])
            self._room = room - len(values)
        elif matrix is not None:
            self._matrices.append(matrix[:room])
            self._room = room - len(matrix)

    def fold(self, took_s: float) -> None:
        """Count what was left, and let old counts fade.

        Args:
            took_s: Time since the last fold.
        """
        self._room = MOST_ROWS
        pending, self._pending = self._pending, []
        matrices, self._matrices = self._matrices, []
        if pending:
            matrices.append(self._decoder.to_numbers(pending))
        if not matrices:
            return
        rows = np.concatenate(matrices)
        kept = 0.5 ** (took_s / HALF_LIFE_S)
        for place, bounds in enumerate(self._bounds):
            if bounds is None:
                continue
            column, groups = rows[:, place], len(self._expected[place])
            found = np.searchsorted(bounds, column, side="left")
            found[np.isnan(column)] = groups - 1
            fresh = np.bincount(found, minlength=groups).tolist()
            self.counts[place] = [
                old * kept + new for old, new in zip(self.counts[place], fresh, strict=True)
            ]

    def drift(self, counts: Counts) -> dict[str, float]:
        """Return the population stability index of each input, of these counts.

        As the monitor's: half a row is added to each group, and the mean under no drift taken off,
        so that about 0 says "no drift". Inputs with fewer than 500 rows are left out.
        """
        found: dict[str, float] = {}
        for field, expected, seen in zip(self._decoder.fields, self._expected, counts, strict=True):
            if expected and sum(seen) >= LEAST_ROWS:
                found[field.name] = _stability(expected, seen)
        return found


def _stability(expected: Sequence[float], seen: Sequence[float]) -> float:
    n, m, half = sum(expected), sum(seen), 0.5 * len(expected)
    index = 0.0
    for before, now in zip(expected, seen, strict=True):
        p, q = (before + 0.5) / (n + half), (now + 0.5) / (m + half)
        index += (q - p) * math.log(q / p)
    # Its mean where nothing drifts, without which small windows would always seem to.
    return index - (len(expected) - 1) * (1.0 / n + 1.0 / m)


def _groups(
    column: _Column | None, categories: Sequence[str] | None
) -> tuple[FloatArray | None, list[float]]:
    """Return the upper bounds of an input's groups, and how many training rows each had."""
    if column is None:
        return None, []
    missing = float(column.nulls + column.nans)
    if column.bins is not None and column.bins.edges:
        return _numeric(column.bins, missing)
    if column.categories is not None and categories:
        known = [float(column.categories.counts.get(name, 0)) for name in categories]
        # The model takes names by their number: bounds between whole numbers, and one for the rest.
        bounds = np.arange(len(known), dtype=np.float64) + 0.5
        return bounds, [*known, 0.0, missing]
    return None, []


def _numeric(bins: _Bins, missing: float) -> tuple[FloatArray, list[float]]:
    """Join the fine bins of a profile to at most ten of about equal weight, as the monitor does."""
    counts = np.array((bins.below, *bins.counts, bins.above), dtype=np.float64)
    before = (np.cumsum(counts) - counts / 2.0) / max(counts.sum(), 1.0)
    group = np.minimum((before * GROUPS).astype(np.int64), GROUPS - 1)
    # The upper bound of a group is the edge of its last bin; the last group has none. What lies
    # below the first edge is a bin of its own, in front.
    edges = np.array((np.nextafter(bins.edges[0], -np.inf), *bins.edges), dtype=np.float64)
    bounds = edges[np.flatnonzero(np.diff(group))]
    weights = np.bincount(np.unique(group, return_inverse=True)[1], weights=counts)
    return bounds, [*weights.tolist(), missing]
