"""Rows at the edges of a model: where two runtimes that are not the same would differ.

At each split of a tree the threshold itself, its neighbours in float64 and in float32, and a
missing value, in rows that reach the split; for each column the ends of what training saw, values
far beyond it, and every name. Between them rows of the holdout, and rows with its columns shuffled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np

from everloop.registry.adapters.refusals import FloatArray
from everloop.registry.forest import Forest, Ints, Tree, find_leaves
from everloop.registry.signature import Field, Signature

MOST_ROWS: Final = 20_000
MOST_KEPT: Final = 1_000
_SEED: Final = 20_260_101
_MOST_RANDOM: Final = 2_000
_VARIANTS: Final = 3
# A node, a row that reaches it, and between which values each column must stay for that.
_Place: TypeAlias = tuple[int, FloatArray, dict[int, tuple[float, float]]]
_FAR: Final = (0.0, -0.0, 1e-40, -1e-40, 16_777_217.0, -1e9, 3.4e38, -3.4e38)
_WHOLE_FAR: Final = (0.0, -1.0, 16_777_217.0, -16_777_217.0, 2.0**53, -(2.0**53))


def boundary_rows(
    signature: Signature, holdout: FloatArray, forest: Forest | None, *, most: int = MOST_ROWS
) -> FloatArray:
    """Return rows to compare runtimes on, the same for the same arguments.

    Args:
        signature: What a caller may send; missing values stand only where null or an unknown name
            may.
        holdout: Real rows to start from, at least one.
        forest: The model's splits, if its format tells them.
        most: How many rows at most.
    """
    rng = np.random.default_rng(_SEED)
    fields = [field for field in signature.inputs for _ in range(field.width)]
    chosen = np.linspace(0, len(holdout) - 1, min(len(holdout), _MOST_RANDOM)).astype(np.int64)
    real = holdout[chosen]
    shuffled = np.column_stack([rng.permutation(column) for column in real.T])
    parts = [real, shuffled, *_column_rows(fields, real, most // 4)]
    left = most - sum(len(part) for part in parts)
    if forest is not None and left > 0:
        parts.append(_split_rows(fields, real, forest, left))
    return np.ascontiguousarray(np.concatenate(parts)[:most])


def choose_kept(rows: FloatArray, forest: Forest | None, *, most: int = MOST_KEPT) -> Ints:
    """Return the places of few rows that visit as many leaves as these rows do together.

    A row is taken if it visits a leaf that none before it did; then rows spread evenly fill up.
    """
    order = np.random.default_rng(_SEED).permutation(len(rows))
    taken: list[int] = []
    if forest is not None and forest.trees:
        base = np.cumsum([0, *(tree.leaves for tree in forest.trees)])
        visited = np.column_stack(
            [find_leaves(tree, rows) + base[place] for place, tree in enumerate(forest.trees)]
        )
        seen = np.zeros(forest.leaves, dtype=bool)
        for place in order:
            if not seen[visited[place]].all():
                seen[visited[place]] = True
                taken.append(int(place))
    even = np.linspace(0, len(rows) - 1, min(len(rows), most // 4)).astype(np.int64).tolist()
    return np.array(sorted({*taken[: most - len(even)], *even}), dtype=np.int64)


def _column_rows(fields: list[Field], real: FloatArray, most: int) -> Iterator[FloatArray]:
    each = max(4, most // max(len(fields), 1))
    for column, field in enumerate(fields):
        values = _edges(field)[:each]
        if values:
            rows = real[np.arange(len(values)) * 7 % len(real)].copy()
            rows[:, column] = values
            yield rows


def _edges(field: Field) -> list[float]:
    if field.categories is not None:
        return [np.nan, *map(float, range(len(field.categories)))]
    missing = [np.nan] if field.nullable else []
    if field.dtype == "bool":
        return [*missing, 0.0, 1.0]
    ends = [end for end in (field.minimum, field.maximum) if end is not None]
    if field.dtype == "int64":
        return [*missing, *ends, *(end + step for end in ends for step in (-1, 1)), *_WHOLE_FAR]
    beside = [float(np.nextafter(end, to)) for end in ends for to in (-np.inf, np.inf)]
    return [*missing, *ends, *beside, *(float(np.float32(end)) for end in ends), *_FAR]


def _split_rows(fields: list[Field], real: FloatArray, forest: Forest, most: int) -> FloatArray:
    """Return rows that reach splits, of all trees alike when there are too many splits."""
    share = min(1.0, most / max(1, _VARIANTS * forest.nodes))
    rows: list[FloatArray] = []
    owed, turn = 0.0, 0
    for tree in forest.trees:
        for node, base in _reaching(tree, real, turn):
            owed += share
            if owed < 1.0:
                continue
            owed -= 1.0
            turn += 1
            column = int(tree.feature[node])
            for value in _beside(tree, node, fields[column], turn):
                row = base.copy()
                row[column] = value
                rows.append(row)
    return np.array(rows) if rows else np.empty((0, real.shape[1]))


def _beside(tree: Tree, node: int, field: Field, turn: int) -> list[float]:
    """Return values on both sides of a split, and by turns one that rounding would move."""
    if node in tree.names:
        inside = sorted(tree.names[node])
        outside = next(code for code in range(len(inside) + 1) if code not in tree.names[node])
        return [float(inside[turn % len(inside)]) if inside else np.nan, float(outside), np.nan]
    edge = tree.threshold[node]
    above = np.nextafter(edge, np.inf)
    single = np.float32(edge)
    others = [
        np.nextafter(edge, -np.inf),
        float(single),
        float(np.nextafter(single, np.float32(np.inf))),
        float(np.nextafter(single, np.float32(-np.inf))),
    ]
    if field.nullable or field.categories is not None:
        others.append(np.nan)
    return [float(edge), float(above), float(others[turn % len(others)])]


def _reaching(tree: Tree, real: FloatArray, turn: int) -> Iterator[tuple[int, FloatArray]]:
    """Yield each node with a row that reaches it, changed as little as that needs."""
    waiting: list[_Place] = [(0, real[turn * 31 % len(real)], {})]
    while waiting:
        node, row, bounds = waiting.pop()
        yield node, row
        column = int(tree.feature[node])
        low, high = bounds.get(column, (-np.inf, np.inf))
        for child, side in ((int(tree.left[node]), True), (int(tree.right[node]), False)):
            if child < 0:
                continue
            if node in tree.names:
                within = _named(tree.names[node], row[column], inside=side)
                waiting.append((child, _changed(row, column, within), bounds))
                continue
            edge = float(tree.threshold[node])
            limits = (low, min(high, edge)) if side else (max(low, edge), high)
            value = row[column]
            if not limits[0] < value <= limits[1]:
                value = limits[1] if np.isfinite(limits[1]) else np.nextafter(limits[0], np.inf)
            waiting.append((child, _changed(row, column, value), {**bounds, column: limits}))


def _named(names: frozenset[int], value: float, *, inside: bool) -> float:
    is_inside = bool(np.isfinite(value)) and int(value) in names
    if is_inside == inside:
        return value
    if inside:
        return float(min(names, default=0))
    return float(next(code for code in range(len(names) + 1) if code not in names))


def _changed(row: FloatArray, column: int, value: float) -> FloatArray:
    if row[column] == value:
        return row
    changed = row.copy()
    changed[column] = value
    return changed
