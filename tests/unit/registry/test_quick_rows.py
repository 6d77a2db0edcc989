"""The short way gives the numbers of the long way, and steps aside for whatever is not plain."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.registry.quick_rows import QuickRows
from everloop.registry.rows import to_table
from everloop.registry.signature import Field, Signature, find_row_problems, to_matrix

MIXED = Signature(
    inputs=(
        Field(name="hour", dtype="int64"),
        Field(name="temperature", dtype="float64", nullable=True),
        Field(name="working", dtype="bool"),
        Field(name="weather", dtype="string", categories=("clear", "rain"), nullable=True),
    ),
    output=Field(name="rentals", dtype="float64"),
    task="regression",
)
NUMBERS = Signature(
    inputs=(
        Field(name="hour", dtype="int64", nullable=True),
        Field(name="temperature", dtype="float64"),
    ),
    output=Field(name="rentals", dtype="float64"),
    task="regression",
)
ROW: dict[str, object] = {"hour": 8, "temperature": 2.5, "working": True, "weather": "rain"}


def long_way(signature: Signature, rows: object) -> npt.NDArray[np.float64] | None:
    """What Arrow makes of the rows; None when something does not fit."""
    table = to_table(rows, [field.name for field in signature.inputs])
    if find_row_problems(signature, table):
        return None
    return to_matrix(signature, table)


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "hour": st.integers(-(2**63), 2**63 - 1),
                "temperature": st.none() | st.floats(),
                "working": st.booleans(),
                "weather": st.sampled_from(["clear", "rain", "fog", None]),
            }
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=60, deadline=None)
def test_what_passes_is_what_the_long_way_makes_of_it(rows: list[dict[str, object]]) -> None:
    found = QuickRows(MIXED).read(rows)

    # A column of nothing but nulls has no type in Arrow: there the short way alone answers.
    typed = [*rows, ROW]
    expected = long_way(MIXED, typed)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        np.testing.assert_array_equal(expected[:-1], found)


@pytest.mark.parametrize(
    "change",
    [
        {"hour": "8"}, {"hour": True}, {"hour": None}, {"hour": 8.5}, {"working": 1},
        {"weather": "fog"}, {"weather": 3}, {"temperature": "warm"}, {"temperature": 10**400},
    ],
)  # fmt: skip
def test_what_is_not_plain_takes_the_long_way(change: dict[str, object]) -> None:
    assert QuickRows(MIXED).read([ROW, ROW | change]) is None


@pytest.mark.parametrize("rows", [[], [3], [{"hour": 8}], (ROW,), {"hour": [8]}, [ROW] * 65, None])
def test_other_shapes_take_the_long_way(rows: object) -> None:
    assert QuickRows(MIXED).read(rows) is None


@pytest.mark.parametrize(
    "matrix",
    [
        [[8.0, 2.5], [float("nan"), 1.0]],
        [[8.5, 2.5]],
        [[float("inf"), 2.5]],
        [[8.0, float("nan")]],
        [[8.0, float("inf")]],
    ],
)
def test_a_matrix_passes_as_it_would_the_long_way(matrix: list[list[float]]) -> None:
    rows = np.array(matrix)

    found, expected = QuickRows(NUMBERS).read(rows), long_way(NUMBERS, rows)

    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        np.testing.assert_array_equal(expected, found)


def test_a_matrix_of_other_columns_or_types_takes_the_long_way() -> None:
    reader = QuickRows(NUMBERS)

    assert reader.read(np.zeros((2, 3))) is None
    assert reader.read(np.zeros(2)) is None
    assert reader.read(np.zeros((2, 2), dtype=np.float32)) is None
    assert QuickRows(MIXED).read(np.zeros((1, 4))) is None
