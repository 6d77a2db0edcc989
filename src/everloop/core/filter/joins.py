"""Targets that are fields of other rows: along links, in several places, or looked up first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from everloop.core.filter.matching import meets_text
from everloop.core.filter.scene import Scene, kind_named
from everloop.core.filter.targets import NOTHING, ORDERED, TEXT_TESTS, Target, label_of, refuse
from everloop.core.filter.tree import Comparison, How
from everloop.core.ports import Compare
from everloop.core.search import All, Any, Filter, Has, Link, Not, Order, Test

MOST_IN_ONE = 16_000


@dataclass(frozen=True)
class Through:
    """A target of another row that belongs to the row: the test holds if it holds for some.

    Attributes:
        is_single: Whether one row at most belongs to each, so that it can be sorted by.
    """

    routes: tuple[Route, ...]
    target: Target
    is_single: bool = False

    @property
    def help(self) -> str:
        """What it is over there."""
        return self.target.help

    @property
    def tests(self) -> str:
        """How it compares over there."""
        return self.target.tests

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Wrap what the other row is asked; IS NULL holds where no such row has a value."""
        if test.how is How.NULL and not test.negated:
            there_is = Comparison(test.name, How.NULL, (), negated=True)
            return Not(self.lower(there_is, scene))
        inner = self.target.lower(test, scene)
        return any_of(route.wrap(inner) for route in self.routes)

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Sort by what the one other row sorts by, if it is one and near."""
        if not self.is_single:
            return ()
        via = self.routes[0].wrap(All())
        found = self.target.orders(name, descending=descending, lenient=lenient)
        if not isinstance(via, Has) or any(each.via is not None for each in found):
            return ()
        return tuple(replace(each, via=via) for each in found)


@dataclass(frozen=True)
class Hop:
    """One step to rows of another kind, named because a package may not import its siblings."""

    kind: str
    link: Link
    fixed: tuple[Test, ...] = ()


@dataclass(frozen=True)
class Route:
    """The hops to rows of another kind, the nearest first."""

    hops: tuple[Hop, ...]

    def wrap(self, inner: Filter) -> Filter:
        """Return: some row at the end of the route meets the filter."""
        for hop in reversed(self.hops):
            asked = All((*hop.fixed, inner)) if hop.fixed else inner
            inner = Has(kind_named(hop.kind), hop.link, asked)
        return inner


def any_of(parts: Iterable[Filter]) -> Filter:
    """Return that some part holds, without an Any around a single one."""
    found = tuple(parts)
    return found[0] if len(found) == 1 else Any(found)


@dataclass(frozen=True)
class Union:
    """Several targets of one name: the test holds if it holds for one of them."""

    targets: tuple[Target, ...]

    @property
    def help(self) -> str:
        """What the first one is."""
        return self.targets[0].help

    @property
    def tests(self) -> str:
        """How the first one compares."""
        return self.targets[0].tests

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Join what each is asked; IS NULL holds where all are missing."""
        parts = tuple(target.lower(test, scene) for target in self.targets)
        return All(parts) if test.how is How.NULL and not test.negated else Any(parts)

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Sort by the first one."""
        return self.targets[0].orders(name, descending=descending, lenient=lenient)


@dataclass(frozen=True)
class Looked:
    """A text that no column holds: rows that may have it are read, and lowered to their ids.

    Attributes:
        texts: Returns, for each id of a row, the texts that it has under the name.
        absent: The text that a row without any counts as having; None for none.
    """

    texts: Callable[[Scene], Mapping[str, Iterable[str]]]
    help: str
    column: str = "id"
    absent: str | None = None

    tests = TEXT_TESTS

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Return the rows that have a text which meets the test."""
        if test.how in ORDERED or test.how is How.NAN:
            raise refuse(test, scene, label_of(test), self.tests)
        scene.texts(test, label_of(test))
        found = {key: tuple(texts) for key, texts in self.texts(scene).items()}
        present = one_of(self.column, [key for key, texts in found.items() if texts])
        if test.how is How.NULL:
            return present if test.negated else Not(present)
        met = one_of(
            self.column,
            [key for key, texts in found.items() if any(meets_text(text, test) for text in texts)],
        )
        if self.absent is not None and meets_text(self.absent, test):
            return Any((met, Not(present)))
        return met

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Sort by nothing."""
        del name, descending, lenient
        return ()


def one_of(column: str, keys: Iterable[str]) -> Filter:
    """Return that a field is one of many texts, in pieces that the databases take."""
    values = tuple(sorted(keys))
    if not values:
        return NOTHING
    return any_of(
        Test(column, Compare.IN, values[first : first + MOST_IN_ONE])
        for first in range(0, len(values), MOST_IN_ONE)
    )
