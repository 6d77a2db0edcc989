"""The same random operations on MLflow's registry and on ours get the same answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.parts.mlflow import NEWEST, MlflowServer, run_client

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "mlflow_difference_models.py"
pytestmark = [pytest.mark.slow, pytest.mark.needs_mlflow]


def differences(server: MlflowServer, folder: Path, operations: int, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = run_client(
        NEWEST,
        SCRIPT,
        server,
        f"sqlite:///{folder}/theirs.db",
        server.url,
        str(operations),
        str(seed),
        variables={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
        timeout_s=900,
    )
    return found


def test_random_operations_on_models_get_the_answers_of_mlflow_s_own_registry(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    found = differences(mlflow_server, tmp_path, 150, seed=2)

    assert [] == found["differences"]
    assert sum(found["done"].values()) >= 140


def test_every_known_difference_of_models_is_explained_in_the_docs() -> None:
    script = (ROOT / "tests" / "parts" / SCRIPT).read_text()
    text = (ROOT / "docs" / "explanation" / "mlflow.md").read_text()
    rules = set(re.findall(r'return "([a-z ]+)"', script))

    titles = set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE))

    assert rules
    assert set() == {rule for rule in rules if rule.capitalize() not in titles}


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [3, 4])
def test_a_thousand_random_operations_on_models_get_the_answers_of_mlflow_s_own_registry(
    mlflow_server: MlflowServer, tmp_path: Path, seed: int
) -> None:
    found = differences(mlflow_server, tmp_path, 1_000, seed)

    assert [] == found["differences"]
