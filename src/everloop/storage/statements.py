"""The text of every SQL statement the stores run, made from table declarations alone.

Values never enter the text; they are bound. The texts of one shape are made once and kept, because
one verb runs about ten statements and composing them anew would cost more than running them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from everloop.core.errors import LimitExceeded
from everloop.core.ports import Compare, Condition
from everloop.core.records import Record
from everloop.storage.tables import ColumnType, SqlValue, Table, to_parameter

MAX_VALUES_IN = 16_384
_OPERATORS = {
    Compare.LT: "<",
    Compare.LE: "<=",
    Compare.GT: ">",
    Compare.GE: ">=",
}
_FIRST_SURROGATE, _LAST_SURROGATE, _LAST_CODE_POINT = 0xD800, 0xDFFF, 0x10FFFF


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the databases.

    Attributes:
        mark: Placeholder of a bound value.
        is_distinct: Comparison that counts null as a value.
        nulls_sort_first: Whether ascending order puts nulls first unless told.
        like: The operator of LIKE and its placeholder.
        ilike: The operator of ILIKE and its placeholder.
        pattern: Makes the pattern that the operator of LIKE takes.
        among: Asks whether a column is one of what a statement yields, by the column's index.
        probe: Ends a statement within EXISTS, so that it is asked row by row.
        unled: Put before a column that shall not lead the search through an index of its own.
        aside: Writes a column so that a test of it uses no index.
        follow: Joins each row of the first table with its row of the second.
    """

    mark: str
    is_distinct: str
    nulls_sort_first: bool
    like: str
    ilike: str
    pattern: Callable[[str], str]
    among: str
    probe: str
    unled: str
    aside: Callable[[str, ColumnType], str]
    follow: str


def _plus(column: str, _: ColumnType) -> str:
    return f"+{column}"


def _computed(column: str, type: ColumnType) -> str:
    if type in {ColumnType.TEXT, ColumnType.INSTANT}:
        return f"({column} || '')"
    if type in {ColumnType.INTEGER, ColumnType.DOUBLE}:
        return f"({column} + 0)"
    return column


def to_glob(pattern: str) -> str:
    """Return a pattern of GLOB, which minds case in SQLite as LIKE there does not."""
    return pattern.translate(_TO_GLOB)


_TO_GLOB = {ord("%"): "*", ord("_"): "?", ord("*"): "[*]", ord("?"): "[?]", ord("["): "[[]"}

# https://www.sqlite.org/optoverview.html: CROSS JOIN keeps the order of the tables, and a term
# with a unary plus before its column uses no index.
SQLITE = Dialect(
    "?",
    "IS NOT",
    nulls_sort_first=True,
    like="GLOB ?",
    ilike="LIKE ?",
    pattern=to_glob,
    among="IN ({})",
    probe="",
    unled="+",
    aside=_plus,
    follow="CROSS JOIN",
)
# The columns of text have the collation "C", by which ILIKE folds ASCII alone.
POSTGRES = Dialect(
    "%s",
    "IS DISTINCT FROM",
    nulls_sort_first=False,
    like="LIKE %s ESCAPE ''",
    ilike="ILIKE %s ESCAPE ''",
    pattern=str,
    # Of an array the planner expects a few elements, and looks each up; an EXISTS with an OFFSET
    # it does not turn into a join, for which it would read one of the tables whole.
    among="= ANY(ARRAY({}))",
    probe=" OFFSET 0",
    unled="",
    aside=_computed,
    follow="JOIN",
)


class Fragment(NamedTuple):
    """A piece of a statement and the values to bind in it."""

    text: str
    values: tuple[SqlValue, ...] = ()


def quoted(name: str) -> str:
    """Return an identifier that can't be taken for a keyword."""
    return f'"{name}"'


@dataclass(frozen=True)
class Fixed:
    """The statements of one table whose text never varies."""

    insert: str
    replace: str
    delete: str
    find: str
    select: str
    count: str
    name: str

    def least(self, column: str) -> str:
        """Return the statement that finds the least value of a column."""
        return f"SELECT MIN({quoted(column)}) FROM {self.name}"

    def some(self, columns: Sequence[str]) -> str:
        """Return the statement that reads some columns."""
        return f"SELECT {', '.join(quoted(column) for column in columns)} FROM {self.name}"

    def mentioning(self, columns: Sequence[str], mark: str) -> str:
        """Return the statement that finds a page of rows some column of which contains a text.

        Binds the last id of the page before, the pattern once a column, and the size of a page.
        """
        listed = ", ".join(quoted(column) for column in ("id", *columns))
        likes = " OR ".join(f"{quoted(column)} LIKE {mark}" for column in columns)
        return (
            f'SELECT {listed} FROM {self.name} WHERE "id" > {mark} AND ({likes}) '
            f'ORDER BY "id" LIMIT {mark}'
        )

    @classmethod
    def of(cls, table: Table, dialect: Dialect) -> Fixed:
        """Make the statements of a table."""
        name, mark = quoted(table.name), dialect.mark
        columns = [quoted(column.name) for column in table.columns]
        listed = ", ".join(columns)
        marks = ", ".join([mark] * len(columns))
        changes = ", ".join(f"{column} = {mark}" for column in columns)
        same = f'WHERE "id" = {mark} AND "revision" = {mark}'
        return cls(
            insert=f"INSERT INTO {name} ({listed}) VALUES ({marks})",
            replace=f"UPDATE {name} SET {changes} {same}",
            delete=f"DELETE FROM {name} {same}",
            find=f'SELECT {listed} FROM {name} WHERE "id" = {mark}',
            select=f"SELECT {listed} FROM {name}",
            count=f"SELECT COUNT(*) FROM {name}",
            name=name,
        )


class Query:
    """Composes the varying part of select and count for one table."""

    def __init__(self, table: Table, dialect: Dialect) -> None:
        self.table = table
        self._dialect = dialect
        groups = (*table.kind.unique, *table.kind.index)
        self._pins = {"id", *(group[0] for group in groups)} - {"project"}

    def filters(self, conditions: Sequence[Condition]) -> list[Fragment]:
        """Return one fragment per condition.

        Raises:
            TypeError: a field does not exist, is not a scalar or has another type.
            LimitExceeded: ``query.too_many_values``.
        """
        is_pinned = any(self._is_pin(condition) for condition in conditions)
        return [
            Fragment(f"{self._dialect.unled}{fragment.text}", fragment.values)
            if is_pinned and condition.field == "project" and condition.compare is Compare.EQ
            else fragment
            for condition in conditions
            for fragment in [self._filter(condition)]
        ]

    def _is_pin(self, condition: Condition) -> bool:
        """Tell whether a condition leaves few rows by an index that does not begin by project.

        Without statistics SQLite takes an index that begins by the project for as good, and walks
        all that a project has to find what belongs to one run.
        """
        if condition.compare not in {Compare.EQ, Compare.IN} or condition.value is None:
            return False
        return condition.field in self._pins

    def after(self, last: Record, order: str, *, descending: bool) -> Fragment:
        """Return the condition that leaves what comes after the last row of a page."""
        mark = self._dialect.mark
        beyond = "<" if descending else ">"
        if order == "id":
            return Fragment(f'"id" {beyond} {mark}', (last.id,))
        column = quoted(order)
        value = to_parameter(self.table, order, getattr(last, order))
        if not self.table.by_name[order].nullable:
            return Fragment(f'({column}, "id") {beyond} ({mark}, {mark})', (value, last.id))
        if value is None:
            rest = "" if descending else f" OR {column} IS NOT NULL"
            return Fragment(f'(({column} IS NULL AND "id" {beyond} {mark}){rest})', (last.id,))
        rest = f" OR {column} IS NULL" if descending else ""
        text = f'({column} {beyond} {mark} OR ({column} = {mark} AND "id" {beyond} {mark}){rest})'
        return Fragment(text, (value, value, last.id))

    def order(self, order: str, *, descending: bool) -> str:
        """Return the ORDER BY clause: by one field, nulls first, then by id."""
        direction = "DESC" if descending else "ASC"
        if order == "id":
            return f' ORDER BY "id" {direction}'
        to_parameter(self.table, order, None)  # refuses an unknown field
        nulls = ""
        if self.table.by_name[order].nullable and not self._dialect.nulls_sort_first:
            nulls = " NULLS LAST" if descending else " NULLS FIRST"
        return f' ORDER BY {quoted(order)} {direction}{nulls}, "id" {direction}'

    def _filter(self, condition: Condition) -> Fragment:
        name, compare, value = condition
        column, mark = quoted(name), self._dialect.mark
        if compare is Compare.IN:
            return self._is_in(name, value)
        bound = to_parameter(self.table, name, value)
        if compare is Compare.EQ:
            return (
                Fragment(f"{column} IS NULL")
                if bound is None
                else Fragment(f"{column} = {mark}", (bound,))
            )
        if compare is Compare.NE:
            if bound is None:
                return Fragment(f"{column} IS NOT NULL")
            return Fragment(f"{column} {self._dialect.is_distinct} {mark}", (bound,))
        if bound is None:
            return Fragment("1 = 0")  # nothing is before or after null
        if compare is Compare.PREFIX:
            return self._has_prefix(column, bound)
        if compare in {Compare.LIKE, Compare.ILIKE}:
            return self._is_like(column, compare, bound)
        return Fragment(f"{column} {_OPERATORS[compare]} {mark}", (bound,))

    def _is_in(self, name: str, values: object) -> Fragment:
        if not isinstance(values, tuple):
            message = "IN takes a tuple"
            raise TypeError(message)
        require_few(values)
        column = quoted(name)
        present = [to_parameter(self.table, name, value) for value in values if value is not None]
        null = f" OR {column} IS NULL" if len(present) < len(values) else ""
        if not present:
            return Fragment(f"(1 = 0{null})")
        # Padded to a power of two, so that few different texts are made.
        size = 1 << (len(present) - 1).bit_length()
        padded = present + [present[-1]] * (size - len(present))
        marks = ", ".join([self._dialect.mark] * size)
        return Fragment(f"({column} IN ({marks}){null})", tuple(padded))

    def _is_like(self, column: str, compare: Compare, pattern: SqlValue) -> Fragment:
        if not isinstance(pattern, str):
            message = f"{compare.name} compares text"
            raise TypeError(message)
        if compare is Compare.LIKE:
            return Fragment(f"{column} {self._dialect.like}", (self._dialect.pattern(pattern),))
        return Fragment(f"{column} {self._dialect.ilike}", (pattern,))

    def _has_prefix(self, column: str, prefix: SqlValue) -> Fragment:
        if not isinstance(prefix, str):
            message = "PREFIX compares text"
            raise TypeError(message)
        if not prefix:
            return Fragment(f"{column} IS NOT NULL")
        mark, end = self._dialect.mark, end_of_prefix(prefix)
        if end is None:
            return Fragment(f"{column} >= {mark}", (prefix,))
        # A range and not LIKE: indexes serve it and no character is special.
        return Fragment(f"({column} >= {mark} AND {column} < {mark})", (prefix, end))


def require_few(values: Sequence[object], most: int = MAX_VALUES_IN) -> None:
    """Refuse longer lists than one question, or what a database binds in one statement.

    Raises:
        LimitExceeded: ``query.too_many_values``.
    """
    if len(values) > most:
        raise LimitExceeded(
            "query.too_many_values",
            f"{len(values)} values are too many for one question.",
            hint=f"Ask for at most {MAX_VALUES_IN} at a time, each of them once.",
        )


def joined(fragments: Iterable[Fragment]) -> Fragment:
    """Return a WHERE clause of all fragments; empty when there are none."""
    pieces = list(fragments)
    if not pieces:
        return Fragment("")
    text = " WHERE " + " AND ".join(piece.text for piece in pieces)
    return Fragment(text, tuple(value for piece in pieces for value in piece.values))


def end_of_prefix(prefix: str) -> str | None:
    """Return the least text after all texts with this prefix, in code point order."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code <= _LAST_CODE_POINT:
            is_surrogate = _FIRST_SURROGATE <= code <= _LAST_SURROGATE
            return prefix[:-1] + chr(_LAST_SURROGATE + 1 if is_surrogate else code)
        prefix = prefix[:-1]
    return None
