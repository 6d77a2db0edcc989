"""An unmodified MLflow client works against our server: 2.22, 3.1 and the newest, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parts.mlflow import MlflowServer, run_client

pytestmark = pytest.mark.slow
INFINITE = {"nan": "nan", "up": "inf", "down": "-inf"}


@pytest.fixture(scope="module")
def facts(mlflow_client: str, mlflow_server: MlflowServer) -> dict[str, Any]:
    """What came of the scenario."""
    found: dict[str, Any] = run_client(mlflow_client, "mlflow_scenario.py", mlflow_server)
    return found


def part(facts: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = facts[name]
    assert "failed" not in found, found["failed"]
    return found


def test_an_experiment_is_made_found_tagged_renamed_deleted_and_restored(
    facts: dict[str, Any],
) -> None:
    seen = part(facts, "experiments")
    name = f"scenario {facts['version']}"

    assert seen["location"].startswith("mlflow-artifacts:/")
    assert {
        "same": True,
        "tags": {"team": "risk"},
        "renamed": f"{name} renamed",
        "stages": ["deleted", "active"],
        "default": "Default",
        "missing": True,
        "found": [name],
    } == {key: value for key, value in seen.items() if key != "location"} | {
        "tags": {"team": seen["tags"].get("team")}
    }


def test_a_run_keeps_what_was_logged_to_it_also_after_it_ended(facts: dict[str, Any]) -> None:
    seen = part(facts, "runs")

    assert ("FINISHED", "outer", "artifacts", True) == (
        seen["status"],
        seen["name"],
        seen["uri"],
        seen["ended"],
    )
    assert {"depth": "3", "rate": "0.1", "name": "x" * 500} == seen["params"]
    assert {"loss": "0.25", "late": "1.0", "after": "2.0"} | INFINITE == seen["metrics"]
    assert [[1, 0.5], [2, 0.25]] == seen["history"]
    assert ["renamed"] == seen["children"]
    tags = seen["tags"]
    assert ("outer", "why", "t", "1") == (
        tags["mlflow.runName"],
        tags["mlflow.note.content"],
        tags["kind"],
        tags["one"],
    )
    assert "two" not in tags


def test_mistakes_get_the_codes_and_statuses_that_clients_act_on(facts: dict[str, Any]) -> None:
    seen = part(facts, "errors")
    invalid, missing = ["INVALID_PARAMETER_VALUE", 400], ["RESOURCE_DOES_NOT_EXIST", 404]

    assert {
        "param": invalid,
        "run": missing,
        "experiment": missing,
        "exists": ["RESOURCE_ALREADY_EXISTS", 400],
        "filter": invalid,
        "tag": missing,
        "model": missing,
    } == seen


def test_a_deleted_run_is_hidden_until_it_is_restored(facts: dict[str, Any]) -> None:
    assert {
        "views": [["kept"], ["gone"], ["gone", "kept"]],
        "stage": "deleted",
        "restored": ["gone", "kept"],
        "kept": True,
    } == part(facts, "deletion")


def test_search_filters_orders_and_pages_as_mlflow_does_and_knows_or(facts: dict[str, Any]) -> None:
    assert {
        "all": ["r3", "r2", "r1", "r0"],
        "metric": ["r0"],
        "and": ["r0"],
        "like": ["r3", "r2", "r0"],
        "missing": ["r3", "r2", "r0"],
        "up": ["r1", "r0", "r2", "r3"],
        "down": ["r0", "r1", "r2", "r3"],
        "or": ["r3", "r1"],
        "frame": ["lgb", "xgb"],
        "pages": [["r3", "r2", "r1"], ["r0"]],
    } == part(facts, "search")


def test_files_go_up_and_come_down_as_they_were(facts: dict[str, Any]) -> None:
    seen = part(facts, "files")

    assert [
        ["a.bin", False, 1_024_000],
        ["all", True, None],
        ["notes", True, None],
    ] == [row for row in seen["top"] if not row[0].endswith(".json")]
    assert ["all/sub/b c.txt", "all/sub/deep"] == seen["sub"]
    assert [] == seen["of a file"]
    assert (True, "grüße\n", "hello again") == (seen["same"], seen["text"], seen["note"])
    assert {"q": ["x", "y"], "n": [1, 2]} == seen["table"]


def test_a_large_file_goes_up_in_parts_and_can_be_removed(facts: dict[str, Any]) -> None:
    assert {"same": True, "left": 0} == part(facts, "parts")


def test_a_trace_is_kept_with_its_spans_found_tagged_and_deleted(facts: dict[str, Any]) -> None:
    assert {
        "answer": 8,
        "found": 1,
        "state": "OK",
        "spans": [["outer", True], ["inner", False]],
        "asked": {"value": 3},
        "answered": 8,
        "tagged": [1, 0],
        "gone": 1,
        "left": 0,
    } == part(facts, "traces")


def test_the_data_that_a_run_read_is_kept_once(facts: dict[str, Any]) -> None:
    assert {
        "names": ["credit"],
        "tags": [{"mlflow.data.context": "training"}],
    } == part(facts, "inputs")


def test_autologging_of_a_scikit_learn_search_makes_child_runs_and_files(
    facts: dict[str, Any],
) -> None:
    seen = part(facts, "sklearn_autolog")

    assert ("FINISHED", 2) == (seen["status"], seen["children"])
    assert {"best_cv_score", "training_accuracy_score"} <= set(seen["metrics"])
    assert "cv_results.csv" in seen["files"]


def test_autologging_of_xgboost_keeps_every_round(facts: dict[str, Any]) -> None:
    seen = part(facts, "xgboost_autolog")

    assert ["train-logloss"] == seen["metrics"]
    assert [0, 1, 2] == seen["points"]
    assert "feature_importance_weight.json" in seen["files"]


def test_autologging_of_lightgbm_keeps_metrics_and_importances(facts: dict[str, Any]) -> None:
    seen = part(facts, "lightgbm_autolog")

    assert ["training-binary_logloss"] == seen["metrics"]
    assert "feature_importance_gain.json" in seen["files"]
