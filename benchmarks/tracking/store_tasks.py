"""What MLflow is asked to do with many points; runs in its environment, prints one JSON line."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

BATCH = 1_000


def points(store: str, count: int) -> dict[str, list[float]]:
    """Log points in batches as large as it takes until the newest is read back, then read all."""
    client = MlflowClient(tracking_uri=store)
    experiment = client.create_experiment(f"points-{time.time_ns()}")
    run = client.create_run(experiment).info.run_id
    size = _size(store)
    begin = time.perf_counter()
    for start in range(0, count, BATCH):
        client.log_batch(
            run,
            metrics=[
                Metric("loss", 0.5 + i, 1_700_000_000_000 + i, i)
                for i in range(start, min(start + BATCH, count))
            ],
        )
    assert client.get_run(run).data.metrics["loss"] == count - 0.5
    logged = time.perf_counter() - begin
    grown = _size(store) - size
    begin = time.perf_counter()
    assert len(client.get_metric_history(run, "loss")) == count
    read = time.perf_counter() - begin
    return {"logged_s": [logged], "read_s": [read], "bytes": [grown / count]}


def write(store: str, count: int) -> dict[str, list[float]]:
    """Log points in batches as large as it takes; say when; 0 makes the store."""
    client = MlflowClient(tracking_uri=store)
    if not count:
        return {}
    run = client.create_run("0").info.run_id
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.time()
    for start in range(0, count, BATCH):
        steps = range(start, min(start + BATCH, count))
        client.log_batch(
            run, metrics=[Metric("loss", 0.5 + i, 1_700_000_000_000, i) for i in steps]
        )
    end = time.time()
    assert client.get_run(run).data.metrics["loss"] == count - 0.5
    return {"begin": [begin], "end": [end]}


def search(store: str, filters: list[str], orders: list[list[str]]) -> dict[str, list[float]]:
    """Search the runs of the default experiment; milliseconds of each shape."""
    client = MlflowClient(tracking_uri=store)
    found: dict[str, list[float]] = {}
    for number, (text, order) in enumerate(zip(filters, orders, strict=True)):
        spent = []
        for _ in range(3):
            begin = time.perf_counter()
            client.search_runs(["0"], text, order_by=order, max_results=100)
            spent.append(1e3 * (time.perf_counter() - begin))
        found[str(number)] = spent
    return found


def _size(store: str) -> int:
    path = Path(store.removeprefix("sqlite:///"))
    return path.stat().st_size if path.exists() else 0


TASKS: dict[str, Callable[..., dict[str, list[float]]]] = {
    task.__name__: task for task in (points, write, search)
}

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
