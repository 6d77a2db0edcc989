"""The shape of a table as its own values show it: names, types, nullability, values, ranges."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from msgspec import Struct

from everloop.data.arrow_values import (
    count_names,
    is_point_in_time,
    kind_of,
    plain,
    split_finite,
    to_floats,
)

MOST_CATEGORIES = 100
"""A column with more distinct names than this is free text or an identifier, not a category."""


class ColumnSchema(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a column.

    Attributes:
        name: Its name.
        dtype: Its type in the short words of `dtype_of`.
        nullable: Whether nulls (or NaN) occur.
        categories: All names that occur, when they are few.
        minimum: The smallest finite number.
        maximum: The largest finite number.
    """

    name: str
    dtype: str
    nullable: bool = True
    categories: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None


class TableSchema(Struct, frozen=True, kw_only=True):
    """The columns of a table in their order."""

    columns: tuple[ColumnSchema, ...]


def dtype_of(dtype: pa.DataType) -> str:
    """Name an Arrow type by what its values are, however they are stored.

    ``large_string`` and dictionaries of strings are ``string``, ``double`` is ``float64``.
    """
    if pat.is_dictionary(dtype):
        return dtype_of(dtype.value_type)
    if pat.is_string(dtype) or pat.is_large_string(dtype) or pat.is_string_view(dtype):
        return "string"
    if pat.is_floating(dtype):
        return f"float{dtype.bit_width}"
    if pat.is_date(dtype):
        return "date"
    if pat.is_timestamp(dtype):
        return "timestamp" if dtype.tz is None else f"timestamp[{dtype.tz}]"
    return str(dtype)


def infer_schema(table: pa.Table) -> TableSchema:
    """Read the schema that a table's own values satisfy."""
    return TableSchema(
        columns=tuple(_infer_column(name, table[name]) for name in table.column_names)
    )


def _infer_column(name: str, column: pa.ChunkedArray) -> ColumnSchema:
    kind = kind_of(column.type)
    nullable = column.null_count > 0
    minimum = maximum = None
    categories = None
    if kind == "numeric":
        finite, nans, *_ = split_finite(to_floats(column))
        nullable = nullable or nans > 0
        if finite.size and not is_point_in_time(column.type):
            minimum, maximum = float(finite.min()), float(finite.max())
    elif kind == "category" and not pat.is_boolean(column.type):
        categories = _few_names(column)
    return ColumnSchema(
        name=name,
        dtype=dtype_of(column.type),
        nullable=nullable,
        categories=categories,
        minimum=minimum,
        maximum=maximum,
    )


def _few_names(column: pa.ChunkedArray) -> tuple[str, ...] | None:
    distinct = pc.count_distinct(plain(column)).as_py()
    present = len(column) - column.null_count
    if distinct == 0 or distinct > MOST_CATEGORIES or (distinct > 20 and distinct * 2 > present):
        return None
    return tuple(sorted(count_names(column)))
