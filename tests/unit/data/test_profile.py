from __future__ import annotations

import datetime as dt
import math

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput
from everloop.data.profile import (
    CategoryReference,
    ColumnProfile,
    NumericReference,
    OpaqueReference,
    Profile,
    make_reference,
    merge,
    profile_table,
    quantile,
)

ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(width=32), st.integers(-5, 5).map(float)),
        st.one_of(st.none(), st.sampled_from("abcdef")),
    ),
    max_size=30,
)
REFERENCE = make_reference(
    pa.table({"x": [float(v) for v in range(-50, 51)], "c": list("abca") * 25 + ["c"]})
)


def as_table(rows: list[tuple[float | None, str | None]]) -> pa.Table:
    return pa.table(
        {
            "x": pa.array([x for x, _ in rows], pa.float64()),
            "c": pa.array([c for _, c in rows], pa.string()),
        }
    )


def exact(profile: Profile) -> list[object]:
    """What must not depend on the order of merging."""
    parts: list[object] = [profile.rows]
    for name, column in sorted(profile.columns.items()):
        extremes = column.moments and (
            column.moments.n,
            column.moments.minimum,
            column.moments.maximum,
        )
        parts.append((name, column.rows, column.nulls, column.nans, column.bins, extremes))
        parts.append((column.positive_infinities, column.negative_infinities, column.categories))
    return parts


def only(table: pa.Table, name: str = "x") -> ColumnProfile:
    return profile_table(table, make_reference(table)).columns[name]


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, ROWS)
def test_merging_counts_is_associative_and_commutative_and_equals_counting_all(
    a: list[tuple[float | None, str | None]],
    b: list[tuple[float | None, str | None]],
    c: list[tuple[float | None, str | None]],
) -> None:
    one, two, three = (profile_table(as_table(rows), REFERENCE) for rows in (a, b, c))

    left = merge(merge(one, two), three)
    right = merge(one, merge(three, two))
    whole = profile_table(as_table(a + b + c), REFERENCE)

    assert exact(left) == exact(right) == exact(whole)
    merged, direct = left.columns["x"].moments, whole.columns["x"].moments
    if merged is not None and direct is not None:
        scale = max(abs(direct.minimum), abs(direct.maximum), 1e-9)
        assert merged.mean == pytest.approx(direct.mean, abs=1e-9 * scale)
        assert merged.m2 == pytest.approx(direct.m2, rel=1e-6, abs=1e-9 * scale * scale)
        assert merged.total == pytest.approx(direct.total, abs=1e-9 * scale * 100)


def test_a_profile_survives_json_and_has_a_canonical_form() -> None:
    profile = merge(
        profile_table(as_table([(math.inf, "a"), (math.nan, None), (2.0, "zebra")]), REFERENCE),
        profile_table(pa.table({"free": [1.0, 2.0]})),
    )

    read = msgspec.json.decode(canonical_json(profile), type=Profile)

    assert profile == read
    assert msgspec.json.decode(canonical_json(REFERENCE), type=type(REFERENCE)) == REFERENCE


def test_nan_infinity_and_null_are_counted_apart() -> None:
    values = [1.0, None, math.nan, math.inf, -math.inf, -math.inf, 3.0, 1e200]

    column = only(pa.table({"x": pa.array(values, pa.float64())}))

    assert (
        column.nulls,
        column.nans,
        column.positive_infinities,
        column.negative_infinities,
    ) == (1, 1, 2, 2)
    assert column.moments is not None
    assert (
        column.moments.n,
        column.moments.mean,
        column.moments.minimum,
        column.moments.maximum,
    ) == (2, 2.0, 1.0, 3.0)


def test_each_hour_of_the_day_has_its_own_bin() -> None:
    hours = pa.table({"x": list(range(24)) * 10})

    column = only(hours)

    assert column.bins is not None
    assert tuple(float(hour) for hour in range(24)) == column.bins.edges
    assert column.bins.counts == (10,) * 24
    assert column.bins.discrete
    assert quantile(column, 0.5) == 11.0


def test_a_continuous_column_has_256_edges_at_its_quantiles() -> None:
    values = np.random.default_rng(1).lognormal(size=20_000)
    table = pa.table({"x": values})

    column = only(table)

    assert column.bins is not None
    assert len(column.bins.edges) == 256
    assert max(column.bins.counts) <= 20_000 / 255 + 2
    for share in (0.01, 0.25, 0.5, 0.9, 0.999):
        estimate = quantile(column, share)
        assert estimate is not None
        assert abs(float(np.mean(values <= estimate)) - share) < 0.002


def test_a_value_that_half_of_the_rows_share_takes_one_edge() -> None:
    rng = np.random.default_rng(2)
    table = pa.table({"x": np.concatenate((np.zeros(5_000), rng.normal(size=5_000)))})

    column = only(table)

    assert column.bins is not None
    assert len(set(column.bins.edges)) == len(column.bins.edges)
    at_zero = column.bins.distribution()[column.bins.edges.index(0.0) + 1]
    assert at_zero == pytest.approx(0.75, abs=0.01)


def test_values_outside_the_reference_are_counted_below_and_above() -> None:
    column = profile_table(as_table([(-51.0, None), (-50.0, None), (50.0, None), (50.5, None)]))
    counted = (
        profile_table(
            as_table([(-51.0, None), (-50.0, None), (50.0, None), (50.5, None)]), REFERENCE
        )
        .columns["x"]
        .bins
    )

    assert column.columns["x"].bins is None
    assert counted is not None
    assert (counted.below, counted.counts[0], counted.counts[-1], counted.above) == (1, 1, 1, 1)


def test_without_a_reference_a_sketch_gives_the_quantiles() -> None:
    values = np.random.default_rng(3).normal(size=30_000)
    halves = [profile_table(pa.table({"x": part})) for part in np.array_split(values, 2)]

    column = merge(*halves).columns["x"]

    assert column.bins is None
    for share in (0.05, 0.5, 0.95):
        estimate = quantile(column, share)
        assert estimate is not None
        assert abs(float(np.mean(values <= estimate)) - share) < 0.03


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (pa.array([dt.date(1970, 1, 2)] * 2, pa.date32()), 86_400.0),
        (pa.array([dt.datetime(1970, 1, 1, 0, 0, 1)], pa.timestamp("ns")), 1.0),  # noqa: DTZ001 -- a column without zone
        (pa.array([1_500], pa.timestamp("ms", "Europe/Vienna")), 1.5),
        (pa.array([dt.time(0, 1)], pa.time32("s")), 60.0),
        (pa.array([dt.timedelta(minutes=2)], pa.duration("ms")), 120.0),
    ],
)
def test_times_become_seconds(values: pa.Array, seconds: float) -> None:
    column = only(pa.table({"x": values}))

    assert column.moments is not None
    assert seconds == column.moments.mean


def test_points_in_time_are_marked_and_times_of_day_are_not() -> None:
    table = pa.table({"day": pa.array([1], pa.date32()), "at": pa.array([1], pa.time32("s"))})

    profile = profile_table(table)

    assert [profile.columns[name].temporal for name in ("day", "at")] == [True, False]


def test_booleans_and_dictionaries_are_categories() -> None:
    table = pa.table(
        {
            "b": [True, False, None, True],
            "d": pa.array(["x", "y", "x", None]).dictionary_encode(),
        }
    )

    profile = profile_table(table, make_reference(table))

    b, d = profile.columns["b"].categories, profile.columns["d"].categories
    assert b is not None
    assert d is not None
    assert (b.counts, d.counts) == ({"false": 1, "true": 2}, {"x": 2, "y": 1})
    assert [profile.columns[name].nulls for name in ("b", "d")] == [1, 1]


def test_values_that_the_reference_never_saw_are_named() -> None:
    column = profile_table(as_table([(None, "a"), (None, "new"), (None, "new")]), REFERENCE)

    categories = column.columns["c"].categories

    assert categories is not None
    assert (
        categories.counts,
        categories.other,
        categories.unseen,
    ) == ({"a": 1, "b": 0, "c": 0}, 2, {"new": 2})


def test_all_null_columns_are_profiled_and_merge_with_values() -> None:
    empty = pa.table({"x": pa.nulls(3), "c": pa.nulls(3, pa.string())})
    values = as_table([(1.0, "a")])

    both = merge(profile_table(empty, REFERENCE), profile_table(values, REFERENCE))

    assert (
        both.columns["x"].kind,
        both.columns["x"].rows,
        both.columns["x"].nulls,
    ) == ("numeric", 4, 3)
    assert make_reference(empty).columns["x"] == OpaqueReference()
    typed = pa.table({"x": pa.nulls(2, pa.float64())})
    assert make_reference(typed).columns["x"] == NumericReference(edges=())
    assert only(typed).moments is None
    assert quantile(only(typed), 0.5) is None


def test_a_column_of_near_unique_names_is_not_counted_by_name() -> None:
    table = pa.table({"id": [f"user-{i}" for i in range(100)]})

    reference = make_reference(table)

    assert reference.columns["id"] == OpaqueReference()
    assert profile_table(table, reference).columns["id"].categories is None


def test_of_too_many_values_only_the_frequent_are_fixed() -> None:
    names = [f"rare-{i // 2}" for i in range(4_000)] + ["often"] * 60

    reference = make_reference(pa.table({"c": names}))

    assert reference.columns["c"] == CategoryReference(known=("often",), complete=False)


def test_long_text_is_not_copied_into_a_profile() -> None:
    secret = "a long private letter " * 10
    table = pa.table({"c": [secret] * 30})

    profile = profile_table(table, make_reference(table))

    assert secret.encode() not in canonical_json(profile)
    assert profile.columns["c"].categories is not None
    assert list(profile.columns["c"].categories.counts.values()) == [30]


def test_profiles_of_different_references_do_not_merge() -> None:
    other = make_reference(pa.table({"x": [1.0, 2.0], "c": ["a", "q"]}))
    rows = as_table([(1.0, "a")])

    with pytest.raises(InvalidInput) as refused:
        merge(profile_table(rows, REFERENCE), profile_table(rows, other))
    assert refused.value.code == "profile.other_reference"
    with pytest.raises(InvalidInput):
        merge(profile_table(rows, REFERENCE), profile_table(rows))


def test_a_column_that_changed_its_kind_does_not_merge() -> None:
    with pytest.raises(InvalidInput) as refused:
        merge(profile_table(pa.table({"x": [1.0]})), profile_table(pa.table({"x": ["1"]})))
    assert refused.value.code == "profile.other_kind"


def test_two_columns_of_one_name_are_refused() -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])

    with pytest.raises(InvalidInput) as refused:
        profile_table(table)
    assert refused.value.code == "profile.duplicate_column"


def test_an_empty_table_has_a_profile() -> None:
    profile = profile_table(as_table([]), REFERENCE)

    assert profile.rows == 0
    assert exact(merge(profile, profile)) == exact(profile)
