"""Rows as people have them (a frame, a table, columns, a matrix, dicts) as one Arrow table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from everloop.core.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

# A pandas or polars frame, a pyarrow table or batch, a mapping of columns, a list of mappings, or
# rows in the signature's order: a matrix of numbers, or a list of lists.
Rows: TypeAlias = object


def to_table(rows: Rows, names: Sequence[str] = ()) -> pa.Table:
    """Return the rows as a table with named columns; the names are those of a matrix.

    Raises:
        InvalidInput: ``model.rows_unreadable``.
    """
    import pyarrow as pa

    try:
        if isinstance(rows, pa.Table):
            return rows
        if isinstance(rows, pa.RecordBatch):
            return pa.Table.from_batches([rows])
        if isinstance(rows, np.ndarray):
            return _from_matrix(rows, names)
        if isinstance(rows, Mapping):
            return pa.table({str(name): values for name, values in rows.items()})
        if type(rows).__module__.partition(".")[0] == "pandas":
            return pa.Table.from_pandas(rows, preserve_index=False)
        if hasattr(rows, "__arrow_c_stream__"):
            return pa.table(rows)
        if isinstance(rows, Sequence):
            return _from_rows(rows, names)
    except (pa.ArrowException, TypeError, ValueError, KeyError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise _unreadable(f"The rows are no table: {str(error)[:200]}.") from error
    raise _unreadable(f"A {type(rows).__name__} holds no rows.")


def _from_rows(rows: Sequence[object], names: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    dicts = [dict(row) for row in rows if isinstance(row, Mapping)]
    if len(dicts) == len(rows):
        return pa.Table.from_pylist(dicts)
    lists = [row for row in rows if isinstance(row, list | tuple)]
    if len(lists) == len(rows):
        return _from_lists(lists, names)
    raise _unreadable(f"A {type(rows).__name__} holds no rows.")


def _from_lists(rows: Sequence[Sequence[object]], names: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    if not names:
        raise _unreadable("The rows are lists, and nothing names their columns.")
    wrong = next((place for place, row in enumerate(rows) if len(row) != len(names)), None)
    if wrong is not None:
        raise _unreadable(f"Row {wrong} has {len(rows[wrong])} values for {len(names)} inputs.")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    return pa.table(columns)


def _from_matrix(rows: np.ndarray, names: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    if rows.ndim != 2 or rows.shape[1] != len(names):
        raise _unreadable(
            f"A matrix of {len(names)} named columns is needed, not an array of {rows.shape}."
        )
    return pa.table({name: rows[:, place] for place, name in enumerate(names)})


def _unreadable(problem: str) -> InvalidInput:
    return InvalidInput(
        "model.rows_unreadable",
        problem,
        hint="Give a pandas frame, a pyarrow table, a dict of columns, a list of dicts, or a "
        "matrix or list of lists with the signature's inputs in its order.",
    )
