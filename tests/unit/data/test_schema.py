from __future__ import annotations

import math

import pyarrow as pa
import pytest

from everloop.data.schema import (
    ColumnSchema,
    dtype_of,
    infer_schema,
)


def test_a_schema_is_read_from_the_values() -> None:
    table = pa.table(
        {
            "n": pa.array([1, 5, 3], pa.int32()),
            "f": [1.0, math.nan, 2.5],
            "c": pa.array(["b", "a", None]).dictionary_encode(),
            "t": pa.array([0, 1, 2], pa.timestamp("s")),
            "b": [True, False, True],
        }
    )

    schema = infer_schema(table)

    assert schema.columns == (
        ColumnSchema(name="n", dtype="int32", nullable=False, minimum=1.0, maximum=5.0),
        ColumnSchema(name="f", dtype="float64", nullable=True, minimum=1.0, maximum=2.5),
        ColumnSchema(name="c", dtype="string", nullable=True, categories=("a", "b")),
        ColumnSchema(name="t", dtype="timestamp", nullable=False),
        ColumnSchema(name="b", dtype="bool", nullable=False),
    )


def test_identifiers_have_no_categories() -> None:
    schema = infer_schema(pa.table({"id": [f"user-{i}" for i in range(60)]}))

    assert schema.columns[0].categories is None


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (pa.large_string(), "string"),
        (pa.dictionary(pa.int8(), pa.string()), "string"),
        (pa.float64(), "float64"),
        (pa.date32(), "date"),
        (pa.timestamp("ns", "UTC"), "timestamp[UTC]"),
        (pa.uint8(), "uint8"),
    ],
)
def test_types_are_named_by_their_values(dtype: pa.DataType, name: str) -> None:
    assert dtype_of(dtype) == name
