"""Sparklines, histograms and shares as numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from everloop.data.profile import ColumnProfile, make_reference, profile_table
from everloop.ui.drawing import BARS, histogram, spark, top_names


def column(values: object, *, is_referenced: bool = True) -> ColumnProfile:
    table = pa.table({"x": values})
    reference = make_reference(table) if is_referenced else None
    return profile_table(table, reference).columns["x"]


def test_a_line_goes_from_left_to_right_and_high_values_are_high() -> None:
    drawn = spark([1.0, 3.0, 2.0], marks=[1], width=100, height=40)

    assert drawn is not None
    points = [tuple(map(float, point.split(","))) for point in drawn.points.split()]
    assert [0.0, 50.0, 100.0] == [x for x, _ in points]
    assert points[1][1] < points[2][1] < points[0][1]
    assert (50.0,) == drawn.marks


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_are_no_line(values: list[float]) -> None:
    assert spark(values) is None


def test_equal_values_are_a_flat_line() -> None:
    drawn = spark([2.0, 2.0])

    assert drawn is not None
    assert 1 == len({point.split(",")[1] for point in drawn.points.split()})


@pytest.mark.parametrize("is_referenced", [True, False])
def test_bars_follow_the_distribution(is_referenced: bool) -> None:
    values = np.concatenate([np.linspace(0, 1, 900), np.linspace(1, 10, 100)])

    bars = histogram(column(values, is_referenced=is_referenced), height=100)

    assert BARS == len(bars)
    assert bars[0].height > 90  # a sketch may be off by 1.3 % of the rows
    total = sum(bar.height for bar in bars)
    inside = sum(bar.height for bar in bars[:3])  # 0 to 1.25 of 0 to 10
    assert inside / total == pytest.approx(0.9, abs=0.05)


def test_each_whole_number_counts_in_its_own_bar() -> None:
    bars = histogram(column([0, 1, 2, 23] * 50), height=100)

    assert 4 == sum(bar.height > 1 for bar in bars)


def test_a_constant_is_one_bar_and_an_empty_column_none() -> None:
    assert 1 == len(histogram(column([5.0, 5.0])))
    assert () == histogram(column(pa.array([None, None], pa.float64())))


def test_names_come_most_frequent_first_with_the_rest_as_one() -> None:
    names = [f"n{number:02}" for number in range(12) for _ in range(40 - number)]

    shown = top_names(column(names))

    assert ["n00", "n01"] == [item.name for item in shown[:2]]
    assert "all others" == shown[-1].name
    assert len(names) == sum(item.count for item in shown)
    assert 1.0 == pytest.approx(sum(item.share for item in shown))


def test_a_column_without_names_has_no_shares() -> None:
    assert () == top_names(column([1.0, 2.0]))
