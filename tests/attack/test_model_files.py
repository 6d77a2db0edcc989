"""Hostile files of models: typed errors, and never the end of the process."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LinearRegression

from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded, UnsafeArtifact
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.adapters.onnx_check import check_onnx
from everloop.registry.adapters.torch_steps import read_graph
from everloop.registry.adapters.ubjson import read_ubjson
from everloop.registry.adapters.xgboost_model import rewrite_xgboost
from everloop.registry.formats import save_model
from everloop.registry.loaders import load_predictor
from tests.unit.registry import zoo

POLICY = LoadPolicy()
FILES = {
    "xgboost": ("model.ubj",),
    "onnx": ("model.onnx",),
    "torch": ("graph.json", "model.safetensors"),
    "pyfunc": ("function.json", "function.py"),
    "sklearn": ("model.skops",),
}
EVERYTHING = LoadPolicy(formats=frozenset({"lightgbm", *FILES}))


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('the pickle ran')",))


JUNK = {
    "nothing": b"",
    "a pickle": pickle.dumps(Bomb()),
    "zeros": bytes(64),
    "a zip": b"PK\x03\x04" + bytes(60),
    "an open brace": b"{",
    "deep JSON": b'{"a":' * 50_000,
    "deep UBJSON": b"{" + (b"L" + struct.pack(">q", 1) + b"a{") * 50_000,
    "random": np.random.default_rng(1).bytes(4096),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_junk_is_an_input_error_in_every_format(kind: str, junk: bytes) -> None:
    if kind == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed; see EVERLOOP_TEST_TORCH")

    with pytest.raises((InvalidInput, LimitExceeded)) as refused:
        load_predictor(kind, dict.fromkeys(FILES[kind], junk), EVERYTHING)

    assert refused.value.code in {"model.unreadable", "model.too_large"}


@pytest.mark.parametrize("kind", FILES)
def test_files_beyond_the_formats_own_are_refused(kind: str) -> None:
    files = dict.fromkeys((*FILES[kind], "extra.bin"), b"x")

    with pytest.raises(InvalidInput) as refused:
        load_predictor(kind, files, EVERYTHING)

    assert "model.files_wrong" == refused.value.code


def sound_trees() -> dict[str, Any]:
    rows = xgb.DMatrix(zoo.X, zoo.KIND, feature_names=zoo.NAMES)
    booster = xgb.train({"objective": "multi:softprob", "num_class": 3, "max_depth": 3}, rows, 2)
    found: dict[str, Any] = json.loads(bytes(booster.save_raw("json")))
    return found


def learner(model: dict[str, Any]) -> Any:
    return model["learner"]


def gbtree(model: dict[str, Any]) -> Any:
    return model["learner"]["gradient_booster"]["model"]


def tree(model: dict[str, Any]) -> Any:
    return gbtree(model)["trees"][1]


def put(holder: Callable[[dict[str, Any]], Any], name: str, value: object) -> Callable[[Any], None]:
    def change(model: dict[str, Any]) -> None:
        holder(model)[name] = value

    change.__name__ = f"{holder.__name__}-{name}-{str(value)[:20]}"
    return change


def at(name: str, place: int, value: object) -> Callable[[Any], None]:
    def change(model: dict[str, Any]) -> None:
        tree(model)[name][place] = value

    change.__name__ = f"{name}-{place}-{value}"
    return change


def param(name: str, value: str) -> Callable[[Any], None]:
    def change(model: dict[str, Any]) -> None:
        learner(model)["learner_model_param"][name] = value

    change.__name__ = f"{name}-{value}"
    return change


CHANGES = [
    at("left_children", 0, 0),
    at("left_children", 0, 10**6),
    at("left_children", 0, -2),
    at("right_children", 0, 1),
    at("right_children", 0, -1),
    at("right_children", 0, 2**40),
    at("split_indices", 0, 3),
    at("split_indices", 0, -1),
    at("split_indices", 0, "0"),
    at("split_type", 0, 1),
    at("split_conditions", 0, None),
    at("split_conditions", 0, float("nan")),
    at("split_conditions", 0, 1e400),
    put(tree, "left_children", []),
    put(tree, "left_children", [[1, 2]]),
    put(tree, "split_indices", [0]),
    put(tree, "default_left", []),
    put(tree, "tree_param", {"size_leaf_vector": "3"}),
    put(tree, "tree_param", 7),
    put(gbtree, "tree_info", [0, 1, 2, 0, 1, 3]),
    put(gbtree, "tree_info", [0]),
    put(gbtree, "iteration_indptr", [0, 3, 99]),
    put(gbtree, "iteration_indptr", [0, 9, 6]),
    put(gbtree, "trees", {}),
    put(gbtree, "gbtree_model_param", {"num_parallel_tree": "999", "num_trees": "6"}),
    put(learner, "objective", {"name": "multi:softprob\n"}),
    put(learner, "objective", {"name": "reg:squarederror"}),
    put(learner, "gradient_booster", {"name": "gblinear", "model": {}}),
    put(learner, "gradient_booster", {"name": "dart", "gbtree": {}, "weight_drop": []}),
    param("num_class", "100000000"),
    param("num_class", "2"),
    param("num_class", "-3"),
    param("num_feature", "0"),
    param("num_feature", "99999999999"),
    param("num_target", "5"),
    param("base_score", "[1,2]"),
    param("base_score", "nan"),
    param("base_score", "x"),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_trees_that_lead_outside_of_themselves_are_refused(change: Callable[[Any], None]) -> None:
    model = sound_trees()
    change(model)

    with pytest.raises(InvalidInput):
        rewrite_xgboost(json.dumps(model).encode())


def test_an_objective_of_more_classes_than_the_model_has_is_set_right() -> None:
    """The library shapes its answer by it; a larger number would read past the end."""
    model = sound_trees()
    learner(model)["objective"]["softmax_multiclass_param"]["num_class"] = "5000"

    predictor = load_predictor("xgboost", {"model.json": json.dumps(model).encode()}, POLICY)

    assert (240, 3) == predictor.predict(zoo.X).shape


@pytest.mark.parametrize(
    "data",
    [
        b"[$L#L" + struct.pack(">q", 2**62),
        b"[#L" + struct.pack(">q", 2**62),
        b"[$Z#L" + struct.pack(">q", 10),
        b"SL" + struct.pack(">q", -1),
        b"SL" + struct.pack(">q", 10) + b"short",
        b"{L" + struct.pack(">q", 1) + b"aZL" + struct.pack(">q", 1) + b"aZ}",
        b"[#d" + struct.pack(">f", 2),
        b"Zrest",
        b"[" * 50,
        b"H",
    ],
)
def test_ubjson_that_lies_about_lengths_costs_nothing(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_ubjson(data)


def test_trees_mutated_at_random_never_end_the_process() -> None:
    """The library runs in a process of its own here: a crash must be seen, not shared."""
    program = """
import random, sys
import numpy as np
from everloop.core.errors import EverloopError
from everloop.registry.adapters.xgboost_native import XgboostPredictor
data = sys.stdin.buffer.read()
dice, loaded = random.Random(7), 0
for _ in range(400):
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        spot = dice.randrange(len(data))
        changed[spot] = int(dice.choice(sys.argv[1:]))
    try:
        model = XgboostPredictor(bytes(changed))
        model.predict(np.zeros((3, model.inputs)))
        loaded += 1
    except EverloopError:
        pass
print(loaded)
"""
    settings = {"max_depth": 3, "num_class": 3, "objective": "multi:softprob"}
    booster = xgb.train(settings, xgb.DMatrix(zoo.X, zoo.KIND), 3)
    for form, values in (("ubj", "0 1 2 127 128 255"), ("json", "48 49 50 57")):
        done = subprocess.run(
            [sys.executable, "-c", program, *values.split()],
            input=bytes(booster.save_raw(form)),
            capture_output=True,
            check=False,
        )

        assert 0 == done.returncode, done.stderr.decode()[-2000:]
        assert int(done.stdout) > 20


def linear() -> Any:
    return zoo.linear_onnx(zoo.weights_of(1))


def test_weights_outside_of_an_onnx_file_are_never_read() -> None:
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")

    with pytest.raises(UnsafeArtifact) as refused:
        check_onnx(model.SerializeToString())

    assert "artifact.external_data" == refused.value.code


def test_external_weights_hidden_in_an_attribute_of_an_inner_graph_are_found() -> None:
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="secret")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["o"], value=tensor)],
        "inner",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])],
    )
    model = linear()
    model.graph.node.append(
        helper.make_node("If", ["c"], ["x"], then_branch=inner, else_branch=inner)
    )

    with pytest.raises(UnsafeArtifact):
        check_onnx(model.SerializeToString())


@pytest.mark.parametrize(
    ("operator", "domain"),
    [
        ("Run", "com.evil"),
        ("PyOp", "ai.onnx.contrib"),
        ("ATen", "org.pytorch.aten"),
        ("Loop", ""),
        ("Scan", ""),
    ],
)
def test_onnx_operators_that_need_not_end_or_are_not_standard_are_refused(
    operator: str, domain: str
) -> None:
    model = linear()
    model.graph.node.append(helper.make_node(operator, ["rows"], ["x"], domain=domain))

    with pytest.raises(UnsafeArtifact) as refused:
        check_onnx(model.SerializeToString())

    assert "artifact.operators_refused" == refused.value.code


def test_a_function_inside_an_onnx_model_is_looked_through_as_well() -> None:
    model = linear()
    model.functions.append(
        helper.make_function(
            "ai.onnx", "Mine", ["a"], ["b"], [helper.make_node("Loop", ["a"], ["b"])], []
        )
    )

    with pytest.raises(UnsafeArtifact):
        check_onnx(model.SerializeToString())


def test_an_onnx_tensor_with_a_shape_beyond_all_bounds_is_refused() -> None:
    model = linear()
    model.graph.initializer[0].dims[0] = 1 << 40

    with pytest.raises(LimitExceeded):
        check_onnx(model.SerializeToString())


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_an_onnx_file_that_was_cut_off_is_an_input_error(cut: int) -> None:
    data = linear().SerializeToString()

    with pytest.raises(InvalidInput):
        load_predictor("onnx", {"model.onnx": data[:-cut]}, POLICY)


def test_onnx_files_mutated_at_random_never_end_the_process() -> None:
    program = """
import random, sys
import numpy as np
from everloop.core.errors import EverloopError
from everloop.registry.adapters.onnx_runtime import OnnxPredictor
data = sys.stdin.buffer.read()
dice = random.Random(9)
for _ in range(300):
    changed = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        changed[dice.randrange(len(data))] = dice.randrange(256)
    try:
        model = OnnxPredictor(bytes(changed))
        model.predict(np.zeros((2, model.inputs)))
    except EverloopError:
        pass
"""
    for model in (linear(), zoo.classifier_onnx([0, 1, 2], as_maps=True)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=model.SerializeToString(),
            capture_output=True,
            check=False,
        )

        assert 0 == done.returncode, done.stderr.decode()[-2000:]


def graph(*steps: dict[str, Any], answer: int | None = None, **more: Any) -> bytes:
    told = {
        "inputs": 2,
        "outputs": 1,
        "weights": ["w"],
        "steps": list(steps),
        "answer": 1 + len(steps) if answer is None else answer,
        **more,
    }
    return json.dumps(told).encode()


SUM: dict[str, Any] = {"call": "aten.sum.dim_IntList", "args": [{"of": 1}, [1]]}


def test_a_sound_graph_is_read() -> None:
    assert 1 == len(read_graph(graph(SUM)).steps)


@pytest.mark.parametrize(
    "data",
    [
        graph({"call": "neg", "args": [{"of": 2}]}),
        graph({"call": "neg", "args": [{"of": -1}]}),
        graph({"call": "neg", "args": [{"of": True}]}),
        graph({"call": "neg", "args": [{"of": 1, "dtype": "float32"}]}),
        graph({"call": "neg", "args": [{"attr": "os"}]}),
        graph({"call": "neg", "args": [{"dtype": "hub"}]}),
        graph({"call": "neg", "args": [{"layout": "os"}]}),
        graph({"call": "neg", "args": [{"float": "1e9"}]}),
        graph({"call": "neg", "args": [[[[[[[[[[[1]]]]]]]]]]]}),
        graph({"call": "neg", "args": [list(range(20_000))]}),
        graph({"call": "neg", "args": ["x" * 1000]}),
        graph({"call": "neg", "args": [], "kwargs": {"x": {}}}),
        graph({"call": "neg", "args": [], "code": "import os"}),
        graph(SUM, answer=99),
        graph(SUM, answer=-1),
        graph(SUM, inputs=0),
        graph(SUM, outputs=10**9),
        graph(SUM, weights=["w", "w"]),
        graph(SUM, format="everloop.torch/2"),
    ],
)
def test_a_graph_that_can_not_be_followed_is_an_input_error(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_graph(data)


def nested(depth: int) -> object:
    whole: object = {}
    for _ in range(depth):
        whole = [whole]
    return whole


def skops_archive(change: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    estimator = LinearRegression().fit(np.arange(6.0).reshape(3, 2), np.arange(3.0))
    _, files = save_model(estimator)
    with zipfile.ZipFile(io.BytesIO(files["model.skops"])) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    schema = json.loads(members["schema.json"])
    if change is not None:
        change(schema)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as packed:
        for name, data in (members | {"schema.json": json.dumps(schema).encode()}).items():
            packed.writestr(name, data)
    return sink.getvalue()


def attributes(schema: dict[str, Any]) -> dict[str, Any]:
    held: dict[str, Any] = schema["content"]["content"]
    return held


def inputs(text: str) -> Callable[[dict[str, Any]], None]:
    def change(schema: dict[str, Any]) -> None:
        attributes(schema)["n_features_in_"]["content"] = text

    return change


SKOPS: dict[str, Callable[[dict[str, Any]], None]] = {
    "inputs beyond all bounds": inputs("1000000000000"),
    "inputs below none": inputs("-1"),
    "inputs that are no number": inputs('"many"'),
    "depth": lambda schema: schema.update(content=nested(400)),
    "another loader": lambda schema: schema.update(__loader__="NdArrayNode"),
    "no weights": lambda schema: attributes(schema).pop("coef_"),
}


@pytest.mark.parametrize("change", SKOPS.values(), ids=SKOPS)
def test_a_skops_archive_of_damaged_parts_is_an_input_error(
    change: Callable[[dict[str, Any]], None],
) -> None:
    with pytest.raises((InvalidInput, UnsafeArtifact)):
        ask(skops_archive(change))


def test_a_skops_archive_with_bytes_changed_at_random_is_an_input_error_or_a_model() -> None:
    sound = skops_archive()
    chance = random.Random(7)

    for _ in range(60):
        data = bytearray(sound)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with suppress(InvalidInput, UnsafeArtifact, LimitExceeded):
            ask(bytes(data))


def ask(archive: bytes) -> None:
    predictor = load_predictor("sklearn", {"model.skops": archive}, POLICY)
    predictor.predict(np.zeros((2, 2)))


def test_every_refusal_is_typed() -> None:
    """A last net: whatever a reader raises on a damaged file is one of ours."""
    dice = np.random.default_rng(4)
    sound = json.dumps(sound_trees()).encode()
    for _ in range(150):
        broken = bytearray(sound)
        start = int(dice.integers(0, len(sound) - 40))
        del broken[start : start + int(dice.integers(1, 40))]
        try:
            rewrite_xgboost(bytes(broken))
        except EverloopError:
            continue
