"""What a user of MLflow does, with whichever client runs this; prints what came of it as JSON.

Runs in a client's environment, so it imports nothing of ours. Each part is a function whose
result stands under its name in the output; one that failed stands there with its error.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import mlflow  # noqa: E402
import numpy as np  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.store.artifact.artifact_repository_registry import (  # noqa: E402
    get_artifact_repository,
)

Facts = dict[str, Any]
CLIENT = MlflowClient()
NAME = f"scenario {mlflow.__version__}"


def experiments() -> Facts:
    made = mlflow.set_experiment(NAME)
    again = mlflow.set_experiment(NAME)
    CLIENT.set_experiment_tag(made.experiment_id, "team", "risk")
    other = CLIENT.create_experiment(f"{NAME} other", tags={"a": "b"})
    CLIENT.rename_experiment(other, f"{NAME} renamed")
    CLIENT.delete_experiment(other)
    deleted = CLIENT.get_experiment(other)
    CLIENT.restore_experiment(other)
    restored = CLIENT.get_experiment(other)
    default = CLIENT.get_experiment("0")
    found = CLIENT.search_experiments(filter_string=f"name = '{NAME}'")
    return {
        "same": made.experiment_id == again.experiment_id,
        "location": made.artifact_location,
        "tags": CLIENT.get_experiment(made.experiment_id).tags,
        "renamed": restored.name,
        "stages": [deleted.lifecycle_stage, restored.lifecycle_stage],
        "default": default.name,
        "missing": CLIENT.get_experiment_by_name("no such one") is None,
        "found": [row.name for row in found],
    }


def runs() -> Facts:
    mlflow.set_experiment(NAME)
    with mlflow.start_run(run_name="outer", tags={"kind": "t"}, description="why") as outer:
        mlflow.log_param("depth", 3)
        mlflow.log_params({"rate": 0.1, "name": "x" * 500})
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metric("loss", 0.25, step=2)
        mlflow.log_metrics({"nan": math.nan, "up": math.inf, "down": -math.inf})
        mlflow.set_tags({"one": "1", "two": "2"})
        mlflow.delete_tag("two")
        with mlflow.start_run(run_name="inner", nested=True) as inner:
            mlflow.log_metric("loss", 1.0)
    with mlflow.start_run(run_id=outer.info.run_id):
        mlflow.log_metric("late", 1.0)
    CLIENT.log_metric(outer.info.run_id, "after", 2.0)  # the run has ended
    CLIENT.update_run(inner.info.run_id, name="renamed")
    run = CLIENT.get_run(outer.info.run_id)
    children = CLIENT.search_runs(
        [run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    )
    history = CLIENT.get_metric_history(run.info.run_id, "loss")
    return {
        "status": run.info.status,
        "name": run.info.run_name,
        "params": run.data.params,
        "metrics": {key: str(value) for key, value in run.data.metrics.items()},
        "tags": run.data.tags,
        "children": [child.info.run_name for child in children],
        "history": [[point.step, point.value] for point in history],
        "uri": run.info.artifact_uri.rpartition("/")[2],
        "ended": run.info.end_time >= run.info.start_time,
    }


def errors() -> Facts:
    mlflow.set_experiment(NAME)
    told: Facts = {}
    with mlflow.start_run() as run:
        mlflow.log_param("p", "1")
        mlflow.log_param("p", "1")  # the same value again is no error
    attempts: dict[str, Callable[[], object]] = {
        "param": lambda: CLIENT.log_param(run.info.run_id, "p", "2"),
        "run": lambda: CLIENT.get_run("0" * 32),
        "experiment": lambda: CLIENT.get_experiment("987654321"),
        "exists": lambda: CLIENT.create_experiment(NAME),
        "filter": lambda: CLIENT.search_runs(["0"], "metrics.x >"),
        "tag": lambda: CLIENT.delete_tag(run.info.run_id, "none"),
        "model": lambda: CLIENT.get_registered_model("no-such-model"),
    }
    for name, attempt in attempts.items():
        try:
            told[name] = ["accepted", str(attempt())]
        except MlflowException as error:
            told[name] = [error.error_code, error.get_http_status_code()]
    return told


def deletion() -> Facts:
    where = mlflow.set_experiment(f"{NAME} deletion").experiment_id
    kept = CLIENT.create_run(where, run_name="kept").info.run_id
    gone = CLIENT.create_run(where, run_name="gone").info.run_id

    def names(view: int) -> list[str]:
        found = CLIENT.search_runs([where], run_view_type=view)
        return sorted(run.info.run_name for run in found)

    CLIENT.delete_run(gone)
    views = [names(view) for view in (1, 2, 3)]
    stage = CLIENT.get_run(gone).info.lifecycle_stage
    CLIENT.restore_run(gone)
    return {"views": views, "stage": stage, "restored": names(1), "kept": bool(kept)}


def search() -> Facts:
    where = mlflow.set_experiment(f"{NAME} search").experiment_id
    for place, (auc, kind) in enumerate(
        [(0.9, "xgb"), (0.8, "lgb"), (math.nan, "xgb"), (None, "x")]
    ):
        run = CLIENT.create_run(where, run_name=f"r{place}", start_time=1_700_000_000_000 + place)
        CLIENT.log_param(run.info.run_id, "kind", kind)
        CLIENT.log_param(run.info.run_id, "depth", place)
        if auc is not None:
            CLIENT.log_metric(run.info.run_id, "auc", auc)

    def names(text: str, *order: str) -> list[str]:
        found = CLIENT.search_runs([where], text, order_by=list(order) or None)
        return [run.info.run_name for run in found]

    pages, token = [], None
    while True:
        page = CLIENT.search_runs([where], max_results=3, page_token=token)
        pages.append([run.info.run_name for run in page])
        token = page.token
        if not token:
            break
    return {
        "all": names(""),
        "metric": names("metrics.auc > 0.85"),
        "and": names("params.kind = 'xgb' AND metrics.auc >= 0.5"),
        "like": names("params.kind ILIKE 'X%'"),
        "missing": names("tags.none IS NULL AND attributes.run_name != 'r1'"),
        "up": names("", "metrics.auc ASC"),
        "down": names("", "metrics.auc DESC"),
        "or": names("params.kind = 'lgb' OR (params.depth > 2 AND NOT params.kind = 'xgb')"),
        "frame": sorted(
            mlflow.search_runs([where], "metrics.auc > 0", output_format="pandas")["params.kind"]
        ),
        "pages": pages,
    }


def files() -> Facts:
    mlflow.set_experiment(NAME)
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "sub" / "deep").mkdir(parents=True)
        (here / "a.bin").write_bytes(bytes(range(256)) * 4_000)
        (here / "sub" / "b c.txt").write_text("grüße\n", encoding="utf-8")
        (here / "sub" / "deep" / "empty").write_bytes(b"")
        mlflow.log_artifacts(folder, "all")
        mlflow.log_artifact(str(here / "a.bin"))
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_text("hello again", "notes/hello.txt")
        mlflow.log_dict({"a": [1, 2]}, "conf.json")
        mlflow.log_table({"q": ["x"], "n": [1]}, "table.json")
        mlflow.log_table({"q": ["y"], "n": [2]}, "table.json")
        run_id = run.info.run_id
        back = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="all"))
        same = (back / "a.bin").read_bytes() == (here / "a.bin").read_bytes()
        text = (back / "sub" / "b c.txt").read_text(encoding="utf-8")
    repository = mlflow.artifacts
    table = mlflow.load_table("table.json", run_ids=[run_id])
    return {
        "top": [[f.path, f.is_dir, f.file_size] for f in CLIENT.list_artifacts(run_id)],
        "sub": [f.path for f in CLIENT.list_artifacts(run_id, "all/sub")],
        "of a file": [f.path for f in CLIENT.list_artifacts(run_id, "conf.json")],
        "same": same,
        "text": text,
        "note": repository.load_text(f"runs:/{run_id}/notes/hello.txt"),
        "table": table.to_dict("list"),
    }


def inputs() -> Facts:
    mlflow.set_experiment(NAME)
    data = mlflow.data.from_numpy(np.ones((4, 2)), name="credit")
    with mlflow.start_run() as run:
        mlflow.log_input(data, context="training")
        mlflow.log_input(data, context="training")
    found = CLIENT.get_run(run.info.run_id).inputs.dataset_inputs
    return {
        "names": [item.dataset.name for item in found],
        "tags": [{tag.key: tag.value for tag in item.tags} for item in found],
    }


def traces() -> Facts:
    where = mlflow.set_experiment(f"{NAME} traces").experiment_id

    @mlflow.trace
    def inner(value: int) -> int:
        return value + 1

    @mlflow.trace(name="outer")
    def outer(value: int) -> int:
        return int(inner(value)) * 2

    answer = outer(3)
    flush = getattr(mlflow, "flush_trace_async_logging", None)
    if flush is not None and int(mlflow.__version__.partition(".")[0]) > 2:
        flush()
    found = CLIENT.search_traces([where])
    trace = found[0]
    key = trace.info.request_id
    CLIENT.set_trace_tag(key, "team", "risk")
    tagged = len(CLIENT.search_traces([where], filter_string="tags.team = 'risk'"))
    CLIENT.delete_trace_tag(key, "team")
    untagged = len(CLIENT.search_traces([where], filter_string="tags.team = 'risk'"))
    gone = (
        CLIENT.delete_traces(where, trace_ids=[key])
        if hasattr(trace.info, "trace_id")
        else (CLIENT.delete_traces(where, request_ids=[key]))
    )
    return {
        "answer": answer,
        "found": len(found),
        "state": str(trace.info.status).rpartition(".")[2],
        "spans": [[span.name, span.parent_id is None] for span in trace.data.spans],
        "asked": json.loads(trace.data.request),
        "answered": json.loads(trace.data.response),
        "tagged": [tagged, untagged],
        "gone": gone,
        "left": len(CLIENT.search_traces([where])),
    }


def parts() -> Facts:
    """Send a file in parts, which is asked for by the environment."""
    os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD"] = "true"
    os.environ["MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"] = "1000000"
    os.environ["MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE"] = str(5 << 20)
    mlflow.set_experiment(NAME)
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.bin"
        large.write_bytes(np.random.default_rng(1).bytes(12_000_000))
        mlflow.log_artifact(str(large), "models")
        run_id = run.info.run_id
        back = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="models/large.bin")
        same = Path(back).read_bytes() == large.read_bytes()
    repository = get_artifact_repository(run.info.artifact_uri)
    repository.delete_artifacts("models")
    return {"same": same, "left": len(CLIENT.list_artifacts(run_id))}


def _rows() -> tuple[Any, Any]:
    source = np.random.default_rng(7)
    rows = source.normal(size=(120, 3))
    return rows, (rows[:, 0] + rows[:, 1] > 0).astype(int)


def _seen(run_id: str) -> Facts:
    run = CLIENT.get_run(run_id)
    return {
        "status": run.info.status,
        "params": len(run.data.params),
        "metrics": sorted(run.data.metrics),
        "files": sorted(f.path for f in CLIENT.list_artifacts(run_id)),
    }


def sklearn_autolog() -> Facts:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    mlflow.set_experiment(f"{NAME} sklearn")
    rows, labels = _rows()
    mlflow.sklearn.autolog(log_models=False, silent=True)
    try:
        with mlflow.start_run() as run:
            grid = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
            grid.fit(rows, labels)
    finally:
        mlflow.sklearn.autolog(disable=True)
    where = run.info.experiment_id
    children = CLIENT.search_runs([where], f"tags.mlflow.parentRunId = '{run.info.run_id}'")
    return {**_seen(run.info.run_id), "children": len(children)}


def xgboost_autolog() -> Facts:
    import xgboost

    mlflow.set_experiment(f"{NAME} xgboost")
    rows, labels = _rows()
    mlflow.xgboost.autolog(log_models=False, silent=True)
    try:
        with mlflow.start_run() as run:
            data = xgboost.DMatrix(rows, label=labels)
            asked = {"objective": "binary:logistic", "nthread": 1}
            xgboost.train(asked, data, num_boost_round=3, evals=[(data, "train")])
    finally:
        mlflow.xgboost.autolog(disable=True)
    points = CLIENT.get_metric_history(run.info.run_id, "train-logloss")
    return {**_seen(run.info.run_id), "points": [point.step for point in points]}


def lightgbm_autolog() -> Facts:
    import lightgbm

    mlflow.set_experiment(f"{NAME} lightgbm")
    rows, labels = _rows()
    mlflow.lightgbm.autolog(log_models=False, silent=True)
    try:
        with mlflow.start_run() as run:
            data = lightgbm.Dataset(rows, label=labels)
            asked = {"objective": "binary", "num_threads": 1, "verbosity": -1}
            lightgbm.train(asked, data, num_boost_round=3, valid_sets=[data])
    finally:
        mlflow.lightgbm.autolog(disable=True)
    return _seen(run.info.run_id)


PARTS = (
    experiments, runs, errors, deletion, search, files, parts, inputs, traces,
    sklearn_autolog, xgboost_autolog, lightgbm_autolog,
)  # fmt: skip


def main() -> None:
    """Run the parts that are named, or all."""
    wanted = set(sys.argv[1:])
    facts: Facts = {"version": mlflow.__version__, "seconds": {}}
    for part in PARTS:
        if wanted and part.__name__ not in wanted:
            continue
        start = time.perf_counter()
        try:
            with redirect_stdout(io.StringIO()):
                facts[part.__name__] = part()
        except Exception:  # noqa: BLE001 -- whatever it was, the test shows it
            facts[part.__name__] = {"failed": traceback.format_exc()[-3_000:]}
        facts["seconds"][part.__name__] = round(time.perf_counter() - start, 2)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
