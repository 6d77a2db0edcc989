"""Reads Arrow columns as the plain numbers or names that statistics need.

Times become seconds since 1970; booleans, strings and dictionaries become names; what is neither
(lists, structs, bytes) is opaque and only its nulls count.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from everloop.data.sketch import LARGEST_MAGNITUDE, FloatArray

Kind = Literal["numeric", "category", "opaque", "empty"]


def kind_of(dtype: pa.DataType) -> Kind:
    """Say how a column of this Arrow type is summarised."""
    if pat.is_null(dtype):
        return "empty"
    if pat.is_dictionary(dtype):
        return kind_of(dtype.value_type)
    if pat.is_boolean(dtype) or pat.is_string(dtype) or pat.is_large_string(dtype):
        return "category"
    if pat.is_integer(dtype) or pat.is_floating(dtype) or pat.is_decimal(dtype):
        return "numeric"
    if pat.is_temporal(dtype) and not pat.is_interval(dtype):
        return "numeric"
    return "opaque"


def is_point_in_time(dtype: pa.DataType) -> bool:
    """Say whether values are moments on the calendar, which move on by themselves."""
    return bool(pat.is_timestamp(dtype) or pat.is_date(dtype))


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column without dictionary encoding."""
    if pat.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def to_floats(column: pa.ChunkedArray) -> FloatArray:
    """Return the values that are not null as float64; NaN and infinities stay as they are."""
    return to_aligned_floats(column.drop_null())


def to_aligned_floats(column: pa.ChunkedArray) -> FloatArray:
    """Return one float64 for each row; nulls become NaN."""
    present = plain(column)
    dtype = present.type
    scale = 1.0
    if is_point_in_time(dtype):
        zone = dtype.tz if pat.is_timestamp(dtype) else None
        present = present.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
        scale = 1e-6
    elif pat.is_time(dtype):
        present = present.cast(pa.time64("us"), safe=False).cast(pa.int64())
        scale = 1e-6
    elif pat.is_duration(dtype):
        present = present.cast(pa.duration("us"), safe=False).cast(pa.int64())
        scale = 1e-6
    numbers = present.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    result: FloatArray = np.asarray(numbers, dtype=np.float64) * scale
    return result


def count_names(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value that is not null occurs, by name."""
    present = plain(column).drop_null()
    if pat.is_boolean(present.type):
        present = present.cast(pa.string())
    counted = pc.value_counts(present)
    names = counted.field("values").to_pylist()
    return dict(zip(names, counted.field("counts").to_pylist(), strict=True))


def split_finite(values: FloatArray) -> tuple[FloatArray, int, int, int]:
    """Return the finite values, and how many are NaN, positive and negative infinite."""
    with np.errstate(invalid="ignore"):
        finite = values[np.abs(values) <= LARGEST_MAGNITUDE]
        if finite.size == values.size:
            return finite, 0, 0, 0
        nans = int(np.isnan(values).sum())
        high = int((values > LARGEST_MAGNITUDE).sum())
    return finite, nans, high, values.size - finite.size - nans - high
