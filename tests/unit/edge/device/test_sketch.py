"""Devices count as the control plane does: from the same rows comes the same profile."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from everloop.data.profile import Profile, make_reference, merge, profile_table
from everloop.edge.device.sketch import Sketch
from everloop.fleet.telemetry import ToldSketch, to_profile
from tests.unit.edge import sealed

TRAINING = sealed.TABLE.select(sealed.NAMES).append_column("owner", pa.array(sealed.INCOME > 2_000))
REFERENCE = make_reference(TRAINING)
NAMES = TRAINING.column_names


def columns(*masked: str) -> list[dict[str, object]]:
    told = msgspec.to_builtins(REFERENCE)["columns"]
    return [
        {"name": name, "kind": "opaque", "masked": True}
        if name in masked
        else {"name": name, "kind": told[name]["type"], **told[name]}
        for name in NAMES
    ]


def asked(count: int, seed: int) -> pa.Table:
    """Rows as callers send them, some past all that training knew."""
    random = np.random.default_rng(seed)
    city = [f"city {code:02}" for code in random.integers(0, 14, count)]
    income = np.concatenate([random.gamma(2.0, 3_000.0, count - 3), [1e200, -1e200, 0.0]])
    debt = [None if random.random() < 0.2 else float(x) for x in random.normal(0.9, 0.4, count)]
    age = random.integers(10, 120, count)
    city[0] = "a city with a name that is longer than sixty-four characters, which is cut"
    return pa.table(
        {"city": city, "income": income, "age": age, "debt": debt, "owner": income > 5_000}
    )


def counted(table: pa.Table, *masked: str) -> ToldSketch:
    sketch = Sketch(columns(*masked))
    for row in table.to_pylist():
        sketch.add([row[name] for name in NAMES], 1.5, "ok", 10)
    return msgspec.json.decode(json.dumps(sketch.told), type=ToldSketch)


def assert_alike(expected: Profile, found: Profile) -> None:
    assert expected.rows == found.rows
    for name in NAMES:
        mine, theirs = found.columns[name], expected.columns[name]
        assert (theirs.kind, theirs.rows, theirs.nulls) == (mine.kind, mine.rows, mine.nulls)
        assert (theirs.bins, theirs.categories) == (mine.bins, mine.categories)
        assert (theirs.positive_infinities, theirs.negative_infinities) == (
            mine.positive_infinities,
            mine.negative_infinities,
        )
        if theirs.moments is not None and mine.moments is not None:
            assert theirs.moments.n == mine.moments.n
            assert theirs.moments.mean == pytest.approx(mine.moments.mean, rel=1e-12)
            assert theirs.moments.m2 == pytest.approx(mine.moments.m2, rel=1e-9)


def test_the_profile_of_a_device_is_that_of_its_rows() -> None:
    table = asked(700, seed=1)

    found = to_profile(counted(table), REFERENCE)

    assert_alike(profile_table(table, REFERENCE), found)


def test_profiles_of_two_devices_merge_to_that_of_all_rows() -> None:
    one, other = asked(300, seed=2), asked(400, seed=3)

    found = merge(to_profile(counted(one), REFERENCE), to_profile(counted(other), REFERENCE))

    assert_alike(profile_table(pa.concat_tables([one, other]), REFERENCE), found)


def test_a_masked_input_leaves_no_trace() -> None:
    told = counted(asked(50, seed=4), "income", "city")

    assert {"age", "debt", "owner"} == set(told.columns)


def test_faults_are_counted_beside_the_answers() -> None:
    sketch = Sketch(columns())

    for status, output in (("ok", 1.0), ("invalid", 9e9), ("error", None), ("ok", [0.1, 0.9])):
        sketch.add(["city 01", 1.0, 20, None, True], output, status, 5)

    told = sketch.told
    assert (4, 1, 1, 20) == (
        told["answers"], told["errors"], told["invalid"], told["latency_us"]
    )  # fmt: skip
    assert (2, 9e9) == (told["output"]["n"], told["output"]["maximum"])
