"""Reads the trees of LightGBM and XGBoost into the one form that devices answer with.

Only texts that the registry's own readers have checked and written anew come here, so every child,
feature and category list is inside its tree.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from everloop.core.errors import InvalidInput
from everloop.edge.device.trees import CATEGORICAL, DEFAULT_LEFT, MISSING_NAN, MISSING_ZERO
from everloop.registry.adapters.lightgbm_text import rewrite_model_text
from everloop.registry.adapters.xgboost_model import rewrite_xgboost

Told: TypeAlias = dict[str, Any]
_LIGHTGBM_LINKS: Final = {
    "": "identity",
    "regression": "identity", "regression_l1": "identity", "huber": "identity",
    "fair": "identity", "quantile": "identity", "mape": "identity",
    "lambdarank": "identity", "rank_xendcg": "identity",
    "poisson": "exp", "gamma": "exp", "tweedie": "exp",
    "binary": "sigmoid", "cross_entropy": "sigmoid", "multiclassova": "sigmoid",
    "cross_entropy_lambda": "log1p_exp",
    "multiclass": "softmax",
}  # fmt: skip
_XGBOOST_LINKS: Final = {
    "reg:squarederror": "identity", "reg:linear": "identity", "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity", "reg:quantileerror": "identity",
    "reg:squaredlogerror": "identity", "rank:pairwise": "identity", "rank:ndcg": "identity",
    "rank:map": "identity", "binary:logitraw": "identity",
    "binary:logistic": "sigmoid", "reg:logistic": "sigmoid", "binary:hinge": "hinge",
    "count:poisson": "exp", "reg:gamma": "exp", "reg:tweedie": "exp", "survival:cox": "exp",
    "multi:softprob": "softmax",
}  # fmt: skip


def from_lightgbm(model: bytes) -> Told:
    """Return the trees of a LightGBM model text.

    Raises:
        InvalidInput: ``model.unreadable``, or ``edge.model_unsupported``.
    """
    text = rewrite_model_text(model).decode("ascii")
    header, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    told = _pairs(header)
    groups = int(told["num_class"])
    objective, *settings = told.get("objective", "").split(" ")
    if objective not in _LIGHTGBM_LINKS:
        raise _unsupported("LightGBM objective", objective)
    link, scale = _LIGHTGBM_LINKS[objective], 1.0
    for setting in settings:
        name, _, value = setting.partition(":")
        if name == "sigmoid":
            scale = float(value)
        if name == "sqrt":
            link = "signed_square"
    is_average = "average_output" in header.split("\n")
    return {
        "inputs": int(told["max_feature_idx"]) + 1,
        "groups": groups,
        "precision": "double",
        "base": [0.0] * groups,
        # Random forests of LightGBM answer with the mean of their trees, without a link.
        "divisor": len(blocks) // groups if is_average else 1,
        "link": link,
        "scale": scale,
        "trees": [_lightgbm_tree(place % groups, block) for place, block in enumerate(blocks)],
    }


def from_xgboost(model: bytes) -> Told:
    """Return the trees of an XGBoost model, JSON or UBJSON.

    Raises:
        InvalidInput: ``model.unreadable``, or ``edge.model_unsupported``.
    """
    sound = rewrite_xgboost(model)
    learner = msgspec.json.decode(sound.text)["learner"]
    objective = str(learner["objective"]["name"])
    booster = learner["gradient_booster"]
    if objective not in _XGBOOST_LINKS or booster["name"] != "gbtree":
        raise _unsupported("XGBoost", f"{booster['name']} with {objective}")
    link = _XGBOOST_LINKS[objective]
    scores = [float(part) for part in _score_texts(learner["learner_model_param"]["base_score"])]
    base = [_to_margin(link, score) for score in scores]
    groups = sound.groups
    inner = booster["model"]
    return {
        "inputs": sound.features,
        "groups": groups,
        "precision": "single",
        "base": base * groups if len(base) == 1 else base,
        "divisor": 1,
        "link": link,
        "scale": 1.0,
        "trees": [
            _xgboost_tree(group, tree)
            for group, tree in zip(inner["tree_info"], inner["trees"], strict=True)
        ],
    }


def thresholds_of(told: Told) -> dict[int, list[float]]:
    """Return the numbers by which each input is split, for rows at the boundaries."""
    found: dict[int, set[float]] = {}
    for tree in told["trees"]:
        for feature, threshold, flag in zip(
            tree["feature"], tree["threshold"], tree["flags"], strict=True
        ):
            if not flag & CATEGORICAL and math.isfinite(threshold):
                found.setdefault(feature, set()).add(threshold)
    return {feature: sorted(values) for feature, values in found.items()}


def categories_of(told: Told) -> dict[int, int]:
    """Return for each input that is split by categories the highest code that any split names."""
    found: dict[int, int] = {}
    for tree in told["trees"]:
        for node, values in tree["categories"].items():
            feature = tree["feature"][int(node)]
            found[feature] = max([found.get(feature, 0), *values])
    return found


def _lightgbm_tree(group: int, block: str) -> Told:
    told = _pairs(block)
    nodes = int(told["num_leaves"]) - 1
    thresholds = _numbers(told["threshold"])
    decisions = [int(word) for word in told["decision_type"].split()]
    bounds = [int(word) for word in told.get("cat_boundaries", "").split()]
    words = [int(word) for word in told.get("cat_threshold", "").split()]
    flags: list[int] = []
    categories: dict[str, list[int]] = {}
    for node, decision in enumerate(decisions):
        missing = (decision >> 2) & 3
        flag = {0: 0, 1: MISSING_ZERO, 2: MISSING_NAN}[missing]
        if decision & 1:
            place = int(thresholds[node])
            part = words[bounds[place] : bounds[place + 1]]
            categories[str(node)] = _set_bits(part)
            thresholds[node] = 0.0
            # Names that are missing go right, whatever the node says of numbers.
            flag = CATEGORICAL | MISSING_NAN
        elif decision & 2:
            flag |= DEFAULT_LEFT
        flags.append(flag)
    return {
        "group": group,
        "feature": [int(word) for word in told["split_feature"].split()],
        "threshold": thresholds[:nodes],
        "flags": flags,
        "left": [int(word) for word in told["left_child"].split()],
        "right": [int(word) for word in told["right_child"].split()],
        "leaf": _numbers(told["leaf_value"]),
        "categories": categories,
    }


def _xgboost_tree(group: int, told: Told) -> Told:
    left, right = told["left_children"], told["right_children"]
    inner = [node for node, child in enumerate(left) if child != -1]
    leaves = [node for node, child in enumerate(left) if child == -1]
    place = {node: at for at, node in enumerate(inner)}
    place.update({node: -1 - at for at, node in enumerate(leaves)})
    conditions = np.asarray(told["split_conditions"], dtype=np.float32)
    sizes = dict(zip(told["categories_nodes"], told["categories_sizes"], strict=True))
    begins = dict(zip(told["categories_nodes"], told["categories_segments"], strict=True))
    fresh: Told = {
        "group": group,
        "feature": [told["split_indices"][node] for node in inner],
        "threshold": [],
        "flags": [],
        "left": [],
        "right": [],
        "leaf": [float(conditions[node]) for node in leaves],
        "categories": {},
    }
    for at, node in enumerate(inner):
        is_left = bool(told["default_left"][node])
        first, second = place[left[node]], place[right[node]]
        flag, threshold = MISSING_NAN, 0.0
        if told["split_type"][node]:
            # Here the categories of a node go right; ours go left.
            first, second, is_left, flag = second, first, not is_left, flag | CATEGORICAL
            begin = begins[node]
            fresh["categories"][str(at)] = told["categories"][begin : begin + sizes[node]]
        else:
            # Below a float32 is at most the float32 before it.
            threshold = float(np.nextafter(conditions[node], np.float32(-np.inf)))
        fresh["flags"].append(flag | (DEFAULT_LEFT if is_left else 0))
        fresh["threshold"].append(threshold)
        fresh["left"].append(first)
        fresh["right"].append(second)
    return fresh


def _to_margin(link: str, score: float) -> float:
    single = np.float32(score)
    if link == "sigmoid":
        return float(-np.log(np.float32(1.0) / single - np.float32(1.0)))
    if link == "exp":
        return float(np.log(single))
    return float(single)


def _score_texts(told: str) -> list[str]:
    return told.strip("[]").split(",")


def _set_bits(words: list[int]) -> list[int]:
    return [32 * at + bit for at, word in enumerate(words) for bit in range(32) if word >> bit & 1]


def _pairs(text: str) -> dict[str, str]:
    split = (line.partition("=") for line in text.split("\n"))
    return {name: value for name, found, value in split if found}


def _numbers(text: str) -> list[float]:
    values = [float(word) for word in text.split()]
    if any(math.isnan(value) for value in values):
        raise _unsupported("LightGBM tree", "a number that is none")
    return values


def _unsupported(what: str, found: str) -> InvalidInput:
    return InvalidInput(
        "edge.model_unsupported",
        f"{what} {found[:60]!r} can't run on a device.",
        hint="Train with a common objective and the booster gbtree, or register it as ONNX.",
    )
