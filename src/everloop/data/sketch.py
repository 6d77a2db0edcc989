"""Numbers that summarise a numeric column and merge: exact moments, bins, quantile sketches.

Bins on edges frozen at a reference's quantiles merge exactly and are what drift is judged on.
The KLL sketch serves columns that have no reference yet; its error is bounded but not zero, and
beyond a few hundred values its bytes are not reproducible (it tosses coins), so no digest may
depend on it. Nothing here knows tables, files or clocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasketches
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from everloop.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

FloatArray = npt.NDArray[np.float64]

BIN_COUNT = 256
"""Edges per numeric reference column; the distribution function is known exactly at each."""

KLL_K = 200
"""Size of the quantile sketch: 1.33 % rank error at 99 % confidence, about 5 KB."""

LARGEST_MAGNITUDE = 1e150
"""Values beyond this count as infinite, because their squares would be."""


class Moments(Struct, frozen=True, kw_only=True):
    """Exact count, mean, squared deviations and extremes of finite values."""

    n: int
    mean: float
    m2: float
    total: float
    minimum: float
    maximum: float

    @property
    def variance(self) -> float:
        """The unbiased sample variance; zero below two values."""
        return self.m2 / (self.n - 1) if self.n > 1 else 0.0

    @property
    def deviation(self) -> float:
        """The sample standard deviation."""
        return float(np.sqrt(self.variance))


class Bins(Struct, frozen=True, kw_only=True):
    """Counts of values between frozen edges.

    ``counts[0]`` holds values equal to the first edge, ``counts[i]`` those in
    ``(edges[i - 1], edges[i]]``; ``below`` and ``above`` hold the values outside. So the
    distribution function is known exactly at every edge, ties included.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int
    above: int
    discrete: bool = False

    @property
    def n(self) -> int:
        """How many values were counted."""
        return self.below + sum(self.counts) + self.above

    def distribution(self) -> FloatArray:
        """Return the share of values at or below each edge, with the share below all in front."""
        cumulated = np.cumsum((self.below, *self.counts), dtype=np.float64)
        shares: FloatArray = cumulated / max(self.n, 1)
        return shares


def moments_of(values: FloatArray) -> Moments | None:
    """Return the moments of finite values, or None when there are none."""
    if values.size == 0:
        return None
    mean = float(values.mean())
    return Moments(
        n=int(values.size),
        mean=mean,
        m2=float(np.square(values - mean).sum()),
        total=float(values.sum()),
        minimum=float(values.min()),
        maximum=float(values.max()),
    )


def merge_moments(a: Moments | None, b: Moments | None) -> Moments | None:
    """Merge two sets of moments by the update of Chan, Golub and LeVeque (1983)."""
    if a is None or b is None:
        return a or b
    n = a.n + b.n
    gap = b.mean - a.mean
    return Moments(
        n=n,
        mean=(a.n * a.mean + b.n * b.mean) / n,
        m2=a.m2 + b.m2 + gap * gap * a.n * b.n / n,
        total=a.total + b.total,
        minimum=min(a.minimum, b.minimum),
        maximum=max(a.maximum, b.maximum),
    )


def edges_of(values: FloatArray) -> tuple[tuple[float, ...], bool]:
    """Return bin edges at the quantiles of finite values, and whether the column is discrete.

    A column of at most 256 distinct values gets each as an edge, so that its bins are its values;
    otherwise the edges are data values at equal ranks, ties taken once.
    """
    ordered = np.sort(values)
    distinct = np.unique(ordered)
    if distinct.size <= BIN_COUNT:
        return tuple(distinct.tolist()), bool(0 < distinct.size * 2 <= ordered.size)
    ranks = np.linspace(0, ordered.size - 1, BIN_COUNT).round().astype(np.int64)
    return tuple(np.unique(ordered[ranks]).tolist()), False


def count_in_bins(values: FloatArray, edges: Sequence[float], *, discrete: bool) -> Bins:
    """Count finite values between frozen edges."""
    # Sorting and looking the edges up is several times faster than looking each value up.
    ordered = np.sort(values)
    frozen = np.asarray(edges, dtype=np.float64)
    below = int(np.searchsorted(ordered, frozen[0], side="left")) if frozen.size else 0
    at_most = np.searchsorted(ordered, frozen, side="right")
    return Bins(
        edges=tuple(edges),
        counts=tuple(np.diff(at_most, prepend=below).tolist()),
        below=below,
        above=ordered.size - (int(at_most[-1]) if frozen.size else 0),
        discrete=discrete,
    )


def merge_bins(a: Bins | None, b: Bins | None) -> Bins | None:
    """Add the counts of two sets of bins on the same edges.

    Raises:
        InvalidInput: ``profile.other_reference`` when the edges differ.
    """
    if a is None or b is None:
        return a or b
    if a.edges != b.edges:
        raise InvalidInput(
            "profile.other_reference",
            "Two profiles were counted in bins of different references and cannot be merged.",
            hint="Profile both against the same reference.",
        )
    return Bins(
        edges=a.edges,
        counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)),
        below=a.below + b.below,
        above=a.above + b.above,
        discrete=a.discrete,
    )


def quantile_in_bins(bins: Bins, moments: Moments, share: float) -> float:
    """Estimate the quantile at a share from bins; exact where the column is discrete."""
    shares = bins.distribution()
    if bins.discrete:
        candidates = (moments.minimum, *bins.edges, moments.maximum)
        at = int(np.searchsorted((*shares, 1.0), share - 1e-12, side="left"))
        return float(candidates[min(at, len(candidates) - 1)])
    points = np.array((moments.minimum, *bins.edges, moments.maximum))
    ranks = np.append(np.concatenate(([0.0], shares[1:])), 1.0)
    points = np.clip(np.maximum.accumulate(points), moments.minimum, moments.maximum)
    return float(np.interp(share, ranks, points))


def sketch_of(values: FloatArray) -> bytes:
    """Return a serialised KLL sketch of finite values (Karnin, Lang, Liberty 2016)."""
    sketch = datasketches.kll_doubles_sketch(KLL_K)
    if values.size:
        sketch.update(np.ascontiguousarray(values))
    return bytes(sketch.serialize())


def merge_sketches(a: bytes, b: bytes) -> bytes:
    """Merge two serialised KLL sketches; the error bound holds for the result."""
    merged = _read_sketch(a)
    merged.merge(_read_sketch(b))
    return bytes(merged.serialize())


def quantile_in_sketch(sketch: bytes, share: float) -> float:
    """Estimate the quantile at a share from a KLL sketch that saw at least one value."""
    return float(_read_sketch(sketch).get_quantile(share))


def _read_sketch(data: bytes) -> datasketches.kll_doubles_sketch:
    try:
        return datasketches.kll_doubles_sketch.deserialize(data)
    except (RuntimeError, ValueError, IndexError) as error:
        raise InvalidInput(
            "profile.sketch_unreadable",
            f"A quantile sketch cannot be read: {error}.",
            hint="Make the profile again from its data.",
        ) from error
