"""What a signature accepts, how rows become numbers, and which changes break callers."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from everloop.core.errors import InvalidInput
from everloop.registry.signature import (
    Field,
    Signature,
    find_breaks,
    find_row_problems,
    infer_signature,
    to_matrix,
)

TABLE = pa.table(
    {
        "hour": pa.array([0, 5, 23], pa.int32()),
        "warm": [True, False, True],
        "sky": pa.array(["rain", "clear", "rain"]).dictionary_encode(),
        "wind": [1.5, None, math.nan],
        "count": [10, 20, 30],
    }
)
INPUTS = ["hour", "warm", "sky", "wind"]
SIGNATURE = infer_signature(TABLE, INPUTS, "count", "regression")


def test_types_nulls_ranges_and_categories_come_from_the_training_table() -> None:
    assert SIGNATURE.inputs == (
        Field(name="hour", dtype="int64", minimum=0.0, maximum=23.0),
        Field(name="warm", dtype="bool"),
        Field(name="sky", dtype="string", categories=("clear", "rain")),
        Field(name="wind", dtype="float64", nullable=True, minimum=1.5, maximum=1.5),
    )
    assert SIGNATURE.output == Field(name="count", dtype="float64", minimum=10.0, maximum=30.0)


def test_rows_become_numbers_in_the_order_of_the_signature() -> None:
    matrix = to_matrix(SIGNATURE, TABLE.select(["wind", "sky", "hour", "warm"]))

    np.testing.assert_array_equal(
        matrix, [[0, 1, 1, 1.5], [5, 0, 0, math.nan], [23, 1, 1, math.nan]]
    )


def test_rows_that_do_not_fit_are_told_one_by_one() -> None:
    rows = pa.table(
        {
            "hour": [1.5, 2.0],
            "warm": [True, None],
            "sky": ["snow", "rain"],
        }
    )

    assert find_row_problems(SIGNATURE, rows) == (
        "'hour' is double, not int64",
        "'warm' has 1 nulls and takes none",
        "'sky' has 1 values that the model does not know",
        "there is no column 'wind'",
    )
    assert find_row_problems(SIGNATURE, TABLE) == ()


def test_an_unknown_category_counts_as_missing() -> None:
    table = TABLE.set_column(2, "sky", pa.array(["snow", "rain", None]))

    column = to_matrix(SIGNATURE, table)[:, 2]

    np.testing.assert_array_equal(column, [math.nan, 1.0, math.nan])


def test_a_date_is_no_input() -> None:
    table = pa.table({"day": pa.array([0], pa.date32()), "y": [1.0]})

    with pytest.raises(InvalidInput) as refused:
        infer_signature(table, ["day"], "y", "regression")

    assert refused.value.code == "signature.type_unsupported"


def test_the_target_cannot_be_an_input() -> None:
    with pytest.raises(InvalidInput) as refused:
        infer_signature(TABLE, ["hour", "count"], "count", "regression")

    assert refused.value.code == "signature.invalid"


def changed(**fields: object) -> Signature:
    first = SIGNATURE.inputs[0]
    values = {name: getattr(first, name) for name in first.__struct_fields__} | fields
    inputs = (Field(**values), *SIGNATURE.inputs[1:])
    return Signature(inputs=inputs, output=SIGNATURE.output, task="regression")


def test_callers_survive_a_wider_type_a_wider_range_and_another_order() -> None:
    wider = changed(dtype="float64", nullable=True, maximum=99.0)
    reordered = Signature(inputs=wider.inputs[::-1], output=wider.output, task=wider.task)

    assert find_breaks(SIGNATURE, reordered) == ()


def test_callers_survive_an_added_input_only_if_it_takes_null() -> None:
    for nullable, breaks in ((True, 0), (False, 1)):
        added = Field(name="new", dtype="float64", nullable=nullable)
        signature = Signature(
            inputs=(*SIGNATURE.inputs, added), output=SIGNATURE.output, task=SIGNATURE.task
        )
        assert len(find_breaks(SIGNATURE, signature)) == breaks


def test_callers_break_when_an_input_narrows() -> None:
    floats, nullable = changed(dtype="float64"), changed(nullable=True)
    fewer = Signature(
        inputs=tuple(
            Field(name="sky", dtype="string", categories=("rain",)) if f.name == "sky" else f
            for f in SIGNATURE.inputs
        ),
        output=SIGNATURE.output,
        task=SIGNATURE.task,
    )

    assert find_breaks(floats, SIGNATURE) == ("input 'hour' was float64 and now takes int64",)
    assert find_breaks(nullable, SIGNATURE) == ("input 'hour' takes no null any more",)
    assert find_breaks(SIGNATURE, fewer) == ("input 'sky' does not know 'clear' any more",)


def test_callers_break_when_the_output_or_the_task_changes() -> None:
    other = Signature(
        inputs=SIGNATURE.inputs, output=Field(name="n", dtype="float64"), task="classification"
    )

    assert len(find_breaks(SIGNATURE, other)) == 2


@pytest.mark.parametrize(
    ("values", "fits"), [([1.0, 5.0], True), ([1.0, None], True), ([1.5, 2.0], False)]
)
def test_whole_numbers_stored_as_floats_are_whole_numbers(
    values: list[float | None], fits: bool
) -> None:
    field = Field(name="hour", dtype="int64", nullable=True)
    signature = Signature(inputs=(field,), output=SIGNATURE.output, task="regression")
    table = pa.table({"hour": pa.array(values, pa.float64())})

    assert (find_row_problems(signature, table) == ()) is fits


def of_lists(cells: list[object], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"pixels": pa.array(cells, kind), "y": [1.0, 2.0]})


SQUARES: list[object] = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 1, 2]]]


@pytest.mark.parametrize(
    "table",
    [
        of_lists(SQUARES),
        of_lists(SQUARES, pa.large_list(pa.list_(pa.int64()))),
        of_lists(SQUARES, pa.list_(pa.list_(pa.int64(), 3), 2)),
    ],
    ids=["lists", "large lists", "lists of fixed size"],
)
def test_arrays_in_cells_are_told_by_their_shape_and_laid_out_in_the_matrix(
    table: pa.Table,
) -> None:
    signature = infer_signature(table, ["pixels"], "y", "regression")

    assert (2, 3) == signature.inputs[0].shape
    assert ("int64", 0.0, 9.0) == (
        signature.inputs[0].dtype,
        signature.inputs[0].minimum,
        signature.inputs[0].maximum,
    )
    assert [[1, 2, 3, 4, 5, 6], [7, 8, 9, 0, 1, 2]] == to_matrix(signature, table).tolist()


def test_a_tensor_column_has_the_shape_of_its_cells() -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 2))
    cells = pa.array([[1.0, 2.0, 3.0, 4.0]] * 2, pa.list_(pa.float32(), 4))
    table = pa.table({"pixels": pa.ExtensionArray.from_storage(kind, cells), "y": [1.0, 2.0]})

    signature = infer_signature(table, ["pixels"], "y", "regression")

    assert (2, 2) == signature.inputs[0].shape
    assert (2, 4) == to_matrix(signature, table).shape


def test_arrays_of_another_shape_are_named_as_a_problem_and_as_a_break() -> None:
    table = of_lists(SQUARES)
    signature = infer_signature(table, ["pixels"], "y", "regression")
    other = of_lists([[[1, 2]], [[3, 4]]])

    assert ("'pixels' is of shape (1, 2), not (2, 3)",) == find_row_problems(signature, other)
    assert find_breaks(signature, infer_signature(other, ["pixels"], "y", "regression"))
    with pytest.raises(InvalidInput):
        to_matrix(signature, other)


@pytest.mark.parametrize("cells", [[[1, 2], [3]], [[1], None], [[], []], [["a"], ["b"]]])
def test_lists_that_are_no_arrays_are_refused(cells: list[object]) -> None:
    with pytest.raises(InvalidInput) as refused:
        infer_signature(of_lists(cells), ["pixels"], "y", "regression")

    assert "signature.type_unsupported" == refused.value.code
