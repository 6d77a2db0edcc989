"""The training pipeline: two steps and a pipeline, each a plain function."""

from __future__ import annotations

import lightgbm
import numpy as np
import pyarrow as pa

from everloop import ModelFiles, current_run, pipeline, step

INPUTS = ["hour", "weekday", "temperature"]
TARGET = "cups"


def matrix(rows: pa.Table) -> np.ndarray:
    """Return the inputs of the rows as numbers, in the order of `INPUTS`."""
    return np.column_stack([rows[name].to_numpy() for name in INPUTS])


@step
def fit(rows: pa.Table, trees: int, seed: int) -> ModelFiles:
    """Return a model of the rows; the same rows and seed give the same bytes."""
    data = lightgbm.Dataset(matrix(rows), label=rows[TARGET].to_numpy(), feature_name=INPUTS)
    params = {"num_leaves": 15, "min_data_in_leaf": 10, "seed": seed, "deterministic": True}
    quiet = {"verbosity": -1, "num_threads": 1, "force_row_wise": True}
    booster = lightgbm.train(params | quiet, data, num_boost_round=trees)
    return ModelFiles("lightgbm", {"model.txt": booster.model_to_string().encode()})


@step
def measure(model: ModelFiles, rows: pa.Table) -> float:
    """Return the mean absolute error of the model on the rows."""
    booster = lightgbm.Booster(model_str=model.files["model.txt"].decode())
    return float(np.abs(booster.predict(matrix(rows)) - rows[TARGET].to_numpy()).mean())


@pipeline
def train(rows: pa.Table, trees: int = 80, seed: int = 0) -> ModelFiles:
    """Train a model of the hourly sales."""
    rows = rows.select([*INPUTS, TARGET])
    model = fit(rows, trees, seed)
    current_run().log_metrics({"training_error": measure(model, rows)})
    return model
