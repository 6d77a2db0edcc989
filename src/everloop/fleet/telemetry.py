"""What a device tells of its answers, checked and turned into the profiles that drift is read from.

Devices send counts without the edges of the bins; those come from the reference of the version, so
a device can't bend them. A count that does not add up is refused as a whole.
"""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.errors import InvalidInput
from everloop.data.category import CategoryCounts
from everloop.data.profile import (
    CategoryReference,
    ColumnProfile,
    ColumnReference,
    NumericReference,
    Profile,
    Reference,
)
from everloop.data.sketch import BIN_COUNT, Bins, Moments

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Micros = Annotated[int, Meta(ge=0, le=1 << 53)]
Word = Annotated[str, Meta(max_length=100)]


class ToldMoments(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Moments of numbers; without any, minimum and maximum are null."""

    n: Count
    mean: float
    m2: float
    total: float
    minimum: float | None
    maximum: float | None


class ToldColumn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Counts of one input, in the bins or names of the reference that the device was given."""

    rows: Count
    nulls: Count
    below: Count = 0
    above: Count = 0
    high: Count = 0
    low: Count = 0
    counts: Annotated[tuple[Count, ...], Meta(max_length=4 * BIN_COUNT)] = ()
    moments: ToldMoments | None = None
    other: Count = 0
    unseen: Annotated[dict[Word, Count], Meta(max_length=100)] = {}


class ToldSketch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one version was asked and answered on a device."""

    answers: Count
    errors: Count
    invalid: Count
    latency_us: Micros
    output: ToldMoments
    columns: Annotated[dict[str, ToldColumn], Meta(max_length=10_000)]


def to_moments(told: ToldMoments | None) -> Moments | None:
    """Return moments as profiles have them; None without a value.

    Raises:
        InvalidInput: ``telemetry.invalid``.
    """
    if told is None or told.n == 0:
        return None
    if told.minimum is None or told.maximum is None:
        raise _invalid("moments without their extremes")
    numbers = (told.mean, told.m2, told.total, told.minimum, told.maximum)
    if not all(math.isfinite(number) for number in numbers) or told.m2 < 0:
        raise _invalid("moments that are no numbers")
    if not told.minimum <= told.maximum:
        raise _invalid("a minimum above its maximum")
    return Moments(
        n=told.n,
        mean=told.mean,
        m2=told.m2,
        total=told.total,
        minimum=told.minimum,
        maximum=told.maximum,
    )


def is_finite(profile: Profile, output: Moments | None) -> bool:
    """Tell whether merged moments are still numbers: each device's may be, and their sum not."""
    moments = [output, *(column.moments for column in profile.columns.values())]
    return all(
        math.isfinite(number)
        for one in moments
        if one is not None
        for number in (one.mean, one.m2, one.total)
    )


def to_profile(told: ToldSketch, reference: Reference | None) -> Profile:
    """Return the profile that the counts of a device make.

    Raises:
        InvalidInput: ``telemetry.invalid`` when they do not fit the reference or do not add up.
    """
    fixed = reference.columns if reference else {}
    odd = next((name for name in told.columns if reference and name not in fixed), None)
    if odd is not None:
        raise _invalid(f"counts of {odd[:60]!r}, which is no input of the version")
    return Profile(
        rows=told.answers,
        columns={
            name: _to_column(name, column, fixed.get(name), told.answers)
            for name, column in told.columns.items()
        },
    )


def _to_column(
    name: str, told: ToldColumn, fixed: ColumnReference | None, answers: int
) -> ColumnProfile:
    if told.rows != answers or told.nulls > told.rows:
        raise _invalid(f"{told.rows} rows of {name[:60]!r} in {answers} answers")
    if isinstance(fixed, NumericReference):
        return _to_numbers(name, told, fixed)
    if isinstance(fixed, CategoryReference):
        return _to_names(name, told, fixed)
    return ColumnProfile(
        kind="empty" if told.nulls == told.rows else "opaque", rows=told.rows, nulls=told.nulls
    )


def _to_numbers(name: str, told: ToldColumn, fixed: NumericReference) -> ColumnProfile:
    counted = told.below + told.above + sum(told.counts)
    whole = counted + told.high + told.low + told.nulls
    moments = to_moments(told.moments)
    if len(told.counts) != len(fixed.edges) or whole != told.rows:
        raise _invalid(f"counts of {name[:60]!r} that do not add up")
    if counted != (moments.n if moments else 0):
        raise _invalid(f"moments of {name[:60]!r} of other values than its counts")
    return ColumnProfile(
        kind="numeric",
        rows=told.rows,
        nulls=told.nulls,
        positive_infinities=told.high,
        negative_infinities=told.low,
        moments=moments,
        bins=Bins(
            edges=fixed.edges,
            counts=told.counts,
            below=told.below,
            above=told.above,
            discrete=fixed.discrete,
        ),
    )


def _to_names(name: str, told: ToldColumn, fixed: CategoryReference) -> ColumnProfile:
    if (
        len(told.counts) != len(fixed.known)
        or sum(told.counts) + told.other + told.nulls != told.rows
        or sum(told.unseen.values()) > told.other
    ):
        raise _invalid(f"counts of {name[:60]!r} that do not add up")
    return ColumnProfile(
        kind="category",
        rows=told.rows,
        nulls=told.nulls,
        categories=CategoryCounts(
            counts=dict(zip(fixed.known, told.counts, strict=True)),
            other=told.other,
            unseen=dict(sorted(told.unseen.items())) if fixed.complete else {},
            fixed=True,
            complete=fixed.complete,
        ),
    )


def _invalid(what: str) -> InvalidInput:
    return InvalidInput(
        "telemetry.invalid",
        f"The batch holds {what}.",
        hint="Nothing of it was counted. Look at the device: its log or its program is damaged.",
    )
