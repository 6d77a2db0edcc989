"""Mergeable summaries of tables: what a window looked like, without its rows.

A `Reference` freezes for each column the bin edges (numeric) or the values (categorical) in which
all later data are counted. A `Profile` holds those counts with exact moments, so hours merge into
days and days into months without rereading a row, and a drift check compares two profiles.
Nothing here reads files, clocks or stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from everloop.core.errors import InvalidInput
from everloop.data.arrow_values import (
    Kind,
    count_names,
    is_point_in_time,
    kind_of,
    split_finite,
    to_floats,
)
from everloop.data.category import (
    CategoryCounts,
    choose_known,
    count_freely,
    count_known,
    merge_categories,
)
from everloop.data.sketch import (
    Bins,
    FloatArray,
    Moments,
    count_in_bins,
    edges_of,
    merge_bins,
    merge_moments,
    merge_sketches,
    moments_of,
    quantile_in_bins,
    quantile_in_sketch,
    sketch_of,
)

if TYPE_CHECKING:
    import pyarrow as pa


class NumericReference(Struct, frozen=True, kw_only=True, tag="numeric"):
    """The frozen bin edges of a numeric column."""

    edges: tuple[float, ...]
    discrete: bool = False


class CategoryReference(Struct, frozen=True, kw_only=True, tag="category"):
    """The known values of a categorical column, and whether they were all of them."""

    known: tuple[str, ...]
    complete: bool = True


class OpaqueReference(Struct, frozen=True, kw_only=True, tag="opaque"):
    """A column of which only nulls are counted: identifiers, free text, lists, bytes."""


ColumnReference: TypeAlias = NumericReference | CategoryReference | OpaqueReference


class Reference(Struct, frozen=True, kw_only=True):
    """How each column is counted, fixed once from the data a model was trained on."""

    columns: dict[str, ColumnReference]


class ColumnProfile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The summary of one column.

    ``bins`` or ``sketch`` (without a reference) with ``moments`` describe numeric values,
    ``categories`` names. Nulls, NaN and infinities are counted apart from all of these.
    ``temporal`` marks points in time, which move on without that being drift.
    """

    kind: Kind
    rows: int
    nulls: int = 0
    nans: int = 0
    positive_infinities: int = 0
    negative_infinities: int = 0
    temporal: bool = False
    moments: Moments | None = None
    bins: Bins | None = None
    categories: CategoryCounts | None = None
    sketch: bytes | None = None

    @property
    def missing(self) -> int:
        """Rows without a usable value: null or NaN."""
        return self.nulls + self.nans


class Profile(Struct, frozen=True, kw_only=True):
    """The summary of a table: its row count and its columns by name."""

    rows: int
    columns: dict[str, ColumnProfile]


def make_reference(table: pa.Table) -> Reference:
    """Freeze bin edges at the quantiles of numeric columns and the values of the others.

    Raises:
        InvalidInput: ``profile.duplicate_column`` when two columns share a name.
    """
    _require_unique_names(table)
    return Reference(columns={name: _column_reference(table[name]) for name in table.column_names})


def profile_table(table: pa.Table, reference: Reference | None = None) -> Profile:
    """Summarise a table, counting in the reference's bins where it has the column.

    A column whose kind differs from the reference's is summarised by itself; a drift check
    reports that as a change of type.

    Raises:
        InvalidInput: ``profile.duplicate_column`` when two columns share a name.
    """
    _require_unique_names(table)
    fixed = reference.columns if reference else {}
    columns = {name: _profile(table[name], fixed.get(name)) for name in table.column_names}
    return Profile(rows=table.num_rows, columns=columns)


def merge(a: Profile, b: Profile) -> Profile:
    """Return the profile of both tables together.

    Counts are exact and their merge is associative and commutative; means and deviations are so
    up to rounding, sketches up to their stated error.

    Raises:
        InvalidInput: ``profile.other_reference`` or ``profile.other_kind`` when the two were not
            counted alike.
    """
    names = sorted(a.columns.keys() | b.columns.keys())
    columns = {}
    for name in names:
        left, right = a.columns.get(name), b.columns.get(name)
        if left is None or right is None:
            only = left or right
            assert only is not None
            columns[name] = only
        else:
            columns[name] = _merge_columns(name, left, right)
    return Profile(rows=a.rows + b.rows, columns=columns)


def quantile(column: ColumnProfile, share: float) -> float | None:
    """Estimate a quantile of the finite values; None where there are none.

    Raises:
        InvalidInput: ``profile.bad_quantile`` unless the share is between 0 and 1.
    """
    if not 0.0 <= share <= 1.0:
        raise InvalidInput(
            "profile.bad_quantile",
            f"{share} is not a share between 0 and 1.",
            hint="Ask for 0.5 to get the median.",
        )
    if column.moments is None:
        return None
    if column.bins is not None:
        return quantile_in_bins(column.bins, column.moments, share)
    if column.sketch is not None:
        return quantile_in_sketch(column.sketch, share)
    return None


def _column_reference(column: pa.ChunkedArray) -> ColumnReference:
    kind = kind_of(column.type)
    if kind == "numeric":
        finite, *_ = split_finite(to_floats(column))
        edges, discrete = edges_of(finite)
        return NumericReference(edges=edges, discrete=discrete)
    if kind == "category":
        chosen = choose_known(count_names(column))
        if chosen is not None:
            return CategoryReference(known=chosen[0], complete=chosen[1])
    return OpaqueReference()


def _profile(column: pa.ChunkedArray, fixed: ColumnReference | None) -> ColumnProfile:
    rows, nulls = len(column), column.null_count
    kind = kind_of(column.type)
    if kind == "numeric":
        numeric = fixed if isinstance(fixed, NumericReference) else None
        return _numeric_profile(column, rows, nulls, numeric)
    if kind == "category" and not isinstance(fixed, OpaqueReference):
        return ColumnProfile(
            kind=kind, rows=rows, nulls=nulls, categories=_count_values(column, fixed)
        )
    return ColumnProfile(kind="empty" if nulls == rows else "opaque", rows=rows, nulls=nulls)


def _count_values(column: pa.ChunkedArray, fixed: ColumnReference | None) -> CategoryCounts:
    counted = count_names(column)
    if isinstance(fixed, CategoryReference):
        return count_known(counted, fixed.known, complete=fixed.complete)
    return count_freely(counted)


def _numeric_profile(
    column: pa.ChunkedArray, rows: int, nulls: int, fixed: NumericReference | None
) -> ColumnProfile:
    finite, nans, high, low = split_finite(to_floats(column))
    bins, sketch = _count_numbers(finite, fixed)
    return ColumnProfile(
        kind="numeric",
        rows=rows,
        nulls=nulls,
        nans=nans,
        positive_infinities=high,
        negative_infinities=low,
        temporal=is_point_in_time(column.type),
        moments=moments_of(finite),
        bins=bins,
        sketch=sketch,
    )


def _count_numbers(
    finite: FloatArray, fixed: NumericReference | None
) -> tuple[Bins | None, bytes | None]:
    if fixed is None:
        return None, sketch_of(finite)
    return count_in_bins(finite, fixed.edges, discrete=fixed.discrete), None


def _merge_columns(name: str, a: ColumnProfile, b: ColumnProfile) -> ColumnProfile:
    if a.kind != b.kind and "empty" not in (a.kind, b.kind):
        raise InvalidInput(
            "profile.other_kind",
            f"Column {name!r} is {a.kind} in one profile and {b.kind} in the other.",
            hint="Write the column with one type in all windows.",
        )
    if (a.bins is None) != (b.bins is None) and a.kind == b.kind == "numeric":
        raise InvalidInput(
            "profile.other_reference",
            f"Column {name!r} was counted against a reference in only one of two profiles.",
            hint="Profile both against the same reference.",
        )
    return ColumnProfile(
        kind=b.kind if a.kind == "empty" else a.kind,
        rows=a.rows + b.rows,
        nulls=a.nulls + b.nulls,
        nans=a.nans + b.nans,
        positive_infinities=a.positive_infinities + b.positive_infinities,
        negative_infinities=a.negative_infinities + b.negative_infinities,
        temporal=a.temporal or b.temporal,
        moments=merge_moments(a.moments, b.moments),
        bins=merge_bins(a.bins, b.bins),
        categories=merge_categories(a.categories, b.categories),
        sketch=merge_sketches(a.sketch, b.sketch)
        if a.sketch is not None and b.sketch is not None
        else a.sketch or b.sketch,
    )


def _require_unique_names(table: pa.Table) -> None:
    names = table.column_names
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidInput(
            "profile.duplicate_column",
            f"More than one column is called {twice[0]!r}.",
            hint="Give every column its own name.",
        )
