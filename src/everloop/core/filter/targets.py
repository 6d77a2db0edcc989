"""Targets: what a name of a filter stands for, and the test of the store that it becomes.

Every target says in words what it is and what it compares with; the reference of the grammar is
made of that. In all of them ``!=``, ``NOT IN``, ``NOT LIKE`` and ``NOT BETWEEN`` ask for a value
that is there and differs; NOT before a whole test holds for what is missing too.
"""

from __future__ import annotations

from typing import Protocol

from everloop.core.filter.faults import shown
from everloop.core.filter.scene import Scene
from everloop.core.filter.tree import Comparison, How
from everloop.core.search import All, Any, Filter, Order

NOTHING: Filter = Any()
ANYTHING: Filter = All()
ORDERED = frozenset({How.LT, How.LE, How.GT, How.GE, How.BETWEEN})
ALIKE = frozenset({How.LIKE, How.ILIKE})
TEXT_TESTS = "=, !=, IN, LIKE, ILIKE, IS NULL"
NUMBER_TESTS = "=, !=, <, <=, >, >=, BETWEEN, IN, IS NULL"
TIME_TESTS = NUMBER_TESTS + "; a date, milliseconds since 1970, or now - 7d"


class Target(Protocol):
    """What a name stands for."""

    @property
    def help(self) -> str:
        """What it is, in a few words."""
        ...

    @property
    def tests(self) -> str:
        """How it can be compared, in a few words."""
        ...

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Return what the store is asked.

        Raises:
            InvalidInput: ``filter.invalid`` for a comparison that it can't make.
        """
        ...

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Return the keys that sort by it; empty when nothing does."""
        ...


def refuse(test: Comparison, scene: Scene, label: str, tests: str) -> Exception:
    """Return the error for a comparison that a target can't make."""
    how = f"IS {test.how.value}" if test.how in {How.NULL, How.NAN} else test.how.value
    return scene.fault(
        test.name.at, f"{shown(label)} can't be compared with {how}", f"It compares with: {tests}."
    )


def label_of(test: Comparison) -> str:
    """Return the name of a test as it was meant."""
    return ".".join(test.name.parts)
