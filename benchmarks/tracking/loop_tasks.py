"""What each peer is asked to do; runs in the peer's environment, prints samples as one JSON line.

All do the same: log a metric step by step, then end the run; and begin and end some more runs.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

Samples = dict[str, list[float]]
RUNS = 5


def mlflow(store: str, count: int, asynchronous: int = 0) -> Samples:
    """Log through MLflow's fluent functions, each call committed or queued."""
    import mlflow as peer

    peer.set_tracking_uri(store)
    peer.set_experiment(f"loop-{time.time_ns()}")

    def start() -> object:
        return peer.start_run()

    def log(run: object, step: int) -> None:
        del run
        if asynchronous:
            peer.log_metric("loss", step * 0.5, step=step, synchronous=False)
        else:
            peer.log_metric("loss", step * 0.5, step=step)

    def finish(run: object) -> None:
        del run
        if asynchronous:
            peer.flush_async_logging()
        peer.end_run()

    return _measure(start, log, finish, count)


def wandb(place: str, count: int) -> Samples:
    """Log through W&B in its offline mode: a log file that a later sync uploads."""
    import wandb as peer

    Path(place).mkdir(exist_ok=True)

    def start() -> object:
        return peer.init(project="loop", mode="offline", dir=place)

    def log(run: object, step: int) -> None:
        run.log({"loss": step * 0.5}, step=step)

    def finish(run: object) -> None:
        run.finish()

    return _measure(start, log, finish, count)


def aim(place: str, count: int) -> Samples:
    """Log through Aim into a local repository."""
    import aim as peer

    Path(place).mkdir(exist_ok=True)

    def start() -> object:
        return peer.Run(repo=place, experiment="loop", system_tracking_interval=None)

    def log(run: object, step: int) -> None:
        run.track(step * 0.5, name="loss", step=step)

    def finish(run: object) -> None:
        run.close()

    return _measure(start, log, finish, count)


def _measure(
    start: Callable[[], object],
    log: Callable[[object, int], None],
    finish: Callable[[object], None],
    count: int,
) -> Samples:
    now = time.perf_counter
    warm = start()
    log(warm, 0)
    finish(warm)
    run, each = start(), []
    begin = now()
    for step in range(count):
        at = now()
        log(run, step)
        each.append(now() - at)
    looped = now() - begin
    finish(run)
    kept = now() - begin
    starts, ends = [], []
    for _ in range(RUNS):
        at = now()
        run = start()
        starts.append(now() - at)
        log(run, 0)
        at = now()
        finish(run)
        ends.append(now() - at)
    return {
        "each_s": each, "rate": [count / looped], "kept_rate": [count / kept],
        "start_s": starts, "finish_s": ends,
    }  # fmt: skip


TASKS: dict[str, Callable[..., Samples]] = {task.__name__: task for task in (mlflow, wandb, aim)}

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
