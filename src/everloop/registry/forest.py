"""The splits of a tree model, as far as rows can be made that reach them.

Nothing here predicts. What the splits are used for is to ask a model at its own edges: a runtime
that rounds a threshold, or takes the wrong side at equality, is found there and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from everloop.registry.adapters.lightgbm_text import rewrite_model_text
from everloop.registry.adapters.refusals import FloatArray
from everloop.registry.adapters.xgboost_model import rewrite_xgboost

Ints: TypeAlias = npt.NDArray[np.int64]
_CATEGORICAL = 1  # lowest bit of LightGBM's decision_type

_FORESTS = frozenset(
    f"{kind}{task}"
    for kind in ("DecisionTree", "ExtraTree", "ExtraTrees", "RandomForest", "GradientBoosting")
    for task in ("Classifier", "Regressor")
)


class Tree(NamedTuple):
    """One tree; node 0 is its root.

    Attributes:
        feature: The column that each node splits by.
        threshold: A number goes left if it is at most this.
        left: Child of each node; a negative one is the leaf of that number, inverted.
        right: The other child.
        names: By node: the codes that go left, for those that split by names.
    """

    feature: Ints
    threshold: FloatArray
    left: Ints
    right: Ints
    names: dict[int, frozenset[int]]

    @property
    def leaves(self) -> int:
        """How many leaves it has."""
        return len(self.feature) + 1


class Forest(NamedTuple):
    """The trees of a model that have a split at all."""

    trees: tuple[Tree, ...]

    @property
    def nodes(self) -> int:
        """How many splits there are."""
        return sum(len(tree.feature) for tree in self.trees)

    @property
    def leaves(self) -> int:
        """How many leaves there are."""
        return sum(tree.leaves for tree in self.trees)


def find_forest(format_name: str, files: Mapping[str, bytes]) -> Forest | None:
    """Return the splits of a model, or None where its format does not tell them.

    Raises:
        InvalidInput: ``model.unreadable``.
    """
    if format_name == "lightgbm":
        return _of_lightgbm(files["model.txt"])
    if format_name == "xgboost":
        return _of_xgboost(next(iter(files.values())))
    return None


def forest_of(estimator: object) -> Forest | None:
    """Return the splits of a tree or a forest of scikit-learn, or None for any other estimator.

    Trees behind other steps, and those of some columns only, split by numbers that no caller sends.
    """
    kind = type(estimator)
    if kind.__module__.partition(".")[0] != "sklearn" or kind.__name__ not in _FORESTS:
        return None
    members = np.ravel(np.asarray(getattr(estimator, "estimators_", [estimator]), dtype=object))
    found = [_sklearn_tree(member.tree_) for member in members]
    return Forest(tuple(tree for tree in found if tree is not None))


def find_leaves(tree: Tree, rows: FloatArray) -> Ints:
    """Return the leaf that each row reaches; a missing value goes right.

    Close enough to the libraries to see what is covered, and not made to predict.
    """
    at = np.zeros(len(rows), dtype=np.int64)
    with np.errstate(invalid="ignore"):
        for _ in range(len(tree.feature)):
            inside = np.flatnonzero(at >= 0)
            if not inside.size:
                break
            node = at[inside]
            value = rows[inside, tree.feature[node]]
            goes_left = value <= tree.threshold[node]
            for place in np.flatnonzero(np.isin(node, list(tree.names))):
                code = value[place]
                goes_left[place] = np.isfinite(code) and int(code) in tree.names[int(node[place])]
            at[inside] = np.where(goes_left, tree.left[node], tree.right[node])
    return ~at


def _of_lightgbm(model: bytes) -> Forest:
    """Read the text that the library sees, which has every key once and every list in full."""
    trees = []
    for block in rewrite_model_text(model).decode("ascii").split("\nTree=")[1:]:
        told = dict(line.split("=", 1) for line in block.split("\n") if "=" in line)
        if int(told["num_leaves"]) < 2:
            continue
        feature, left, right, kinds = (
            np.array(told[name].split(" "), dtype=np.int64)
            for name in ("split_feature", "left_child", "right_child", "decision_type")
        )
        threshold = np.array(told["threshold"].split(" "), dtype=np.float64)
        names = {}
        if (kinds & _CATEGORICAL).any():
            bounds = [int(word) for word in told["cat_boundaries"].split(" ")]
            words = [int(word) for word in told["cat_threshold"].split(" ")]
            for node in np.flatnonzero(kinds & _CATEGORICAL).tolist():
                chosen = int(threshold[node])
                bits = words[bounds[chosen] : bounds[chosen + 1]]
                names[node] = frozenset(
                    32 * place + bit
                    for place, word in enumerate(bits)
                    for bit in range(32)
                    if word >> bit & 1
                )
        trees.append(Tree(feature, threshold, left, right, names))
    return Forest(tuple(trees))


def _of_xgboost(model: bytes) -> Forest:
    learner = json.loads(rewrite_xgboost(model).text)["learner"]
    booster = learner["gradient_booster"]
    trees = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
    found = [_xgboost_tree(told) for told in trees["trees"]]
    return Forest(tuple(tree for tree in found if tree is not None))


def _renumber(left: Ints) -> tuple[Ints, Ints]:
    """Return which nodes are inner ones, and each node's number: a leaf's is its complement."""
    inner, leaves = np.flatnonzero(left != -1), np.flatnonzero(left == -1)
    number = np.empty(len(left), dtype=np.int64)
    number[inner] = np.arange(inner.size)
    number[leaves] = ~np.arange(leaves.size)
    return inner, number


def _sklearn_tree(told: Any) -> Tree | None:
    left, right = np.asarray(told.children_left), np.asarray(told.children_right)
    inner, number = _renumber(left)
    if not inner.size:
        return None
    return Tree(
        np.asarray(told.feature, dtype=np.int64)[inner],
        np.asarray(told.threshold, dtype=np.float64)[inner],
        number[left[inner]],
        number[right[inner]],
        {},
    )


def _xgboost_tree(told: dict[str, Any]) -> Tree | None:
    left, right = np.array(told["left_children"]), np.array(told["right_children"])
    inner, number = _renumber(left)
    if not inner.size:
        return None
    condition = np.array(told["split_conditions"], dtype=np.float32)[inner]
    # It goes left below the condition, in float32: at most the number before it.
    below = np.nextafter(condition, np.float32(-np.inf)).astype(np.float64)
    segments = zip(
        told["categories_nodes"], told["categories_segments"], told["categories_sizes"], strict=True
    )
    # A name in the list goes right; left go those that are not, of which one is enough.
    names = {}
    for node, begin, size in segments:
        chosen = set(told["categories"][begin : begin + size])
        names[int(number[node])] = frozenset(set(range(max(chosen) + 2)) - chosen)
    return Tree(
        np.array(told["split_indices"], dtype=np.int64)[inner],
        below,
        number[left[inner]],
        number[right[inner]],
        names,
    )
