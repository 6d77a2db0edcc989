"""What a filter says, as a tree of values: what the parser makes and the printer writes.

Positions count characters of the text from 0; they are for errors only and take no part in
equality, so that a tree equals the tree of its printed form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


class How(StrEnum):
    """How a test compares."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    LIKE = "LIKE"
    ILIKE = "ILIKE"
    IN = "IN"
    BETWEEN = "BETWEEN"
    NULL = "NULL"
    NAN = "NAN"


@dataclass(frozen=True, slots=True)
class Name:
    """A field by its path: ``metrics.auc`` has the parts ``metrics`` and ``auc``."""

    parts: tuple[str, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Text:
    """A text, as it stood in quotes."""

    value: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Number:
    """A number; an integer where it was written without point and exponent. Never NaN."""

    value: int | float
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as seen from now: ``now - 7d`` is -604800 seconds from it."""

    seconds: int
    at: int = field(default=0, compare=False)


Literal: TypeAlias = "Text | Number | Moment"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of a field.

    Attributes:
        values: None for NULL and NAN, two for BETWEEN, at least one for IN, else one.
        negated: Whether NOT stands inside: ``NOT IN``, ``IS NOT NULL``.
    """

    name: Name
    how: How
    values: tuple[Literal, ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Both:
    """All parts hold. Two at least; none at all in an empty filter, which holds for every row."""

    parts: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Either:
    """Some part holds; two parts at least."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Negated:
    """The part does not hold."""

    part: Node


Node: TypeAlias = "Comparison | Both | Either | Negated"
EVERYTHING = Both()


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of an order: ``metrics.auc DESC``."""

    name: Name
    descending: bool = False
