"""What an unmodified MLflow client does against a server; prints samples as one JSON line.

Runs in the peer's environment, the same for both servers: only the address differs.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import requests
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

Samples = dict[str, list[float]]


def log_metric(count: int) -> Samples:
    """Log points one call at a time in one run."""
    mlflow.set_experiment(f"log-{time.time_ns()}")
    with mlflow.start_run():
        mlflow.log_metric("warm", 0.0)
        spent = []
        for step in range(count):
            at = time.perf_counter()
            mlflow.log_metric("loss", step * 0.5, step=step)
            spent.append(time.perf_counter() - at)
    return {"each_s": spent}


def log_batch(count: int) -> Samples:
    """Log points in full batches."""
    client = MlflowClient()
    run = client.create_run(client.create_experiment(f"batch-{time.time_ns()}")).info.run_id
    spent = []
    for start in range(0, count, 1_000):
        points = [
            Metric("loss", i * 0.5, 1_700_000_000_000 + i, i) for i in range(start, start + 1_000)
        ]
        at = time.perf_counter()
        client.log_batch(run, metrics=points)
        spent.append(time.perf_counter() - at)
    return {"each_s": spent}


def start_and_finish(count: int) -> Samples:
    """Start a run and end it."""
    mlflow.set_experiment(f"life-{time.time_ns()}")
    with mlflow.start_run():
        pass
    spent = []
    for _ in range(count):
        at = time.perf_counter()
        with mlflow.start_run():
            pass
        spent.append(time.perf_counter() - at)
    return {"each_s": spent}


def search(filter: str, order: str, where: str, limit: int, count: int) -> Samples:
    """Search one experiment; and ask the same without the client, which reads no answer."""
    client = MlflowClient()
    spent, bare, found = [], [], 0
    session, token = requests.Session(), os.environ.get("MLFLOW_TRACKING_TOKEN")
    address = os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/search"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = {"experiment_ids": [where], "filter": filter, "order_by": [order], "max_results": limit}
    for _ in range(count):
        at = time.perf_counter()
        found = len(client.search_runs([where], filter, order_by=[order], max_results=limit))
        spent.append(time.perf_counter() - at)
        at = time.perf_counter()
        answer = session.post(address, json=body, headers=headers, timeout=600)
        bare.append(time.perf_counter() - at)
        answer.raise_for_status()
    return {"each_s": spent, "bare_s": bare, "found": [float(found)]}


def files(size: int, small: int) -> Samples:
    """Move one large file and many small ones up and down."""
    mlflow.set_experiment(f"files-{time.time_ns()}")
    with tempfile.TemporaryDirectory(dir=os.environ["BENCH_FOLDER"]) as folder:
        here = Path(folder)
        large, many = here / "large.bin", here / "many"
        piece = os.urandom(1 << 20)
        with large.open("wb") as file:
            for number in range(size >> 20):
                file.write(number.to_bytes(8, "big") + piece[8:])
        many.mkdir()
        for number in range(small):
            (many / f"{number}.txt").write_text(f"small {number}")
        with mlflow.start_run() as run:
            up = _time(lambda: mlflow.log_artifact(str(large)))
            up_small = _time(lambda: mlflow.log_artifacts(str(many), "many"))
        back = str(here / "back")
        get = mlflow.artifacts.download_artifacts
        down = _time(lambda: get(run_id=run.info.run_id, artifact_path="large.bin", dst_path=back))
        down_small = _time(lambda: get(run_id=run.info.run_id, artifact_path="many", dst_path=back))
    return {"up_s": [up], "down_s": [down], "up_small_s": [up_small], "down_small_s": [down_small]}


def put_small(address: str, small: int) -> Samples:
    """Put many small files where somebody answers at once: what the client itself takes."""
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    with tempfile.TemporaryDirectory(dir=os.environ["BENCH_FOLDER"]) as folder:
        for number in range(small):
            (Path(folder) / f"{number}.txt").write_text(f"small {number}")
        place = HttpArtifactRepository(
            f"{address}/api/2.0/mlflow-artifacts/artifacts/1/2/artifacts"
        )
        return {"up_small_s": [_time(lambda: place.log_artifacts(folder, "many"))]}


def _time(work: Callable[[], object]) -> float:
    at = time.perf_counter()
    work()
    return time.perf_counter() - at


DONE = (log_metric, log_batch, start_and_finish, search, files, put_small)
TASKS: dict[str, Callable[..., Samples]] = {task.__name__: task for task in DONE}

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    result = TASKS[sys.argv[1]](**json.loads(sys.argv[2]))
    print()
    print(json.dumps(result))
