"""Runtimes against the training frameworks: the same answers, at the edges of the model too."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from everloop.core.errors import InvalidInput
from everloop.gate.parity import find_difference
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.boundary import boundary_rows, choose_kept
from everloop.registry.forest import find_forest, find_leaves
from everloop.registry.formats import save_model
from everloop.registry.loaders import FloatArray
from everloop.registry.runtimes import (
    RUNTIMES,
    find_candidates,
    open_reference,
    open_runtime,
)
from everloop.registry.signature import Field, Signature
from tests.unit.registry.zoo import classifier_onnx, linear_onnx, weights_of

POLICY = LoadPolicy()
LENIENT = RUNTIMES["onnxruntime"]
RNG = np.random.default_rng(3)
NAMES = ("amount", "age", "kind", "open")
KINDS = tuple(f"k{n:02}" for n in range(12))
SIGNATURE = Signature(
    inputs=(
        Field(name="amount", dtype="float64", nullable=True, minimum=-3.0, maximum=3.0),
        Field(name="age", dtype="int64", minimum=0.0, maximum=99.0),
        Field(name="kind", dtype="string", categories=KINDS),
        Field(name="open", dtype="bool"),
    ),
    output=Field(name="y", dtype="float64"),
    task="regression",
)
WHOLE = Signature(  # no missing values: for models that take none
    inputs=tuple(
        Field(name=name, dtype="float64", minimum=-3.0, maximum=3.0) for name in ("a", "b", "c")
    ),
    output=Field(name="y", dtype="float64"),
    task="regression",
)


def real_rows(n: int = 3_000) -> FloatArray:
    amount = RNG.normal(size=n)
    amount[RNG.random(n) < 0.1] = np.nan
    return np.column_stack(
        [amount, RNG.integers(0, 100, n), RNG.integers(0, len(KINDS), n), RNG.integers(0, 2, n)]
    )


ROWS = real_rows()
PLAIN = RNG.normal(size=(2_000, 3))
KIND = (PLAIN[:, 0] > 0).astype(int) + (PLAIN[:, 1] > 1)
TRUTH = np.nan_to_num(ROWS[:, 0]) * ROWS[:, 1] / 50 + (ROWS[:, 2] % 3) + ROWS[:, 3]


def trees(**settings: object) -> lgb.Booster:
    told = {"verbose": -1, "num_threads": 1, "num_leaves": 15, "min_data_in_leaf": 5}
    truth = np.digitize(TRUTH, (0.0, 2.0)) if "num_class" in settings else TRUTH
    return lgb.train({**told, **settings}, lgb.Dataset(ROWS, truth, categorical_feature=[2]), 20)


def boosted(**settings: object) -> xgb.Booster:
    truth = np.digitize(TRUTH, (0.0, 2.0)) if "num_class" in settings else TRUTH
    types = ["q", "q", "c", "q"]
    data = xgb.DMatrix(ROWS, truth, feature_types=types, enable_categorical=True)
    return xgb.train({"nthread": 1, "max_depth": 4, "max_cat_to_onehot": 1, **settings}, data, 20)


# What a converter makes may be wrong, and is then not served. XGBoost's quicker way sums the trees
# of a DART model in another order than its own predict.
MAY_DIFFER = {"onnxruntime in float32", "xgboost-c"}
MODELS: dict[str, tuple[Callable[[], object], Signature]] = {
    "lightgbm": (trees, SIGNATURE),
    "lightgbm of classes": (lambda: trees(objective="multiclass", num_class=3), SIGNATURE),
    "lightgbm, zero is missing": (lambda: trees(zero_as_missing=True), SIGNATURE),
    "lightgbm forest": (
        lambda: trees(boosting="rf", bagging_freq=1, bagging_fraction=0.6), SIGNATURE,
    ),
    "xgboost": (boosted, SIGNATURE),
    "xgboost of classes": (lambda: boosted(objective="multi:softprob", num_class=3), SIGNATURE),
    "xgboost dart": (lambda: boosted(booster="dart", rate_drop=0.3), SIGNATURE),
    "scikit-learn ridge": (lambda: Ridge().fit(PLAIN, PLAIN @ [1.0, 2.0, 3.0]), WHOLE),
    "scikit-learn classifier": (
        lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(PLAIN, PLAIN[:, 0] > 0),
        WHOLE,
    ),
    "scikit-learn classes": (lambda: LogisticRegression().fit(PLAIN, KIND), WHOLE),
    "onnx": (lambda: linear_onnx(weights_of(1)), WHOLE),
    "onnx of float64": (lambda: linear_onnx(weights_of(1, 3), dtype=np.float64), WHOLE),
    "onnx classifier": (lambda: classifier_onnx([0, 1], as_maps=False), WHOLE),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS, ids=str)
def saved(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, bytes], Signature]:
    make, signature = MODELS[request.param]
    return *save_model(make()), signature


def ask(answer: Callable[[FloatArray], FloatArray], rows: FloatArray) -> FloatArray:
    """The reference's answers, and NaN where it refuses a row."""
    try:
        return answer(rows)
    except InvalidInput:
        if len(rows) == 1:
            return np.full(1, np.nan)
    middle = len(rows) // 2
    return np.concatenate([ask(answer, rows[:middle]), ask(answer, rows[middle:])])


def test_every_runtime_gives_the_frameworks_answers_to_10_000_rows(
    saved: tuple[str, Mapping[str, bytes], Signature],
) -> None:
    kind, files, signature = saved
    start = ROWS if signature is SIGNATURE else PLAIN
    edges = boundary_rows(signature, start, find_forest(kind, files), most=10_000)
    more = np.column_stack([RNG.choice(column, 10_000) for column in start.T])
    rows = np.concatenate([edges, more])[:10_000]
    expected = ask(open_reference(kind, files, POLICY).answer, rows)
    refused: dict[str, str] = {}

    found = {
        one.name: find_difference(
            open_runtime(one.runtime.name, one.files, POLICY), rows, expected, one.runtime
        )
        for one in find_candidates(kind, files, POLICY, refused)
    }

    assert {} == refused
    assert len(rows) == 10_000
    wrong = {name: told for name, told in found.items() if isinstance(told, str)}
    assert wrong.keys() <= MAY_DIFFER, wrong
    assert wrong.keys() < found.keys()


def test_where_the_library_is_the_same_no_bit_may_differ() -> None:
    native = ("lightgbm-c", "xgboost-c", "xgboost-matrix", "skops", "torch-graph", "pyfunc")

    assert [0.0] * 6 == [RUNTIMES[name].tolerance for name in native]


@pytest.mark.parametrize("make", [trees, boosted, MODELS["lightgbm of classes"][0]])
def test_the_rows_that_are_kept_visit_every_leaf(make: Callable[[], object]) -> None:
    kind, files = save_model(make())
    forest = find_forest(kind, files)
    assert forest is not None
    rows = boundary_rows(SIGNATURE, ROWS, forest)

    kept = rows[choose_kept(rows, forest)]

    visited = sum(len(np.unique(find_leaves(tree, kept))) for tree in forest.trees)
    assert visited >= 0.97 * forest.leaves  # few leaves can't be reached by any row
    assert len(kept) <= 1_000


def flipped(text: str, place: int, number: int) -> str:
    """The text with one leaf of one tree changed, its sizes told anew."""
    lists = list(re.finditer(r"leaf_value=([^\n]+)", text))
    values = lists[place][1].split(" ")
    values[number] = repr(-float(values[number]) - 0.001)
    start, end = lists[place].span(1)
    changed = text[:start] + " ".join(values) + text[end:]
    trees = changed[changed.index("Tree=0") : changed.index("end of trees")]
    starts = [found.start() for found in re.finditer(r"Tree=\d+", trees)] + [len(trees)]
    told = " ".join(str(b - a) for a, b in pairwise(starts))
    return re.sub(r"tree_sizes=[0-9 ]+", f"tree_sizes={told}", changed)


def test_a_flipped_leaf_is_found_by_the_rows_that_are_kept() -> None:
    model: Any = trees(num_leaves=7)
    text = model.model_to_string()
    files = {"model.txt": text.encode()}
    forest = find_forest("lightgbm", files)
    rows = boundary_rows(SIGNATURE, ROWS, forest)
    kept = rows[choose_kept(rows, forest)]
    expected = open_reference("lightgbm", files, POLICY).answer(kept)
    count = len(re.findall("leaf_value=", text))

    unseen = []
    for place in range(count):
        leaves = re.findall(r"leaf_value=([^\n]+)", text)[place].split(" ")
        for number in range(len(leaves)):
            changed = {"model.txt": flipped(text, place, number).encode()}
            with_flip = open_runtime("lightgbm-c", changed, POLICY)
            if not isinstance(find_difference(with_flip, kept, expected, LENIENT), str):
                unseen.append((place, number))

    assert [] == unseen


def test_a_threshold_rounded_to_float32_is_found() -> None:
    model: Any = trees(num_leaves=4)
    text = model.model_to_string()
    files = {"model.txt": text.encode()}

    def rounded(match: re.Match[str]) -> str:
        words = [repr(float(np.float32(word))) for word in match[1].split(" ")]
        return "threshold=" + " ".join(words)

    changed = re.sub(r"\nthreshold=([^\n]+)", lambda found: "\n" + rounded(found), text)
    trees_text = changed[changed.index("Tree=0") : changed.index("end of trees")]
    starts = [found.start() for found in re.finditer(r"Tree=\d+", trees_text)] + [len(trees_text)]
    told = " ".join(str(b - a) for a, b in pairwise(starts))
    changed = re.sub(r"tree_sizes=[0-9 ]+", f"tree_sizes={told}", changed)
    rows = boundary_rows(SIGNATURE, ROWS, find_forest("lightgbm", files))
    expected = open_reference("lightgbm", files, POLICY).answer(rows)

    found = find_difference(
        open_runtime("lightgbm-c", {"model.txt": changed.encode()}, POLICY), rows, expected, LENIENT
    )

    assert isinstance(found, str)
    assert isinstance(
        find_difference(
            open_runtime("lightgbm-c", files, POLICY), rows, expected, RUNTIMES["lightgbm-c"]
        ),
        float,
    )
    # Rows of the data alone would not have seen it.
    seen = open_reference("lightgbm", files, POLICY).answer(ROWS)
    other = open_runtime("lightgbm-c", {"model.txt": changed.encode()}, POLICY).predict(ROWS)
    np.testing.assert_array_equal(seen, other)


def test_a_pipeline_that_fills_in_missing_values_needs_no_word_of_the_policy() -> None:
    fitted = make_pipeline(SimpleImputer(), Ridge()).fit(PLAIN, PLAIN[:, 0])

    model = open_runtime("skops", save_model(fitted)[1], POLICY)

    np.testing.assert_array_equal(fitted.predict(PLAIN), model.predict(PLAIN))


def test_a_number_where_the_reference_refuses_is_a_difference() -> None:
    model = open_runtime("skops", save_model(Ridge().fit(PLAIN, PLAIN[:, 0]))[1], POLICY)

    told = find_difference(model, PLAIN[:2], np.array([np.nan, 1.0]), LENIENT)

    assert isinstance(told, str)
    assert "in one of the two alone" in told


def test_an_unknown_runtime_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput) as refused:
        open_runtime("quantum", {}, POLICY)

    assert "model.runtime_unknown" == refused.value.code
