"""Models of unmodified MLflow clients: logged, registered, sealed, aliased, loaded, deleted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.parts.mlflow import MlflowServer, run_client

pytestmark = pytest.mark.slow
INVALID = ["INVALID_PARAMETER_VALUE", 400]
MISSING = ["RESOURCE_DOES_NOT_EXIST", 404]


@pytest.fixture(scope="module")
def facts(mlflow_client: str, mlflow_server: MlflowServer) -> dict[str, Any]:
    """What came of the scenario."""
    found: dict[str, Any] = run_client(mlflow_client, "mlflow_models.py", mlflow_server)
    return found


def part(facts: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = facts[name]
    assert "failed" not in found, found["failed"]
    return found


@pytest.mark.parametrize("flavor", ["sklearn_model", "xgboost_model", "lightgbm_model"])
def test_a_logged_and_registered_model_loads_by_every_form_of_its_address(
    facts: dict[str, Any], flavor: str
) -> None:
    seen = part(facts, flavor)

    assert {"number", "alias", "run", "latest"} <= set(seen["loads"])
    assert all(seen["loads"].values()), seen["loads"]
    assert ["1", "READY", True] == seen["version"]
    assert ["best"] == seen["aliases"]
    assert seen["uri"].startswith("mlflow-artifacts:/registry/")


def test_an_autologged_model_is_registered_and_loads(facts: dict[str, Any]) -> None:
    assert {"rows": 120, "run": True} == part(facts, "autologged")


def test_the_registry_keeps_notes_tags_aliases_and_stages_and_finds_by_them(
    facts: dict[str, Any],
) -> None:
    seen = part(facts, "registry")
    name = seen["made"][0]

    assert {
        "made": [name, "first words"],
        "shown": ["other words", {"kind": "risk"}, {"best": "2"}],
        "versions": ["1", "2"],
        "notes": ["notes", {"checked": "yes"}, "Archived"],
        "staged": "Staging",
        "best": "2",
        "latest": ["1", "2"],
        "found": [name],
        "like": [name],
        "listed": True,
        "by name": ["2", "1"],
        "by run": ["1"],
        "by tag": ["1"],
        "ordered": ["1", "2"],
        "pages": [["2"], ["1"]],
    } == seen


def test_mistakes_get_the_codes_and_statuses_that_clients_act_on(facts: dict[str, Any]) -> None:
    assert {
        "exists": ["RESOURCE_ALREADY_EXISTS", 400],
        "model": MISSING,
        "version": MISSING,
        "number": INVALID,
        "alias": INVALID,
        "production": ["PERMISSION_DENIED", 403],
        "stage": INVALID,
        "source": INVALID,
        "local": INVALID,
        "empty": MISSING,
        "other run": INVALID,
        "name": INVALID,
        "filter": INVALID,
        "limit": INVALID,
    } == part(facts, "errors")


def test_no_client_puts_other_bytes_behind_a_registered_version(facts: dict[str, Any]) -> None:
    seen = part(facts, "overwriting")

    assert seen["same"]
    assert ["artifact.sealed", 403] == seen["put"] == seen["drop"]


def test_a_number_is_never_given_again_after_a_version_or_its_model_was_deleted(
    facts: dict[str, Any],
) -> None:
    assert {
        "numbers": ["1", "2", "3"],
        "gone": MISSING,
        "absent": MISSING,
        "old": MISSING,
        "listed": ["3"],
        "moved": True,
    } == part(facts, "recreating")


def test_a_logged_model_is_sealed_when_ready_and_found_by_what_was_measured(
    facts: dict[str, Any],
) -> None:
    seen = part(facts, "logged_models")
    if "skipped" in seen:
        assert facts["version"].startswith("2.")
        return

    assert {
        "status": "READY",
        "params": {"depth": "3"},
        "metrics": [["rmse", 0.5, "rows"]],
        "tags": ["a", None, "b"],
        "source": True,
        "searches": {
            "name": ["linear"],
            "metric": ["linear"],
            "param": ["linear"],
            "none": [],
            "dataset": ["linear"],
            "ordered": ["linear"],
        },
        "outputs": True,
        "mlmodel": True,
        "sealed": ["artifact.sealed", 403],
        "deleted": MISSING,
    } == seen


def test_a_model_is_evaluated_with_mlflows_own_evaluator(facts: dict[str, Any]) -> None:
    assert {"accuracy": True, "listed": True} == part(facts, "evaluated")


def test_lineage_leads_from_a_version_to_its_run_and_its_logged_model(
    facts: dict[str, Any], mlflow_server: MlflowServer
) -> None:
    seen = part(facts, "lightgbm_model")

    shown = mlflow_server.project.json("lineage", f"model:{seen['registered']}@1")

    nodes = {node["ref"].partition(":")[0] for node in shown["nodes"]}
    assert f"run:{seen['run']}" in {node["ref"] for node in shown["nodes"]}
    assert not shown["broken"]
    assert ("logged_model" in nodes) == facts["version"].startswith("3")


def test_a_version_swapped_on_disk_is_not_given_out(
    facts: dict[str, Any], mlflow_client: str, mlflow_server: MlflowServer
) -> None:
    name = part(facts, "lightgbm_model")["registered"]
    version = mlflow_server.project.json("models", "show", f"{name}@1")["version"]
    entry = next(file for file in version["files"] if file["path"] == "model.lgb")
    before, place = swap(mlflow_server.project.home, entry["digest"])
    try:
        told = run_client(mlflow_client, "mlflow_load.py", mlflow_server, f"models:/{name}/1")
    finally:
        place.chmod(0o600)
        place.write_bytes(before)

    assert not told["loaded"], told
    again = run_client(mlflow_client, "mlflow_load.py", mlflow_server, f"models:/{name}/1")
    assert again["loaded"], again


def swap(home: Path, digest: str) -> tuple[bytes, Path]:
    """Change one digit of a stored model, as somebody with the disk could; return what it was."""
    hexadecimal = digest.partition(":")[2]
    place = next(path for path in (home / "blobs").rglob("*") if path.name == hexadecimal[2:])
    before = place.read_bytes()
    place.chmod(0o600)
    digits = re.search(rb"leaf_value=-?0?\.?(\d)", before)
    assert digits is not None
    at = digits.start(1)
    other = b"7" if before[at : at + 1] != b"7" else b"3"
    place.write_bytes(before[:at] + other + before[at + 1 :])
    return before, place


def test_the_registered_model_is_served_by_everloop_itself(
    facts: dict[str, Any], mlflow_server: MlflowServer
) -> None:
    name = part(facts, "lightgbm_model")["registered"]

    version = mlflow_server.project.json("models", "show", f"{name}@1")["version"]

    assert ("mlflow", "lightgbm", ["a", "b"]) == (
        version["format"],
        version["servable_as"],
        [field["name"] for field in version["signature"]["inputs"]],
    ), json.dumps(version)[:500]
