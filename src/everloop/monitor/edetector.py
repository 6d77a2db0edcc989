"""A change detector for bounded losses that says how often it cries wolf.

The CUSUM-type e-detector of Shin, Ramdas and Rinaldo (2023): as long as the mean of each value,
given the values before it, is at most the null mean, the expected time to a false alarm is at
least the threshold. No distribution, no independence is assumed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from everloop.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_BETS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares of the largest safe bet; small ones find small changes, large ones find big ones fast."""


class EDetector(Struct, frozen=True, kw_only=True):
    """The state of one detector: a value that can be stored and taken up again.

    Attributes:
        null_mean: The mean, between 0 and 1, that is still in order.
        threshold: The alarm level, which is also the least average run length to a false alarm.
        bets: Shares of the largest safe bet, mixed with equal weights.
        log_statistics: The logarithm of each bet's statistic; empty before the first value.
        seen: How many values were taken in since the start.
        alarm_at: Which value, counted from one, first reached the threshold.
    """

    null_mean: float
    threshold: float
    bets: tuple[float, ...]
    log_statistics: tuple[float, ...] = ()
    seen: int = 0
    alarm_at: int | None = None

    @property
    def log_statistic(self) -> float:
        """The logarithm of the mixture; minus infinity before the first value."""
        if not self.log_statistics:
            return -math.inf
        return _log_mean(self.log_statistics)

    @property
    def alarm(self) -> bool:
        """Whether the threshold was reached since the start; it stays so until a restart."""
        return self.alarm_at is not None


def start_detector(
    null_mean: float, threshold: float, *, bets: tuple[float, ...] = DEFAULT_BETS
) -> EDetector:
    """Return a detector that has seen nothing.

    Raises:
        InvalidInput: ``detector.bad_setting``.
    """
    if not 0.0 < null_mean < 1.0:
        raise _bad_setting(f"the mean that is in order is {null_mean}, not between 0 and 1")
    if not 1.0 < threshold < math.inf:
        raise _bad_setting(f"the average run length is {threshold}, not above 1")
    if not bets or not all(0.0 < bet < 1.0 for bet in bets):
        raise _bad_setting(f"the bets are {bets}, not shares between 0 and 1")
    return EDetector(null_mean=null_mean, threshold=threshold, bets=bets)


def update(state: EDetector, x: float) -> EDetector:
    """Take in one value in [0, 1].

    Raises:
        InvalidInput: ``detector.out_of_range``.
    """
    _require_unit(x)
    before = state.log_statistics or (0.0,) * len(state.bets)
    after = tuple(
        math.log1p(bet * (x / state.null_mean - 1.0)) + max(log, 0.0)
        for bet, log in zip(state.bets, before, strict=True)
    )
    seen = state.seen + 1
    alarm_at = state.alarm_at
    if alarm_at is None and _log_mean(after) >= math.log(state.threshold):
        alarm_at = seen
    return replace(state, log_statistics=after, seen=seen, alarm_at=alarm_at)


def update_all(state: EDetector, values: Iterable[float]) -> EDetector:
    """Take in many values in their order; equal to updating with each, but vectorised.

    Raises:
        InvalidInput: ``detector.out_of_range``.
    """
    x = np.asarray(list(values), dtype=np.float64)
    if not x.size:
        return state
    if not ((x >= 0.0) & (x <= 1.0)).all():
        _require_unit(float(x[~((x >= 0.0) & (x <= 1.0))][0]))
    bets = np.asarray(state.bets)
    steps = np.log1p(np.outer(x / state.null_mean - 1.0, bets))
    sums = np.cumsum(steps, axis=0)
    # max(W, 0) + step, unrolled: the sum since the lowest point, or since the start from W.
    carried = np.maximum(np.asarray(state.log_statistics or (0.0,) * bets.size), 0.0)
    lowest = np.minimum.accumulate(np.vstack((-carried, sums[:-1])), axis=0)
    paths = sums - lowest
    peaks = paths.max(axis=1)
    mixed = peaks + np.log(np.exp(paths - peaks[:, None]).mean(axis=1))
    alarm_at = state.alarm_at
    crossed = np.flatnonzero(mixed >= math.log(state.threshold))
    if alarm_at is None and crossed.size:
        alarm_at = state.seen + int(crossed[0]) + 1
    return replace(
        state,
        log_statistics=tuple(paths[-1].tolist()),
        seen=state.seen + x.size,
        alarm_at=alarm_at,
    )


def restart(state: EDetector) -> EDetector:
    """Forget what was seen, after an alarm was dealt with; settings stay."""
    return start_detector(state.null_mean, state.threshold, bets=state.bets)


def _log_mean(logs: tuple[float, ...]) -> float:
    peak = max(logs)
    return peak + math.log(sum(math.exp(log - peak) for log in logs) / len(logs))


def _require_unit(x: float) -> None:
    if not 0.0 <= x <= 1.0:
        raise InvalidInput(
            "detector.out_of_range",
            f"{x} is not a loss between 0 and 1.",
            hint="Divide the loss by its bound, or count it as 1 where it exceeds the bound.",
        )


def _bad_setting(what: str) -> InvalidInput:
    return InvalidInput(
        "detector.bad_setting",
        f"A detector cannot start: {what}.",
        hint="Give the mean loss that is in order and the average run length that you can bear.",
    )
