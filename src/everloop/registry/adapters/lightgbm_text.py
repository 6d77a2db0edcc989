"""Reads the text form of a LightGBM model, and writes it anew for the C++ library.

The library trusts the file: a child index past the end of a tree is read from foreign memory, a
cycle never ends, and a number that it cannot read ends the process. So it never sees the file, but
a text made here of what was understood of it: known keys in their order, every list of its full
length, every index inside its tree, offsets counted anew. Children of a node come after it in every
tree that LightGBM writes (``Tree::Split`` numbers nodes in order), which rules out cycles.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from everloop.core.errors import InvalidInput, LimitExceeded

LARGEST_MODEL_BYTES: Final = 512 << 20
_MOST_FEATURES: Final = 100_000
_MOST_CLASSES: Final = 10_000
_INTEGERS: Final = re.compile(r"-?\d{1,9}(?: -?\d{1,9})*", re.ASCII)
_NUMBER: Final = r"[-+]?(?:\d{1,400}(?:\.\d{0,400})?(?:[eE][-+]?\d{1,4})?|nan|inf)"
_NUMBERS: Final = re.compile(rf"{_NUMBER}(?: {_NUMBER})*", re.ASCII)
_OBJECTIVE: Final = re.compile(rf"[a-z_0-9]{{1,40}}(?: [a-z_]{{1,40}}(?::{_NUMBER})?)*", re.ASCII)
_OF_CLASSES: Final = frozenset({"multiclass", "multiclassova"})
_VERSION: Final = re.compile(r"v\d{1,3}", re.ASCII)
_CATEGORICAL: Final = 1  # lowest bit of decision_type
_NODE_LISTS: Final = (
    "split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child",
)  # fmt: skip
_LEAF_LISTS: Final = ("leaf_value", "leaf_weight", "leaf_count")
_INNER_LISTS: Final = ("internal_value", "internal_weight", "internal_count")


def rewrite_model_text(model: bytes) -> bytes:
    """Return a text that gives the same predictions and that the library can follow safely.

    Raises:
        InvalidInput: ``model.unreadable``.
        LimitExceeded: ``model.too_large``.
    """
    if len(model) > LARGEST_MODEL_BYTES:
        raise LimitExceeded(
            "model.too_large",
            f"The model has {len(model) >> 20} MiB.",
            hint=f"Keep models below {LARGEST_MODEL_BYTES >> 20} MiB: fewer trees or leaves.",
        )
    try:
        return _rewrite(model.decode("utf-8")).encode("ascii")
    except (ValueError, KeyError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(
            "model.unreadable",
            f"The LightGBM model cannot be read: {str(error)[:200]}.",
            hint="Save the model again with Booster.save_model or everloop's save_model.",
        ) from error


def names_in_text(model: bytes) -> tuple[str, ...]:
    """Return the inputs as the file names them; empty when it only counts them."""
    start = model.find(b"\nfeature_names=")
    if start < 0:
        return ()
    line = model[start + len(b"\nfeature_names=") :].partition(b"\n")[0]
    names = tuple(line.decode("utf-8", "replace").split(" "))
    # LightGBM's own names for columns that had none.
    return () if names == tuple(f"Column_{place}" for place in range(len(names))) else names


def _rewrite(text: str) -> str:
    if not text.startswith("tree\n"):
        raise ValueError("it is not the text form of a LightGBM model")
    body, found, _ = text.partition("\nend of trees")
    header, *blocks = body.split("\nTree=")
    if not found or not blocks:
        raise ValueError("it has no trees")
    features, classes, lines = _read_header(header)
    if len(blocks) % classes:
        raise ValueError(f"{len(blocks)} trees are no whole rounds of {classes} classes")
    trees = [_read_tree(number, block, features) for number, block in enumerate(blocks)]
    sizes = " ".join(str(len(tree)) for tree in trees)
    return f"{lines}tree_sizes={sizes}\n\n{''.join(trees)}end of trees\n\n"


def _read_header(text: str) -> tuple[int, int, str]:
    header = _pairs(text)
    version, objective = header["version"], header.get("objective")
    classes = _integers(header["num_class"], 1)[0]
    if not 1 <= classes <= _MOST_CLASSES or header["num_tree_per_iteration"] != str(classes):
        raise ValueError(f"it has {classes} classes, but not as many trees a round")
    features = _integers(header["max_feature_idx"], 1)[0] + 1
    if not 1 <= features <= _MOST_FEATURES:
        raise ValueError(f"it has {features} features")
    if _VERSION.fullmatch(version) is None:
        raise ValueError(f"{version[:40]!r} is no version of the format")
    if objective is not None and _OBJECTIVE.fullmatch(objective) is None:
        raise ValueError(f"{objective[:40]!r} is no objective")
    _require_classes((objective or "").split(" "), classes)
    lines = [
        "tree",
        f"version={version}",
        f"num_class={classes}",
        f"num_tree_per_iteration={classes}",
        "label_index=0",
        f"max_feature_idx={features - 1}",
        *([f"objective={objective}"] if objective is not None else []),
        # Random forests answer with the mean of their trees.
        *(["average_output"] if "average_output" in text.split("\n") else []),
        "feature_names=" + " ".join(f"f{n}" for n in range(features)),
        "feature_infos=" + " ".join(["none"] * features),
    ]
    return features, classes, "".join(f"{line}\n" for line in lines)


def _require_classes(objective: list[str], classes: int) -> None:
    """Refuse an objective of more classes: the library writes that many numbers a row."""
    told = [part for part in objective if part.startswith("num_class")]
    wanted = [f"num_class:{classes}"] if objective[0] in _OF_CLASSES else []
    if told != wanted or (bool(wanted) != (classes > 1) and objective != [""]):
        raise ValueError(f"{' '.join(objective)[:80]!r} is no objective of {classes} classes")


def _read_tree(number: int, block: str, features: int) -> str:
    tree = _pairs(block)
    if block.partition("\n")[0] != str(number):
        raise ValueError(f"tree {number} is missing")
    leaves = _integers(tree["num_leaves"], 1)[0]
    categories = _integers(tree["num_cat"], 1)[0]
    if tree["is_linear"] != "0":
        raise ValueError("linear trees are not supported")
    if leaves < 1 or not 0 <= categories < max(leaves, 1):
        raise ValueError(f"tree {number} has {leaves} leaves and {categories} category lists")
    nodes = leaves - 1
    if nodes:
        _check_nodes(number, tree, features, categories)
    lines = [f"Tree={number}", f"num_leaves={leaves}", f"num_cat={categories}"]
    for names, length in ((_NODE_LISTS, nodes), (_LEAF_LISTS, leaves), (_INNER_LISTS, nodes)):
        lines.extend(f"{name}={_list(tree, name, length)}" for name in names)
    if categories:
        lines.extend(f"{name}={tree[name]}" for name in ("cat_boundaries", "cat_threshold"))
    shrinkage = _numbers(tree["shrinkage"], 1)[0]
    return "\n".join([*lines, "is_linear=0", f"shrinkage={shrinkage}", "", "", ""])


def _list(tree: dict[str, str], name: str, length: int) -> str:
    if length == 0 or (length == 1 and not tree[name] and name != "leaf_value"):
        # A tree of one leaf has no nodes, and LightGBM leaves its weights empty.
        return ""
    return " ".join(_numbers(tree[name], length))


def _check_nodes(number: int, tree: dict[str, str], features: int, categories: int) -> None:
    nodes = _integers(tree["num_leaves"], 1)[0] - 1
    if not all(0 <= feature < features for feature in _integers(tree["split_feature"], nodes)):
        raise ValueError(f"tree {number} splits by a feature that does not exist")
    for side in ("left_child", "right_child"):
        for node, child in enumerate(_integers(tree[side], nodes)):
            inside = node < child < nodes if child >= 0 else ~child < nodes + 1
            if not inside:
                raise ValueError(f"tree {number} has a child outside of it")
    thresholds = _numbers(tree["threshold"], nodes)
    for decision, threshold in zip(
        _integers(tree["decision_type"], nodes), thresholds, strict=True
    ):
        if decision & _CATEGORICAL and not 0 <= float(threshold) < categories:
            raise ValueError(f"tree {number} splits by a category list that does not exist")
    if categories:
        bounds = _integers(tree["cat_boundaries"], categories + 1)
        words = tree["cat_threshold"].split(" ")
        if not all(word.isascii() and word.isdigit() and int(word) < 2**32 for word in words):
            raise ValueError(f"tree {number} has category lists that are none")
        rising = all(low <= high for low, high in pairwise(bounds))
        if bounds[0] != 0 or bounds[-1] != len(words) or not rising:
            raise ValueError(f"tree {number} has category lists outside of it")


def _pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for line in text.split("\n"):
        name, found, value = line.partition("=")
        if not found:
            continue
        if name in pairs:
            raise ValueError(f"{name[:40]!r} stands twice")
        pairs[name] = value
    return pairs


def _integers(text: str, length: int) -> list[int]:
    if _INTEGERS.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not a list of whole numbers")
    values = [int(word) for word in text.split(" ")]
    if len(values) != length:
        raise ValueError(f"there are {len(values)} whole numbers in place of {length}")
    return values


def _numbers(text: str, length: int) -> list[str]:
    words = text.split(" ")
    if _NUMBERS.fullmatch(text) is None or len(words) != length:
        raise ValueError(f"{text[:40]!r} is not a list of {length} numbers")
    return words
