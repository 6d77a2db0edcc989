"""What a user of MLflow does with models: logs, registers, aliases, loads, changes and attacks.

Runs in a client's environment, so it imports nothing of ours.
Prints what came of each part as JSON.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import mlflow  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # type: ignore[import-untyped]  # noqa: E402
import requests  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

Facts = dict[str, Any]
CLIENT = MlflowClient()
NAME = f"models {mlflow.__version__}"
MARK = mlflow.__version__.replace(".", "-")
IS_3 = int(mlflow.__version__.split(".")[0]) >= 3
SOURCE = np.random.default_rng(7)
ROWS = pd.DataFrame({"a": SOURCE.normal(size=120), "b": SOURCE.normal(size=120)})
LABELS = (ROWS.a + ROWS.b > 0).astype(int)
NUMBERS = ROWS.a * 2 + ROWS.b


def _named(name: str) -> dict[str, str]:
    return {"name": name} if IS_3 else {"artifact_path": name}


def _told(attempt: Callable[[], object]) -> list[Any]:
    try:
        return ["accepted", str(attempt())[:100]]
    except MlflowException as error:
        return [error.error_code, error.get_http_status_code()]
    except requests.HTTPError as error:
        answer: Any = error.response
        return [answer.json()["everloop_code"], answer.status_code]


def _loads(run_id: str, name: str, registered: str, expected: Any) -> Facts:
    found: Facts = {}
    uris = {
        "number": f"models:/{registered}/1",
        "alias": f"models:/{registered}@best",
        "run": f"runs:/{run_id}/{name}",
        "latest": f"models:/{registered}/latest",
    }
    if IS_3:
        uris["model"] = CLIENT.get_model_version(registered, "1").source
    for key, uri in uris.items():
        loaded = mlflow.pyfunc.load_model(uri)
        found[key] = bool(np.allclose(np.asarray(loaded.predict(ROWS)).ravel(), expected))
    return found


def _flow(flavor: Any, model: Any, registered: str) -> Facts:
    mlflow.set_experiment(NAME)
    expected = np.asarray(model.predict(ROWS)).ravel()
    signature = mlflow.models.infer_signature(ROWS, expected)
    with mlflow.start_run() as run:
        flavor.log_model(
            model,
            **_named("model"),
            signature=signature,
            input_example=ROWS[:2],
            registered_model_name=registered,
        )
    CLIENT.set_registered_model_alias(registered, "best", "1")
    version = CLIENT.get_model_version(registered, "1")
    return {
        "loads": _loads(run.info.run_id, "model", registered, expected),
        "version": [version.version, version.status, version.run_id == run.info.run_id],
        "aliases": list(version.aliases),
        "uri": CLIENT.get_model_version_download_uri(registered, "1"),
        "run": run.info.run_id,
        "registered": registered,
    }


def sklearn_model() -> Facts:
    from sklearn.linear_model import LogisticRegression

    return _flow(mlflow.sklearn, LogisticRegression().fit(ROWS, LABELS), f"sk-{MARK}")


def xgboost_model() -> Facts:
    import xgboost

    model = xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(ROWS, NUMBERS)
    return _flow(mlflow.xgboost, model, f"xgb-{MARK}")


def lightgbm_model() -> Facts:
    import lightgbm

    asked = {"objective": "regression", "num_threads": 1, "verbosity": -1}
    model = lightgbm.train(asked, lightgbm.Dataset(ROWS, NUMBERS), 3)
    return _flow(mlflow.lightgbm, model, f"lgb-{MARK}")


def autologged() -> Facts:
    from sklearn.linear_model import LinearRegression

    mlflow.set_experiment(f"{NAME} autolog")
    mlflow.sklearn.autolog(silent=True, registered_model_name=f"auto-{MARK}")
    try:
        with mlflow.start_run() as run:
            LinearRegression().fit(ROWS, NUMBERS)
    finally:
        mlflow.sklearn.autolog(disable=True)
    loaded = mlflow.pyfunc.load_model(f"models:/auto-{MARK}/1")
    return {
        "rows": len(loaded.predict(ROWS)),
        "run": CLIENT.get_model_version(f"auto-{MARK}", "1").run_id == run.info.run_id,
    }


def registry() -> Facts:
    name = f"reg-{MARK}"
    made = CLIENT.create_registered_model(name, tags={"team": "a"}, description="first words")
    CLIENT.update_registered_model(name, description="other words")
    CLIENT.set_registered_model_tag(name, "kind", "risk")
    CLIENT.delete_registered_model_tag(name, "team")
    run = _file_run("one")
    first = CLIENT.create_model_version(name, f"runs:/{run}/model", run, tags={"t": "1"})
    other = _file_run("two")
    second = mlflow.register_model(f"runs:/{other}/model", name)
    CLIENT.update_model_version(name, "1", description="notes")
    CLIENT.set_model_version_tag(name, "1", "checked", "yes")
    CLIENT.delete_model_version_tag(name, "1", "t")
    CLIENT.set_registered_model_alias(name, "best", "1")
    CLIENT.set_registered_model_alias(name, "best", "2")
    CLIENT.set_registered_model_alias(name, "old", "1")
    CLIENT.delete_registered_model_alias(name, "old")
    CLIENT.transition_model_version_stage(name, "1", "Staging")
    staged = CLIENT.transition_model_version_stage(name, "2", "staging", True)
    shown = CLIENT.get_registered_model(name)
    one = CLIENT.get_model_version(name, "1")
    return {
        "made": [made.name, made.description],
        "shown": [shown.description, shown.tags, shown.aliases],
        "versions": [first.version, second.version],
        "notes": [one.description, one.tags, one.current_stage],
        "staged": staged.current_stage,
        "best": CLIENT.get_model_version_by_alias(name, "best").version,
        "latest": sorted(
            v.version for v in CLIENT.get_latest_versions(name, ["Staging", "Archived"])
        ),
        "found": [m.name for m in CLIENT.search_registered_models(f"name = '{name}'")],
        "like": [
            m.name
            for m in CLIENT.search_registered_models(
                f"name ILIKE 'REG-{MARK}%' AND tags.kind='risk'"
            )
        ],
        "listed": name in [m.name for m in CLIENT.search_registered_models()],
        "by name": [v.version for v in CLIENT.search_model_versions(f"name = '{name}'")],
        "by run": [v.version for v in CLIENT.search_model_versions(f"run_id = '{run}'")],
        "by tag": [
            v.version
            for v in CLIENT.search_model_versions(f"name='{name}' and tags.checked = 'yes'")
        ],
        "ordered": [
            v.version
            for v in CLIENT.search_model_versions(
                f"name = '{name}'", order_by=["version_number ASC"]
            )
        ],
        "pages": _pages(f"name = '{name}'"),
    }


def _pages(text: str) -> list[list[str]]:
    pages, token = [], None
    while True:
        page = CLIENT.search_model_versions(text, max_results=1, page_token=token)
        pages.append([str(row.version) for row in page])
        token = page.token
        if not token:
            return pages


def _file_run(text: str) -> str:
    mlflow.set_experiment(NAME)
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
        Path(folder, "MLmodel").write_text("flavors: {}\n", encoding="utf-8")
        Path(folder, "data.txt").write_text(f"{text} {MARK}", encoding="utf-8")
        mlflow.log_artifacts(folder, "model")
    return str(run.info.run_id)


def errors() -> Facts:
    name = f"err-{MARK}"
    run = _file_run("errors")
    CLIENT.create_registered_model(name)
    CLIENT.create_model_version(name, f"runs:/{run}/model", run)
    CLIENT.set_registered_model_alias(name, "gone", "1")
    attempts: dict[str, Callable[[], object]] = {
        "exists": lambda: CLIENT.create_registered_model(name),
        "model": lambda: CLIENT.get_registered_model("no-such-model"),
        "version": lambda: CLIENT.get_model_version(name, "9"),
        "number": lambda: CLIENT.get_model_version(name, "x"),
        "alias": lambda: CLIENT.get_model_version_by_alias(name, "nobody"),
        "production": lambda: CLIENT.set_registered_model_alias(name, "production", "1"),
        "stage": lambda: CLIENT.transition_model_version_stage(name, "1", "Nowhere"),
        "source": lambda: CLIENT.create_model_version(name, "s3://bucket/model"),
        "local": lambda: CLIENT.create_model_version(name, "/etc", run),
        "empty": lambda: CLIENT.create_model_version(name, f"runs:/{run}/nothing", run),
        "other run": lambda: CLIENT.create_model_version(name, f"runs:/{run}/model", "0" * 32),
        "name": lambda: CLIENT.create_registered_model("a/b"),
        "filter": lambda: CLIENT.search_registered_models("name >"),
        "limit": lambda: CLIENT.search_registered_models(max_results=1_001),
    }
    return {key: _told(attempt) for key, attempt in attempts.items()}


def overwriting() -> Facts:
    """Try to put other bytes behind a registered version, in every way that a client has."""
    name = f"seal-{MARK}"
    run = _file_run("sealed")
    CLIENT.create_registered_model(name)
    CLIENT.create_model_version(name, f"runs:/{run}/model", run)
    before = _read(name)
    with tempfile.TemporaryDirectory() as folder:
        evil = Path(folder, "data.txt")
        evil.write_text("evil", encoding="utf-8")
        CLIENT.log_artifact(run, str(evil), "model")  # the run's own folder may change
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        uri = CLIENT.get_model_version_download_uri(name, "1")
        put = _told(lambda: get_artifact_repository(uri).log_artifact(str(evil)))
        drop = _told(lambda: get_artifact_repository(uri).delete_artifacts("data.txt"))
    return {"same": before == _read(name), "put": put, "drop": drop, "before": before}


def _read(name: str) -> str:
    uri = CLIENT.get_model_version_download_uri(name, "1")
    folder = mlflow.artifacts.download_artifacts(artifact_uri=uri)
    return Path(folder, "data.txt").read_text(encoding="utf-8")


def recreating() -> Facts:
    """Delete a version and its model, make them again, and see which numbers come."""
    name = f"again-{MARK}"
    one, two, three = (_file_run(f"{name} {text}") for text in ("one", "two", "three"))
    CLIENT.create_registered_model(name)
    numbers = [str(mlflow.register_model(f"runs:/{one}/model", name).version)]
    CLIENT.delete_model_version(name, "1")
    gone = _told(lambda: CLIENT.get_model_version(name, "1"))
    numbers.append(str(mlflow.register_model(f"runs:/{two}/model", name).version))
    CLIENT.delete_registered_model(name)
    absent = _told(lambda: CLIENT.get_registered_model(name))
    numbers.append(str(mlflow.register_model(f"runs:/{three}/model", name).version))
    old = _told(lambda: CLIENT.get_model_version(name, "2"))
    listed = [str(v.version) for v in CLIENT.search_model_versions(f"name = '{name}'")]
    CLIENT.rename_registered_model(name, f"{name}-x")
    moved = CLIENT.get_model_version(f"{name}-x", "3").name
    return {
        "numbers": numbers,
        "gone": gone,
        "absent": absent,
        "old": old,
        "listed": listed,
        "moved": moved == f"{name}-x",
    }


def logged_models() -> Facts:
    """What only clients of MLflow 3 do."""
    if not IS_3:
        return {"skipped": True}
    from sklearn.linear_model import LinearRegression

    mlflow.set_experiment(f"{NAME} logged")
    data = mlflow.data.from_pandas(ROWS, name="rows")
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(
            LinearRegression().fit(ROWS, NUMBERS),
            name="linear",
            params={"depth": 3},
            tags={"team": "a"},
        )
        mlflow.log_metric("rmse", 0.5, model_id=info.model_id, dataset=data)
    found = mlflow.get_logged_model(info.model_id)
    mlflow.set_logged_model_tags(info.model_id, {"more": "b"})
    mlflow.delete_logged_model_tag(info.model_id, "team")
    tagged = mlflow.get_logged_model(info.model_id)
    where = [run.info.experiment_id]

    def names(text: str, **more: Any) -> list[str]:
        found = mlflow.search_logged_models(where, filter_string=text, output_format="list", **more)
        return [model.name for model in found]

    with tempfile.TemporaryDirectory() as folder:
        evil = Path(folder, "MLmodel")
        evil.write_text("evil", encoding="utf-8")
        sealed = _told(lambda: CLIENT.log_model_artifact(info.model_id, str(evil)))
    searches = {
        "name": names("name = 'linear'"),
        "metric": names("metrics.rmse < 0.6"),
        "param": names("params.depth = '3'"),
        "none": names("metrics.rmse > 0.6"),
        "dataset": names("", datasets=[{"dataset_name": "rows"}]),
        "ordered": names("", order_by=[{"field_name": "metrics.rmse", "ascending": False}]),
    }
    outputs = [item.model_id for item in CLIENT.get_run(run.info.run_id).outputs.model_outputs]
    files = sorted(item.path for item in CLIENT.list_logged_model_artifacts(info.model_id))
    CLIENT.delete_logged_model(info.model_id)
    return {
        "status": str(found.status),
        "params": found.params,
        "metrics": [[m.key, m.value, m.dataset_name] for m in found.metrics or []],
        "tags": [found.tags.get("team"), tagged.tags.get("team"), tagged.tags.get("more")],
        "source": found.source_run_id == run.info.run_id,
        "searches": searches,
        "outputs": outputs == [info.model_id],
        "mlmodel": "MLmodel" in files,
        "sealed": sealed,
        "deleted": _told(lambda: mlflow.get_logged_model(info.model_id)),
    }


def evaluated() -> Facts:
    from sklearn.linear_model import LogisticRegression

    mlflow.set_experiment(f"{NAME} evaluate")
    model = LogisticRegression().fit(ROWS, LABELS)
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(model, **_named("model"))
        answer = mlflow.evaluate(
            info.model_uri,
            ROWS.assign(y=LABELS),
            targets="y",
            model_type="classifier",
            evaluator_config={"log_model_explainability": False},
        )
        run = mlflow.active_run().info.run_id
    listed = json.loads(CLIENT.get_run(run).data.tags.get("mlflow.log-model.history", "[]"))
    return {
        "accuracy": float(answer.metrics["accuracy_score"]) > 0.8,
        # Clients of MLflow 3 have logged models instead.
        "listed": IS_3 or [model["artifact_path"] for model in listed] == ["model"],
    }


PARTS = (
    sklearn_model, xgboost_model, lightgbm_model, autologged, registry, errors, overwriting,
    recreating, logged_models, evaluated,
)  # fmt: skip


def main() -> None:
    """Run the parts that are named, or all."""
    wanted = set(sys.argv[1:])
    facts: Facts = {"version": mlflow.__version__}
    for part in PARTS:
        if wanted and part.__name__ not in wanted:
            continue
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                facts[part.__name__] = part()
        except Exception:  # noqa: BLE001 -- whatever it was, the test shows it
            facts[part.__name__] = {"failed": traceback.format_exc()[-3_000:]}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
