from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput
from everloop.data.profile import make_reference, merge, profile_table
from everloop.monitor import drift
from everloop.monitor.adapters import scipy_tests
from everloop.monitor.distance import (
    chi_square,
    cramers_v,
    jensen_shannon,
    ks_distance,
    stability_index,
    wasserstein_distance,
)
from everloop.monitor.drift import DriftReport, Floors, benjamini_hochberg

Columns = dict[str, object]


def draw(rng: np.random.Generator, rows: int) -> pa.Table:
    return pa.table(
        {
            **{f"n{i}": rng.normal(size=rows) for i in range(6)},
            **{f"e{i}": rng.exponential(size=rows) for i in range(2)},
            "hour": rng.integers(0, 24, size=rows),
            "age": rng.integers(17, 90, size=rows),
            "rare": rng.choice(list("abcdefghij"), size=rows, p=[0.91] + [0.01] * 9),
            "zipf": [f"z{v}" for v in np.minimum(rng.zipf(1.6, size=rows), 5_000)],
            "even": rng.choice(["x", "y", "z"], size=rows),
            "gaps": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.1),
        }
    )


EVERY_CHANGE = Floors(ks=0, w1_sd=0, js=0, cramers_v=0, missing=0)
TRAINED = draw(np.random.default_rng(7), 10_000)
REFERENCE = make_reference(TRAINED)
BASE = profile_table(TRAINED, REFERENCE)


def judge(window: pa.Table, **options: object) -> DriftReport:
    return drift.detect_drift(BASE, profile_table(window, REFERENCE), **options)  # type: ignore[arg-type]


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def test_windows_without_drift_hardly_ever_alarm() -> None:
    rng = np.random.default_rng(11)
    references = []
    for _ in range(10):  # a fresh reference now and then: one bad draw must not decide
        trained = draw(rng, 4_000)
        reference = make_reference(trained)
        references.append((reference, profile_table(trained, reference)))

    alarms = 0
    for i in range(200):
        reference, base = references[i % 10]
        window = profile_table(draw(rng, 400), reference)
        alarms += drift.detect_drift(base, window, floors=EVERY_CHANGE).alarm

    # At most alpha = 5 % and three standard errors; floors are off, so BH alone holds it.
    assert alarms <= 200 * 0.05 + 3 * (200 * 0.05 * 0.95) ** 0.5


def test_a_unit_error_in_one_column_of_many_is_found_and_named() -> None:
    window = draw(np.random.default_rng(12), 300)
    months = np.asarray(window["age"]) * 12

    report = judge(with_column(window, "age", months))

    assert report.drifted == ("age",)
    (column,) = [c for c in report.columns if c.column == "age"]
    effects = {name: value for test in column.tests for name, value in test.effects.items()}
    assert effects["w1_sd"] == pytest.approx(effects["mean_sd"], rel=0.01)
    assert effects["w1_sd"] > 20
    assert column.window_mean == pytest.approx(12 * 53, rel=0.1)


def test_a_small_shift_of_the_mean_is_found_by_exact_moments() -> None:
    rng = np.random.default_rng(13)
    window = draw(rng, 20_000)
    shifted = with_column(window, "n3", rng.normal(loc=0.15, size=20_000))

    assert judge(shifted).drifted == ("n3",)


def test_a_significant_but_tiny_change_is_no_alarm() -> None:
    rng = np.random.default_rng(14)
    trained = pa.table({"x": rng.normal(size=200_000)})
    reference = make_reference(trained)
    moved = pa.table({"x": rng.normal(loc=0.03, size=200_000)})

    report = drift.detect_drift(profile_table(trained, reference), profile_table(moved, reference))

    assert report.columns[0].adjusted_p < 1e-6
    assert not report.alarm


def test_a_change_of_spread_alone_is_found() -> None:
    rng = np.random.default_rng(15)
    window = with_column(draw(rng, 3_000), "n0", rng.normal(scale=1.5, size=3_000))

    assert judge(window).drifted == ("n0",)


def test_a_change_of_shares_among_categories_is_found() -> None:
    rng = np.random.default_rng(16)
    window = draw(rng, 1_000)
    skewed = with_column(window, "even", rng.choice(["x", "y", "z"], size=1_000, p=[0.5, 0.3, 0.2]))

    assert judge(skewed).drifted == ("even",)


def test_more_missing_values_are_found() -> None:
    rng = np.random.default_rng(17)
    window = draw(rng, 500)
    values = pa.array(rng.normal(size=500), mask=rng.random(500) < 0.3)

    report = judge(with_column(window, "gaps", values))

    assert report.drifted == ("gaps",)


def test_a_column_that_turns_all_null_is_found_whatever_its_type() -> None:
    window = draw(np.random.default_rng(18), 200)

    report = judge(with_column(window, "n1", pa.nulls(200)))

    assert report.drifted == ("n1",)


def test_an_unseen_category_is_a_finding_by_itself() -> None:
    rng = np.random.default_rng(19)
    window = draw(rng, 300)
    names = np.asarray(window["even"]).tolist()
    names[0] = "w"

    report = judge(with_column(window, "even", names))

    assert not report.alarm
    assert [(f.kind, f.count, f.examples) for f in report.findings if f.column == "even"] == [
        ("unseen_category", 1, ("w",))
    ]


def test_columns_that_come_go_and_change_their_type_are_findings() -> None:
    window = draw(np.random.default_rng(20), 300).drop_columns(["n0"])
    window = with_column(window, "n1", ["text"] * 300).append_column("new", pa.array([1] * 300))

    report = judge(window)

    assert {(f.column, f.kind) for f in report.findings if f.column != "zipf"} == {
        ("n0", "missing_column"),
        ("new", "new_column"),
        ("n1", "type_changed"),
    }


def test_infinities_and_nan_where_there_were_none_are_findings() -> None:
    window = draw(np.random.default_rng(21), 300)
    values = np.asarray(window["n2"]).copy()
    values[:2] = np.inf
    values[2] = np.nan

    report = judge(with_column(window, "n2", values))

    assert {(f.kind, f.count) for f in report.findings if f.column == "n2"} == {
        ("infinite", 2),
        ("nan", 1),
    }


def test_a_later_window_is_not_drift_of_its_timestamps() -> None:
    trained = pa.table({"at": pa.array(range(1_000), pa.timestamp("s"))})
    later = pa.table({"at": pa.array(range(5_000, 6_000), pa.timestamp("s"))})
    reference = make_reference(trained)

    report = drift.detect_drift(profile_table(trained, reference), profile_table(later, reference))

    assert not report.alarm


def test_merged_hours_are_judged_like_the_day() -> None:
    day = draw(np.random.default_rng(22), 1_200)
    hours = [profile_table(day.slice(at, 50), REFERENCE) for at in range(0, 1_200, 50)]
    merged = hours[0]
    for hour in hours[1:]:
        merged = merge(merged, hour)

    by_hours, whole = drift.detect_drift(BASE, merged), judge(day)

    assert [c.p_value for c in by_hours.columns] == pytest.approx(
        [c.p_value for c in whole.columns], rel=1e-9
    )


def test_a_report_survives_json_and_an_empty_window() -> None:
    report = judge(TRAINED.slice(0, 0))

    assert not report.alarm
    assert msgspec.json.decode(canonical_json(report), type=DriftReport) == report


def test_profiles_of_other_bins_are_refused() -> None:
    other = profile_table(TRAINED, make_reference(TRAINED.slice(0, 500)))

    with pytest.raises(InvalidInput) as refused:
        drift.detect_drift(BASE, other)
    assert refused.value.code == "drift.other_reference"
    with pytest.raises(InvalidInput):
        drift.detect_drift(BASE, profile_table(TRAINED))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_values_are_scipys(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(scipy.stats.false_discovery_control(p))


def test_ks_on_discrete_columns_is_scipys() -> None:
    rng = np.random.default_rng(23)
    a, b = rng.integers(0, 24, 800), rng.integers(0, 22, 300)
    reference = make_reference(pa.table({"x": a}))
    old, new = (profile_table(pa.table({"x": v}), reference).columns["x"].bins for v in (a, b))
    assert old is not None
    assert new is not None

    distance, resolution = ks_distance(old, new)

    expected = scipy.stats.ks_2samp(a, b, method="asymp")
    assert distance == pytest.approx(expected.statistic)
    assert resolution == 0.0
    p = scipy_tests.two_sample_ks_tail(distance, 800, 300)
    assert p == pytest.approx(expected.pvalue, rel=0.02)


def test_distances_on_continuous_columns_are_close_to_scipys() -> None:
    rng = np.random.default_rng(24)
    a, b = rng.normal(size=5_000), rng.normal(loc=0.1, scale=1.1, size=2_000)
    reference = make_reference(pa.table({"x": a}))
    one, two = (profile_table(pa.table({"x": v}), reference).columns["x"] for v in (a, b))
    assert one.bins is not None
    assert two.bins is not None
    assert one.moments is not None
    assert two.moments is not None

    distance, resolution = ks_distance(one.bins, two.bins)
    w1 = wasserstein_distance(one.bins, two.bins, one.moments, two.moments)

    exact = scipy.stats.ks_2samp(a, b).statistic
    assert distance <= exact <= distance + resolution
    assert resolution < 0.01
    assert w1 == pytest.approx(scipy.stats.wasserstein_distance(a, b), rel=0.03)


def test_welch_and_chi_square_are_scipys() -> None:
    rng = np.random.default_rng(25)
    a, b = rng.normal(size=60), rng.normal(loc=0.3, scale=2, size=25)
    reference = make_reference(pa.table({"x": a}))
    one, two = (profile_table(pa.table({"x": v}), reference) for v in (a, b))
    (mean,) = [t for t in drift.detect_drift(one, two).columns[0].tests if t.name == "mean"]
    expected = scipy.stats.ttest_ind(b, a, equal_var=False)
    assert (mean.statistic, mean.p_value) == pytest.approx((expected.statistic, expected.pvalue))

    left, right = np.array([50.0, 30, 20]), np.array([20.0, 25, 30])
    statistic, freedom = chi_square(left, right)
    table = scipy.stats.chi2_contingency(np.stack((left, right)), correction=False)
    assert statistic == pytest.approx(table.statistic)
    assert freedom == 2
    assert scipy_tests.chi_square_tail(statistic, freedom) == pytest.approx(table.pvalue)


def test_rare_categories_are_pooled() -> None:
    left, right = np.array([90.0, 80, 1, 2, 0, 6]), np.array([95.0, 70, 2, 1, 1, 0])

    assert chi_square(left, right)[1] == 2
    assert chi_square(left[:2], right[:2], (7.0, 8.0))[1] == 2
    assert chi_square(left[:2], right[:2])[1] == 1


def test_missing_counts_are_judged_by_the_binomial_tails() -> None:
    for k in (0, 3, 10):
        tails = min(scipy.stats.binom.sf(k - 1, 10, 0.2), scipy.stats.binom.cdf(k, 10, 0.2))
        assert scipy_tests.binomial_two_sided(k, 10, 0.2) == pytest.approx(min(1, 2 * tails))


def test_ks_tails_agree_on_both_sides_of_the_switch() -> None:
    exact = scipy_tests.two_sample_ks_tail(0.0155, 39_998, 40_000)
    limit = scipy_tests.two_sample_ks_tail(0.0155, 40_004, 40_000)

    assert exact == pytest.approx(limit, rel=0.03)
    assert scipy_tests.two_sample_ks_tail(1.0, 10, 10) < 1e-4
    assert scipy_tests.two_sample_ks_tail(0.0, 10, 10) == 1.0


def test_effect_sizes_of_categories_do_not_depend_on_sample_sizes() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])

    assert cramers_v(p * 1e6, q * 100) == pytest.approx(cramers_v(p * 100, q * 100))
    expected = scipy.stats.contingency.association(np.array([[5, 3, 2], [2, 3, 5]]))
    assert cramers_v(p, q) == pytest.approx(expected, rel=1e-6)
    assert jensen_shannon(p, q) == pytest.approx(scipy.spatial.distance.jensenshannon(p, q, base=2))


def test_the_stability_index_is_zero_on_average_without_drift() -> None:
    rng = np.random.default_rng(26)
    indices = [
        stability_index(
            rng.multinomial(200, [0.1] * 10).astype(float),
            rng.multinomial(200, [0.1] * 10).astype(float),
        )
        for _ in range(300)
    ]

    assert abs(float(np.mean(indices))) < 0.01
