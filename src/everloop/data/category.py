"""Counts of the values of a categorical column, bounded in size and mergeable.

With a reference the known values are fixed, so counts merge exactly; without one the thousand
most frequent values are kept and the rest is one number.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec import Struct

from everloop.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

CATEGORY_LIMIT = 1_000
"""How many values are counted by name."""

UNSEEN_LIMIT = 50
"""How many values that the reference does not know are counted by name."""

_LONGEST_NAME = 64
# Far from the threshold a value is chosen for what it is, near it for its luck in this sample;
# so few values may lie near it, or the reference would seem to drift against anything.
_FREQUENT_ROWS = 50
_FREQUENT_SHARE = 0.005


class CategoryCounts(Struct, frozen=True, kw_only=True):
    """How often each value occurs.

    Attributes:
        counts: Rows by value; with a reference exactly its values, zeros included.
        other: Rows of values not counted by name, unseen ones included.
        unseen: Without a loss, the first values by name that the reference does not know.
        fixed: Whether a reference fixed the names.
        complete: Whether the reference knew every value of its data by name.
    """

    counts: dict[str, int]
    other: int = 0
    unseen: dict[str, int] = {}
    fixed: bool = False
    complete: bool = True

    @property
    def n(self) -> int:
        """How many rows were counted."""
        return sum(self.counts.values()) + self.other


def count_freely(counted: Mapping[str, int]) -> CategoryCounts:
    """Keep the most frequent values by name, ties in order of their names."""
    named = _shorten(counted)
    if len(named) <= CATEGORY_LIMIT:
        return CategoryCounts(counts=dict(sorted(named.items())))
    ranked = sorted(named.items(), key=lambda item: (-item[1], item[0]))
    return CategoryCounts(
        counts=dict(sorted(ranked[:CATEGORY_LIMIT])),
        other=sum(count for _, count in ranked[CATEGORY_LIMIT:]),
        complete=False,
    )


def count_known(
    counted: Mapping[str, int], known: tuple[str, ...], *, complete: bool
) -> CategoryCounts:
    """Count the values that a reference knows; everything else is ``other``."""
    named = _shorten(counted)
    counts = {name: named.pop(name, 0) for name in known}
    return CategoryCounts(
        counts=counts,
        other=sum(named.values()),
        unseen=dict(sorted(named.items())[:UNSEEN_LIMIT]) if complete else {},
        fixed=True,
        complete=complete,
    )


def choose_known(counted: Mapping[str, int]) -> tuple[tuple[str, ...], bool] | None:
    """Choose the values that a reference fixes, and say whether they are all of them.

    Returns None for a column of near-unique values (an identifier, free text): its values say
    nothing about the next window. Of a column with too many values only those that are frequent
    enough to come again are fixed.
    """
    named = _shorten(counted)
    rows = sum(named.values())
    if len(named) > 20 and len(named) * 2 > rows:
        return None
    if len(named) <= CATEGORY_LIMIT:
        return tuple(sorted(named)), True
    enough = max(_FREQUENT_ROWS, rows * _FREQUENT_SHARE)
    frequent = [(-count, name) for name, count in named.items() if count >= enough]
    if not frequent:
        return None
    return tuple(sorted(name for _, name in sorted(frequent)[:CATEGORY_LIMIT])), False


def merge_categories(a: CategoryCounts | None, b: CategoryCounts | None) -> CategoryCounts | None:
    """Add two counts; exact as long as no value was left unnamed for lack of room.

    Raises:
        InvalidInput: ``profile.other_reference`` when they were fixed by different references.
    """
    if a is None or b is None:
        return a or b
    if a.fixed != b.fixed or (a.fixed and a.counts.keys() != b.counts.keys()):
        raise InvalidInput(
            "profile.other_reference",
            "Two profiles count the categories of different references and cannot be merged.",
            hint="Profile both against the same reference.",
        )
    both = _add(a.counts, b.counts)
    if not a.fixed:
        merged = count_freely(both)
        return CategoryCounts(
            counts=merged.counts,
            other=merged.other + a.other + b.other,
            complete=merged.complete and a.complete and b.complete,
        )
    unseen = sorted(_add(a.unseen, b.unseen).items())[:UNSEEN_LIMIT]
    return CategoryCounts(
        counts=both,
        other=a.other + b.other,
        unseen=dict(unseen),
        fixed=True,
        complete=a.complete,
    )


def _add(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in sorted(a.keys() | b.keys())}


def _shorten(counted: Mapping[str, int]) -> dict[str, int]:
    """Cut long values to a readable head and a digest, so that no text is copied into profiles."""
    if all(len(name) <= _LONGEST_NAME for name in counted):
        return dict(counted)
    named: dict[str, int] = {}
    for name, count in counted.items():
        key = name
        if len(name) > _LONGEST_NAME:
            key = f"{name[:16]}...#{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        named[key] = named.get(key, 0) + count
    return named
