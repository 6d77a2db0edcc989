"""Rows of runs side by side."""

from __future__ import annotations

from everloop.ui.comparison import axes_of, package_rows, rows_of
from everloop.ui.environment import RunEnvironment


def test_what_differs_comes_first_and_a_missing_value_differs() -> None:
    rows = rows_of([{"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "x"}])

    assert [("b", True), ("c", True), ("a", False)] == [(row.name, row.differs) for row in rows]
    assert (None, "x") == rows[1].values


def test_the_least_and_the_greatest_number_are_marked() -> None:
    row = rows_of([{"x": "0.5"}, {"x": "1e-3"}, {"x": "2"}, {"x": "nan"}])[0]

    assert ["", "least", "greatest", ""] == [row.mark(index) for index in range(4)]


def test_texts_and_equal_numbers_have_no_least() -> None:
    texts, same = rows_of([{"m": "a", "n": "1"}, {"m": "b", "n": "1.0"}])

    assert ["", ""] == [texts.mark(index) for index in range(2)]
    assert ["", ""] == [same.mark(index) for index in range(2)]


def test_axes_are_what_differs_parameters_before_metrics() -> None:
    given = rows_of([{"rate": "1", "seed": "7"}, {"rate": "2", "seed": "7"}])
    measured = rows_of([{"loss": "1", "system/cpu": "1"}, {"loss": "2", "system/cpu": "2"}])

    assert ["params.rate", "metrics.loss"] == axes_of(given, measured)


def test_only_packages_that_differ_are_rows() -> None:
    environments = [
        RunEnvironment(packages=("numpy==2.1", "xgboost==3.0")),
        RunEnvironment(packages=("numpy==2.1", "xgboost==3.1", "extra==1")),
        None,
    ]

    rows = package_rows(environments[:2])
    assert [("extra", (None, "1")), ("xgboost", ("3.0", "3.1"))] == [
        (row.name, row.values) for row in rows
    ]
    assert 3 == len(package_rows(environments))
    assert [] == package_rows([None, None])
