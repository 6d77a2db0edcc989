"""The short way for few rows: what plainly fits a signature becomes a matrix without Arrow.

An Arrow table of one row costs tens of times what a tree model takes for it. Here only what is
right without a doubt passes; everything else takes the long way, which says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from everloop.registry.signature import Field, Signature

MOST_ROWS: Final = 64
_MISSING: Final = float("nan")
FloatArray = npt.NDArray[np.float64]


class QuickRows:
    """Reads few rows for one signature. Immutable, safe between threads."""

    def __init__(self, signature: Signature) -> None:
        fields = signature.inputs
        self._is_flat = bool(fields) and not any(field.shape for field in fields)
        self._fields = [(field.name, _reader(field)) for field in fields]
        self._is_numeric = self._is_flat and all(f.dtype in {"float64", "int64"} for f in fields)
        self._whole = [place for place, field in enumerate(fields) if field.dtype == "int64"]
        self._filled = [place for place, field in enumerate(fields) if not field.nullable]

    def read(self, rows: object) -> FloatArray | None:
        """Return the rows as the model takes them; None when the long way must look at them."""
        if isinstance(rows, np.ndarray):
            return self._from_matrix(rows) if self._is_numeric else None
        if self._is_flat and type(rows) is list and 0 < len(rows) <= MOST_ROWS:
            return self._from_dicts(rows)
        return None

    def _from_matrix(self, rows: npt.NDArray[np.generic]) -> FloatArray | None:
        if rows.ndim != 2 or rows.dtype != np.float64 or rows.shape[1] != len(self._fields):
            return None
        matrix = np.ascontiguousarray(rows, dtype=np.float64)
        if self._filled and np.isnan(matrix[:, self._filled]).any():
            return None
        if self._whole:
            whole = matrix[:, self._whole]
            known = whole[~np.isnan(whole)]
            if not (np.isfinite(known).all() and (known == np.floor(known)).all()):
                return None
        return matrix

    def _from_dicts(self, rows: list[object]) -> FloatArray | None:
        try:
            found = [
                [read(row[name]) for name, read in self._fields]
                for row in rows
                if isinstance(row, Mapping)
            ]
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        return np.array(found, dtype=np.float64) if len(found) == len(rows) else None


def _reader(field: Field) -> Callable[[object], float]:
    """Return what turns a plain value into its number, and raises for any other."""
    codes = {name: float(code) for code, name in enumerate(field.categories or ())}
    kinds = {"float64": (float, int), "int64": (int,), "bool": (bool,), "string": (str,)}
    accepted, nullable = kinds[field.dtype], field.nullable

    def read(value: object) -> float:
        if value is None and nullable:
            return _MISSING
        if type(value) not in accepted:
            raise TypeError
        if isinstance(value, str):
            return codes[value]
        assert isinstance(value, float | int)
        number = float(value)
        if not nullable and math.isnan(number):
            raise ValueError
        return number

    return read
