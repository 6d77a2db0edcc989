"""Signatures: which inputs a model takes and what it answers; and whether callers survive a change.

A signature is inferred from the table that a model was trained on. Models take a matrix of float64:
booleans are 0 and 1, names are their position in the field's categories, null is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from everloop.core.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

FloatArray: TypeAlias = npt.NDArray[np.float64]
FieldType = Literal["float64", "int64", "bool", "string"]
Task = Literal["regression", "classification"]
MOST_CATEGORIES: Final = 1_000
MOST_INPUTS: Final = 10_000
MOST_OUTPUTS: Final = 10_000
Category = Annotated[str, Meta(max_length=500)]

_ACCEPTS: Final[dict[str, frozenset[str]]] = {
    "float64": frozenset({"float64", "int64", "bool"}),
    "int64": frozenset({"int64", "bool"}),
    "bool": frozenset({"bool"}),
    "string": frozenset({"string"}),
}


class Field(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input, or the output.

    Attributes:
        name: Column name.
        dtype: Its type on the wire.
        nullable: Whether null may stand in its place.
        minimum: The smallest number seen in training; information, not a limit.
        maximum: The largest number seen in training.
        categories: All names that it may be, in the order that gives them their numbers.
        shape: Sizes of the array of numbers in each cell; empty where a cell is one value.
    """

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    dtype: FieldType
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    categories: Annotated[tuple[Category, ...], Meta(max_length=MOST_CATEGORIES)] | None = None
    shape: Annotated[tuple[int, ...], Meta(max_length=8)] = ()

    @property
    def width(self) -> int:
        """How many columns of the matrix it takes."""
        return math.prod(self.shape)


class Signature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inputs in the model's order, the output, and what kind of question it answers.

    Attributes:
        inputs: None at all when nobody told them, which only folders of other systems may.
        output: The column that it predicts.
        outputs: What it answers for it when that is several numbers a row, such as the probability
            of each class, in the model's order; empty for one number.
    """

    inputs: Annotated[tuple[Field, ...], Meta(max_length=MOST_INPUTS)]
    output: Field
    task: Task
    outputs: Annotated[tuple[Field, ...], Meta(max_length=MOST_OUTPUTS)] = ()

    @property
    def width(self) -> int:
        """How many columns the matrix of rows has."""
        return sum(field.width for field in self.inputs)


def infer_signature(
    table: pa.Table,
    inputs: Sequence[str],
    target: str,
    task: Task,
    *,
    is_target_given: bool = True,
) -> Signature:
    """Read a signature from the training table, or from example rows that may lack the target.

    Raises:
        InvalidInput: ``signature.column_missing``, ``signature.type_unsupported`` or
            ``signature.too_many_categories``.
    """
    fields = tuple(_infer_field(table, name) for name in inputs)
    if target not in table.column_names and not is_target_given:
        output = Field(name=target, dtype="float64")
    elif task == "classification":
        output = Field(name=target, dtype="float64", minimum=0.0, maximum=1.0)
    else:
        seen = _infer_field(table, target)
        if seen.dtype == "string":
            raise _unsupported(target, "text", "Give a regression target of numbers.")
        output = Field(name=target, dtype="float64", minimum=seen.minimum, maximum=seen.maximum)
    signature = Signature(inputs=fields, output=output, task=task)
    check_signature(signature)
    return signature


def count_numbers(table: pa.Table, name: str) -> int:
    """Return how many numbers stand in each cell of a column; 1 where a cell is one value."""
    return math.prod(_unfold(table[name])[1])


def name_outputs(signature: Signature, names: Sequence[str]) -> Signature:
    """Return the signature with the columns of an answer, as the model names them.

    The classes of a classifier are probabilities; other numbers may be any.

    Raises:
        InvalidInput: ``signature.invalid``.
    """
    bound = 1.0 if signature.task == "classification" else None
    fields = tuple(
        Field(name=name, dtype="float64", minimum=bound and 0.0, maximum=bound) for name in names
    )
    named = msgspec.structs.replace(signature, outputs=fields)
    check_signature(named)
    return named


def check_signature(signature: Signature) -> None:
    """Let a signature pass if its parts fit together.

    Raises:
        InvalidInput: ``signature.invalid``.
    """
    names = [field.name for field in signature.inputs]
    problem = None
    if len(set(names)) != len(names):
        problem = "Two inputs have one name."
    elif signature.output.name in names:
        problem = f"The output {signature.output.name[:60]!r} is an input, too."
    elif any(
        field.dtype == "string" or field.nullable
        for field in (signature.output, *signature.outputs)
    ):
        problem = "The output must be a number that is never null."
    elif len(signature.outputs) == 1:
        problem = "One output is named by `output` alone."
    elif len({field.name for field in signature.outputs}) != len(signature.outputs):
        problem = "Two outputs have one name."
    else:
        problem = _input_problem(signature.inputs)
    if problem is None and signature.width > MOST_INPUTS * 100:
        problem = f"A row has {signature.width} numbers."
    if problem:
        raise InvalidInput(
            "signature.invalid", problem, hint="Infer the signature from the training table."
        )


def _input_problem(inputs: tuple[Field, ...]) -> str | None:
    for field in inputs:
        if (field.dtype == "string") != (field.categories is not None):
            return f"Input {field.name[:60]!r} must have categories just if it is text."
        if field.categories and len(set(field.categories)) != len(field.categories):
            return f"Input {field.name[:60]!r} names a category twice."
    return None if inputs else "It has no inputs."


def find_row_problems(signature: Signature, table: pa.Table) -> tuple[str, ...]:
    """Say in which ways rows do not fit the signature; empty when all of them do."""
    problems: list[str] = []
    for field in signature.inputs:
        if field.name not in table.column_names:
            problems.append(f"there is no column {field.name!r}")
            continue
        column, shape = _unfold(table[field.name])
        if shape != field.shape:
            problems.append(f"{field.name!r} is of shape {shape}, not {field.shape}")
            continue
        if not _fits(column, field):
            problems.append(f"{field.name!r} is {column.type}, not {field.dtype}")
            continue
        empty = _count_missing(column)
        if empty and not field.nullable:
            problems.append(f"{field.name!r} has {empty} nulls and takes none")
        unknown = _count_unknown(column, field)
        if unknown:
            problems.append(f"{field.name!r} has {unknown} values that the model does not know")
    return tuple(problems)


def to_matrix(signature: Signature, table: pa.Table) -> FloatArray:
    """Return the rows as the model takes them; unknown names become NaN, like null.

    Raises:
        InvalidInput: ``signature.rows_refused`` for a missing column or a wrong type.
    """
    matrix = np.empty((table.num_rows, signature.width), dtype=np.float64)
    position = 0
    for field in signature.inputs:
        if field.name not in table.column_names:
            raise _rows_refused(f"There is no column {field.name[:80]!r}.")
        column, shape = _unfold(table[field.name])
        if shape != field.shape or not _fits(column, field):
            told = f"{column.type}{list(shape) if shape else ''}"
            raise _rows_refused(f"{field.name[:80]!r} is {told}, not {field.dtype}.")
        values = _to_numbers(column, field).reshape(table.num_rows, field.width)
        matrix[:, position : position + field.width] = values
        position += field.width
    return matrix


def to_target(signature: Signature, table: pa.Table) -> FloatArray:
    """Return the true answers of rows; NaN where they are missing.

    Raises:
        InvalidInput: ``signature.rows_refused``.
    """
    name = signature.output.name
    if name not in table.column_names:
        raise _rows_refused(f"There is no column {name[:80]!r} with the true answers.")
    column = _plain(table[name])
    if _type_of(column.type) in {None, "string"}:
        raise _rows_refused(f"The true answers in {name[:80]!r} are {column.type}, not numbers.")
    return _to_numbers(column, signature.output)


def find_breaks(old: Signature, new: Signature) -> tuple[str, ...]:
    """Say what of a change breaks a caller who asks as the old signature allowed."""
    breaks: list[str] = []
    fresh = {field.name: field for field in new.inputs}
    known = {field.name for field in old.inputs}
    for before in old.inputs:
        after = fresh.get(before.name)
        if after is None:
            breaks.append(f"input {before.name!r} was removed")
        else:
            breaks.extend(_field_breaks(before, after))
    breaks.extend(
        f"input {field.name!r} was added and takes no null"
        for field in new.inputs
        if field.name not in known and not field.nullable
    )
    if (old.output.name, old.output.dtype) != (new.output.name, new.output.dtype):
        breaks.append(
            f"the output {old.output.name!r} ({old.output.dtype}) became "
            f"{new.output.name!r} ({new.output.dtype})"
        )
    was, now = _shape(old), _shape(new)
    if was != now:
        breaks.append(f"the answer was {', '.join(was)[:80]} and is {', '.join(now)[:80]}")
    if old.task != new.task:
        breaks.append(f"the task {old.task} became {new.task}")
    return tuple(breaks)


def _shape(signature: Signature) -> tuple[str, ...]:
    return tuple(field.name for field in signature.outputs) or ("one number",)


def _field_breaks(before: Field, after: Field) -> list[str]:
    if before.dtype not in _ACCEPTS[after.dtype]:
        return [f"input {before.name!r} was {before.dtype} and now takes {after.dtype}"]
    if before.shape != after.shape:
        return [f"input {before.name!r} was of shape {before.shape} and now is {after.shape}"]
    breaks = []
    if before.nullable and not after.nullable:
        breaks.append(f"input {before.name!r} takes no null any more")
    gone = sorted(set(before.categories or ()) - set(after.categories or ()))
    if gone:
        breaks.append(f"input {before.name!r} does not know {', '.join(gone[:3])!r} any more")
    return breaks


def _infer_field(table: pa.Table, name: str) -> Field:
    import pyarrow.compute as pc

    if name not in table.column_names:
        raise InvalidInput(
            "signature.column_missing",
            f"The training table has no column {name[:80]!r}.",
            hint=f"Its columns are: {', '.join(table.column_names[:30])}.",
        )
    column, shape = _unfold(table[name])
    dtype = _type_of(column.type)
    if dtype is None or (shape and dtype == "string"):
        raise _unsupported(
            name, str(column.type), "Turn it into numbers, booleans or text before training."
        )
    nullable = _count_missing(column) > 0
    if dtype == "bool":
        return Field(name=name, dtype=dtype, nullable=nullable, shape=shape)
    if dtype == "string":
        names = sorted(value for value in pc.unique(column).to_pylist() if value is not None)
        if len(names) > MOST_CATEGORIES:
            raise InvalidInput(
                "signature.too_many_categories",
                f"{name[:80]!r} has {len(names)} different values.",
                hint=f"Leave it out or group its values; at most {MOST_CATEGORIES} are allowed.",
            )
        return Field(name=name, dtype=dtype, nullable=nullable, categories=tuple(names))
    values = _to_numbers(column, Field(name=name, dtype=dtype))
    finite = values[np.isfinite(values)]
    return Field(
        name=name,
        dtype=dtype,
        nullable=nullable,
        minimum=float(finite.min()) if finite.size else None,
        maximum=float(finite.max()) if finite.size else None,
        shape=shape,
    )


def _fits(column: pa.ChunkedArray, field: Field) -> bool:
    dtype = _type_of(column.type)
    if dtype == "float64" and field.dtype == "int64":
        # Whole numbers with gaps, or out of JSON, come as floats.
        values = _to_numbers(column, field)
        known = values[~np.isnan(values)]
        return bool((known == np.floor(known)).all() and np.isfinite(known).all())
    return dtype is not None and dtype in _ACCEPTS[field.dtype]


def _unfold(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, tuple[int, ...]]:
    """Return the values of a column, one after the other, and the shape of each of its cells.

    Arrays in cells are lists of one length, at every depth; others are left as they are.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pat

    shape: tuple[int, ...] = ()
    if isinstance(column.type, pa.FixedShapeTensorType):
        shape = tuple(column.type.shape)
        column = pa.chunked_array(
            [part.storage for part in column.chunks], column.type.storage_type
        )
        return pa.chunked_array([part.flatten() for part in column.chunks]), shape
    kinds = (pat.is_list, pat.is_large_list, pat.is_fixed_size_list)
    while any(is_kind(column.type) for is_kind in kinds):
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            break
        shape = (*shape, lengths[0])
        column = pc.list_flatten(column)
    return _plain(column), shape


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.types as pat

    return column.cast(column.type.value_type) if pat.is_dictionary(column.type) else column


def _type_of(dtype: pa.DataType) -> FieldType | None:
    import pyarrow.types as pat

    if pat.is_boolean(dtype):
        return "bool"
    if pat.is_integer(dtype):
        return "int64"
    if pat.is_floating(dtype) or pat.is_decimal(dtype):
        return "float64"
    return "string" if pat.is_string(dtype) or pat.is_large_string(dtype) else None


def _count_missing(column: pa.ChunkedArray) -> int:
    import pyarrow.compute as pc
    import pyarrow.types as pat

    return int(pc.sum(pc.is_null(column, nan_is_null=pat.is_floating(column.type))).as_py() or 0)


def _count_unknown(column: pa.ChunkedArray, field: Field) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    if field.categories is None:
        return 0
    present = column.drop_null()
    known = pc.is_in(present, value_set=pa.array(field.categories, type=present.type))
    return len(present) - int(pc.sum(known).as_py() or 0)


def _to_numbers(column: pa.ChunkedArray, field: Field) -> FloatArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if field.categories is not None:
        column = pc.index_in(column, value_set=pa.array(field.categories, type=column.type))
    if _type_of(column.type) == "bool":
        column = column.cast(pa.int8())
    floats = column.cast(pa.float64(), safe=False)
    return np.asarray(pc.fill_null(floats, float("nan")).to_numpy(), dtype=np.float64)


def _unsupported(name: str, dtype: str, hint: str) -> InvalidInput:
    return InvalidInput(
        "signature.type_unsupported", f"{name[:80]!r} is of type {dtype[:60]}.", hint=hint
    )


def _rows_refused(problem: str) -> InvalidInput:
    return InvalidInput(
        "signature.rows_refused", problem, hint="Give rows with all columns of the signature."
    )
