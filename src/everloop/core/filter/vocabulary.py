"""Vocabularies: which names mean what when one kind of thing is searched.

Each domain package declares one for its records, and says how rows of other kinds belong to them;
names like ``run.metrics.auc`` then mean over there what they mean here. Nothing in this module
knows a domain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from everloop.core.filter.faults import nearest, shown
from everloop.core.filter.joins import Route, Through, any_of
from everloop.core.filter.keyed import Space
from everloop.core.filter.parser import LONGEST, parse_filter, parse_order
from everloop.core.filter.scene import Scene
from everloop.core.filter.targets import ANYTHING, Target, label_of, refuse
from everloop.core.filter.tree import Both, Comparison, Either, How, Name, Negated, Node, Text
from everloop.core.search import All, Any, Filter, Has, Not, Order

MOST_LINKS = 4
REF_TESTS = "=, !=, IN with refs such as 'credit@3', IS NULL"


@dataclass(frozen=True)
class Linked:
    """Things of another vocabulary that belong to the row.

    Attributes:
        noun: The vocabulary over there.
        routes: How their rows belong to ours; a thing counts by any of them.
        fields: Names that mean something else here than over there, by their path after the dot.
        is_single: Whether one of them at most belongs to each row, so that it can be sorted by.
    """

    noun: str
    routes: tuple[Route, ...]
    help: str
    fields: Mapping[str, Target] = field(default_factory=dict)
    is_single: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """The names by which one kind of thing is searched.

    Attributes:
        noun: What the thing is called: ``run``.
        kind: The record kind.
        fields: Targets by name.
        synonyms: Other spellings of fields and spaces, those of other systems among them.
        spaces: Families of fields by their first part.
        links: Other things by the name that stands before the dot.
        selves: First parts that stand for the thing itself: ``attributes.status``.
        refer: What a bare ref asks of a row: ``dataset = 'credit@3'``.
        order: The order when none is asked for, and what breaks ties.
    """

    noun: str
    kind: str
    fields: Mapping[str, Target]
    synonyms: Mapping[str, str] = field(default_factory=dict)
    spaces: Mapping[str, Space] = field(default_factory=dict)
    links: Mapping[str, Linked] = field(default_factory=dict)
    selves: frozenset[str] = frozenset({"attribute", "attributes", "attr"})
    refer: Callable[[Scene, Text], Filter] | None = None
    order: tuple[Order, ...] = (Order("id", descending=True),)

    def described(self) -> Iterator[tuple[str, str]]:
        """Yield what may be written first in a filter, and what it is."""
        yield from ((name, target.help) for name, target in self.fields.items())
        yield from ((f"{name}.", space.help) for name, space in self.spaces.items())
        yield from ((f"{name}.", link.help) for name, link in self.links.items())

    def names(self) -> list[str]:
        """Return what may be written first in a filter: fields, spaces and links."""
        return [name for name, _ in self.described()]


_DECLARED: dict[str, Vocabulary] = {}


def declare(vocabulary: Vocabulary) -> Vocabulary:
    """Make a vocabulary known to the links of others; return it.

    Raises:
        ValueError: its noun is declared already (at import).
    """
    if vocabulary.noun in _DECLARED:
        message = f"the vocabulary {vocabulary.noun!r} is declared twice"
        raise ValueError(message)
    _DECLARED[vocabulary.noun] = vocabulary
    return vocabulary


def declared_vocabularies() -> Mapping[str, Vocabulary]:
    """Return all vocabularies declared so far, by noun."""
    return dict(sorted(_DECLARED.items()))


def lower_filter(
    vocabulary: Vocabulary, text: str, scene: Scene, *, longest: int = LONGEST
) -> Filter:
    """Return what a filter asks of the store; ``scene`` without its text.

    Raises:
        InvalidInput: ``filter.invalid``.
    """
    return _lower(vocabulary, parse_filter(text, longest=longest), replace(scene, text=text))


def lower_order(vocabulary: Vocabulary, order: str | Sequence[str], scene: Scene) -> list[Order]:
    """Return the keys that an order names, and after them those of the vocabulary.

    Raises:
        InvalidInput: ``order.invalid``.
    """
    keys: list[Order] = []
    for text in (order,) if isinstance(order, str) else order:
        here = replace(scene, text=text, what="order")
        for key in parse_order(text):
            target = resolve(vocabulary, key.name, here)
            label = ".".join(key.name.parts)
            found = target.orders(label, descending=key.descending, lenient=scene.lenient)
            if not found:
                raise here.fault(
                    key.name.at,
                    f"Nothing can be sorted by {shown(label)}",
                    "Sort by a field of the thing itself, or by one of its metrics or params.",
                )
            keys += found
    unique: dict[tuple[str, Has | None], Order] = {}
    for each in (*keys, *vocabulary.order):
        unique.setdefault((each.field, each.via), each)
    return list(unique.values())


def resolve(vocabulary: Vocabulary, name: Name, scene: Scene, *, depth: int = 0) -> Target:
    """Return what a name means.

    Raises:
        InvalidInput: ``filter.invalid`` or ``order.invalid`` for an unknown name.
    """
    parts = name.parts
    if len(parts) > 1 and parts[0] in vocabulary.selves:
        parts = parts[1:]
        own = _own(vocabulary, ".".join(parts))
        if own is None:
            raise _unknown(vocabulary, name, ".".join(parts), scene)
        return own
    own = _own(vocabulary, parts[0]) if len(parts) == 1 else None
    if own is not None:
        return own
    first = vocabulary.synonyms.get(parts[0], parts[0])
    rest = ".".join(parts[1:])
    if rest and first in vocabulary.spaces:
        return vocabulary.spaces[first].target(rest)
    if first in vocabulary.links:
        return _linked(vocabulary.links[first], Name(parts[1:], name.at), scene, depth)
    raise _unknown(vocabulary, name, parts[0], scene)


def _own(vocabulary: Vocabulary, name: str) -> Target | None:
    return vocabulary.fields.get(vocabulary.synonyms.get(name, name))


def _linked(link: Linked, rest: Name, scene: Scene, depth: int) -> Target:
    if depth >= MOST_LINKS:
        raise scene.fault(
            rest.at, "The name goes through too many links", f"Go through {MOST_LINKS} at most."
        )
    over_there = _DECLARED[link.noun]
    scene.allow(link.noun)
    if not rest.parts:
        return Through(link.routes, _Ref(over_there))
    replaced = link.fields.get(".".join(rest.parts))
    if replaced is not None:
        return replaced
    target = resolve(over_there, rest, scene, depth=depth + 1)
    return Through(link.routes, target, link.is_single)


def vocabulary_of(noun: str) -> Vocabulary:
    """Return a declared vocabulary.

    Raises:
        KeyError: no package that is loaded declares it.
    """
    return _DECLARED[noun]


def ref_target(noun: str) -> Target:
    """Return the target of refs of a thing."""
    return _Ref(_DECLARED[noun])


@dataclass(frozen=True)
class _Ref:
    """The target of a bare link: refs of things."""

    vocabulary: Vocabulary

    tests = REF_TESTS

    @property
    def help(self) -> str:
        return f"a {self.vocabulary.noun} by its ref"

    def lower(self, test: Comparison, scene: Scene) -> Filter:
        refer = self.vocabulary.refer
        if refer is None or test.how not in {How.EQ, How.NE, How.IN, How.NULL}:
            raise refuse(test, scene, label_of(test), REF_TESTS)
        if test.how is How.NULL:
            return ANYTHING
        scene.texts(test, label_of(test))
        found = any_of(refer(scene, value) for value in test.values if isinstance(value, Text))
        return Not(found) if test.negated or test.how is How.NE else found

    def orders(self, name: str, *, descending: bool, lenient: bool) -> tuple[Order, ...]:
        del name, descending, lenient
        return ()


def _unknown(vocabulary: Vocabulary, name: Name, wanted: str, scene: Scene) -> Exception:
    plain = [each.rstrip(".") for each in vocabulary.names()]
    close = nearest(wanted, [*plain, *vocabulary.synonyms])
    if close is None:
        hint = f"A {vocabulary.noun} has: {', '.join(vocabulary.names())}"
        if len(name.parts) == 1 and vocabulary.spaces:
            keyed = " or ".join(f"{space}.{wanted[:40]}" for space in vocabulary.spaces)
            hint = f"Did you mean {keyed}? {hint}"
    else:
        close = vocabulary.synonyms.get(close, close) if len(name.parts) == 1 else close
        is_family = f"{vocabulary.synonyms.get(close, close)}." in vocabulary.names()
        rest = [*(name.parts[1:] or (("<name>",) if is_family else ()))]
        if name.parts[0] in vocabulary.selves and wanted != name.parts[0]:
            rest = []
        hint = f"Did you mean {'.'.join([close, *rest])!r}?"
    where = " before a dot" if len(name.parts) > 1 and wanted == name.parts[0] else ""
    return scene.fault(name.at, f"{shown(wanted)} is no field of a {vocabulary.noun}{where}", hint)


def _lower(vocabulary: Vocabulary, node: Node, scene: Scene) -> Filter:
    match node:
        case Comparison():
            return resolve(vocabulary, node.name, scene).lower(node, scene)
        case Both(parts):
            return All(tuple(_lower(vocabulary, part, scene) for part in parts))
        case Either(parts):
            return Any(tuple(_lower(vocabulary, part, scene) for part in parts))
        case Negated(Negated(inner)):
            return _lower(vocabulary, inner, scene)
        case Negated(part):
            return Not(_lower(vocabulary, part, scene))
