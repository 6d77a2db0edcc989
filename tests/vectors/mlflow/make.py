"""Makes a small MLflow database and writes down what MLflow's own client reads from it.

Run it with a folder, in an environment with mlflow: it writes dump.sql, files and expected.json.
With the address of a server, too, it fills that one and writes expected.json only.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import sys
import warnings
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
warnings.simplefilter("ignore")
folder = Path(sys.argv[1]).resolve()
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir(parents=True)
os.chdir(folder)

import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402

tracking = sys.argv[2] if len(sys.argv) > 2 else "sqlite:///mlflow.db"
mlflow.set_tracking_uri(tracking)
mlflow.set_experiment("credit")
client = MlflowClient()
with mlflow.start_run(run_name="parent", description="the first") as parent:
    mlflow.log_params({"lr": 0.1, "depth": 7, "text": "a b\nc"})
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metric("twice", 1.0, step=3)
    mlflow.log_metric("twice", 2.0, step=3)
    mlflow.log_metric("nan", math.nan)
    mlflow.log_metric("inf", math.inf, step=3)
    mlflow.log_metric("least", -1e300, step=-5)
    mlflow.set_tag("team", "risk")
    mlflow.log_text("hello", "notes/a.txt")
    with mlflow.start_run(run_name="child", nested=True):
        mlflow.log_metric("auc", 0.5)
        mlflow.log_metric("auc", 0.75, step=1)
try:
    with mlflow.start_run(run_name="fails"):
        raise ValueError  # noqa: TRY301 -- a run that fails
except ValueError:
    pass
left = client.create_run(parent.info.experiment_id, run_name="still running")
client.log_metric(left.info.run_id, "auc", 0.25)
with mlflow.start_run(run_name="gone") as gone:
    mlflow.log_metric("auc", 1)
client.delete_run(gone.info.run_id)
with mlflow.start_run(run_name="reads"):
    source = mlflow.data.code_dataset_source.CodeDatasetSource({})
    data = mlflow.data.meta_dataset.MetaDataset(source, name="toy", digest="abc123")
    mlflow.log_input(data, context="training")
    mlflow.log_text("artifact_path: model\nflavors: {}\n", "model/MLmodel")
    reader = mlflow.active_run()
client.set_experiment_tag(parent.info.experiment_id, "owner", "ann")
client.create_registered_model("credit", tags={"k": "v"}, description="All credit")
place = f"{reader.info.artifact_uri}/model"
for text in ("one", "two"):
    client.create_model_version("credit", place, run_id=reader.info.run_id, description=text)
client.set_registered_model_alias("credit", "champion", "1")
client.set_model_version_tag("credit", "2", "ok", "yes")
client.transition_model_version_stage("credit", "1", "Production")

expected = {}
for run in client.search_runs([parent.info.experiment_id], run_view_type=3):
    expected[run.info.run_id] = {
        "name": run.info.run_name,
        "status": run.info.status,
        "start_time": run.info.start_time,
        "end_time": run.info.end_time,
        "lifecycle_stage": run.info.lifecycle_stage,
        "params": run.data.params,
        "tags": run.data.tags,
        "last": {key: repr(value) for key, value in run.data.metrics.items()},
        "history": {
            key: [
                [point.step, point.timestamp, repr(float(point.value))]
                for point in client.get_metric_history(run.info.run_id, key)
            ]
            for key in run.data.metrics
        },
    }
text = json.dumps(expected, indent=1, sort_keys=True)
if not tracking.startswith("sqlite"):  # a server: what its client says of it is all
    Path("expected.json").write_text(text)
    sys.exit()
with sqlite3.connect("mlflow.db") as database:
    wanted = {
        row[0]
        for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if database.execute(f'SELECT COUNT(*) FROM "{row[0]}"').fetchone()[0] != 0
        or row[0] in {"logged_models"}
    }
    lines = [
        line
        for line in database.iterdump()
        if any(
            line.startswith(
                (
                    f'INSERT INTO "{name}"',
                    f"CREATE TABLE {name} ",
                    f'CREATE TABLE "{name}"',
                    f'CREATE TABLE IF NOT EXISTS "{name}"',
                )
            )
            for name in wanted
        )
    ]
database.close()
here = str(folder)
Path("dump.sql").write_text("\n".join(lines).replace(here, ".") + "\n")
Path("expected.json").write_text(text.replace(here, ".") + "\n")
for name in ("mlflow.db", "mlflow.db-wal", "mlflow.db-shm"):
    Path(name).unlink(missing_ok=True)
Path("mlruns").rename("files")
