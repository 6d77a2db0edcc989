"""What a search asks of the store: a tree of tests over rows and over the rows that belong to them.

Words of the tree: ``Test`` compares a field of the row itself, ``Has`` asks whether another row
belongs to it, ``All``, ``Any`` and ``Not`` combine. Three-valued logic has no place in it: a test
of a field that is null is false (but for EQ and NE with None), and ``Not`` of it is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeAlias

from everloop.core.clock import Instant
from everloop.core.records import R, Record

Value: TypeAlias = "bool | int | float | str | Instant | None"


class Compare(StrEnum):
    """How a condition compares a field with a value.

    In the patterns of LIKE and ILIKE ``%`` stands for any text and ``_`` for one character, and
    no character escapes another. LIKE minds case; ILIKE holds A to Z and a to z for the same and
    no other letters, for the databases do not agree on those.
    """

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LE = "le"
    GT = "gt"
    GE = "ge"
    IN = "in"
    PREFIX = "prefix"
    LIKE = "like"
    ILIKE = "ilike"


@dataclass(frozen=True, slots=True)
class Test:
    """Whether a field of the row compares with a value (a tuple for IN)."""

    field: str
    compare: Compare
    value: Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """How another row belongs to a row: its field ``theirs`` equals our field ``ours``.

    Attributes:
        prefix: Put before our value first: ``run:`` and our id name a lineage node.
        strip: Taken from our value first; without that prefix nothing belongs to the row.
    """

    theirs: str
    ours: str = "id"
    prefix: str = ""
    strip: str = ""


@dataclass(frozen=True, slots=True)
class Has:
    """Whether a row of another kind belongs to the row and meets a filter."""

    kind: type[Record]
    link: Link
    filter: Filter


@dataclass(frozen=True, slots=True)
class All:
    """Whether every part holds; true without parts."""

    parts: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class Any:
    """Whether some part holds; false without parts."""

    parts: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    """Whether the part does not hold."""

    part: Filter


Filter: TypeAlias = "Test | Has | All | Any | Not"


@dataclass(frozen=True, slots=True)
class Order:
    """One key of a sort; rows without a value come last in both directions.

    With ``via``, rows whose other row has null there come before rows that have no such row.

    Attributes:
        field: A field of the row, or of the row that ``via`` finds.
        via: The row of another kind (at most one meets it) whose field counts; None for our own.
    """

    field: str
    descending: bool = False
    via: Has | None = None


class Page(NamedTuple, Generic[R]):
    """Some rows of a search and where the next ones begin.

    Attributes:
        next: The cursor of the next page, text that may stand in an address; None on the last.
    """

    rows: list[R]
    next: str | None
