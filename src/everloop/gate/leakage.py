"""Does the training data know the answer already?

Three ways in which it does: one column determines the target, a sum of columns does (two parts of
a total, each harmless by itself), or rows of the holdout stand in the training data.
Relations are learned on every other row and judged on the rest, so that a column of unique values
does not look like knowledge.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from everloop.core.errors import InvalidInput
from everloop.data.arrow_values import is_point_in_time, kind_of, plain, to_aligned_floats

FloatArray: TypeAlias = npt.NDArray[np.float64]
Shape: TypeAlias = Literal["linear", "curve", "category"]

SINGLE_LIMIT = 0.99
"""The share of the target's variance that one honest column is not expected to explain."""

ADDITIVE_LIMIT = 0.995
"""The same for a weighted sum of all numeric columns."""

FEWEST_ROWS = 60
"""Below this nothing is judged."""

_KNOTS = 50
_MOST_CLASSES = 20


class SingleLeak(Struct, frozen=True, kw_only=True):
    """A column that determines the target by itself."""

    column: str
    r_squared: float
    shape: Shape


class LeakageReport(Struct, frozen=True, kw_only=True):
    """What the features know of the target that they should not.

    Attributes:
        rows: Rows that were judged; 0 when there were too few, or the target is constant.
        single: Columns that determine the target alone.
        additive: The columns of a sum that determines it, none of them alone.
        additive_r_squared: How much all numeric columns without the single leaks explain together.
    """

    rows: int
    single: tuple[SingleLeak, ...] = ()
    additive: tuple[str, ...] = ()
    additive_r_squared: float | None = None

    @property
    def leaks(self) -> bool:
        """Whether anything was found."""
        return bool(self.single or self.additive)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns to look at."""
        return (*(leak.column for leak in self.single), *self.additive)


class OverlapReport(Struct, frozen=True, kw_only=True):
    """Rows of the holdout that also stand in the training data.

    Attributes:
        rows: How many rows of the holdout.
        share: Their share of the holdout.
        examples: The first of them, counted from zero.
        compared: The columns that both tables have and that were compared.
    """

    rows: int
    share: float
    examples: tuple[int, ...]
    compared: tuple[str, ...]


def find_leakage(
    features: pa.Table, target: npt.ArrayLike | pa.Array | pa.ChunkedArray
) -> LeakageReport:
    """Look for columns, and sums of columns, that give the target away.

    Points in time are left out: a smooth series is not a leak. Rows without a target are, too.

    Raises:
        InvalidInput: ``gate.bad_target`` when the target does not fit the features.
    """
    wanted, held = _target_matrix(target)
    if wanted.shape[0] != features.num_rows:
        raise InvalidInput(
            "gate.bad_target",
            f"There are {wanted.shape[0]} targets for {features.num_rows} rows of features.",
            hint="Give one target for each row.",
        )
    rows = int(held.sum())
    if rows < FEWEST_ROWS or not np.ptp(wanted[held], axis=0).any():
        return LeakageReport(rows=0)
    features, wanted = features.filter(pa.array(held)), wanted[held]
    numeric = {
        name: to_aligned_floats(features[name])
        for name in features.column_names
        if kind_of(features[name].type) == "numeric" and not is_point_in_time(features[name].type)
    }
    found = [_judge_number(name, values, wanted) for name, values in numeric.items()]
    found += [
        _judge_names(name, features[name], wanted)
        for name in features.column_names
        if kind_of(features[name].type) == "category"
    ]
    single = tuple(leak for leak in found if leak.r_squared > SINGLE_LIMIT)
    alone = {leak.column for leak in single}
    rest = {name: values for name, values in numeric.items() if name not in alone}
    additive, explained = _find_sum(rest, wanted)
    return LeakageReport(rows=rows, single=single, additive=additive, additive_r_squared=explained)


def overlap(train: pa.Table, holdout: pa.Table) -> OverlapReport:
    """Find rows of the holdout that the training data has as well.

    Leave out columns that tell equal rows apart (ids). Values are compared exactly.

    Raises:
        InvalidInput: ``gate.nothing_to_compare`` when the tables share no column, or one has
            types that do not fit.
    """
    shared = [name for name in holdout.column_names if name in train.column_names]
    if not shared:
        raise _nothing_to_compare("they have no column in common")
    if not holdout.num_rows or not train.num_rows:
        return OverlapReport(rows=0, share=0.0, examples=(), compared=tuple(shared))
    ids = np.zeros(train.num_rows + holdout.num_rows, dtype=np.int64)
    for name in shared:
        codes = _codes(name, train[name], holdout[name])
        # Renumbered after each column, so that the product never overflows.
        _, ids = np.unique(ids * (int(codes.max()) + 1) + codes, return_inverse=True)
    known, asked = ids[: train.num_rows], ids[train.num_rows :]
    twice = np.flatnonzero(np.isin(asked, known))
    return OverlapReport(
        rows=int(twice.size),
        share=twice.size / holdout.num_rows,
        examples=tuple(twice[:5].tolist()),
        compared=tuple(shared),
    )


def _target_matrix(
    target: npt.ArrayLike | pa.Array | pa.ChunkedArray,
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return the target as numbers, classes as one column each, and the rows that have one."""
    column = target if isinstance(target, pa.ChunkedArray) else pa.chunked_array([_array(target)])
    if kind_of(column.type) == "numeric":
        values = to_aligned_floats(column)
        return values[:, None], np.isfinite(values)
    if kind_of(column.type) != "category":
        raise InvalidInput(
            "gate.bad_target",
            f"A target of type {column.type} cannot be judged.",
            hint="Give numbers, names or booleans.",
        )
    codes = _first_codes(plain(column))
    classes = min(int(codes.max(initial=0)) + 1, _MOST_CLASSES)
    matrix: FloatArray = (codes[:, None] == np.arange(classes)).astype(np.float64)
    return matrix, codes >= 0


def _array(target: npt.ArrayLike | pa.Array) -> pa.Array:
    return target if isinstance(target, pa.Array) else pa.array(np.asarray(target))


def _judge_number(name: str, values: FloatArray, wanted: FloatArray) -> SingleLeak:
    x = _fill(values)
    straight = _explained(wanted, _fit_line(x, wanted))
    curved = _explained(wanted, _fit_curve(x, wanted))
    if straight > SINGLE_LIMIT or straight >= curved:
        return SingleLeak(column=name, r_squared=straight, shape="linear")
    return SingleLeak(column=name, r_squared=curved, shape="curve")


def _judge_names(name: str, column: pa.ChunkedArray, wanted: FloatArray) -> SingleLeak:
    codes = _first_codes(plain(column)) + 1  # null is a name like another
    learned = codes[::2]
    count = np.bincount(learned, minlength=int(codes.max()) + 1)
    guess = np.tile(wanted[::2].mean(axis=0), (count.size, 1))
    for k in range(wanted.shape[1]):
        sums = np.bincount(learned, weights=wanted[::2, k], minlength=count.size)
        guess[count > 0, k] = sums[count > 0] / count[count > 0]
    explained = _explained(wanted, guess[codes[1::2]])
    return SingleLeak(column=name, r_squared=explained, shape="category")


def _fit_line(x: FloatArray, wanted: FloatArray) -> FloatArray:
    learned, mean = x[::2] - x[::2].mean(), wanted[::2].mean(axis=0)
    power = float(learned @ learned)
    slope = (learned @ (wanted[::2] - mean)) / power if power > 0.0 else np.zeros(mean.size)
    line: FloatArray = mean + np.outer(x[1::2] - x[::2].mean(), slope)
    return line


def _fit_curve(x: FloatArray, wanted: FloatArray) -> FloatArray:
    """Join the means of groups of equal ranks by straight lines."""
    learned = x[::2]
    knots = min(_KNOTS, learned.size // 10)
    edges = np.unique(np.quantile(learned, np.linspace(0, 1, knots + 1)[1:-1]))
    group = np.searchsorted(edges, learned, side="left")
    count = np.bincount(group, minlength=edges.size + 1)
    held = count > 0
    at = np.bincount(group, weights=learned, minlength=count.size)[held] / count[held]
    columns = []
    for k in range(wanted.shape[1]):
        sums = np.bincount(group, weights=wanted[::2, k], minlength=count.size)
        columns.append(np.interp(x[1::2], at, sums[held] / count[held]))
    return np.stack(columns, axis=1)


def _explained(wanted: FloatArray, guess: FloatArray) -> float:
    judged = wanted[1::2]
    total = float(np.square(judged - judged.mean(axis=0)).sum())
    return 1.0 - float(np.square(judged - guess).sum()) / total if total > 0.0 else 0.0


class _Sums:
    """Least squares on any subset of columns, from sums of products made once."""

    def __init__(self, x: FloatArray, wanted: FloatArray) -> None:
        x = x - x[::2].mean(axis=0)
        x = x / x[::2].std(axis=0)
        y = wanted - wanted[::2].mean(axis=0)
        judged = y[1::2]
        self._learned = x[::2].T @ x[::2], x[::2].T @ y[::2]
        self._judged = x[1::2].T @ x[1::2], x[1::2].T @ judged
        self._power = float(np.square(judged).sum())
        self._total = float(np.square(judged - judged.mean(axis=0)).sum())

    def weights(self, chosen: list[int]) -> FloatArray:
        square, cross = self._learned
        # The pseudo-inverse: collinear columns share their weight.
        found: FloatArray = (
            np.linalg.pinv(square[np.ix_(chosen, chosen)], rcond=1e-9, hermitian=True)
            @ cross[chosen]
        )
        return found

    def explained(self, chosen: list[int]) -> float:
        if not chosen or self._total <= 0.0:
            return 0.0
        square, cross = self._judged
        weights = self.weights(chosen)
        fitted = float((weights * (square[np.ix_(chosen, chosen)] @ weights)).sum())
        error = self._power - 2.0 * float((weights * cross[chosen]).sum()) + fitted
        return 1.0 - max(error, 0.0) / self._total


def _find_sum(
    numeric: dict[str, FloatArray], wanted: FloatArray
) -> tuple[tuple[str, ...], float | None]:
    names = [name for name, values in numeric.items() if _fill(values)[::2].std() > 0.0]
    if not names:
        return (), None
    sums = _Sums(np.stack([_fill(numeric[name]) for name in names], axis=1), wanted)
    chosen = list(range(len(names)))
    explained = sums.explained(chosen)
    if explained < ADDITIVE_LIMIT:
        return (), explained
    # Leave out one column after the other, the lightest first, as long as nothing is lost.
    loss = 1.0 - ADDITIVE_LIMIT
    heavy = np.abs(sums.weights(chosen)).max(axis=1)
    for column in np.argsort(heavy, kind="stable").tolist():
        without = [c for c in chosen if c != column]
        if sums.explained(without) >= explained - loss / 10.0:
            chosen = without
    full = sums.explained(chosen)
    lost = {c: full - sums.explained([d for d in chosen if d != c]) for c in chosen}
    guilty = [c for c in chosen if lost[c] >= loss] or [max(chosen, key=lambda c: lost[c])]
    return tuple(names[c] for c in guilty), explained


def _fill(values: FloatArray) -> FloatArray:
    """Put the mean of the finite values where there is none."""
    finite = np.isfinite(values)
    if finite.all():
        return values
    return np.where(finite, values, values[finite].mean() if finite.any() else 0.0)


def _first_codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Number the values, the most frequent first; null is -1."""
    counted = pc.value_counts(column.drop_null())
    order = pc.sort_indices(counted.field("counts"), sort_keys=[("counts", "descending")])
    ranked = counted.field("values").take(order)
    codes = pc.fill_null(pc.index_in(column, value_set=ranked), -1)
    numbers: npt.NDArray[np.int64] = codes.to_numpy().astype(np.int64)
    return numbers


def _codes(name: str, train: pa.ChunkedArray, holdout: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    before, after = plain(train), plain(holdout)
    try:
        if after.type != before.type:
            after = after.cast(before.type)
        both = pa.chunked_array([*before.chunks, *after.chunks], before.type).combine_chunks()
        encoded = pc.dictionary_encode(both, null_encoding="encode")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise _nothing_to_compare(f"column {name!r}: {error}") from error
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    numbers: npt.NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _nothing_to_compare(what: str) -> InvalidInput:
    return InvalidInput(
        "gate.nothing_to_compare",
        f"The training rows and the holdout cannot be compared: {what}.",
        hint="Give both tables the same columns with the same types.",
    )
