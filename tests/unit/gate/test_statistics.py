from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import scipy.stats

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput
from everloop.gate.statistics import PairedResult, paired_test


def losses(
    rng: np.random.Generator, days: int, *, better: float = 0.0, shared: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hourly losses whose differences are alike within a day."""
    day = np.repeat(np.arange(days), 24)
    champion = rng.exponential(size=days * 24)
    moved = rng.normal(scale=shared, size=days)[day] + rng.normal(scale=0.3, size=days * 24)
    return champion, champion + moved - better, day


def interval_of(result: PairedResult) -> tuple[float, float]:
    assert result.ci_low is not None
    assert result.ci_high is not None
    return result.ci_low, result.ci_high


def test_equal_models_are_called_different_no_more_often_than_stated() -> None:
    rng, runs = np.random.default_rng(61), 120

    results = [
        paired_test(*losses(rng, 10)[:2], blocks=np.repeat(np.arange(10), 24)) for _ in range(runs)
    ]

    false = sum(result.significant for result in results) / runs
    covered = sum(low <= 0.0 <= high for low, high in map(interval_of, results)) / runs
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert covered >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / runs)


def test_rows_that_are_alike_within_a_day_need_blocks() -> None:
    """Mutation: taken as independent, the same rows give false wins all the time."""
    rng = np.random.default_rng(62)
    shuffled = 0
    for _ in range(40):
        champion, challenger, _ = losses(rng, 20)
        order = rng.permutation(champion.size)
        shuffled += paired_test(champion[order], challenger[order]).significant

    assert shuffled / 40 > 0.2


def test_a_better_challenger_wins_and_a_worse_one_does_not() -> None:
    rng = np.random.default_rng(63)
    champion, challenger, day = losses(rng, 40, better=0.4)

    wins = paired_test(champion, challenger, blocks=day)
    loses = paired_test(challenger, champion, blocks=day)

    assert wins.significant
    assert not loses.significant
    assert wins.mean_difference == pytest.approx(np.mean(challenger - champion))
    low, high = interval_of(wins)
    assert low < wins.mean_difference < high < 0.0
    assert wins.blocks == 40


def test_the_sign_flip_test_is_exact_for_few_blocks() -> None:
    values = np.array([-1.0, -2.0, -3.0, 0.5, -1.5])

    result = paired_test(np.zeros(5), values, blocks=list("abcde"))

    expected = scipy.stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="less", n_resamples=np.inf
    )
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.smallest_p == 1 / 32


def test_both_methods_agree_where_both_are_right() -> None:
    rng = np.random.default_rng(64)
    champion, challenger, day = losses(rng, 60, better=0.1)

    flip = paired_test(champion, challenger, blocks=day)
    student = paired_test(champion, challenger, blocks=day, method="t")

    assert flip.p_value == pytest.approx(student.p_value, abs=0.01)
    assert interval_of(flip) == pytest.approx(interval_of(student), abs=0.02)


def test_the_t_test_on_equal_blocks_is_scipys() -> None:
    rng = np.random.default_rng(65)
    champion, challenger, day = losses(rng, 12, better=0.1)
    by_day = (challenger - champion).reshape(12, 24).mean(axis=1)

    result = paired_test(champion, challenger, blocks=day, method="t", margin=0.05)

    expected = scipy.stats.ttest_1samp(by_day, 0.05, alternative="less")
    interval = scipy.stats.ttest_1samp(by_day, 0.0).confidence_interval(0.95)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert (result.ci_low, result.ci_high) == pytest.approx((interval.low, interval.high))


def test_an_equal_challenger_passes_when_a_margin_is_granted() -> None:
    rng = np.random.default_rng(66)
    champion, challenger, day = losses(rng, 60, shared=0.1)

    assert not paired_test(champion, challenger, blocks=day).significant
    assert paired_test(champion, challenger, blocks=day, margin=0.1).significant


def test_a_model_is_not_better_than_itself() -> None:
    loss = np.random.default_rng(67).exponential(size=500)

    result = paired_test(loss, loss)

    assert (result.p_value, result.mean_difference, result.blocks) == (1.0, 0.0, 200)


def test_the_result_is_the_same_every_time_and_survives_json() -> None:
    rng = np.random.default_rng(68)
    champion, challenger, day = losses(rng, 30)

    one, two = (paired_test(champion, challenger, blocks=day) for _ in range(2))
    few = paired_test(champion[:48], challenger[:48], blocks=day[:48])
    assert (few.ci_low, few.ci_high, few.smallest_p) == (None, None, 0.25)

    assert one == two
    for result in (one, few):
        assert msgspec.json.decode(canonical_json(result), type=PairedResult) == result


def test_blocks_may_be_days_as_text_and_very_many() -> None:
    champion, challenger = np.zeros(6_000), np.full(6_000, -1.0)
    days = [f"day {i // 2}" for i in range(6_000)]

    result = paired_test(champion, challenger, blocks=days)

    assert (result.blocks, result.significant) == (2_000, True)
    assert result.mean_difference == -1.0


@pytest.mark.parametrize(
    ("champion", "challenger", "options"),
    [
        ([1.0, 2.0], [1.0], {}),
        ([1.0], [1.0], {}),
        ([1.0, math.nan], [1.0, 2.0], {}),
        ([1.0, 2.0], [1.0, 2.0], {"blocks": ["a", "a"]}),
        ([1.0, 2.0], [1.0, 2.0], {"blocks": ["a"]}),
        ([1.0, 2.0], [1.0, 2.0], {"alpha": 0.0}),
    ],
)
def test_losses_that_cannot_be_compared_are_refused(
    champion: list[float], challenger: list[float], options: dict[str, object]
) -> None:
    with pytest.raises(InvalidInput):
        paired_test(champion, challenger, **options)  # type: ignore[arg-type]
