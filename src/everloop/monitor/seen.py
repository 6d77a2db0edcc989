"""What the names of a filter mean for predictions, which are rows of Parquet and not of the store.

Every target does two things: it narrows the segments that can hold such a prediction, in the
store's terms and never too far, and it judges one prediction after its segment was read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from everloop.core.errors import LimitExceeded
from everloop.core.filter.fields import ChoiceField, InstantField
from everloop.core.filter.joins import one_of
from everloop.core.filter.matching import meets_number, meets_text
from everloop.core.filter.scene import Scene, kind_named
from everloop.core.filter.targets import (
    ALIKE,
    ANYTHING,
    NUMBER_TESTS,
    ORDERED,
    TEXT_TESTS,
    TIME_TESTS,
    label_of,
    refuse,
)
from everloop.core.filter.times import meets_spans, span_of
from everloop.core.filter.tree import Comparison, How, Name, Number, Text
from everloop.core.filter.vocabulary import ref_target, resolve, vocabulary_of
from everloop.core.ids import Id
from everloop.core.ports import Compare
from everloop.core.search import All, Any, Filter, Order, Test
from everloop.core.wire import PredictionRow, Scalar

MOST_IDS = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """One prediction, where it was answered, and its truth if that is known."""

    row: PredictionRow
    deployment: Id
    label: float | None


Judge = Callable[[Seen], bool]


class _Unsorted:
    """Predictions come in the order in which they were sealed and in no other."""

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        """Sort by nothing."""
        del name, descending, lenient
        return ()

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Leave every segment."""
        del test, scene
        return ANYTHING


@dataclass(frozen=True)
class SeenText(_Unsorted):
    """A text of a prediction."""

    pick: Callable[[Seen], str | None]
    help: str

    tests = TEXT_TESTS

    def judge(self, test: Comparison, scene: Scene) -> Judge:
        """Return what tells whether a prediction meets the test."""
        if test.how in ORDERED or test.how is How.NAN:
            raise refuse(test, scene, label_of(test), self.tests)
        scene.texts(test, label_of(test))
        return lambda seen: meets_text(self.pick(seen), test)


@dataclass(frozen=True)
class SeenId(SeenText):
    """The id of a prediction; ids say roughly when it was made, and so does a segment."""

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Leave the segments whose ids span it."""
        del scene
        if test.negated or test.how not in {How.EQ, How.IN}:
            return ANYTHING
        texts = [value.value for value in test.values if isinstance(value, Text)]
        return Any(
            tuple(
                All((Test("first_id", Compare.LE, text), Test("last_id", Compare.GE, text)))
                for text in texts
            )
        )


@dataclass(frozen=True)
class SeenWord(_Unsorted):
    """One of a few words; their case does not matter."""

    pick: Callable[[Seen], str | None]
    help: str
    choices: tuple[str, ...]

    @property
    def tests(self) -> str:
        """Name the words."""
        return f"=, !=, IN; one of {', '.join(self.choices)}"

    def judge(self, test: Comparison, scene: Scene) -> Judge:
        """Return what tells whether a prediction meets the test."""
        if test.how in ALIKE:
            raise refuse(test, scene, label_of(test), self.tests)
        ChoiceField("id", self.help, self.choices).lower(test, scene)  # refuses other words
        values = tuple(
            Text(value.value.lower(), value.at) for value in test.values if isinstance(value, Text)
        )
        plain = Comparison(test.name, test.how, values, test.negated)
        return lambda seen: meets_text(self.pick(seen), plain)


@dataclass(frozen=True)
class SeenNumber(_Unsorted):
    """A number of a prediction."""

    pick: Callable[[Seen], float | None]
    help: str

    tests = NUMBER_TESTS

    def judge(self, test: Comparison, scene: Scene) -> Judge:
        """Return what tells whether a prediction meets the test."""
        if test.how in ALIKE or test.how is How.NAN:
            raise refuse(test, scene, label_of(test), self.tests)
        scene.numbers(test, label_of(test))
        return lambda seen: meets_number(self.pick(seen), test)


@dataclass(frozen=True)
class SeenTime(_Unsorted):
    """The event time of a prediction, which its segment spans."""

    pick: Callable[[Seen], object]
    help: str

    tests = TIME_TESTS

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Leave the segments that span such a time."""
        if test.negated or test.how in {How.NE, How.NULL} or test.how in ALIKE:
            return ANYTHING
        begin, end = InstantField("last_at", ""), InstantField("first_at", "")
        match test.how:
            case How.LT | How.LE:
                return end.lower(test, scene)
            case How.GT | How.GE:
                return begin.lower(test, scene)
            case How.IN:
                each = (Comparison(test.name, How.EQ, (value,)) for value in test.values)
                return Any(tuple(self.lower(one, scene) for one in each))
        since = Comparison(test.name, How.GE, test.values[:1])
        until = Comparison(test.name, How.LE, test.values[-1:])
        return All((begin.lower(since, scene), end.lower(until, scene)))

    def judge(self, test: Comparison, scene: Scene) -> Judge:
        """Return what tells whether a prediction meets the test."""
        if test.how in ALIKE or test.how is How.NAN:
            raise refuse(test, scene, label_of(test), self.tests)
        spans = [span_of(value, scene) for value in test.values]
        return lambda seen: meets_spans(self.pick(seen), test, spans)  # type: ignore[arg-type]  # a time


@dataclass(frozen=True)
class SeenInputs:
    """The inputs of a prediction by name."""

    help: str = "an input"

    tests = f"texts in quotes by {TEXT_TESTS}; numbers by {NUMBER_TESTS}"

    def target(self, key: str) -> _SeenInput:
        """Return the input of that name."""
        return _SeenInput(key, self.help)


@dataclass(frozen=True)
class _SeenInput(_Unsorted):
    key: str
    help: str

    tests = SeenInputs.tests

    def judge(self, test: Comparison, scene: Scene) -> Judge:
        if test.how is How.NAN:
            raise refuse(test, scene, label_of(test), self.tests)
        if test.how is How.NULL:
            return lambda seen: (seen.row.inputs.get(self.key) is None) is not test.negated
        if test.values and isinstance(test.values[0], Number):
            scene.numbers(test, label_of(test))
            return lambda seen: meets_number(_number(seen.row.inputs.get(self.key)), test)
        if test.how in ORDERED:
            raise refuse(test, scene, label_of(test), self.tests)
        scene.texts(test, label_of(test))
        return lambda seen: meets_text(_text(seen.row.inputs.get(self.key)), test)


def _number(value: Scalar) -> float | None:
    return None if value is None or isinstance(value, str) else float(value)


def _text(value: Scalar) -> str | None:
    return (
        str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else None
    )


@dataclass(frozen=True)
class SeenThing(_Unsorted):
    """Another thing that a prediction names by its id, found in the store first.

    Attributes:
        noun: Its vocabulary.
        column: The field of a segment that holds its id, where one does.
        rest: The path of a field of it; empty for a ref.
    """

    noun: str
    pick: Callable[[Seen], Id | None]
    help: str
    column: str | None = None
    rest: str = ""

    @property
    def tests(self) -> str:
        """How it compares over there."""
        return ref_target(self.noun).tests

    def target(self, key: str) -> SeenThing:
        """Return a field of the thing."""
        return SeenThing(self.noun, self.pick, self.help, self.column, key)

    def ids(self, test: Comparison, scene: Scene) -> frozenset[str]:
        """Return the ids of the things that meet the test.

        Raises:
            LimitExceeded: ``query.too_many_values``.
            Denied: ``access.denied``.
        """
        scene.allow(self.noun)
        vocabulary = vocabulary_of(self.noun)
        over_there = ref_target(self.noun)
        if self.rest:
            name = Name(tuple(self.rest.split(".")), test.name.at)
            over_there = resolve(vocabulary, name, scene)
        wanted = over_there.lower(test, scene)
        page = scene.reader.search(kind_named(vocabulary.kind), wanted, limit=MOST_IDS)
        if page.next is not None:
            raise LimitExceeded(
                "query.too_many_values",
                f"More than {MOST_IDS:,} things named {self.noun} meet a test of the filter.",
                hint="Name fewer of them.",
            )
        return frozenset(row.id for row in page.rows)

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        """Leave the segments that name one of them."""
        return one_of(self.column, self.ids(test, scene)) if self.column else ANYTHING

    def judge(self, test: Comparison, scene: Scene) -> Judge:
        """Return what tells whether a prediction meets the test."""
        ids = self.ids(test, scene)
        return lambda seen: self.pick(seen) in ids
