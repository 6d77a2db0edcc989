"""Model versions of each format that runs on devices, sealed, and run as a device runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import xgboost as xgb
from onnx import TensorProto, helper, numpy_helper

import everloop.edge.verbs
import everloop.gate.verbs  # noqa: F401 -- declares gate.waive
from everloop.core.digest import Digest
from everloop.data.snapshot import commit_table
from everloop.edge.queries import EdgeBundleView, EdgePart, FetchEdge
from everloop.edge.verbs import BuildEdge
from everloop.gate.verbs import WaiveGate
from everloop.kernel.authz import Role
from everloop.registry.client import upload_files
from everloop.registry.evidence import Waiver
from everloop.registry.loaders import find_format
from everloop.registry.model import ModelVersion
from everloop.registry.signature import Task, infer_signature
from everloop.registry.verbs import RegisterModel
from tests.kit import World

RNG = np.random.default_rng(7)
COUNT = 1_200
CITY = RNG.integers(0, 12, COUNT)
INCOME = np.round(RNG.gamma(2.0, 1_500.0, COUNT), 2)
AGE = RNG.integers(18, 90, COUNT)
DEBT = np.where(RNG.random(COUNT) < 0.1, np.nan, RNG.normal(0.4, 0.2, COUNT))
NAMES = ["city", "income", "age", "debt"]
MATRIX = np.column_stack([CITY, INCOME, AGE, DEBT]).astype(np.float64)
TARGET = INCOME / 100 - AGE + np.nan_to_num(DEBT) * 40 + np.isin(CITY, [2, 5, 9]) * 25
TABLE = pa.table(
    {
        "city": [f"city {code:02}" for code in CITY],
        "income": INCOME,
        "age": AGE,
        "debt": pa.array(DEBT, from_pandas=True),
        "loss": TARGET,
    }
)
ROW: dict[str, object] = {"city": "city 05", "income": 3200.0, "age": 41, "debt": 0.25}
Y_BINARY = (TARGET > np.median(TARGET)).astype(int)
# No packages, nothing of ours, nothing of the environment.
BARE = [sys.executable, "-I", "-S"]


def lightgbm_model(objective: str = "regression", **settings: object) -> Any:
    target = Y_BINARY if objective == "binary" else TARGET
    rounds = int(str(settings.pop("rounds", 30)))
    params = {"objective": objective, "verbose": -1, "num_threads": 1, "seed": 3, **settings}
    data = lgb.Dataset(MATRIX, target, feature_name=NAMES, categorical_feature=["city"])
    return lgb.train(params, data, rounds)


def xgboost_model(objective: str = "reg:squarederror", **settings: object) -> Any:
    target = Y_BINARY if objective == "binary:logistic" else TARGET
    data = xgb.DMatrix(
        MATRIX,
        target,
        feature_names=NAMES,
        feature_types=["c", "q", "q", "q"],
        enable_categorical=True,
    )
    params = {"objective": objective, "nthread": 1, "max_cat_to_onehot": 2, "seed": 3, **settings}
    return xgb.train(params, data, 30)


def learn(world: World) -> Digest:
    """Commit the training data, and return the reference in whose bins devices count."""
    reference = commit_table(world.owner, "loans", TABLE.select(NAMES)).reference
    assert reference is not None
    return reference


def onnx_model() -> Any:
    """A linear model as a graph: a device needs onnxruntime for it."""
    weights = np.asarray([[1.0], [0.5], [-2.0], [3.0]], dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["answer"])],
        "linear",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def register(
    world: World,
    model: Any,
    *,
    name: str = "credit",
    task: Task = "regression",
    waived: bool = True,
) -> ModelVersion:
    """Register a model with the reference of its training data, and let it past its gate."""
    found = find_format(model)
    ask = RegisterModel(
        name=name,
        files=upload_files(world.blobs, found.save(model, None)),
        format=found.name,  # type: ignore[arg-type]
        signature=infer_signature(TABLE, NAMES, "loss", task),
        reference=learn(world),
    )
    made = world.owner.perform("model.register", ask, ModelVersion)
    if waived:
        approver = world.person("paula", Role.APPROVER)
        approver.perform("gate.waive", WaiveGate(version=made.id, why="a test of devices"), Waiver)
    return made


def seal(world: World, version: ModelVersion, **options: Any) -> EdgeBundleView:
    return world.owner.perform(
        "edge.build", BuildEdge(version=version.id, **options), EdgeBundleView
    )


def fetch(world: World, built: EdgeBundleView, folder: Path) -> Path:
    """Write a bundle to a file, as the command line does."""
    part = world.owner.perform("edge.fetch", FetchEdge(digest=built.bundle.digest), EdgePart)
    path = folder / f"{built.model}-{built.version}.pyz"
    path.write_bytes(part.data)
    return path


def run(path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a bundle by a Python that has no package at all."""
    return subprocess.run(
        [*BARE, str(path), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], **variables},
    )


def answers(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
