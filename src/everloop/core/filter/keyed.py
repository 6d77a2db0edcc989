"""Spaces: families of fields whose names are the users' own, such as params, tags and metrics.

Each key is a row of another kind, with the value as text, as number, or both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from everloop.core.filter.fields import compare_numbers, compare_texts
from everloop.core.filter.joins import Hop, Looked
from everloop.core.filter.scene import Scene, kind_named
from everloop.core.filter.targets import ALIKE, NUMBER_TESTS, TEXT_TESTS, Target, label_of, refuse
from everloop.core.filter.tree import Comparison, How, Literal, Text
from everloop.core.ports import Compare
from everloop.core.search import All, Any, Filter, Has, Not, Order, Test

_PATTERN = frozenset("%_")


class Space(Protocol):
    """A family of fields."""

    @property
    def help(self) -> str:
        """What they are, in a few words."""
        ...

    @property
    def tests(self) -> str:
        """How they can be compared, in a few words."""
        ...

    def target(self, key: str) -> Target:
        """Return the field of that name."""
        ...


@dataclass(frozen=True)
class Texts:
    """Texts by key, each a row; numbers among them compare as numbers too.

    Attributes:
        hop: How their rows belong to the row.
        head: Column with the first ``head_size`` characters of the value, which an index holds.
    """

    hop: Hop
    help: str
    key: str = "key"
    value: str = "value"
    number: str = "number"
    head: str = "head"
    head_size: int = 100

    tests = f"texts in quotes by {TEXT_TESTS}; numbers by {NUMBER_TESTS}"

    def target(self, key: str) -> Target:
        """Return the field of that name."""
        return _TextOfKey(self, key)


@dataclass(frozen=True)
class _TextOfKey:
    space: Texts
    name: str

    @property
    def help(self) -> str:
        return self.space.help

    @property
    def tests(self) -> str:
        return self.space.tests

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        if test.how is How.NAN:
            raise refuse(test, scene, label_of(test), self.tests)
        if test.how is How.NULL:
            return self._has() if test.negated else Not(self._has())
        if test.how is How.IN:
            return self._has(self._any_of(test, scene))
        if isinstance(test.values[0], Text) and test.how in {How.EQ, How.NE, *ALIKE}:
            return self._has(self._texts(test, scene.texts(test, label_of(test))))
        if test.how in ALIKE:
            raise refuse(test, scene, label_of(test), self.tests)
        return self._has(self._numbers(test, scene))

    def _any_of(self, test: Comparison, scene: Scene) -> Filter:
        texts = tuple(value for value in test.values if isinstance(value, Text))
        others = tuple(value for value in test.values if not isinstance(value, Text))
        parts: list[Filter] = []
        if texts:
            given = tuple(value.value for value in texts)
            parts.append(compare_texts(self.space.value, _in(test, texts), given, nullable=False))
        if others:
            plain = _in(test, others)
            given_numbers = scene.numbers(plain, label_of(test))
            parts.append(compare_numbers(self.space.number, plain, given_numbers, nullable=True))
        found: Filter = parts[0] if len(parts) == 1 else Any(tuple(parts))
        return Not(found) if test.negated else found

    def _texts(self, test: Comparison, given: tuple[str, ...]) -> Filter:
        found = compare_texts(self.space.value, test, given, nullable=False)
        begin = given[0]
        if test.how is How.LIKE and not test.negated:
            begin = begin[: next((i for i, c in enumerate(begin) if c in _PATTERN), None)]
        elif test.how is not How.EQ:
            return found
        size = self.space.head_size
        if not begin and test.how is How.LIKE:
            return found
        if test.how is How.EQ:
            whole = Test(self.space.head, Compare.EQ, begin[:size])
            # A value that fills the head may go on behind it.
            return whole if len(begin) < size else All((whole, found))
        return All((Test(self.space.head, Compare.PREFIX, begin[:size]), found))

    def _numbers(self, test: Comparison, scene: Scene) -> Filter:
        given = scene.numbers(test, label_of(test))
        found = compare_numbers(self.space.number, test, given, nullable=True)
        if test.how is How.NE or test.negated:  # a text that is no number differs from each
            return Any((found, Test(self.space.number, Compare.EQ, None)))
        return found

    def _has(self, *inner: Filter) -> Has:
        hop = self.space.hop
        own = Test(self.space.key, Compare.EQ, self.name)
        return Has(kind_named(hop.kind), hop.link, All((*hop.fixed, own, *inner)))

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Sort by the number and then the text; other systems know texts only."""
        del name
        text = Order(self.space.value, descending, self._has())
        if lenient:
            return (text,)
        return (Order(self.space.number, descending, self._has()), text)


def _in(test: Comparison, values: tuple[Literal, ...]) -> Comparison:
    return Comparison(test.name, How.IN, values)


@dataclass(frozen=True)
class Numbers:
    """Numbers by key, each a row, NaN among them.

    Attributes:
        value: Column with the number; null for NaN, the outermost floats for infinities.
        text: Column with its exact text, ``nan`` for NaN.
    """

    hop: Hop
    help: str
    key: str = "key"
    value: str = "last"
    text: str = "last_text"

    tests = f"{NUMBER_TESTS}, IS NAN"

    def target(self, key: str) -> Target:
        """Return the field of that name."""
        return _NumberOfKey(self, key)


@dataclass(frozen=True)
class _NumberOfKey:
    space: Numbers
    name: str

    @property
    def help(self) -> str:
        return self.space.help

    @property
    def tests(self) -> str:
        return self.space.tests

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        if test.how in ALIKE:
            raise refuse(test, scene, label_of(test), self.tests)
        if test.how is How.NULL:
            return self._has() if test.negated else Not(self._has())
        if test.how is How.NAN:
            how = Compare.NE if test.negated else Compare.EQ
            return self._has(Test(self.space.text, how, "nan"))
        given = scene.numbers(test, label_of(test))
        found = compare_numbers(self.space.value, test, given, nullable=True)
        if test.how is How.NE or test.negated:  # NaN differs from every number
            found = Any((found, Test(self.space.value, Compare.EQ, None)))
        return self._has(found)

    def _has(self, *inner: Filter) -> Has:
        hop = self.space.hop
        own = Test(self.space.key, Compare.EQ, self.name)
        return Has(kind_named(hop.kind), hop.link, All((*hop.fixed, own, *inner)))

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Sort by the number; NaN comes after all numbers, and before what has none."""
        del name, lenient
        return (Order(self.space.value, descending, self._has()),)


@dataclass(frozen=True)
class LookedTexts:
    """Texts by key that are inside of rows: the rows are read, and lowered to ids.

    Attributes:
        texts: Returns, for each id of a row, its texts by key.
        column: The field that holds such an id.
        absent: What rows without a key count as having under it.
    """

    texts: Callable[[Scene], Mapping[str, Mapping[str, str]]]
    help: str
    column: str = "id"
    absent: Mapping[str, str] = field(default_factory=dict)

    tests = TEXT_TESTS

    def target(self, key: str) -> Target:
        """Return the field of that name."""

        def of_key(scene: Scene) -> Mapping[str, Iterable[str]]:
            found = self.texts(scene)
            return {row: (texts[key],) for row, texts in found.items() if key in texts}

        return Looked(of_key, self.help, self.column, self.absent.get(key))
