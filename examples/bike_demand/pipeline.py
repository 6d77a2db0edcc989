"""The training pipeline: fit, measure. The loop runs it whenever it retrains."""

from __future__ import annotations

import pyarrow as pa
from features import INPUTS, TARGET
from training import PARAMS, evaluate
from training import train as fit_trees

from everloop import ModelFiles, current_run, pipeline, step


@step
def fit(rows: pa.Table, seed: int) -> ModelFiles:
    """Return a model of the rows; the same rows and seed give the same bytes."""
    booster = fit_trees(rows, PARAMS, seed)
    return ModelFiles("lightgbm", {"model.txt": booster.model_to_string().encode()})


@step
def measure(model: ModelFiles, rows: pa.Table) -> dict[str, float]:
    """Return the model's errors on rows."""
    import lightgbm

    booster = lightgbm.Booster(model_str=model.files["model.txt"].decode())
    return evaluate(booster, rows)


@pipeline
def train(rows: pa.Table, seed: int = 0) -> ModelFiles:
    """Train the model of the hourly demand; its errors on the training rows are logged."""
    chosen = rows.select([*INPUTS, TARGET])
    model = fit(chosen, seed)
    errors = measure(model, chosen)
    current_run().log_metrics({f"training_{name}": value for name, value in errors.items()})
    return model
