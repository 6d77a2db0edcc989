"""Small models of every format, made with the libraries themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
import onnx
import pyarrow as pa
import xgboost as xgb
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LinearRegression, LogisticRegression

from everloop.registry.signature import Signature, Task, infer_signature, name_outputs

RNG = np.random.default_rng(11)
X = RNG.normal(size=(240, 3))
Y = X[:, 0] * 2 + X[:, 1]
KIND = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": Y, "kind": KIND})
NAMES = ["a", "b", "c"]
Rows = NDArray[np.float64]


class Sample(NamedTuple):
    """A model, and what its own library answers.

    Attributes:
        kind: Name of the format.
        file: Name of its file.
        make: Makes the model; another seed gives another model of the same shape.
        expected: The library's own answers for ``X``.
    """

    kind: str
    file: str
    make: Callable[[int], Any]
    expected: Callable[[Any], Rows]


def _booster(seed: int) -> lgb.Booster:
    settings = {"verbose": -1, "num_threads": 1, "num_leaves": 4}
    return lgb.train(settings, lgb.Dataset(X, Y, feature_name=NAMES), 5 + seed)


def _trees(seed: int, **settings: Any) -> xgb.Booster:
    truth = KIND if "num_class" in settings else Y
    rows = xgb.DMatrix(X, truth, feature_names=NAMES)
    return xgb.train({"max_depth": 3, "nthread": 1, **settings}, rows, 5 + seed)


def linear_onnx(weights: Rows, *, dtype: type = np.float32) -> Any:
    """One matrix of rows times weights of shape (columns, outputs)."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["answer"])],
        "linear",
        [helper.make_tensor_value_info("rows", kind, ["n", weights.shape[0]])],
        [helper.make_tensor_value_info("answer", kind, ["n", weights.shape[1]])],
        [numpy_helper.from_array(weights.astype(dtype), "weights")],
    )
    return made(graph)


def made(graph: Any, **domains: int) -> Any:
    """A model of a graph, in a version that every runtime of the last years reads."""
    sets = [helper.make_opsetid("", 18)]
    sets += [
        helper.make_opsetid(name.replace("_", "."), number) for name, number in domains.items()
    ]
    model = helper.make_model(graph, opset_imports=sets, ir_version=9)
    onnx.checker.check_model(model)
    return model


def classifier_onnx(classes: list[int], *, as_maps: bool) -> Any:
    """A linear classifier as skl2onnx writes it: a label, and probabilities."""
    count = len(classes)
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["rows"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            coefficients=RNG.normal(size=count * 3).tolist(),
            intercepts=[0.0] * count,
            classlabels_ints=classes,
            post_transform="SOFTMAX",
        )
    ]
    answer = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", count])
    if as_maps:
        nodes.append(
            helper.make_node(
                "ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=classes
            )
        )
        inner = helper.make_map_type_proto(
            TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        )
        answer = helper.make_value_info("maps", helper.make_sequence_type_proto(inner))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]), answer],
    )
    return made(graph, ai_onnx_ml=3)


def weights_of(seed: int, outputs: int = 1) -> Rows:
    return np.asarray(np.arange(3 * outputs).reshape(3, outputs) + seed, dtype=np.float64)


ONE_NUMBER = [
    Sample("lightgbm", "model.txt", _booster, lambda model: np.asarray(model.predict(X))),
    Sample(
        "sklearn",
        "model.skops",
        lambda seed: LinearRegression().fit(X, Y * (seed + 1)),
        lambda model: np.asarray(model.predict(X)),
    ),
    Sample("xgboost", "model.ubj", _trees, lambda model: np.asarray(model.inplace_predict(X))),
    Sample(
        "onnx",
        "model.onnx",
        lambda seed: linear_onnx(weights_of(seed)),
        lambda model: np.asarray(
            X.astype(np.float32) @ numpy_helper.to_array(model.graph.initializer[0])
        ).ravel(),
    ),
]
SEVERAL_NUMBERS = [
    Sample(
        "lightgbm",
        "model.txt",
        lambda seed: lgb.train(
            {"verbose": -1, "num_threads": 1, "objective": "multiclass", "num_class": 3},
            lgb.Dataset(X, KIND, feature_name=NAMES),
            3 + seed,
        ),
        lambda model: np.asarray(model.predict(X)),
    ),
    Sample(
        "sklearn",
        "model.skops",
        lambda seed: LogisticRegression(C=seed + 1.0).fit(X, KIND),
        lambda model: np.asarray(model.predict_proba(X)),
    ),
    Sample(
        "xgboost",
        "model.ubj",
        lambda seed: _trees(seed, objective="multi:softprob", num_class=3),
        lambda model: np.asarray(model.inplace_predict(X)),
    ),
    Sample(
        "onnx",
        "model.onnx",
        lambda seed: linear_onnx(weights_of(seed, 3)),
        lambda model: np.asarray(
            X.astype(np.float32) @ numpy_helper.to_array(model.graph.initializer[0])
        ),
    ),
]


def signature_of(outputs: tuple[str, ...] = (), task: Task = "regression") -> Signature:
    plain = infer_signature(TABLE, NAMES, "y", task)
    return name_outputs(plain, outputs) if outputs else plain
