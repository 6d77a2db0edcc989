"""Golden rows: a few real questions with the answers that every server of a version must give."""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest
from everloop.core.ports import BlobStore
from everloop.gate.case import Case, FloatArray

Value: TypeAlias = bool | int | float | str | None
ROWS: Final = 20


class GoldenRow(Struct, frozen=True, kw_only=True):
    """Inputs by name as a caller sends them, and the answer: one number, or several in order."""

    inputs: dict[str, Value]
    expected: float | tuple[float, ...]


def make_golden(case: Case) -> tuple[GoldenRow, ...]:
    """Return up to 20 rows, spread evenly over the holdout, with the version's answers.

    Raises:
        EverloopError: the holdout or the model cannot be read.
    """
    usable = np.flatnonzero(np.isfinite(case.answers).reshape(len(case.answers), -1).all(axis=1))
    chosen = usable[np.linspace(0, usable.size - 1, min(ROWS, usable.size)).round().astype(int)]
    names = [field.name for field in case.version.signature.inputs]
    rows = case.holdout.select(names).take(chosen.tolist()).to_pylist()
    return tuple(
        GoldenRow(
            inputs={name: _plain(row[name]) for name in names},
            expected=_expected(case.answers[position]),
        )
        for position, row in zip(chosen, rows, strict=True)
    )


def store_golden(blobs: BlobStore, rows: tuple[GoldenRow, ...]) -> Digest | None:
    """Store golden rows as canonical JSON; None when there are none."""
    return blobs.put(canonical_json(rows)) if rows else None


def _expected(answer: np.float64 | FloatArray) -> float | tuple[float, ...]:
    return tuple(answer.tolist()) if isinstance(answer, np.ndarray) else float(answer)


def _plain(value: object) -> Value:
    if value is None or isinstance(value, bool | int | str):
        return value
    number = float(str(value))
    # JSON has no word for NaN or infinity; models take both missing and NaN as NaN.
    return number if math.isfinite(number) else None
