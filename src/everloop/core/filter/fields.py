"""Targets that are a field of the row itself: texts, numbers, times and words of a few."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from everloop.core.clock import Instant
from everloop.core.filter import times
from everloop.core.filter.faults import nearest, shown
from everloop.core.filter.matching import is_like
from everloop.core.filter.scene import Scene
from everloop.core.filter.targets import (
    ALIKE,
    NOTHING,
    NUMBER_TESTS,
    ORDERED,
    TEXT_TESTS,
    TIME_TESTS,
    label_of,
    refuse,
)
from everloop.core.filter.tree import Comparison, How, Literal, Number, Text
from everloop.core.ports import Compare
from everloop.core.search import All, Any, Filter, Not, Order, Test

_COMPARES = {
    How.EQ: Compare.EQ,
    How.NE: Compare.NE,
    How.LT: Compare.LT,
    How.LE: Compare.LE,
    How.GT: Compare.GT,
    How.GE: Compare.GE,
    How.LIKE: Compare.LIKE,
    How.ILIKE: Compare.ILIKE,
}
_MOST_DIGITS = 30


@dataclass(frozen=True)
class TextField:
    """A field of the row that holds a text."""

    column: str
    help: str
    nullable: bool = False

    tests = TEXT_TESTS

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Compare it with texts."""
        if test.how in ORDERED or test.how is How.NAN:
            raise refuse(test, scene, label_of(test), self.tests)
        return compare_texts(
            self.column, test, scene.texts(test, label_of(test)), nullable=self.nullable
        )

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Sort by code points."""
        del name, lenient
        return (Order(self.column, descending),)


def compare_texts(
    column: str, test: Comparison, given: tuple[str, ...], *, nullable: bool
) -> Filter:
    """Return the test of a text column."""
    if test.how is How.NULL:
        return Test(column, Compare.NE if test.negated else Compare.EQ, None)
    if test.how is How.IN:
        found: Filter = Test(column, Compare.IN, given)
    else:
        found = Test(column, _COMPARES[test.how], given[0])
    return there(column, found, nullable=nullable) if test.negated else found


def there(column: str, found: Filter, *, nullable: bool) -> Filter:
    """Return: the test fails, and there is a value that fails it."""
    return All((Test(column, Compare.NE, None), Not(found))) if nullable else Not(found)


@dataclass(frozen=True)
class NumberField:
    """A field of the row that holds a number."""

    column: str
    help: str
    nullable: bool = False

    tests = NUMBER_TESTS

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Compare it with numbers, or with texts that are numbers."""
        if test.how in ALIKE or test.how is How.NAN:
            raise refuse(test, scene, label_of(test), self.tests)
        values = tuple(_as_number(value) for value in test.values)
        plain = Comparison(test.name, test.how, values, test.negated)
        return compare_numbers(
            self.column, plain, scene.numbers(plain, label_of(test)), nullable=self.nullable
        )

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Sort by the number."""
        del name, lenient
        return (Order(self.column, descending),)


def _as_number(value: Literal) -> Literal:
    if isinstance(value, Text) and len(value.value) <= _MOST_DIGITS:
        try:
            return Number(float(value.value), value.at)
        except ValueError:
            pass
    return value


def compare_numbers(
    column: str, test: Comparison, given: tuple[int | float, ...], *, nullable: bool
) -> Filter:
    """Return the test of a column of numbers; infinity is beyond the outermost float."""
    values = tuple(bounded(value) for value in given)
    if test.how is How.NULL:
        return Test(column, Compare.NE if test.negated else Compare.EQ, None)
    if test.how is How.BETWEEN:
        low, high = values
        if test.negated:
            return Any((Test(column, Compare.LT, low), Test(column, Compare.GT, high)))
        return All((Test(column, Compare.GE, low), Test(column, Compare.LE, high)))
    if test.how is How.IN:
        found = Test(column, Compare.IN, values)
        return there(column, found, nullable=nullable) if test.negated else found
    return Test(column, _COMPARES[test.how], values[0])


def bounded(value: int | float) -> int | float:
    """Return the number with infinities, and what no float holds, as the outermost floats."""
    most = sys.float_info.max
    if value > most:
        return most
    return -most if value < -most else value


@dataclass(frozen=True)
class InstantField:
    """A field of the row that holds a time."""

    column: str
    help: str

    tests = TIME_TESTS

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Compare it with stretches of time: a date without a time is the whole day."""
        if test.how in ALIKE or test.how is How.NAN:
            raise refuse(test, scene, label_of(test), self.tests)
        if test.how is How.NULL:
            return Test(self.column, Compare.NE if test.negated else Compare.EQ, None)
        spans = [times.span_of(value, scene) for value in test.values]
        if test.how is How.BETWEEN:
            low, high = spans
            inside = All((self._compare(How.GE, low), self._compare(How.LE, high)))
            outside = Any((self._compare(How.LT, low), self._compare(How.GT, high)))
            return outside if test.negated else inside
        if test.how is How.IN:
            each = How.NE if test.negated else How.EQ
            parts = tuple(self._compare(each, span) for span in spans)
            return All(parts) if test.negated else Any(parts)
        return self._compare(test.how, spans[0])

    def _compare(self, how: How, span: times.Span) -> Filter:
        before = self._test(Compare.LT, span.start, NOTHING)
        behind = self._test(Compare.GE, span.end, NOTHING)
        always = Test(self.column, Compare.NE, None)
        since = self._test(Compare.GE, span.start, always)
        until = self._test(Compare.LT, span.end, always)
        if span.is_empty:  # between two milliseconds: no time is equal to it
            plain: dict[How, Filter] = {
                How.EQ: NOTHING,
                How.NE: always,
                How.LT: before,
                How.LE: before,
            }
            return plain.get(how, since)
        whole: dict[How, Filter] = {
            How.EQ: All((since, until)),
            How.NE: Any((before, behind)),
            How.LT: before,
            How.LE: until,
            How.GT: behind,
        }
        return whole.get(how, since)

    def _test(self, compare: Compare, at: Instant | None, unbounded: Filter) -> Filter:
        return unbounded if at is None else Test(self.column, compare, at)

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Sort by time."""
        del name, lenient
        return (Order(self.column, descending),)


@dataclass(frozen=True)
class ChoiceField:
    """A field of the row that holds one of a few words; their case does not matter.

    Attributes:
        also: Words of other systems that no row of ours has.
    """

    column: str
    help: str
    choices: tuple[str, ...]
    also: tuple[str, ...] = ()

    @property
    def tests(self) -> str:
        """Name the words."""
        return f"=, !=, IN, LIKE, ILIKE; one of {', '.join(self.choices)}"

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Compare it with the words it can have."""
        if test.how in ORDERED or test.how is How.NAN:
            raise refuse(test, scene, label_of(test), self.tests)
        if test.how is How.NULL:
            return Test(self.column, Compare.NE if test.negated else Compare.EQ, None)
        given = scene.texts(test, label_of(test))
        if not scene.lenient and test.how not in ALIKE:
            for value, text in zip(test.values, given, strict=True):
                self._check(text, value.at, scene)
        met = {word for word in self.choices if self._meets(word, test, given, scene)}
        if test.negated or test.how is How.NE:
            met = set(self.choices) - met
        return Test(self.column, Compare.IN, tuple(sorted(met)))

    def _meets(self, word: str, test: Comparison, given: tuple[str, ...], scene: Scene) -> bool:
        """Return whether a word is one of, or like, what is given; other systems use capitals."""
        forms = (word.upper(),) if scene.lenient else (word, word.upper())
        if test.how in ALIKE:
            folded = test.how is How.ILIKE
            return any(is_like(form, given[0], folded=folded) for form in forms)
        if scene.lenient:
            return word.upper() in given
        return word in {text.lower() for text in given}

    def _check(self, text: str, at: int, scene: Scene) -> None:
        known = {*self.choices, *self.also}
        if text.lower() not in known:
            close = nearest(text, self.choices)
            advice = f"Did you mean '{close}'? " if close else ""
            raise scene.fault(
                at,
                f"{shown(text)} is no such word",
                f"{advice}There are {', '.join(self.choices)}.",
            )

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Sort by the word."""
        del name, lenient
        return (Order(self.column, descending),)
