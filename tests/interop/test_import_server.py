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
import pytest

from everloop.interop.importers.mlflow import open_mlflow
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
