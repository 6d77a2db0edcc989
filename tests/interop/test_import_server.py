"""A real MLflow server is imported over its REST interface, and from its database, alike."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from everloop.interop.importers.mlflow import open_mlflow
from everloop.registry.logged_queries import ListLoggedModels, LoggedModelList
from everloop.registry.queries import ModelView, ShowModel
from tests.parts.found import mlflow_python
from tests.parts.mlflow import QUIET
from tests.story.project import clean_environment
from tests.unit.interop.imported import (
    VECTORS,
    a_world,
    as_mlflow_says,
    bring_in,
    files_of,
    runs_by_origin,
)

LINE = "3"
STARTS_WITHIN_S = 120


@contextmanager
def real_server(folder: Path) -> Iterator[str]:
    python = mlflow_python(LINE)
    assert python is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]
    command += ["--artifacts-destination", str(folder / "kept")]
    environment = clean_environment() | QUIET
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(STARTS_WITHIN_S * 4):
            try:
                if httpx.get(f"{address}/health", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.25)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # it was started as the leader of a group of its own
        server.wait(30)


@pytest.mark.slow
@pytest.mark.needs_mlflow
def test_a_server_and_its_database_say_the_same_to_an_import(tmp_path: Path) -> None:
    python = mlflow_python(LINE)
    over_rest, from_database = a_world(), a_world()
    with real_server(tmp_path) as address:
        subprocess.run(
            [str(python), "-P", str(VECTORS / "make.py"), str(tmp_path / "said"), address],
            env=clean_environment() | QUIET,
            check=True,
            capture_output=True,
            timeout=240,
        )
        bring_in(over_rest, open_mlflow(address))
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    bring_in(from_database, open_mlflow(database, tmp_path / "kept"))

    expected = json.loads((tmp_path / "said" / "expected.json").read_text())
    active = {key for key, run in expected.items() if run["lifecycle_stage"] == "active"}
    for place in (over_rest, from_database):
        found = runs_by_origin(place)
        assert active <= set(found)
        for key in active:
            said = as_mlflow_says(place, found[key])
            parent = said["tags"].pop("mlflow.parentRunId", None)
            assert parent == found[key].run.parent
            there = expected[key] | {"tags": dict(expected[key]["tags"])}
            there["tags"].pop("mlflow.parentRunId", None)
            assert there == said
            assert {"parent": {"notes/a.txt"}, "reads": {"model/MLmodel"}}.get(
                said["name"], set()
            ) <= set(files_of(place, found[key].run.id))
        shown = place.owner.perform("model.show", ShowModel(ref="credit@champion"), ModelView)
        assert ["MLmodel"] == [file.path for file in shown.version.files]


FILL = """
import sys
from pathlib import Path
import mlflow
from mlflow import MlflowClient
mlflow.set_tracking_uri(sys.argv[1])
client = MlflowClient()
experiment = client.get_experiment_by_name("credit").experiment_id
run = client.create_run(experiment, run_name="writes").info.run_id
model = client.create_logged_model(
    experiment, name="scorer", source_run_id=run, params={"depth": "3"}, tags={"team": "risk"},
    model_type="tree",
)
Path("written").mkdir()
Path("written/MLmodel").write_text("flavors: {}\\n")
client.log_model_artifacts(model.model_id, "written")
client.finalize_logged_model(model.model_id, "READY")
client.log_metric(run, "auc", 0.75, step=2, model_id=model.model_id)
client.set_terminated(run)
"""


@pytest.mark.slow
@pytest.mark.needs_mlflow
@pytest.mark.needs_postgres
def test_a_postgresql_database_filled_by_mlflow_comes_over(
    tmp_path: Path, postgres_url: str
) -> None:
    lent = tmp_path / "driver"  # MLflow's environment lacks the driver that ours has
    lent.mkdir()
    for part in Path(psycopg.__file__).parents[1].glob("psycopg*"):
        (lent / part.name).symlink_to(part)
    variables = clean_environment() | QUIET | {"PYTHONPATH": str(lent)}
    said = tmp_path / "said"
    (tmp_path / "fill.py").write_text(FILL)
    for script, given, folder in (
        (VECTORS / "make.py", (str(said), postgres_url), tmp_path),
        (tmp_path / "fill.py", (postgres_url,), said),
    ):
        done = subprocess.run(
            [str(mlflow_python(LINE)), "-P", str(script), *given],
            env=variables, cwd=folder, check=False, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert 0 == done.returncode, done.stderr[-4000:]
    place = a_world()
    os.chdir(said)  # where relative places of files start from

    first = bring_in(place, open_mlflow(postgres_url))
    again = bring_in(place, open_mlflow(postgres_url))

    expected = json.loads((said / "expected.json").read_text())
    found = runs_by_origin(place)
    for key, run in expected.items():
        if run["lifecycle_stage"] == "active":
            told = as_mlflow_says(place, found[key])
            for each in (told, run):
                each["tags"].pop("mlflow.parentRunId", None)
            assert run == told
    assert (0, 0, 0) == (again.runs.new, again.logged_models.new, again.versions.new)
    assert 1 == first.logged_models.new
    listed = place.owner.perform("logged_model.list", ListLoggedModels(), LoggedModelList)
    view = listed.items[0]
    assert ("scorer", "tree", "ready", "3", "risk") == (
        view.model.name, view.model.kind, view.model.status,
        view.model.params["depth"], view.model.tags["team"],
    )  # fmt: skip
    assert b"flavors: {}\n" == place.blobs.get(view.model.files[0].digest)
    assert [("auc", "0.75", 2)] == [(m.key, m.text, m.step) for m in view.metrics]
