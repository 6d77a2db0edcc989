from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from everloop.core.wire import Scalar
from everloop.data.profile import make_reference, profile_table
from everloop.monitor.distance import coarse_counts, stability_index
from everloop.serve.decode import RowDecoder
from everloop.serve.protocol import InputField
from everloop.serve.sketch import MOST_ROWS, Sketch

FIELDS = (
    InputField(name="age", dtype="float64", nullable=True),
    InputField(name="city", dtype="string", nullable=True, categories=("bergen", "oslo")),
    InputField(name="unknown", dtype="float64"),
)
Row = tuple[Scalar, ...]


def rows_of(count: int, seed: int, shift: float = 0.0, oslo: float = 0.5) -> list[Row]:
    rng = np.random.default_rng(seed)
    ages, places = rng.normal(40 + shift, 10, count), rng.random(count)
    gaps = rng.random(count) < 0.05
    return [
        (None if gap else float(age), "oslo" if place < oslo else "bergen", 1.0)
        for age, place, gap in zip(ages, places, gaps, strict=True)
    ]


def table_of(rows: list[Row]) -> pa.Table:
    return pa.table({"age": [row[0] for row in rows], "city": [row[1] for row in rows]})


TRAINED = table_of(rows_of(20_000, 1))
REFERENCE = make_reference(TRAINED)
PROFILE = msgspec.json.encode(profile_table(TRAINED, REFERENCE))


@pytest.fixture
def sketch() -> Sketch:
    return Sketch(PROFILE, RowDecoder(FIELDS))


def feed(sketch: Sketch, rows: list[Row]) -> None:
    for start in range(0, len(rows), MOST_ROWS):
        sketch.add(rows[start : start + MOST_ROWS], None)
        sketch.fold(0.0)


def test_what_looks_like_training_does_not_drift_and_what_moved_does(sketch: Sketch) -> None:
    feed(sketch, rows_of(5_000, 2))
    calm = sketch.drift(sketch.counts)
    moved = Sketch(PROFILE, RowDecoder(FIELDS))
    feed(moved, rows_of(5_000, 3, shift=10.0, oslo=0.9))

    found = moved.drift(moved.counts)

    assert {"age", "city"} == set(calm)  # training says nothing of the third
    assert max(calm.values()) < 0.02
    assert found["age"] > 0.5
    assert found["city"] > 0.5


def test_the_index_is_the_monitors(sketch: Sketch) -> None:
    rows = [row for row in rows_of(5_000, 3, shift=5.0) if row[0] is not None]
    feed(sketch, rows)
    exact = profile_table(table_of(rows), REFERENCE).columns["age"].bins
    trained = profile_table(TRAINED, REFERENCE).columns["age"].bins
    assert exact is not None
    assert trained is not None

    before, now = coarse_counts(trained, exact)

    # Here missing values are a group of their own, the last one.
    missing = TRAINED["age"].null_count
    expected = stability_index(np.append(before, missing), np.append(now, 0.0))
    assert [*now.tolist(), 0.0] == sketch.counts[0]
    assert expected == pytest.approx(sketch.drift(sketch.counts)["age"])


def test_rows_and_matrices_count_alike(sketch: Sketch) -> None:
    rows = rows_of(400, 4)
    other = Sketch(PROFILE, RowDecoder(FIELDS))

    feed(sketch, rows)
    other.add(None, RowDecoder(FIELDS).to_numbers(rows))
    other.fold(0.0)

    assert sketch.counts == other.counts
    assert 400 == sum(sketch.counts[0]) == sum(sketch.counts[1])
    assert sum(row[0] is None for row in rows) == sketch.counts[0][-1]


def test_of_a_flood_only_the_first_rows_are_counted(sketch: Sketch) -> None:
    for _ in range(10):
        sketch.add(rows_of(MOST_ROWS // 2, 5), None)
    sketch.fold(0.0)

    assert MOST_ROWS == sum(sketch.counts[0])


def test_old_counts_fade_with_a_half_life_of_an_hour(sketch: Sketch) -> None:
    feed(sketch, rows_of(400, 6))
    sketch.add(rows_of(1, 7), None)
    sketch.fold(3_600.0)

    assert 201 == pytest.approx(sum(sketch.counts[0]))


def test_few_rows_have_no_index(sketch: Sketch) -> None:
    feed(sketch, rows_of(499, 8))

    assert {} == sketch.drift(sketch.counts)
