"""Scoring calls of unmodified MLflow clients, asked of our server as they ask MLflow's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from everloop.serve.runtime import open_model
from tests.parts.mlflow import QUIET, SCENARIOS, command_of
from tests.unit.serve.served import MODEL, ROW
from tests.unit.serve.standalone import seal, standing

pytestmark = [pytest.mark.slow, pytest.mark.needs_mlflow]
EXPECTED = float(
    open_model("lightgbm", {"model.txt": MODEL}, 4).predict(np.array([[8.0, 21.5, 1, 2]]))[0]
)


def test_a_stock_client_scores_frames_lists_arrays_and_bodies(
    mlflow_client: str, tmp_path: Path
) -> None:
    with standing(str(seal(tmp_path / "bundle")), "--port", "0") as url:
        place = urlsplit(url)
        script = SCENARIOS / "mlflow_scoring.py"
        done = subprocess.run(
            command_of(mlflow_client, script, str(place.hostname), str(place.port)),
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)} | QUIET,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        missing = httpx.post(
            f"{url}/models/bikes/predict", json={"inputs": [ROW | {"temperature": None}]}
        ).json()

    assert done.returncode == 0, done.stderr[-4_000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [EXPECTED, missing["predictions"][0]["output"]] == found["frame"]
    assert [EXPECTED] == found["list"] == found["array"] == found["body"]
    assert 2 == found["params"]
    assert "error code 400" in found["refused"]
    assert "weather" in found["refused"]
    assert found["version"].startswith("3.")
