from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput
from everloop.monitor.edetector import EDetector, restart, start_detector, update, update_all

UNIT = st.lists(st.floats(0, 1), max_size=40)


@settings(max_examples=60, deadline=None)
@given(UNIT, UNIT)
def test_taking_in_many_values_equals_one_by_one_wherever_it_is_cut(
    first: list[float], second: list[float]
) -> None:
    one = start_detector(0.3, 20.0)
    for x in first + second:
        one = update(one, x)

    many = update_all(update_all(start_detector(0.3, 20.0), first), second)

    assert (many.seen, many.alarm_at) == (one.seen, one.alarm_at)
    assert many.log_statistics == pytest.approx(one.log_statistics, abs=1e-9)


def test_the_average_run_length_is_at_least_the_threshold() -> None:
    rng = np.random.default_rng(31)
    lengths = []
    for _ in range(100):
        state = update_all(start_detector(0.2, 100.0), rng.random(3_000) < 0.2)
        lengths.append(state.alarm_at or 3_000)

    assert np.mean(lengths) >= 100 * 3  # the CUSUM kind is far on the safe side of its bound


def test_a_rise_of_the_error_rate_is_found_about_as_fast_as_published() -> None:
    delays, early = [], 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        stream = np.concatenate((rng.random(2_000) < 0.2, rng.random(1_000) < 0.3))
        alarm_at = update_all(start_detector(0.2, 1_000.0), stream).alarm_at
        assert alarm_at is not None
        early += alarm_at <= 2_000
        if alarm_at > 2_000:
            delays.append(alarm_at - 2_000)

    assert early <= 12
    assert np.median(delays) <= 187 * 1.3


def test_it_holds_for_any_bounded_loss_not_only_for_errors() -> None:
    rng = np.random.default_rng(32)
    quiet = [update_all(start_detector(0.25, 500.0), rng.beta(1, 3, 2_000)) for _ in range(30)]
    risen = update_all(quiet[0], rng.beta(2, 3, 200))

    assert sum(state.alarm for state in quiet) <= 6
    assert risen.alarm


def test_an_alarm_stays_until_the_restart() -> None:
    state = update_all(start_detector(0.1, 50.0), [1.0] * 20)
    calm = update_all(state, [0.0] * 500)

    assert state.alarm_at == calm.alarm_at is not None
    assert restart(calm) == start_detector(0.1, 50.0)


def test_it_goes_on_from_its_json() -> None:
    state = update_all(start_detector(0.2, 1e6), [0.1, 0.9, 0.4])

    read = msgspec.json.decode(canonical_json(state), type=EDetector)

    assert update(read, 0.7) == update(state, 0.7)
    assert math.isfinite(update_all(state, [1.0] * 100_000).log_statistic)


@pytest.mark.parametrize("x", [-0.01, 1.01, math.nan, math.inf])
def test_a_value_out_of_range_is_refused(x: float) -> None:
    state = start_detector(0.2, 100.0)

    with pytest.raises(InvalidInput):
        update(state, x)
    with pytest.raises(InvalidInput):
        update_all(state, [0.5, x])


@pytest.mark.parametrize(
    ("mean", "length"), [(0.0, 10.0), (1.0, 10.0), (0.2, 1.0), (0.2, math.nan)]
)
def test_impossible_settings_are_refused(mean: float, length: float) -> None:
    with pytest.raises(InvalidInput):
        start_detector(mean, length)
