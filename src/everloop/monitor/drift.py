"""Drift of a window against its reference: which columns moved, by how much, and how sure.

Each column has one valid p-value (Bonferroni over its few tests), the columns of a window share
one false discovery rate (Benjamini and Hochberg 1995), and nothing is an alarm unless the change
is also large enough to matter. Profiles are enough: no row is read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from everloop.core.errors import InvalidInput
from everloop.monitor.adapters.scipy_tests import (
    binomial_two_sided,
    chi_square_tail,
    student_two_sided,
    two_sample_ks_tail,
)
from everloop.monitor.distance import (
    chi_square,
    coarse_counts,
    cramers_v,
    jensen_shannon,
    ks_distance,
    robust_unit,
    stability_index,
    wasserstein_distance,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from everloop.data.category import CategoryCounts
    from everloop.data.profile import ColumnProfile, Profile
    from everloop.data.sketch import FloatArray, Moments

TestName: TypeAlias = Literal["ks", "mean", "chi_square", "missing"]
FindingKind: TypeAlias = Literal[
    "missing_column", "new_column", "type_changed", "unseen_category", "nan", "infinite"
]

# Fixed by kind, not by which tests could run: a family chosen by the data would not be valid.
_NUMERIC_TESTS = 3
_CATEGORY_TESTS = 2


class Floors(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The smallest changes that matter; a significant change below them is no alarm.

    Attributes:
        ks: Kolmogorov-Smirnov distance.
        w1_sd: 1-Wasserstein distance, and shift of the mean, in robust standard deviations.
        js: Jensen-Shannon distance in bits.
        cramers_v: Cramer's V at equal sample sizes.
        missing: Change of the share of missing values.
    """

    ks: float = 0.05
    w1_sd: float = 0.1
    js: float = 0.1
    cramers_v: float = 0.1
    missing: float = 0.02


class ColumnTest(Struct, frozen=True, kw_only=True):
    """One test of one column, with the sizes of change that it speaks about."""

    name: TestName
    statistic: float
    p_value: float
    effects: dict[str, float]
    large: bool


class ColumnDrift(Struct, frozen=True, kw_only=True):
    """The judgement on one column.

    ``p_value`` is valid for the column (Bonferroni over its tests), ``adjusted_p`` for the window.
    ``resolution`` is how much the distance between bins may hide. ``stability_index`` is reported
    for those who know it and decides nothing.
    """

    column: str
    kind: str
    p_value: float
    adjusted_p: float
    alarm: bool
    tests: tuple[ColumnTest, ...]
    reference_mean: float | None = None
    window_mean: float | None = None
    resolution: float | None = None
    stability_index: float | None = None


class QualityFinding(Struct, frozen=True, kw_only=True):
    """Something about the data that is wrong or new whatever the distributions say."""

    column: str
    kind: FindingKind
    count: int
    share: float
    examples: tuple[str, ...] = ()


class DriftReport(Struct, frozen=True, kw_only=True):
    """The judgement on a window: its columns, and findings about data quality."""

    reference_rows: int
    window_rows: int
    alpha: float
    columns: tuple[ColumnDrift, ...]
    findings: tuple[QualityFinding, ...]

    @property
    def drifted(self) -> tuple[str, ...]:
        """The names of the columns with an alarm, the surest first."""
        alarmed = [column for column in self.columns if column.alarm]
        return tuple(c.column for c in sorted(alarmed, key=lambda c: (c.p_value, c.column)))

    @property
    def alarm(self) -> bool:
        """Whether any column drifted."""
        return any(column.alarm for column in self.columns)


def detect_drift(
    reference_profile: Profile,
    window_profile: Profile,
    *,
    alpha: float = 0.05,
    floors: Floors | None = None,
) -> DriftReport:
    """Judge a window against the profile of the reference, both counted in the same bins.

    Without drift the chance of any alarm in a window is at most ``alpha``, over all its columns
    (rows are taken as independent). Points in time are tested for missing values only: a later
    window is later.

    Raises:
        InvalidInput: ``drift.bad_alpha`` or ``drift.other_reference``.
        MissingExtra: SciPy is not installed.
    """
    if not 0.0 < alpha < 1.0:
        raise InvalidInput(
            "drift.bad_alpha",
            f"{alpha} is not a false discovery rate.",
            hint="Use a number between 0 and 1, such as 0.05.",
        )
    shared = [n for n in reference_profile.columns if n in window_profile.columns]
    judged: list[ColumnDrift] = []
    findings = _find_column_changes(reference_profile, window_profile)
    for name in shared:
        before, after = reference_profile.columns[name], window_profile.columns[name]
        if before.kind != after.kind and "empty" not in (before.kind, after.kind):
            findings.append(_finding(name, "type_changed", after.rows, after.rows))
            continue
        findings.extend(_find_bad_values(name, before, after))
        judged.append(_judge(name, before, after, floors or Floors()))
    return DriftReport(
        reference_rows=reference_profile.rows,
        window_rows=window_profile.rows,
        alpha=alpha,
        columns=_control_discoveries(judged, alpha),
        findings=tuple(findings),
    )


def benjamini_hochberg(p_values: Sequence[float]) -> FloatArray:
    """Return p-values adjusted for the false discovery rate (Benjamini and Hochberg 1995)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[::-1]
    scaled = p[order] * p.size / np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return adjusted


def _control_discoveries(judged: list[ColumnDrift], alpha: float) -> tuple[ColumnDrift, ...]:
    if not judged:
        return ()
    adjusted = benjamini_hochberg([column.p_value for column in judged])
    rejected = [c.p_value for c, p in zip(judged, adjusted, strict=True) if p <= alpha]
    cut = max(rejected, default=-1.0)
    final = []
    for column, p in zip(judged, adjusted.tolist(), strict=True):
        family = _family_size(column.kind)
        # The effect must belong to a test that is significant by itself.
        alarm = any(test.large and test.p_value * family <= cut for test in column.tests)
        final.append(replace(column, adjusted_p=p, alarm=alarm))
    return tuple(final)


def _judge(name: str, before: ColumnProfile, after: ColumnProfile, floors: Floors) -> ColumnDrift:
    tests = [_test_missing(before, after, floors)]
    resolution = index = None
    if before.temporal or after.temporal:
        pass
    elif before.bins is not None and before.bins.n and after.kind != "empty":
        found, resolution, index = _test_numbers(name, before, after, floors)
        tests.extend(found)
    elif before.categories is not None and after.categories is not None:
        found, index = _test_categories(name, before.categories, after.categories, floors)
        tests.extend(found)
    elif before.kind == after.kind == "numeric" and before.sketch is not None:
        raise _other_reference(name)
    smallest = min(test.p_value for test in tests)
    return ColumnDrift(
        column=name,
        kind=before.kind,
        p_value=min(1.0, smallest * _family_size(before.kind)),
        adjusted_p=1.0,
        alarm=False,
        tests=tuple(tests),
        reference_mean=before.moments.mean if before.moments else None,
        window_mean=after.moments.mean if after.moments else None,
        resolution=resolution,
        stability_index=index,
    )


def _test_numbers(
    name: str, before: ColumnProfile, after: ColumnProfile, floors: Floors
) -> tuple[list[ColumnTest], float | None, float | None]:
    old, new = before.bins, after.bins
    if new is None or old is None or new.edges != old.edges:
        raise _other_reference(name)
    if before.moments is None or after.moments is None:
        return [], None, None
    distance, resolution = ks_distance(old, new)
    unit = robust_unit(before)
    shift = wasserstein_distance(old, new, before.moments, after.moments) / unit
    tests = [
        ColumnTest(
            name="ks",
            statistic=distance,
            p_value=two_sample_ks_tail(distance, old.n, new.n),
            effects={"ks": distance, "w1_sd": shift},
            large=distance >= floors.ks or shift >= floors.w1_sd,
        )
    ]
    tests.extend(_test_mean(before.moments, after.moments, unit, floors))
    return tests, resolution, stability_index(*coarse_counts(old, new))


def _test_mean(a: Moments, b: Moments, unit: float, floors: Floors) -> list[ColumnTest]:
    """Welch's test: exact moments see small shifts that bins and sketches do not."""
    va, vb = a.variance / a.n, b.variance / b.n
    if min(a.n, b.n) < 2 or va + vb <= 0.0:
        return []
    t = (b.mean - a.mean) / math.sqrt(va + vb)
    # As shares of the sum, so that squares of tiny variances do not vanish.
    ra, rb = va / (va + vb), vb / (va + vb)
    freedom = 1.0 / (ra * ra / (a.n - 1) + rb * rb / (b.n - 1))
    shift = abs(b.mean - a.mean) / unit
    return [
        ColumnTest(
            name="mean",
            statistic=t,
            p_value=student_two_sided(t, freedom),
            effects={"mean_sd": shift},
            large=shift >= floors.w1_sd,
        )
    ]


def _test_categories(
    name: str, before: CategoryCounts, after: CategoryCounts, floors: Floors
) -> tuple[list[ColumnTest], float | None]:
    if not (before.fixed and after.fixed) or before.counts.keys() != after.counts.keys():
        raise _other_reference(name)
    a, b, rest = _align(before, after)
    if not before.n or not after.n:
        return [], None
    statistic, freedom = chi_square(a, b, rest)
    a, b = np.append(a, rest[0]), np.append(b, rest[1])
    js, v = jensen_shannon(a, b), cramers_v(a, b)
    test = ColumnTest(
        name="chi_square",
        statistic=statistic,
        p_value=chi_square_tail(statistic, freedom) if freedom else 1.0,
        effects={"js": js, "cramers_v": v},
        large=js >= floors.js or v >= floors.cramers_v,
    )
    return [test], stability_index(a, b)


def _align(
    before: CategoryCounts, after: CategoryCounts
) -> tuple[FloatArray, FloatArray, tuple[float, float]]:
    """Return the counts by name, and those that have none.

    Unseen values count one by one, not together: the reference has none of them by its own
    choice, and a sum over rare values that it missed by chance would look like drift.
    """
    names = sorted(before.counts)
    unseen = sorted(before.unseen.keys() | after.unseen.keys())
    counts, rest = [], []
    for side in (before, after):
        named = [side.counts[n] for n in names] + [side.unseen.get(n, 0) for n in unseen]
        left = side.other - sum(side.unseen.values())
        counts.append(np.array(named if side.complete else [*named, left], dtype=np.float64))
        rest.append(float(left) if side.complete else 0.0)
    return counts[0], counts[1], (rest[0], rest[1])


def _test_missing(before: ColumnProfile, after: ColumnProfile, floors: Floors) -> ColumnTest:
    """Compare shares of missing values, given how many there are in both together.

    The binomial stands for the hypergeometric distribution, which is narrower: conservative.
    """
    old = before.missing / before.rows if before.rows else 0.0
    new = after.missing / after.rows if after.rows else 0.0
    total = before.missing + after.missing
    p = 1.0
    if before.rows and after.rows and total:
        # Of the rarer outcome: the binomial is close to exact where the outcome is rare.
        rare, all_rare = after.missing, total
        if total * 2 > before.rows + after.rows:
            rare, all_rare = after.rows - after.missing, before.rows + after.rows - total
        share = after.rows / (before.rows + after.rows)
        p = binomial_two_sided(rare, all_rare, share) if all_rare else 1.0
    return ColumnTest(
        name="missing",
        statistic=new - old,
        p_value=p,
        effects={"missing": abs(new - old)},
        large=abs(new - old) >= floors.missing,
    )


def _find_column_changes(before: Profile, after: Profile) -> list[QualityFinding]:
    gone = [n for n in before.columns if n not in after.columns]
    new = [n for n in after.columns if n not in before.columns]
    findings = [_finding(name, "missing_column", after.rows, after.rows) for name in gone]
    findings.extend(_finding(name, "new_column", after.rows, after.rows) for name in new)
    return findings


def _find_bad_values(
    name: str, before: ColumnProfile, after: ColumnProfile
) -> list[QualityFinding]:
    findings = []
    if after.nans and not before.nans:
        findings.append(_finding(name, "nan", after.nans, after.rows))
    infinite = after.positive_infinities + after.negative_infinities
    if infinite and not before.positive_infinities + before.negative_infinities:
        findings.append(_finding(name, "infinite", infinite, after.rows))
    categories = after.categories
    if categories is not None and categories.fixed and categories.complete and categories.other:
        examples = tuple(list(categories.unseen)[:5])
        found = _finding(name, "unseen_category", categories.other, after.rows)
        findings.append(replace(found, examples=examples))
    return findings


def _finding(name: str, kind: FindingKind, count: int, rows: int) -> QualityFinding:
    return QualityFinding(column=name, kind=kind, count=count, share=count / max(rows, 1))


def _family_size(kind: str) -> int:
    return {"numeric": _NUMERIC_TESTS, "category": _CATEGORY_TESTS}.get(kind, 1)


def _other_reference(name: str) -> InvalidInput:
    return InvalidInput(
        "drift.other_reference",
        f"Column {name!r} was not counted in the same bins in both profiles.",
        hint="Profile the window with the Reference that the model version carries.",
    )
