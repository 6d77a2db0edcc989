"""Answers with gradient boosted trees, in pure Python; numpy walks many rows at once.

One form serves LightGBM and XGBoost: a node goes left when its value is at most the threshold or
among the categories. What differs is kept beside it: the precision of inputs and sums, what counts
as missing, and the link from the sum to the answer. Sums are made in the order of the trees, so
that they equal the libraries' to the last bit.
"""

from __future__ import annotations

import math
from array import array
from typing import Any, Callable, Dict, List, Sequence

from everloop.edge.device.refusal import EdgeError

CATEGORICAL, DEFAULT_LEFT, MISSING_NAN, MISSING_ZERO = 1, 2, 4, 8
# LightGBM's zero: the float32 nearest to 1e-35, as a double.
ZERO = 1.0000000180025095e-35
BATCH = 16  # from so many rows on numpy is faster


class Tree:
    """One tree; a child below zero is the leaf of that number, counted from -1 downwards."""

    __slots__ = ("categories", "feature", "flags", "group", "leaf", "left", "right", "threshold")

    def __init__(self, told: Dict[str, Any]) -> None:
        self.group: int = told["group"]
        self.feature: List[int] = told["feature"]
        self.threshold: List[float] = told["threshold"]
        self.flags: List[int] = told["flags"]
        self.left: List[int] = told["left"]
        self.right: List[int] = told["right"]
        self.leaf: List[float] = told["leaf"]
        self.categories = {
            int(node): frozenset(found) for node, found in told["categories"].items()
        }


class Forest:
    """A model of trees.

    Attributes:
        inputs: How many numbers a row has.
        groups: How many numbers an answer has.
    """

    def __init__(self, told: Dict[str, Any]) -> None:
        self.inputs: int = told["inputs"]
        self.groups: int = told["groups"]
        self.is_single: bool = told["precision"] == "single"
        self._base: List[float] = told["base"]
        self._trees = [Tree(tree) for tree in told["trees"]]
        self._divisor: int = told["divisor"]
        self._link = _find_link(told["link"], told["scale"], single=self.is_single)
        self._arrays: List[Any] = []

    def predict(self, rows: Sequence[Sequence[float]]) -> List[Any]:
        """Return one number for each row, or a list of numbers where the model has several."""
        prepared = [self._prepare(row) for row in rows]
        sums = None
        if len(rows) >= BATCH:
            sums = self._sums_at_once(prepared)
        if sums is None:
            sums = [self._sum(row) for row in prepared]
        answers = [self._link(total) for total in sums]
        return answers if self.groups > 1 else [answer[0] for answer in answers]

    def _prepare(self, row: Sequence[float]) -> List[float]:
        if self.is_single:
            return array("f", [_clip(value) for value in row]).tolist()
        return [0.0 if -ZERO <= value <= ZERO else value for value in row]

    def _sum(self, row: List[float]) -> List[float]:
        if self.is_single:
            single = array("f", self._base)
            for tree in self._trees:
                single[tree.group] += self._leaf(tree, row)
            return single.tolist()
        sums = list(self._base)
        for tree in self._trees:
            sums[tree.group] += self._leaf(tree, row)
        return [total / self._divisor for total in sums] if self._divisor > 1 else sums

    def _leaf(self, tree: Tree, row: List[float]) -> float:
        feature, threshold, flags = tree.feature, tree.threshold, tree.flags
        node = 0 if feature else -1
        while node >= 0:
            value, flag = row[feature[node]], flags[node]
            if flag & 9 or value != value:
                is_left = self._goes_left(tree, node, value)
            else:
                is_left = value <= threshold[node]
            node = tree.left[node] if is_left else tree.right[node]
        return tree.leaf[-1 - node]

    def _goes_left(self, tree: Tree, node: int, value: float) -> bool:
        flag, is_nan = tree.flags[node], value != value
        if is_nan and flag & MISSING_NAN:
            return bool(flag & DEFAULT_LEFT)
        if is_nan:
            value = 0.0
        if flag & CATEGORICAL:
            if value < 0.0 and self.is_single:
                return False
            return math.isfinite(value) and int(value) in tree.categories[node]
        if flag & MISSING_ZERO and -ZERO <= value <= ZERO:
            return bool(flag & DEFAULT_LEFT)
        return value <= tree.threshold[node]

    def _sums_at_once(self, rows: List[List[float]]) -> Any:
        try:
            import numpy
        except ImportError:
            return None
        kind = numpy.float32 if self.is_single else numpy.float64
        matrix = numpy.asarray(rows, dtype=numpy.float64)
        sums = numpy.tile(numpy.asarray(self._base, dtype=kind), (len(rows), 1))
        if not self._arrays:
            self._arrays = [_to_arrays(numpy, tree) for tree in self._trees]
        for tree, arrays in zip(self._trees, self._arrays):
            leaves = self._leaves(numpy, tree, arrays, matrix)
            sums[:, tree.group] += numpy.asarray(tree.leaf, dtype=kind)[leaves]
        return (sums / self._divisor if self._divisor > 1 else sums).tolist()

    def _leaves(self, numpy: Any, tree: Tree, arrays: Any, matrix: Any) -> Any:
        feature, threshold, left, right, flags = arrays
        nodes = numpy.zeros(len(matrix), dtype=numpy.int64)
        if not tree.feature:
            return nodes
        open_rows = numpy.arange(len(matrix))
        while open_rows.size:
            at = nodes[open_rows]
            values, flag = matrix[open_rows, feature[at]], flags[at]
            is_nan = numpy.isnan(values)
            is_missing = is_nan & ((flag & MISSING_NAN) != 0)
            values = numpy.where(is_nan, 0.0, values)
            is_zero = (values >= -ZERO) & (values <= ZERO)
            is_missing |= is_zero & ((flag & MISSING_ZERO) != 0)
            goes_left = numpy.where(is_missing, (flag & DEFAULT_LEFT) != 0, values <= threshold[at])
            named = numpy.flatnonzero(((flag & CATEGORICAL) != 0) & ~is_missing)
            if named.size:
                goes_left[named] = self._are_named(numpy, tree, at[named], values[named])
            nodes[open_rows] = numpy.where(goes_left, left[at], right[at])
            open_rows = open_rows[nodes[open_rows] >= 0]
        return -1 - nodes

    def _are_named(self, numpy: Any, tree: Tree, at: Any, values: Any) -> Any:
        """Tell of each value whether it is among the categories of its node."""
        lowest = 0.0 if self.is_single else -1.0
        possible = (values >= lowest) & (values < 2.0**31) & (values > -1.0)
        codes = numpy.where(possible, values, -1.0).astype(numpy.int64)
        found = numpy.zeros(len(at), dtype=bool)
        for node in numpy.unique(at).tolist():
            mine = at == node
            found[mine] = numpy.isin(codes[mine], list(tree.categories[node]))
        return found & possible


def _to_arrays(numpy: Any, tree: Tree) -> Any:
    return (
        numpy.asarray(tree.feature, dtype=numpy.int64),
        numpy.asarray(tree.threshold, dtype=numpy.float64),
        numpy.asarray(tree.left, dtype=numpy.int64),
        numpy.asarray(tree.right, dtype=numpy.int64),
        numpy.asarray(tree.flags, dtype=numpy.int64),
    )


def _clip(value: float) -> float:
    """Return a number that float32 can hold: past its range lies infinity."""
    if -3.4028235677973366e38 < value < 3.4028235677973366e38 or value != value:
        return value
    return math.inf if value > 0 else -math.inf


def _find_link(name: str, scale: float, *, single: bool) -> Callable[[List[float]], List[float]]:
    links = _SINGLE if single else _DOUBLE
    if name not in links:
        raise EdgeError(
            "edge.model_unreadable",
            f"The model's link {name[:40]!r} is not known here.",
            "Build the bundle again with the version of Everloop that verifies it.",
        )
    found = links[name]
    return lambda sums: found(sums, scale)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _each(function: Callable[[float, float], float]) -> Callable[..., List[float]]:
    return lambda sums, scale: [function(total, scale) for total in sums]


def _softmax(sums: List[float], scale: float) -> List[float]:
    del scale
    highest = max(sums)
    powers = [_exp(total - highest) for total in sums]
    total = 0.0
    for power in powers:
        total += power
    return [power / total for power in powers]


def _round(value: float) -> float:
    return array("f", [_clip(value)])[0]


def _single_sigmoid(total: float, scale: float) -> float:
    del scale
    return _round(1.0 / _round(_round(_exp(min(-total, _round(88.7)))) + 1.0))


def _single_softmax(sums: List[float], scale: float) -> List[float]:
    del scale
    highest = max(sums)
    powers = [_round(_exp(_round(total - highest))) for total in sums]
    total = 0.0
    for power in powers:
        total += power
    return [_round(power / _round(total)) for power in powers]


_DOUBLE: Dict[str, Callable[..., List[float]]] = {
    "identity": _each(lambda total, scale: total),
    "sigmoid": _each(lambda total, scale: 1.0 / (1.0 + _exp(-scale * total))),
    "exp": _each(lambda total, scale: _exp(total)),
    "log1p_exp": _each(lambda total, scale: math.log1p(_exp(total))),
    "signed_square": _each(lambda total, scale: math.copysign(total * total, total)),
    "softmax": _softmax,
}
_SINGLE: Dict[str, Callable[..., List[float]]] = {
    "identity": _each(lambda total, scale: total),
    "sigmoid": _each(_single_sigmoid),
    "exp": _each(lambda total, scale: _round(_exp(total))),
    "hinge": _each(lambda total, scale: 1.0 if total > 0.0 else 0.0),
    "softmax": _single_softmax,
}
