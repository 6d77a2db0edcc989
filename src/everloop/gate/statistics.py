"""Is the challenger better than the champion, on the same rows?

Losses are compared row by row, and rows of one block (a day, a customer) stand and fall together:
neighbouring errors are alike, and a test that takes them as independent is far too sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from everloop.core.errors import InvalidInput
from everloop.gate.adapters.scipy_t import t_lower_tail, t_quantile

FloatArray: TypeAlias = npt.NDArray[np.float64]
Method: TypeAlias = Literal["sign_flip", "t"]
BlockIds: TypeAlias = Sequence[object] | npt.NDArray[np.generic]

# The p-value, the ends of the interval, and the smallest p-value possible.
_Outcome: TypeAlias = tuple[float, float | None, float | None, float]

EXACT_BLOCKS = 13
"""Up to so many blocks every assignment of signs is tried."""

DRAWS = 9_999
SEED = 20110101
_RUNS = 200
_MOST_BLOCKS = 2_000


class PairedResult(Struct, frozen=True, kw_only=True):
    """The comparison of two models on the same rows; negative differences favour the challenger.

    Attributes:
        mean_difference: Mean loss of the challenger minus that of the champion, over rows.
        ci_low: Lower end of the two-sided confidence interval at ``1 - alpha``; None where so few
            blocks give no bound.
        ci_high: Upper end, likewise.
        p_value: One-sided, against "the challenger is worse by the margin or more".
        significant: Whether the p-value is at most ``alpha``.
        smallest_p: The smallest p-value that so few blocks can give at all.
        n: Rows.
        blocks: Independent blocks of rows.
        margin: How much worse is still accepted; 0 asks for better, below 0 for better by that.
        alpha: The error level.
        method: The test.
    """

    mean_difference: float
    ci_low: float | None
    ci_high: float | None
    p_value: float
    significant: bool
    smallest_p: float
    n: int
    blocks: int
    margin: float
    alpha: float
    method: Method


def paired_test(
    loss_champion: npt.ArrayLike,
    loss_challenger: npt.ArrayLike,
    *,
    blocks: BlockIds | None = None,
    alpha: float = 0.05,
    margin: float = 0.0,
    method: Method = "sign_flip",
) -> PairedResult:
    """Test whether the challenger's mean loss is below the champion's plus a margin.

    Without blocks the rows, in their order, are cut into at most 200 runs of equal length. The
    sign-flip test is exact up to 13 blocks and by 9,999 seeded draws above; it assumes that a
    block's difference is symmetric around its mean, and its interval is made of Hartigan's
    typical values (1969). The t-test needs SciPy.

    Raises:
        InvalidInput: ``gate.bad_losses`` or ``gate.bad_level``.
        MissingExtra: the t-test was asked for and SciPy is not installed.
    """
    champion = np.asarray(loss_champion, dtype=np.float64)
    challenger = np.asarray(loss_challenger, dtype=np.float64)
    _require_comparable(champion, challenger, blocks)
    if not (0.0 < alpha < 1.0 and np.isfinite(margin)):
        raise InvalidInput(
            "gate.bad_level",
            f"An error level of {alpha} with a margin of {margin} has no meaning.",
            hint="Use a level between 0 and 1, such as 0.05, and a finite margin.",
        )
    difference = challenger - champion
    totals = _block_values(difference, blocks)
    if totals.size < 2:
        raise _bad_losses("all rows are one block, and one block has no spread")
    run = _sign_flip if method == "sign_flip" else _student
    p, low, high, smallest = run(totals, margin, alpha)
    return PairedResult(
        mean_difference=float(difference.mean()),
        ci_low=low,
        ci_high=high,
        p_value=p,
        significant=p <= alpha,
        smallest_p=smallest,
        n=int(difference.size),
        blocks=int(totals.size),
        margin=margin,
        alpha=alpha,
        method=method,
    )


def _block_values(difference: FloatArray, blocks: BlockIds | None) -> FloatArray:
    """Return one value for each block, so weighted that their mean is the mean over rows."""
    if blocks is None:
        runs = min(_RUNS, difference.size)
        ids = (np.arange(difference.size) * runs) // difference.size
    else:
        _, first, inverse = np.unique(np.asarray(blocks), return_index=True, return_inverse=True)
        # Numbered by first appearance, so that neighbours stay neighbours if they must be joined.
        ids = np.argsort(np.argsort(first))[inverse]
        count = first.size
        if count > _MOST_BLOCKS:
            ids = (ids * _MOST_BLOCKS) // count
    sums: FloatArray = np.bincount(ids, weights=difference).astype(np.float64)
    scale = sums.size / difference.size
    return sums * scale


def _sign_flip(values: FloatArray, margin: float, alpha: float) -> _Outcome:
    """Flip the signs of whole blocks; the interval inverts the test.

    With signs s, ``mean(s (y - m)) <= mean(y - m)`` holds exactly where m is at most the mean of
    the flipped blocks: so p-values and limits are ranks among means of subsets.
    """
    n = values.size
    if n <= EXACT_BLOCKS:
        codes = np.arange(1, 2**n)
        flipped = (codes[:, None] >> np.arange(n)) & 1
        means = (flipped @ values) / flipped.sum(axis=1)
    else:
        means = _subset_means(values)
    means.sort()
    at_or_above = means.size - int(np.searchsorted(means, margin, side="left"))
    p = (1 + at_or_above) / (1 + means.size)
    # The k-th typical value from either end leaves k / (count + 1) outside.
    k = int(np.floor((1 + means.size) * alpha / 2.0))
    low, high = (float(means[k - 1]), float(means[-k])) if k >= 1 else (None, None)
    return p, low, high, 1 / (1 + means.size)


def _subset_means(values: FloatArray) -> FloatArray:
    rng = np.random.default_rng(SEED)
    parts = []
    for start in range(0, DRAWS, 1_000):
        rows = min(1_000, DRAWS - start)
        flipped = rng.integers(0, 2, size=(rows, values.size), dtype=np.int8)
        # The empty subset is the observed arrangement itself, counted by the 1 in the p-value.
        flipped[flipped.sum(axis=1) == 0, 0] = 1
        chosen = flipped.astype(np.float64)
        parts.append((chosen @ values) / chosen.sum(axis=1))
    means: FloatArray = np.concatenate(parts)
    return means


def _student(values: FloatArray, margin: float, alpha: float) -> _Outcome:
    n = values.size
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(n))
    if error == 0.0:
        return (0.0 if mean < margin else 1.0), mean, mean, 0.0
    half = t_quantile(1.0 - alpha / 2.0, n - 1) * error
    return t_lower_tail((mean - margin) / error, n - 1), mean - half, mean + half, 0.0


def _require_comparable(
    champion: FloatArray, challenger: FloatArray, blocks: BlockIds | None
) -> None:
    if champion.ndim != 1 or champion.shape != challenger.shape:
        raise _bad_losses(f"they have shapes {champion.shape} and {challenger.shape}")
    if champion.size < 2:
        raise _bad_losses(f"there are only {champion.size} rows")
    if not (np.isfinite(champion).all() and np.isfinite(challenger).all()):
        raise _bad_losses("some are not finite numbers")
    if blocks is not None and len(blocks) != champion.size:
        raise _bad_losses(f"{len(blocks)} block ids were given for {champion.size} rows")


def _bad_losses(what: str) -> InvalidInput:
    return InvalidInput(
        "gate.bad_losses",
        f"The losses of the two models cannot be compared: {what}.",
        hint="Score both models on the same holdout rows, in the same order.",
    )
