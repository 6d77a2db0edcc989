"""Tail probabilities from SciPy, the extra ``stats``.

Only ``scipy.special`` is imported: it is ten times lighter than ``scipy.stats``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from everloop.core.errors import MissingExtra

if TYPE_CHECKING:
    from types import ModuleType

_LARGEST_EXACT = 20_000


def two_sample_ks_tail(distance: float, n: int, m: int) -> float:
    """Return the two-sided p-value of a Kolmogorov-Smirnov distance between two samples.

    The effective size ``n m / (n + m)`` stands for the size of one sample. Up to 20,000 twice the
    exact one-sided tail of Smirnov is used, which is never below the two-sided tail and equal to
    it wherever it is small; above, Kolmogorov's limit.
    """
    special = _special()
    size = n * m / (n + m)
    if size <= _LARGEST_EXACT:
        return min(1.0, 2.0 * float(special.smirnov(max(round(size), 1), min(distance, 1.0))))
    return float(special.kolmogorov(math.sqrt(size) * distance))


def chi_square_tail(statistic: float, freedom: int) -> float:
    """Return the probability that a chi-square variable exceeds the statistic."""
    return float(_special().chdtrc(freedom, statistic))


def student_two_sided(t: float, freedom: float) -> float:
    """Return the two-sided p-value of Student's t with any positive degrees of freedom."""
    return 2.0 * float(_special().stdtr(freedom, -abs(t)))


def binomial_two_sided(k: int, n: int, share: float) -> float:
    """Return twice the smaller tail of ``k`` successes in ``n`` trials, at most 1."""
    special = _special()
    at_least = 1.0 if k == 0 else float(special.betainc(k, n - k + 1, share))
    at_most = 1.0 if k == n else float(special.betaincc(k + 1, n - k, share))
    return min(1.0, 2.0 * min(at_least, at_most))


def _special() -> ModuleType:
    try:
        from scipy import special
    except ImportError as error:
        raise MissingExtra(
            "extra.stats_missing",
            "Drift tests need SciPy, which is not installed.",
            hint='Install it with `pip install "everloop[stats]"`.',
        ) from error
    module: ModuleType = special
    return module
