"""Decides the semantic version of a model from what changed for its callers.

Major: a call that the previous version answered would be refused or mean something else. Minor:
the same calls get other answers. Patch: the answers on the probe rows are the same to the last bit.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from everloop.core.errors import InvalidInput
from everloop.core.semver import SemanticVersion, parse_version

FloatArray: TypeAlias = npt.NDArray[np.float64]
BumpKind: TypeAlias = Literal["first", "major", "minor", "patch"]
Override: TypeAlias = Literal["major", "minor", "patch"]
FIRST = SemanticVersion(1, 0, 0)


class Comparison(NamedTuple):
    """How the answers of two versions compare on the previous version's probe rows.

    Attributes:
        rows: How many rows were compared; None when there was nothing to compare on.
        different: On how many the answers differ.
        largest: The largest difference between two answers, NaN where one of them is no number.
        typical: The median difference of the rows that differ.
    """

    rows: int | None
    different: int = 0
    largest: float = 0.0
    typical: float = 0.0


class Bump(NamedTuple):
    """The version that follows, which part was raised, and why."""

    version: SemanticVersion
    kind: BumpKind
    reason: str


def compare_answers(before: FloatArray, after: FloatArray) -> Comparison:
    """Compare the answers of two versions to the same rows; the same NaN is the same answer.

    An answer of several numbers differs by its number that differs most.
    """
    if before.shape != after.shape:
        return Comparison(None)
    old, new = before.reshape(len(before), -1), after.reshape(len(after), -1)
    same = ((old == new) | (np.isnan(old) & np.isnan(new))).all(axis=1)
    changed = np.abs(new[~same] - old[~same])
    # Beside a number that changed into NaN, the others do not count.
    gaps = changed.max(axis=1) if changed.size else np.zeros(0)
    return Comparison(
        rows=len(before),
        different=int((~same).sum()),
        largest=float(gaps.max()) if gaps.size else 0.0,
        typical=float(np.median(gaps)) if gaps.size else 0.0,
    )


def decide_bump(previous: str | None, breaks: tuple[str, ...], compared: Comparison) -> Bump:
    """Return the version that follows ``previous`` by the rule above."""
    if previous is None:
        return Bump(FIRST, "first", "It is the first version.")
    before = parse_version(previous)
    if breaks:
        reason = f"Callers of {previous} break: {'; '.join(breaks[:5])}."
        return Bump(before.next_major(), "major", reason)
    if compared.rows is None:
        reason = f"There are no probe rows of {previous} to show that its answers stay the same."
        return Bump(before.next_minor(), "minor", reason)
    if compared.different:
        reason = (
            f"{compared.different} of {compared.rows} probe rows get another answer, "
            f"{_by_how_much(compared)}."
        )
        return Bump(before.next_minor(), "minor", reason)
    return Bump(
        before.next_patch(), "patch", f"All {compared.rows} probe rows get the same answer."
    )


def _by_how_much(compared: Comparison) -> str:
    if math.isnan(compared.largest):
        return "some of them no number where there was one, or the other way round"
    return f"by {compared.typical:.3g} in the median and at most by {compared.largest:.3g}"


def override_bump(previous: str | None, found: Bump, kind: Override, reason: str) -> Bump:
    """Return the version that a person wants in place of the one found, with both reasons.

    Raises:
        InvalidInput: ``version.reason_missing``.
    """
    if not reason.strip():
        raise InvalidInput(
            "version.reason_missing",
            "A version bump by hand needs a reason.",
            hint="Say in bump_reason why the rule does not fit.",
        )
    if previous is None:
        return found
    before = parse_version(previous)
    chosen = {
        "major": before.next_major(),
        "minor": before.next_minor(),
        "patch": before.next_patch(),
    }[kind]
    told = f"By hand: {reason.strip()} (The rule said {found.kind}: {found.reason})"
    return Bump(chosen, kind, told)
