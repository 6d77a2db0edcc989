"""Frameworks log their trainings by themselves, and never pay for it."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.base
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from everloop.core.digest import parse_digest
from everloop.core.errors import InvalidInput
from everloop.track import RunDraft, RunHandle, RunPorts, RunStatus, start_run
from everloop.track.active import activate
from everloop.track.adapters import torch_fits
from everloop.track.adapters.autolog import AUTOLOGGER
from everloop.track.adapters.patches import Patches
from everloop.track.queries import (
    ArtifactList,
    ListArtifacts,
    RunDetails,
    ShowRun,
)
from everloop.track.search import FoundRun, FoundRuns, SearchRuns
from tests.kit import World, world

INPUTS = np.random.default_rng(7).normal(size=(80, 3))
TARGET = (INPUTS[:, 0] + INPUTS[:, 1] > 0).astype(int)
NUMBERS = INPUTS @ [1.0, -2.0, 0.5]


@pytest.fixture
def w() -> World:
    return world()


@pytest.fixture
def ports(tmp_path: Path) -> RunPorts:
    return RunPorts(spool=tmp_path)


@pytest.fixture(autouse=True)
def logged(w: World, ports: RunPorts) -> Iterator[None]:
    AUTOLOGGER.enable(lambda name: start_run(w.owner, RunDraft(name=name), ports=ports))
    yield
    AUTOLOGGER.disable()


def runs(w: World) -> tuple[FoundRun, ...]:
    return w.owner.perform("run.search", SearchRuns(fields=("metrics",)), FoundRuns).items


def only(w: World) -> RunDetails:
    (row,) = runs(w)
    return show(w, row.id)


def show(w: World, run: str) -> RunDetails:
    return w.owner.perform("run.show", ShowRun(run=run), RunDetails)


def metrics(details: RunDetails) -> dict[str, float | None]:
    return {metric.key: metric.last for metric in details.metrics}


def artifacts(w: World, run: str) -> dict[str, bytes]:
    found = w.owner.perform("run.artifacts", ListArtifacts(run=run), ArtifactList).items
    return {item.path: w.blobs.get(parse_digest(item.digest)) for item in found}


def test_a_classifier_of_scikit_learn_logs_params_scores_importance_and_itself(w: World) -> None:
    model = RandomForestClassifier(n_estimators=3, random_state=1).fit(INPUTS, TARGET)

    details = only(w)
    assert (RunStatus.FINISHED, "3", "80", "3", "RandomForestClassifier") == (
        details.run.status, details.run.params["n_estimators"], details.run.tags["rows"],
        details.run.tags["features"], details.run.tags["estimator"],
    )  # fmt: skip
    found = metrics(details)
    assert model.score(INPUTS, TARGET) == found["training_score"]
    assert {"training_f1_score", "training_log_loss", "training_roc_auc"} <= found.keys()
    files = artifacts(w, details.run.id)
    table = pq.read_table(io.BytesIO(files["feature_importance.parquet"])).to_pydict()
    assert sorted(model.feature_importances_, reverse=True) == table["importance"]
    from skops.io import loads

    back = loads(files["model/model.skops"], trusted=["sklearn.tree._tree.Tree"])
    assert (model.predict(INPUTS) == back.predict(INPUTS)).all()


def test_what_a_pipeline_and_a_search_fit_within_themselves_belongs_to_them(w: World) -> None:
    make_pipeline(StandardScaler(), LogisticRegression()).fit(INPUTS, TARGET)
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(INPUTS, TARGET)

    names = [row.name for row in runs(w)]
    assert sorted(["Pipeline", "GridSearchCV", "candidate 0", "candidate 1"]) == sorted(names)
    search = next(row for row in runs(w) if row.name == "GridSearchCV")
    below = SearchRuns(filter=f"parent = '{search.id}'", fields=("metrics",))
    children = w.owner.perform("run.search", below, FoundRuns).items
    assert 2 == len(children)
    assert search.params["best_C"] in {child.params["C"] for child in children}
    assert "best_cv_score" in search.metrics
    assert "cv_results.parquet" in artifacts(w, search.id)


def test_a_second_fit_in_an_active_run_gets_names_of_its_own(w: World, ports: RunPorts) -> None:
    with start_run(w.owner, ports=ports) as run:
        LinearRegression().fit(INPUTS, NUMBERS)
        LinearRegression(fit_intercept=False).fit(INPUTS, NUMBERS)

    details = show(w, run.id)
    assert 1 == len(runs(w))
    assert ("True", "False") == (
        details.run.params["fit_intercept"], details.run.params["fit2.fit_intercept"],
    )  # fmt: skip
    assert {"training_r2_score", "fit2/training_r2_score"} <= metrics(details).keys()


def test_xgboost_logs_every_round_the_best_one_and_its_native_model(w: World) -> None:
    data = xgboost.DMatrix(INPUTS, TARGET)
    booster = xgboost.train(
        {"objective": "binary:logistic", "eval_metric": "logloss", "max_depth": 2},
        data, 6, evals=[(data, "train")], early_stopping_rounds=3, verbose_eval=False,
    )  # fmt: skip

    details = only(w)
    (loss,) = [metric for metric in details.metrics if metric.key == "train-logloss"]
    assert (6, 5) == (loss.count, loss.last_step)
    assert booster.best_iteration == metrics(details)["best_iteration"]
    assert ("2", "6") == (
        details.run.params["max_depth"], details.run.params["num_boost_round"],
    )  # fmt: skip
    back = xgboost.Booster(model_file=bytearray(artifacts(w, details.run.id)["model/model.ubj"]))
    assert (booster.predict(data) == back.predict(data)).all()


def test_estimators_of_xgboost_and_lightgbm_log_once(w: World) -> None:
    xgboost.XGBClassifier(n_estimators=2).fit(INPUTS, TARGET, eval_set=[(INPUTS, TARGET)])
    lightgbm.LGBMRegressor(n_estimators=2, verbosity=-1, min_child_samples=5).fit(INPUTS, NUMBERS)

    assert ["lightgbm", "xgboost"] == sorted(row.name for row in runs(w))


def test_lightgbm_logs_every_round_also_when_it_stops_early(w: World) -> None:
    train = lightgbm.Dataset(INPUTS, NUMBERS)
    valid = lightgbm.Dataset(INPUTS[:9], -NUMBERS[:9], reference=train)
    booster = lightgbm.train(
        {"objective": "regression", "verbosity": -1, "min_data_in_leaf": 5, "num_leaves": 4},
        train, 20, valid_sets=[valid], callbacks=[lightgbm.early_stopping(2, verbose=False)],
    )  # fmt: skip

    details = only(w)
    (loss,) = [metric for metric in details.metrics if metric.key == "valid_0-l2"]
    assert (booster.best_iteration + 2, "80") == (loss.count, details.run.tags["rows"])
    assert booster.best_iteration == metrics(details)["best_iteration"]
    text = artifacts(w, details.run.id)["model/model.txt"].decode()
    back = lightgbm.Booster(model_str=text)
    assert np.array_equal(booster.predict(INPUTS), back.predict(INPUTS))


def test_a_training_that_raises_raises_the_same_and_its_run_has_failed(w: World) -> None:
    with pytest.raises(ValueError, match="NaN"):
        LogisticRegression().fit(np.full((4, 2), np.nan), [0, 1, 0, 1])
    with pytest.raises(TypeError):
        xgboost.train()

    details = only(w)
    assert RunStatus.FAILED is details.run.status
    assert details.run.error is not None
    assert "NaN" in details.run.error


def test_nothing_that_goes_wrong_in_logging_reaches_the_training(
    w: World, ports: RunPorts, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(LinearRegression):  # type: ignore[misc]
        def get_params(self, deep: bool = True) -> dict[str, Any]:
            if deep:
                raise RuntimeError("no parameters today")
            return {}

        def predict(self, X: Any) -> Any:  # noqa: N803 -- the library's name
            raise RuntimeError("no predictions today")

    for _ in range(2):
        Odd().fit(INPUTS, NUMBERS)
    AUTOLOGGER.enable(lambda name: 1 / 0)  # type: ignore[arg-type, return-value]
    LinearRegression().fit(INPUTS, NUMBERS)

    told = [record.message for record in caplog.records if "left something out" in record.message]
    assert len(told) == len(set(told)), "each failure is said once"
    assert any("no run to log to" in record.message for record in caplog.records)
    assert {RunStatus.FINISHED} == {row.status for row in runs(w)}


def replaceable() -> list[object]:
    modules: tuple[Any, ...] = (xgboost, lightgbm, xgboost.sklearn, lightgbm.sklearn)
    base = vars(sklearn.base.BaseEstimator)
    return [
        *(module.train for module in modules), LinearRegression.fit, base.get("__init_subclass__"),
    ]  # fmt: skip


def test_switching_it_off_puts_every_function_back(w: World) -> None:
    AUTOLOGGER.disable()
    before = replaceable()
    AUTOLOGGER.enable(lambda name: start_run(w.owner))
    assert xgboost.train is not before[0]
    AUTOLOGGER.disable()

    assert before == replaceable()
    LinearRegression().fit(INPUTS, NUMBERS)
    assert () == runs(w)


def test_a_framework_that_is_imported_later_logs_too_and_keeps_its_loader() -> None:
    program = """
import sys
from everloop.track.adapters.autolog import AUTOLOGGER
AUTOLOGGER.enable(lambda name: None)
assert "xgboost" not in sys.modules and "sklearn" not in sys.modules
import xgboost, sklearn.linear_model
print(xgboost.train.__wrapped__ is not None, sklearn.linear_model.LinearRegression.fit.__wrapped__
      is not None, type(xgboost.__spec__.loader).__name__, xgboost.__loader__ is
      xgboost.__spec__.loader)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "True True SourceFileLoader True" == done.stdout.strip()


def test_only_known_frameworks_are_taken(w: World) -> None:
    with pytest.raises(InvalidInput, match="fastai"):
        AUTOLOGGER.enable(lambda name: start_run(w.owner), frameworks=["fastai"])


class Weight:
    """Stands for a tensor: as much of PyTorch's as the adapter touches."""

    def __init__(self, value: float, count: int = 1) -> None:
        self.value = value
        self.count = count
        self.gradients = 0

    def numel(self) -> int:
        return self.count

    def detach(self) -> Weight:
        return Weight(self.value)

    def backward(self) -> None:
        self.gradients += 1

    def __float__(self) -> float:
        return self.value


class Optimizer:
    """Stands for PyTorch's optimiser with its hook."""

    def __init__(self, params: list[Weight], lr: float) -> None:
        self.defaults = {"lr": lr}
        self.param_groups: list[dict[str, Any]] = [{"params": params, "lr": lr}]
        self._hooks: list[Any] = []

    def register_step_post_hook(self, hook: Any) -> None:
        self._hooks.append(hook)

    def step(self) -> None:
        for hook in self._hooks:
            hook(self, (), {})


def test_a_loop_shaped_like_pytorchs_logs_learning_rate_and_loss(w: World, ports: RunPorts) -> None:
    module: Any = ModuleType("torch_like")
    module.Tensor, module.optim = Weight, SimpleNamespace(Optimizer=Optimizer)
    patches = Patches()
    torch_fits.patch(module, patches, AUTOLOGGER)
    try:
        Optimizer([Weight(1.0)], 0.5).step()  # no run is active: nothing to log to
        with start_run(w.owner, ports=ports) as run:
            train(Optimizer([Weight(1.0, 6), Weight(1.0, 2)], 0.1), 21)
    finally:
        patches.restore()

    check_loop(show(w, run.id))


def train(optimizer: Optimizer, steps: int) -> None:
    for step in range(steps):
        Weight(10.0 - step / 10).backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] /= 2


def check_loop(details: RunDetails) -> None:
    by_key = {metric.key: metric for metric in details.metrics}
    assert (3, 20, 8.0) == (by_key["loss"].count, by_key["loss"].last_step, by_key["loss"].last)
    assert by_key["learning_rate"].maximum == 0.1
    assert ("Optimizer", "0.1", "8") == (
        details.run.params["optimizer"], details.run.params["optimizer.lr"],
        details.run.tags["parameters"],
    )  # fmt: skip


def test_a_loop_of_pytorch_logs_learning_rate_and_loss(w: World, ports: RunPorts) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is no part of this environment")
    module = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    AUTOLOGGER.enable(lambda name: start_run(w.owner, ports=ports), frameworks=["torch"])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with start_run(w.owner, ports=ports) as run:
        for _ in range(11):
            optimizer.zero_grad()
            loss = (module(torch.ones(4, 3)) ** 2).mean()
            loss.backward()
            optimizer.step()

    details = show(w, run.id)
    assert (2, 2) == tuple(
        metric.count for metric in details.metrics if metric.key in {"loss", "learning_rate"}
    )
    assert ("SGD", "4") == (details.run.params["optimizer"], details.run.tags["parameters"])


def test_a_thread_with_a_run_of_its_own_is_no_part_of_another_fit(
    w: World, ports: RunPorts
) -> None:
    with start_run(w.owner, ports=ports) as run:
        fit = AUTOLOGGER.begin_fit("outer")
        assert fit is not None
        assert AUTOLOGGER.begin_fit("inner") is None
        AUTOLOGGER.end_fit(fit, None)
        activate(run)
    assert isinstance(run, RunHandle)
