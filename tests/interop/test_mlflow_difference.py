"""The same random operations on MLflow and on us get the same answers, but for what is listed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.parts.mlflow import NEWEST, MlflowServer, run_client, their_server

ROOT = Path(__file__).resolve().parents[2]
LISTED = ROOT / "docs" / "explanation" / "mlflow.md"
pytestmark = [pytest.mark.slow, pytest.mark.needs_mlflow]


def differences(server: MlflowServer, theirs: str, operations: int, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = run_client(
        NEWEST,
        "mlflow_difference.py",
        server,
        theirs,
        server.url,
        str(operations),
        str(seed),
        variables={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
        timeout_s=1_800,
    )
    return found


def test_random_operations_get_the_answers_of_mlflow_s_own_store(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    found = differences(mlflow_server, f"sqlite:///{tmp_path}/theirs.db", 100, seed=2)

    assert [] == found["differences"]
    assert sum(found["done"].values()) >= 100


def test_every_known_difference_is_explained_in_the_docs() -> None:
    script = (ROOT / "tests" / "parts" / "mlflow_difference.py").read_text()
    rules = set(re.findall(r'return "([a-z ]+)"', script))

    titles = set(re.findall(r"^### (.+)$", LISTED.read_text(), flags=re.MULTILINE))

    assert rules
    assert set() == {rule for rule in rules if rule.capitalize() not in titles}


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [3, 4])
def test_two_thousand_random_operations_get_the_answers_of_a_real_mlflow_server(
    mlflow_server: MlflowServer, tmp_path: Path, seed: int
) -> None:
    with their_server(NEWEST, tmp_path) as theirs:
        found = differences(mlflow_server, theirs, 1_000, seed)

    assert [] == found["differences"]
    assert sum(found["done"].values()) >= 1_000
