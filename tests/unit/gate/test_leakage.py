from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput
from everloop.gate.leakage import LeakageReport, find_leakage, overlap

if TYPE_CHECKING:
    from collections.abc import Callable

BIKES = Path(__file__).parents[3] / "examples" / "bike_demand" / "data"


def rentals(rows: int = 1_500) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Demand like the bicycles': two kinds of riders, weather twice over, hours, a counter."""
    rng = np.random.default_rng(71)
    hour = rng.integers(0, 24, rows)
    temp = rng.normal(size=rows)
    casual = rng.poisson(np.exp(1.5 + 0.6 * temp + 0.3 * np.sin(hour / 24 * 6.28)))
    registered = rng.poisson(np.exp(3.5 + 0.2 * temp + 0.9 * np.sin(hour / 24 * 6.28)))
    honest = {
        "hr": hour,
        "temp": temp,
        "atemp": temp * 0.9 + rng.normal(scale=0.01, size=rows),
        "instant": np.arange(rows),
    }
    return honest | {"casual": casual, "registered": registered}, casual + registered


def test_two_parts_of_the_target_are_named_though_neither_gives_it_away_alone() -> None:
    features, target = rentals()

    report = find_leakage(pa.table(features), target)

    assert report.single == ()
    assert report.additive == ("casual", "registered")
    assert report.columns == ("casual", "registered")


@pytest.mark.parametrize("gone", ["casual", "registered"])
def test_honest_and_collinear_columns_are_not_accused(gone: str) -> None:
    features, target = rentals()
    del features[gone]

    assert not find_leakage(pa.table(features), target).leaks


def test_parts_stay_found_beside_copies_gaps_and_constants() -> None:
    features, target = rentals()
    table = pa.table(
        features
        | {
            "one": np.ones(len(target)),
            "sums": features["temp"] + features["hr"],
            "gaps": pa.array(features["temp"], mask=np.arange(len(target)) % 3 == 0),
            "none": pa.nulls(len(target), pa.float64()),
            "when": pa.array(np.arange(len(target)), pa.timestamp("s")),
        }
    )

    assert find_leakage(table, target).additive == ("casual", "registered")


def test_the_trap_in_the_bike_data_is_found() -> None:
    (path,) = BIKES.glob("*.csv*")
    table = csv.read_csv(path)
    target = table["cnt"]
    features = table.drop_columns(["cnt"])

    assert find_leakage(features, target).additive == ("casual", "registered")
    for gone in (["casual"], ["registered"], ["casual", "registered"]):
        assert not find_leakage(features.drop_columns(gone), target).leaks


@pytest.mark.parametrize(
    ("leak", "shape"),
    [
        (lambda y: 3.0 - 2.0 * y, "linear"),
        (np.exp, "curve"),
        (lambda y: y + np.random.default_rng(1).normal(scale=0.02, size=y.size), "linear"),
        (lambda y: np.char.mod("bin %.1f", y), "category"),
    ],
)
def test_a_column_that_determines_the_target_is_named(
    leak: Callable[[np.ndarray], object], shape: str
) -> None:
    rng = np.random.default_rng(72)
    y = np.clip(rng.normal(size=2_000), -2, 2)
    table = pa.table({"honest": y + rng.normal(size=2_000), "leak": leak(y)})

    report = find_leakage(table, y)

    assert [(found.column, found.shape) for found in report.single] == [("leak", shape)]


def test_a_class_that_is_written_down_elsewhere_is_found() -> None:
    rng = np.random.default_rng(73)
    label = rng.choice(["good", "bad", "fraud"], size=900, p=[0.7, 0.25, 0.05])
    table = pa.table(
        {
            "code": pa.array([{"good": "A", "bad": "B", "fraud": "X"}[v] for v in label]),
            "amount": rng.exponential(size=900) + (label == "bad"),
            "customer": [f"c{i}" for i in range(900)],
        }
    )

    assert find_leakage(table, label).columns == ("code",)
    assert find_leakage(table, pa.array(label == "bad")).columns == ("code",)


def test_unique_values_are_not_knowledge() -> None:
    rng = np.random.default_rng(74)
    table = pa.table(
        {"id": [f"u{i}" for i in range(500)], "row": np.arange(500), "noise": rng.random(500)}
    )

    assert not find_leakage(table, rng.normal(size=500)).leaks


def test_many_columns_of_noise_do_not_add_up_to_a_leak() -> None:
    rng = np.random.default_rng(75)
    table = pa.table({f"n{i}": rng.normal(size=120) for i in range(70)})

    assert not find_leakage(table, rng.normal(size=120)).leaks


def test_too_few_rows_and_constant_targets_are_not_judged() -> None:
    table = pa.table({"x": np.arange(100.0)})

    assert find_leakage(table.slice(0, 10), np.arange(10.0)).rows == 0
    assert find_leakage(table, np.ones(100)).rows == 0
    assert find_leakage(table, np.where(np.arange(100) < 70, np.nan, 1.0)).rows == 0


def test_a_report_survives_json() -> None:
    features, target = rentals()

    report = find_leakage(pa.table(features), target)

    assert msgspec.json.decode(canonical_json(report), type=LeakageReport) == report


def test_a_target_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput):
        find_leakage(pa.table({"x": [1.0, 2.0]}), [1.0])
    with pytest.raises(InvalidInput):
        find_leakage(pa.table({"x": [1.0]}), pa.array([[1]]))


def test_rows_of_the_holdout_that_were_trained_on_are_found() -> None:
    train = pa.table({"x": [1.0, 2.0, None, 4.0], "c": ["a", "b", None, "d"]})
    holdout = pa.table(
        {
            "c": pa.array(["b", "a", None, "d", "d"]).dictionary_encode(),
            "x": [2.0, 9.0, None, 4.0, 5.0],
            "only_here": [1, 2, 3, 4, 5],
        }
    )

    report = overlap(train, holdout)

    assert (report.rows, report.share, report.examples) == (3, 0.6, (0, 2, 3))
    assert report.compared == ("c", "x")


def test_rows_that_agree_in_single_columns_only_do_not_overlap() -> None:
    train = pa.table({"x": [1, 2], "y": [1, 2]})

    assert overlap(train, pa.table({"x": [1, 2], "y": [2, 1]})).rows == 0
    assert overlap(train, train.slice(0, 0)).rows == 0


def test_many_columns_of_many_values_are_compared_exactly() -> None:
    rng = np.random.default_rng(76)
    table = pa.table({f"n{i}": rng.normal(size=2_000) for i in range(20)})

    report = overlap(table.slice(0, 1_500), table.slice(1_400))

    assert (report.rows, report.examples) == (100, (0, 1, 2, 3, 4))


def test_tables_without_a_common_column_cannot_be_compared() -> None:
    with pytest.raises(InvalidInput):
        overlap(pa.table({"x": [1]}), pa.table({"y": [1]}))
    with pytest.raises(InvalidInput):
        overlap(pa.table({"x": [1]}), pa.table({"x": ["one"]}))
