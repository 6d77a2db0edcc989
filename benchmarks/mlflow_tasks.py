"""What the peer is asked to do; runs in the peer's environment, prints samples as one JSON line."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable

import mlflow
from mlflow.tracking import MlflowClient


def start_runs(store: str, count: int) -> dict[str, list[float]]:
    """Make runs, each durable when the call returns."""
    mlflow.set_tracking_uri(store)
    client = MlflowClient()
    experiment = client.create_experiment(f"runs-{time.time_ns()}")
    client.create_run(experiment)
    begin = time.perf_counter()
    for number in range(count):
        client.create_run(experiment, run_name=f"run {number}", tags={"a": "b"})
    return {"rate": [count / (time.perf_counter() - begin)]}


def save_model(text: str, target: str) -> dict[str, list[float]]:
    """Save a LightGBM model as the peer's own kind of model."""
    import lightgbm

    mlflow.lightgbm.save_model(lightgbm.Booster(model_file=text), target)
    return {}


TASKS: dict[str, Callable[..., dict[str, list[float]]]] = {
    task.__name__: task for task in (start_runs, save_model)
}

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
