"""What lowering a filter needs beside its tree: the text, the time, and rows to look things up in.

A vocabulary never opens a store. Where a name can't be compared by one (an alias is the last of
many moves), its target looks rows up through the ``Reader`` and lowers to their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from everloop.core.clock import Instant
from everloop.core.errors import InvalidInput
from everloop.core.filter.faults import fault
from everloop.core.filter.tree import Comparison, Literal, Number, Text
from everloop.core.ports import Condition
from everloop.core.records import R, Record, declared_kinds
from everloop.core.search import Filter, Order, Page


class Reader(Protocol):
    """Reads rows of one project."""

    def select(
        self,
        kind: type[R],
        *conditions: Condition,
        order: str = "id",
        descending: bool = False,
        limit: int | None = None,
    ) -> list[R]:
        """Return rows that meet all conditions."""
        ...

    def search(
        self,
        kind: type[R],
        filter: Filter,
        *,
        order: Sequence[Order] = (),
        limit: int,
        after: str | None = None,
    ) -> Page[R]:
        """Return rows that meet a filter."""
        ...


@dataclass(frozen=True, slots=True)
class Scene:
    """One lowering.

    Attributes:
        text: The filter or order as written, for errors.
        allow: Refuses a noun whose things the caller may not read: names that go there would tell
            of them.
        what: ``filter`` or ``order``.
        lenient: Whether a word that no row can have meets nothing instead of being an error, as
            clients of other systems expect.
    """

    text: str
    now: Instant
    reader: Reader
    allow: Callable[[str], None]
    what: str = "filter"
    lenient: bool = False

    def fault(self, at: int, problem: str, hint: str) -> InvalidInput:
        """Return the error for a mistake at a position of the text."""
        return fault(self.text, at, problem, hint, what=self.what)

    def texts(self, test: Comparison, shown: str) -> tuple[str, ...]:
        """Return the values of a test of texts.

        Raises:
            InvalidInput: ``filter.invalid`` for a value of another kind.
        """
        return tuple(self._text(value, shown) for value in test.values)

    def numbers(self, test: Comparison, shown: str) -> tuple[int | float, ...]:
        """Return the values of a test of numbers.

        Raises:
            InvalidInput: ``filter.invalid`` for a value of another kind.
        """
        return tuple(self._number(value, shown) for value in test.values)

    def _text(self, value: Literal, shown: str) -> str:
        if isinstance(value, Text):
            return value.value
        raise self.fault(
            value.at,
            f"{shown} is a text, so it does not compare with a number or a time",
            "Put the value in quotes: 'abc'.",
        )

    def _number(self, value: Literal, shown: str) -> int | float:
        if isinstance(value, Number):
            return value.value
        raise self.fault(
            value.at,
            f"{shown} is a number, so it does not compare with a text or a time",
            "Write the number without quotes: 0.9.",
        )


def kind_named(name: str) -> type[Record]:
    """Return the record type of that name; a package may not import its siblings for it.

    Raises:
        LookupError: no package that is loaded declares it.
    """
    found = declared_kinds().get(name)
    if found is None:
        message = f"no record kind {name!r} is loaded"
        raise LookupError(message)
    return found.type
