"""The page about moving from MLflow works as written, with every client."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.parts.mlflow import MlflowServer, client_environment, command_of

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "code" / "train_with_mlflow.py"
pytestmark = pytest.mark.slow


def test_the_script_of_the_page_runs_and_everloop_lists_what_it_made(
    mlflow_client: str, mlflow_server: MlflowServer
) -> None:
    done = subprocess.run(
        command_of(mlflow_client, SCRIPT),
        cwd=mlflow_server.project.folder,
        env=client_environment(mlflow_server),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    runs = mlflow_server.project.json("runs", "list", "--experiment", "churn")
    models = mlflow_server.project.json("models", "list")

    assert 0 == done.returncode, done.stderr[-4_000:]
    assert "predicts [" in done.stdout
    assert "logistic" in {run["name"] for run in runs["items"]}
    assert "churn" in {model["name"] for model in models["items"]}
