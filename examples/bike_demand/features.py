"""From raw hours to what the model is given: a choice of columns, and nothing else.

The model's inputs are raw columns known when an answer is asked for, so a request to the served
model is a row of the source without any change. `casual` and `registered` are left out: they are
counted together with the target, and their sum is the target.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CATEGORIES = ("hr", "weekday", "holiday", "workingday", "mnth", "weathersit")
"""Inputs that are whole numbers, given to the model as they are: trees cut them well enough."""

MEASURES = ("temp", "atemp", "hum", "windspeed")
"""Inputs between 0 and 1."""

INPUTS = CATEGORIES + MEASURES
TARGET = "cnt"
DAY = "dteday"

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]


def build_features(table: pa.Table) -> pa.Table:
    """Return the inputs of each hour, with its day, and its target where the table has one.

    Rows keep their order. The day is for splits and blocks; the model is not given it.

    Raises:
        KeyError: a column that is needed is missing.
    """
    kinds = dict.fromkeys(CATEGORIES, pa.int64()) | dict.fromkeys(MEASURES, pa.float64())
    if TARGET in table.column_names:
        kinds[TARGET] = pa.int64()
    columns = {name: table.column(name).cast(kind) for name, kind in kinds.items()}
    return pa.table({DAY: table.column(DAY).cast(pa.date32())} | columns)


def to_matrix(features: pa.Table) -> Matrix:
    """Return the model's inputs, a row for each hour, in the order of `INPUTS`."""
    columns = [features.column(name).to_numpy().astype(np.float64) for name in INPUTS]
    return np.column_stack(columns)


def to_target(features: pa.Table) -> Vector:
    """Return the rented bikes of each hour."""
    return np.asarray(features.column(TARGET).to_numpy(), dtype=np.float64)
