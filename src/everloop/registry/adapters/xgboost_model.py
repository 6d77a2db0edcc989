"""Reads an XGBoost model, JSON or UBJSON, and writes it anew for the C++ library.

The library trusts the file: a child or a feature past the end is read from foreign memory, and a
tree whose nodes form a circle never ends. So it never sees the file, but a text made here of what
was understood of it: each tree walked from its root, its nodes numbered anew, every list of its
full length. What prediction does not need (gains, weights, attributes) is left out.
"""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from everloop.core.errors import EverloopError, JsonValue
from everloop.registry.adapters.refusals import require_size, unreadable, unsupported
from everloop.registry.adapters.ubjson import read_ubjson

LARGEST_MODEL_BYTES: Final = 512 << 20
_MOST_FEATURES: Final = 100_000
_MOST_GROUPS: Final = 10_000
_MOST_NODES: Final = 50_000_000
_LARGEST_CATEGORY: Final = 1 << 20
_OF_CLASSES: Final = frozenset({"binary:logistic", "reg:logistic", "multi:softprob"})
_NO_PARENT: Final = 2**31 - 1
_WORD: Final = re.compile(r"[a-z]{1,20}(?::[a-z0-9]{1,40})?", re.ASCII)
_SETTING: Final = re.compile(r"[\w.,+\- \[\]()]{0,4000}", re.ASCII)
_NAME: Final = re.compile(r"[a-z_]{1,60}_param", re.ASCII)
Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]
Object: TypeAlias = dict[str, JsonValue]


class XgboostText(NamedTuple):
    """A model as the library may see it.

    Attributes:
        text: Its JSON.
        features: How many columns a row has.
        groups: How many numbers it answers for a row; 1 where a class is named by one number.
        names: Its inputs, where it names them.
        is_classifier: Whether its answers are probabilities of classes.
    """

    text: bytes
    features: int
    groups: int
    names: tuple[str, ...]
    is_classifier: bool


def rewrite_xgboost(model: bytes) -> XgboostText:
    """Return a text that gives the same predictions and that the library can follow safely.

    Raises:
        InvalidInput: ``model.unreadable``, or ``model.outputs_unsupported`` for trees whose leaves
            hold several numbers, and for linear boosters.
        LimitExceeded: ``model.too_large``.
    """
    require_size(model, LARGEST_MODEL_BYTES)
    try:
        return _rewrite(_object(_parse(model)))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, EverloopError):
            raise
        told = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise unreadable("XGBoost", told) from error


def _parse(model: bytes) -> JsonValue:
    if model[:1] != b"{":
        raise ValueError("it is neither JSON nor UBJSON of XGBoost")
    if model[1:2] in {b"L", b"l", b"I", b"U", b"i"}:
        return read_ubjson(model)
    try:
        found: JsonValue = msgspec.json.decode(model)
    except msgspec.DecodeError:
        # XGBoost writes NaN and Infinity among the gains, which strict JSON does not know.
        found = json.loads(model)
    return found


def _rewrite(whole: Object) -> XgboostText:
    learner = _object(whole["learner"])
    told = _object(learner["learner_model_param"])
    features, classes = _number(told["num_feature"]), _number(told["num_class"])
    targets = _number(told.get("num_target", "1"))
    groups = max(classes, 1) * max(targets, 1)
    if not (1 <= features <= _MOST_FEATURES and 1 <= groups <= _MOST_GROUPS):
        raise ValueError(f"it has {features} features and {groups} outputs")
    if classes > 1 and targets > 1:
        raise ValueError("it has several classes and several targets")
    objective = _objective(_object(learner["objective"]), classes)
    version = whole.get("version", [1, 0, 0])
    param: Object = {
        "base_score": _base_score(told["base_score"], groups),
        "boost_from_average": "1",
        "num_class": str(classes),
        "num_feature": str(features),
        "num_target": str(max(targets, 1)),
    }
    names = _names(learner.get("feature_names", []), features)
    fresh: Object = {
        "learner": {
            "attributes": {},
            "feature_names": [],
            "feature_types": [],
            "gradient_booster": _booster(_object(learner["gradient_booster"]), features, groups),
            "learner_model_param": param,
            "objective": objective,
        },
        "version": [_within(part, 0, 999) for part in _list(version, 3)],
    }
    answers = 1 if objective["name"] == "multi:softmax" else groups
    is_classifier = objective["name"] in _OF_CLASSES
    return XgboostText(msgspec.json.encode(fresh), features, answers, names, is_classifier)


def _objective(told: Object, classes: int) -> Object:
    name = told["name"]
    if not isinstance(name, str) or _WORD.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no objective")
    fresh: Object = {"name": name}
    for key, settings in told.items():
        if _NAME.fullmatch(key) is not None:
            fresh[key] = {
                _text(part, _SETTING): _text(value, _SETTING)
                for part, value in _object(settings).items()
            }
    if name.startswith("multi:"):
        # The library shapes its answers by this number, whatever the trees say.
        if classes < 2:
            raise ValueError("it has an objective of several classes, and one class")
        fresh["softmax_multiclass_param"] = {"num_class": str(classes)}
    elif classes > 1:
        raise ValueError(f"it has {classes} classes and the objective {name[:40]}")
    return fresh


def _base_score(told: JsonValue, groups: int) -> str:
    text = _text(told, _SETTING)
    values = [float(part) for part in text.strip("[]").split(",")]
    if len(values) not in {1, groups} or not np.isfinite(values).all():
        raise ValueError(f"the base score {text[:40]!r} does not fit {groups} outputs")
    return text


def _booster(told: Object, features: int, groups: int) -> Object:
    name = told.get("name")
    if name == "dart":
        inner = _object(told["gbtree"])
        model = _model(_object(inner["model"]), features, groups)
        weights = _floats(told["weight_drop"])
        if len(weights) != len(_list(model["trees"])):
            raise ValueError("its trees and their weights do not match")
        return {
            "name": "dart",
            "gbtree": {"name": "gbtree", "model": model},
            "weight_drop": weights.tolist(),
        }
    if name != "gbtree":
        raise unsupported(
            f"The booster {str(name)[:40]!r} is not supported.",
            "Train with the booster gbtree or dart.",
        )
    return {"name": "gbtree", "model": _model(_object(told["model"]), features, groups)}


def _model(told: Object, features: int, groups: int) -> Object:
    trees = _list(told["trees"])
    info = _ints(told["tree_info"])
    if len(info) != len(trees) or not _all_within(info, 0, groups):
        raise ValueError("its trees and their outputs do not match")
    settings = _object(told["gbtree_model_param"])
    bounds = _ints(told["iteration_indptr"]) if "iteration_indptr" in told else None
    if bounds is not None and (
        bounds[0] != 0 or bounds[-1] != len(trees) or (np.diff(bounds) < 0).any()
    ):
        raise ValueError("its rounds do not match its trees")
    fresh: Object = {
        "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
        "gbtree_model_param": {
            "num_parallel_tree": str(
                _within(_number(settings["num_parallel_tree"]), 1, len(trees) + 1)
            ),
            "num_trees": str(len(trees)),
        },
        "tree_info": info.tolist(),
        "trees": [_tree(place, _object(tree), features) for place, tree in enumerate(trees)],
    }
    if bounds is not None:
        fresh["iteration_indptr"] = bounds.tolist()
    return fresh


def _tree(place: int, told: Object, features: int) -> Object:
    if _number(_object(told["tree_param"]).get("size_leaf_vector", "1")) > 1:
        raise unsupported(
            "The leaves of its trees hold several numbers.",
            "Train with multi_strategy=one_output_per_tree.",
        )
    left, right = _ints(told["left_children"]), _ints(told["right_children"])
    if not 1 <= len(left) <= _MOST_NODES or len(right) != len(left):
        raise ValueError(f"tree {place} has {len(left)} left and {len(right)} right children")
    order = _walk(place, left, right)
    count = len(order)
    position = np.full(len(left), -1, dtype=np.int64)
    position[order] = np.arange(count)
    inner = left[order] != -1
    new_left, new_right = np.full(count, -1), np.full(count, -1)
    new_left[inner], new_right[inner] = position[left[order][inner]], position[right[order][inner]]
    parents = np.full(count, _NO_PARENT)
    parents[new_left[inner]] = parents[new_right[inner]] = np.flatnonzero(inner)
    splits = _taken(told["split_indices"], order, len(left))
    if not _all_within(splits[inner], 0, features):
        raise ValueError(f"tree {place} splits by a feature that does not exist")
    kinds = _taken(told["split_type"], order, len(left)) if "split_type" in told else splits * 0
    conditions = _floats(told["split_conditions"])
    if len(conditions) != len(left) or np.isnan(conditions[order]).any():
        raise ValueError(f"tree {place} has a condition that is no number")
    zeros = [0.0] * count
    # How much training data came to each node: contributions need it, answers don't.
    hessians = _floats(told["sum_hessian"]) if "sum_hessian" in told else conditions * 0
    if len(hessians) != len(left) or not (hessians[order] >= 0).all():
        raise ValueError(f"tree {place} has a weight that is no number")
    return {
        **_categories(place, told, position, inner & (kinds == 1)),
        "base_weights": zeros,
        "default_left": (_taken(told["default_left"], order, len(left)) != 0).astype(int).tolist(),
        "id": place,
        "left_children": new_left.tolist(),
        "loss_changes": zeros,
        "parents": parents.tolist(),
        "right_children": new_right.tolist(),
        "split_conditions": conditions[order].tolist(),
        "split_indices": np.where(inner, splits, 0).tolist(),
        "split_type": (inner & (kinds == 1)).astype(int).tolist(),
        "sum_hessian": hessians[order].tolist(),
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(features),
            "num_nodes": str(count),
            "size_leaf_vector": "1",
        },
    }


def _walk(place: int, left: Ints, right: Ints) -> Ints:
    """Return the nodes that the root reaches, level by level; pruned ones are left behind."""
    nodes = len(left)
    level = np.zeros(1, dtype=np.int64)
    levels, seen = [level], 1
    while level.size:
        inner = level[left[level] != -1]
        level = np.column_stack((left[inner], right[inner])).ravel()
        if not _all_within(level, 0, nodes):
            raise ValueError(f"tree {place} has a child outside of it")
        seen += level.size
        if seen > nodes:
            raise ValueError(f"tree {place} is a circle")
        levels.append(level)
    order = np.concatenate(levels)
    if len(np.unique(order)) != len(order):
        raise ValueError(f"tree {place} has a node with two parents")
    return order


def _categories(place: int, told: Object, position: Ints, is_categorical: Bools) -> Object:
    if not is_categorical.any():
        empty: Object = {f"categories{part}": [] for part in ("", "_nodes", "_segments", "_sizes")}
        return empty
    values = _ints(told["categories"])
    nodes, begins, sizes = (
        _ints(told[f"categories_{part}"]) for part in ("nodes", "segments", "sizes")
    )
    if not len(nodes) == len(begins) == len(sizes) or not _all_within(nodes, 0, len(position)):
        raise ValueError(f"tree {place} has categories for nodes outside of it")
    if (begins < 0).any() or (sizes < 1).any() or (begins + sizes > len(values)).any():
        raise ValueError(f"tree {place} has category lists outside of it")
    if not _all_within(values, 0, _LARGEST_CATEGORY):
        raise ValueError(f"tree {place} has category lists that are none")
    found = {
        int(position[node]): values[begin : begin + size].tolist()
        for node, begin, size in zip(nodes, begins, sizes, strict=True)
        if position[node] >= 0 and is_categorical[position[node]]
    }
    if len(found) != int(is_categorical.sum()):
        raise ValueError(f"tree {place} splits by a category list that does not exist")
    ordered = [found[node] for node in sorted(found)]
    lengths = [len(part) for part in ordered]
    begin_at = np.cumsum([0, *lengths])[:-1]
    return {
        "categories": [value for part in ordered for value in part],
        "categories_nodes": sorted(found),
        "categories_segments": begin_at.tolist(),
        "categories_sizes": list(lengths),
    }


def _names(told: JsonValue, features: int) -> tuple[str, ...]:
    names = tuple(name for name in _list(told) if isinstance(name, str))
    return names if len(names) == features else ()


def _object(value: JsonValue) -> Object:
    if not isinstance(value, dict):
        raise TypeError(f"{str(value)[:40]!r} is no object")
    return value


def _list(value: JsonValue, length: int | None = None) -> list[JsonValue]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise TypeError(f"{str(value)[:40]!r} is no list of the right length")
    return value


def _ints(value: JsonValue) -> Ints:
    array = np.asarray(_list(value))
    if array.size and (array.ndim != 1 or array.dtype.kind not in "ib"):
        raise TypeError(f"{str(value)[:40]!r} is no list of whole numbers")
    return array.astype(np.int64).reshape(-1)


def _taken(value: JsonValue, order: Ints, length: int) -> Ints:
    array = _ints(value)
    if len(array) != length:
        raise ValueError(f"there are {len(array)} whole numbers in place of {length}")
    return array[order]


def _floats(value: JsonValue) -> npt.NDArray[np.float64]:
    array = np.asarray(_list(value))
    if array.size and (array.ndim != 1 or array.dtype.kind not in "if"):
        raise TypeError(f"{str(value)[:40]!r} is no list of numbers")
    found = array.astype(np.float64).reshape(-1)
    if np.isinf(found).any():
        raise ValueError("a condition is infinite")
    return found


def _number(value: JsonValue) -> int:
    text = value if isinstance(value, str) else str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(text)


def _within(value: JsonValue, low: int, high: int) -> int:
    if not isinstance(value, int) or not low <= value < high:
        raise ValueError(f"{str(value)[:40]} is out of range")
    return value


def _all_within(values: Ints, low: int, high: int) -> bool:
    return bool(((values >= low) & (values < high)).all())


def _text(value: JsonValue, shape: re.Pattern[str]) -> str:
    if not isinstance(value, str) or shape.fullmatch(value) is None:
        raise ValueError(f"{str(value)[:40]!r} is no setting")
    return value
