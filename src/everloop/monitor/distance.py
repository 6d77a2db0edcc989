"""How far two distributions are apart, from their bins, moments and category counts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from everloop.data.profile import ColumnProfile, quantile

if TYPE_CHECKING:
    from everloop.data.sketch import Bins, FloatArray, Moments

_PSI_BINS = 10
_NORMAL_IQR = 1.349


def ks_distance(a: Bins, b: Bins) -> tuple[float, float]:
    """Return the Kolmogorov-Smirnov distance at the edges, and its resolution.

    The distance over all values lies between the first number and its sum with the second; on a
    discrete column the bins are the values and the resolution is zero.
    """
    f, g = a.distribution(), b.distribution()
    at_edges = float(np.abs(f - g).max())
    if a.discrete:
        return at_edges, 0.0
    f, g = np.append(f, 1.0), np.append(g, 1.0)
    # Between two edges each function moves from its left to its right value.
    inside = max(float((f[1:] - g[:-1]).max()), float((g[1:] - f[:-1]).max()))
    return at_edges, max(inside - at_edges, 0.0)


def wasserstein_distance(a: Bins, b: Bins, of_a: Moments, of_b: Moments) -> float:
    """Return the 1-Wasserstein distance, at least the exact distance of the means.

    Distribution functions are taken as linear between the edges, as steps on a discrete column.
    What lies outside of the edges is not known by its distribution but by what it does to the
    exact means: the part of their distance that the edges do not explain.
    """
    signed = a.distribution()[1:] - b.distribution()[1:]
    gap = np.abs(signed)
    widths = np.diff(np.asarray(a.edges))
    if a.discrete:
        inside, moved = float(widths @ gap[:-1]), float(widths @ signed[:-1])
    else:
        inside = float(widths @ (gap[:-1] + gap[1:]) / 2.0)
        moved = float(widths @ (signed[:-1] + signed[1:]) / 2.0)
    means = of_b.mean - of_a.mean
    if a.below + a.above + b.below + b.above:
        inside += abs(means - moved)
    # Kantorovich's duality: the distance of the means is a lower bound.
    return max(inside, abs(means))


def robust_unit(reference: ColumnProfile) -> float:
    """Return the unit in which shifts are read: a standard deviation that outliers cannot swell.

    The smaller of the standard deviation and the normal equivalent of the interquartile range,
    whichever is positive; a constant column is measured by its own size.
    """
    moments = reference.moments
    assert moments is not None
    low, high = quantile(reference, 0.25), quantile(reference, 0.75)
    spread = (high - low) / _NORMAL_IQR if low is not None and high is not None else 0.0
    candidates = [value for value in (moments.deviation, spread) if value > 0.0]
    return min(candidates) if candidates else max(abs(moments.mean), 1.0)


def jensen_shannon(a: FloatArray, b: FloatArray) -> float:
    """Return the Jensen-Shannon distance (root of the divergence in bits) of two counts."""
    p, q = a / a.sum(), b / b.sum()
    middle = (p + q) / 2.0

    def divergence(x: FloatArray) -> float:
        held = x > 0
        return float((x[held] * np.log2(x[held] / middle[held])).sum())

    return float(np.sqrt(max((divergence(p) + divergence(q)) / 2.0, 0.0)))


def cramers_v(a: FloatArray, b: FloatArray) -> float:
    """Return Cramer's V of two counts as if both samples were of one size.

    Weighting them by their rows would hide any shift of a small window behind a large reference.
    """
    p, q = a / a.sum(), b / b.sum()
    held = (p + q) > 0
    return float(np.sqrt((np.square(p - q)[held] / (p + q)[held]).sum() / 2.0))


def chi_square(
    a: FloatArray, b: FloatArray, rare: tuple[float, float] = (0.0, 0.0)
) -> tuple[float, int]:
    """Return the chi-square statistic of homogeneity and its degrees of freedom.

    Categories expected fewer than five times in a sample are pooled into one, with ``rare``: rows
    of both samples whose categories are too rare to have a name.
    """
    a, b = _pool(a, b, rare)
    if a.size < 2:
        return 0.0, 0
    both = a + b
    statistic = 0.0
    for counts in (a, b):
        expected = both * counts.sum() / both.sum()
        statistic += float((np.square(counts - expected) / expected).sum())
    return statistic, a.size - 1


def stability_index(a: FloatArray, b: FloatArray) -> float:
    """Return the population stability index with its mean under no drift subtracted.

    Under no drift the index itself is about ``(bins - 1) (1/n + 1/m)``, so the usual limits .1
    and .25 mean nothing in small windows; around zero this one says "no drift".
    """
    n, m = a.sum(), b.sum()
    p, q = (a + 0.5) / (n + 0.5 * a.size), (b + 0.5) / (m + 0.5 * b.size)
    index = float(((p - q) * np.log(p / q)).sum())
    return index - float((a.size - 1) * (1.0 / n + 1.0 / m))


def coarse_counts(reference: Bins, window: Bins) -> tuple[FloatArray, FloatArray]:
    """Group bins into at most ten of about equal reference weight."""
    a = np.array((reference.below, *reference.counts, reference.above), dtype=np.float64)
    b = np.array((window.below, *window.counts, window.above), dtype=np.float64)
    before = (np.cumsum(a) - a / 2.0) / max(a.sum(), 1.0)
    group = np.minimum((before * _PSI_BINS).astype(np.int64), _PSI_BINS - 1)
    _, slots = np.unique(group, return_inverse=True)
    return _sum_by(slots, a), _sum_by(slots, b)


def _sum_by(slots: npt.NDArray[np.intp], counts: FloatArray) -> FloatArray:
    summed: FloatArray = np.bincount(slots, weights=counts).astype(np.float64)
    return summed


def _pool(a: FloatArray, b: FloatArray, rare: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    held = (a + b) > 0
    a, b = a[held], b[held]
    order = np.argsort(a + b, kind="stable")
    a, b = np.concatenate(([rare[0]], a[order])), np.concatenate(([rare[1]], b[order]))
    smaller = min(a.sum(), b.sum()) / max(a.sum() + b.sum(), 1.0)
    expected = (a + b) * smaller
    # The pool stands in front; it takes in what is rare, and then more until it is not.
    size = 1 + int(np.count_nonzero(expected[1:] < 5.0))
    if expected[:size].sum() == 0.0:
        return a[1:], b[1:]
    while size < a.size and expected[:size].sum() < 5.0:
        size += 1
    return (
        np.concatenate(([a[:size].sum()], a[size:])),
        np.concatenate(([b[:size].sum()], b[size:])),
    )
