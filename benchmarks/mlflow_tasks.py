"""What the peer is asked to do; runs in the peer's environment, prints samples as one JSON line."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlflow
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

BATCH = 1_000


@contextmanager
def _run(store: str) -> Iterator[str]:
    mlflow.set_tracking_uri(store)
    with mlflow.start_run() as run:
        mlflow.log_metric("warm", 0.0)
        yield run.info.run_id


def log_metric(store: str, count: int) -> dict[str, list[float]]:
    """Log points one call at a time."""
    with _run(store):
        spent = []
        begin = time.perf_counter()
        for step in range(count):
            at = time.perf_counter()
            mlflow.log_metric("loss", step * 0.5, step=step)
            spent.append(time.perf_counter() - at)
        return {"each_s": spent, "rate": [count / (time.perf_counter() - begin)]}


def log_batch(store: str, count: int) -> dict[str, list[float]]:
    """Log points in batches as large as it takes, and read the newest back."""
    with _run(store) as run:
        client = MlflowClient()
        begin = time.perf_counter()
        for start in range(0, count, BATCH):
            client.log_batch(
                run,
                metrics=[Metric("loss", i * 0.5, 1_700_000_000_000, i)
                         for i in range(start, min(start + BATCH, count))],
            )  # fmt: skip
        found = client.get_run(run).data.metrics["loss"]
        spent = time.perf_counter() - begin
        assert found == (count - 1) * 0.5
        return {"rate": [count / spent]}


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
    task.__name__: task for task in (log_metric, log_batch, start_runs, save_model)
}

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
