"""Searches as SQL: the tree of ``everloop.core.search`` becomes one statement with bound values.

A field that is null makes SQL's tests unknown. AND, OR and a WHERE clause treat that as false, so
only ``Not`` has to say what it means: that the part is not true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from everloop.core.errors import LimitExceeded
from everloop.core.records import Record
from everloop.core.search import All, Any, Compare, Filter, Has, Link, Not, Order, Test
from everloop.storage.cursors import Key
from everloop.storage.reading import fixed_in
from everloop.storage.statements import Dialect, Fragment, end_of_prefix, quoted, require_few
from everloop.storage.tables import ColumnType, SqlValue, Table, to_parameter

MAX_PARTS = 500
MAX_DEPTH = 50
MAX_KEYS = 16
MAX_PATTERN_CHARS = 1_000
_SORTABLE = frozenset(ColumnType) - {ColumnType.JSON, ColumnType.BINARY}
_TEXTUAL = frozenset({Compare.PREFIX, Compare.LIKE, Compare.ILIKE})
_OPERATORS = {
    Compare.EQ: "=",
    Compare.NE: "<>",
    Compare.LT: "<",
    Compare.LE: "<=",
    Compare.GT: ">",
    Compare.GE: ">=",
}
NEVER, _ALWAYS = Fragment("1 = 0"), Fragment("1 = 1")

Tables = Mapping[type[Record], Table]


def keys_of(tables: Tables, kind: type[Record], order: Sequence[Order]) -> list[Key]:
    """Return the keys that sort a search, the last of them the id; checks them.

    Raises:
        TypeError: a field does not exist or can't be sorted by.
        LimitExceeded: ``query.too_complex``.
    """
    keys: list[Key] = []
    for each in order:
        key = Key(each, tables[kind if each.via is None else each.via.kind])
        to_parameter(key.table, each.field, None)  # refuses an unknown field
        if key.column_type not in _SORTABLE:
            message = f"{key.table.name}.{each.field} can't be sorted by"
            raise TypeError(message)
        if each.via is not None:
            require_simple(tables, kind, each.via)
        for name, (whole, _) in key.table.kind.heads.items():
            if whole == each.field:  # sorts as the text does, and an index may hold it
                keys.append(Key(Order(name, each.descending, each.via), key.table))
        keys.append(key)
        if each.via is None and each.field == "id":
            break
    else:
        keys.append(Key(Order("id"), tables[kind]))
    if len(keys) > MAX_KEYS:
        raise _too_complex(f"{len(keys)} keys to sort by are more than {MAX_KEYS}")
    return keys


def require_simple(tables: Tables, kind: type[Record], filter: Filter) -> None:
    """Check a whole filter: its fields, its values and its size.

    Raises:
        TypeError: a field does not exist, is not a scalar or has another type.
        LimitExceeded: ``query.too_complex`` or ``query.too_many_values``.
    """
    parts = 0
    pending: list[tuple[type[Record], Filter, int]] = [(kind, filter, 1)]
    while pending:
        owner, part, depth = pending.pop()
        parts += 1
        if parts > MAX_PARTS or depth > MAX_DEPTH:
            raise _too_complex(f"more than {MAX_PARTS} tests, or {MAX_DEPTH} within each other")
        match part:
            case Test():
                _check_test(tables[owner], part)
            case Has():
                to_parameter(tables[owner], part.link.ours, "")
                to_parameter(tables[part.kind], part.link.theirs, "")
                pending.append((part.kind, part.filter, depth + 1))
            case All(parts=inner) | Any(parts=inner):
                pending += [(owner, each, depth + 1) for each in inner]
            case Not(part=within):
                pending.append((owner, within, depth + 1))


def _check_test(table: Table, test: Test) -> None:
    if test.compare is Compare.IN:
        if not isinstance(test.value, tuple):
            message = "IN takes a tuple"
            raise TypeError(message)
        require_few(test.value)
        for value in test.value:
            to_parameter(table, test.field, value)
        return
    bound = to_parameter(table, test.field, test.value)
    if test.compare not in _TEXTUAL or bound is None:
        return
    if not isinstance(bound, str):
        message = f"{test.compare.name} compares text"
        raise TypeError(message)
    if test.compare is not Compare.PREFIX and len(bound) > MAX_PATTERN_CHARS:
        raise _too_complex(f"a pattern of {len(bound)} characters")


def _too_complex(why: str) -> LimitExceeded:
    return LimitExceeded(
        "query.too_complex",
        f"This is too much for one question: {why}.",
        hint="Ask in several questions, each with fewer conditions.",
    )


class Compiler:
    """Makes the pieces of one statement; every row in it gets a name of its own.

    What it is given has been checked by ``require_simple`` and ``keys_of``.
    """

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        self._tables = tables
        self._dialect = dialect
        self._named = 0
        self._unled: tuple[str, frozenset[str]] = ("", frozenset())
        self._ids: dict[str, str] = {}
        self._aside: dict[str, frozenset[str]] = {}

    def stand_in(self, row: str, column: str) -> None:
        """Let a column stand for the id of a row, so that a test of it need not read the row."""
        self._ids[row] = column

    def keep_unled(self, row: str, fields: frozenset[str]) -> None:
        """Let these fields of a row lead no search through an index."""
        self._unled = (row, fields)

    def column(self, row: str, field: str) -> str:
        """Return how a statement writes a field of a row."""
        name, fields = self._unled
        unled = self._dialect.unled if row == name and field in fields else ""
        return f"{unled}{row}.{quoted(field)}"

    def name(self) -> str:
        """Return a new name for a row."""
        self._named += 1
        return f"t{self._named}"

    def filter(self, kind: type[Record], row: str, filter: Filter) -> Fragment:
        """Return the condition that a filter puts on a row."""
        match filter:
            case Test():
                return self._test(self._tables[kind], row, filter)
            case Has():
                other = self.name()
                belongs = self.looked_up(row, filter, other)
                table = quoted(self._tables[filter.kind].name)
                inner = f"SELECT 1 FROM {table} {other} WHERE {belongs.text}{self._dialect.probe}"
                return Fragment(f"EXISTS ({inner})", belongs.values)
            case All(parts=parts):
                return _joined(" AND ", (self.filter(kind, row, part) for part in parts), _ALWAYS)
            case Any(parts=parts):
                return _joined(" OR ", (self.filter(kind, row, part) for part in parts), NEVER)
            case Not(part=part):
                held = self.filter(kind, row, part)
                return Fragment(f"({held.text}) IS NOT TRUE", held.values)

    def looked_up(self, row: str, has: Has, other: str) -> Fragment:
        """Return the condition of ``belonging`` for an ``other`` that is found from the row.

        If a unique group names it, that leads to it and nothing else: an index of the remaining
        fields may look as good to the databases, and holds thousands of rows for each.
        """
        table = self._tables[has.kind]
        known = fixed_in(has.filter) | {has.link.theirs}
        for group in table.kind.unique:
            if has.link.theirs in group and known.issuperset(group):
                self._aside[other] = frozenset(table.by_name) - {*group, "project"}
                break
        return self.belonging(row, has, other)

    def belonging(self, row: str, has: Has, other: str) -> Fragment:
        """Return the condition that ``other`` is a row that ``has`` asks for."""
        link = self._link(has.link, row, other)
        inner = self.filter(has.kind, other, has.filter)
        return Fragment(f"{link.text} AND {inner.text}", link.values + inner.values)

    def _link(self, link: Link, row: str, other: str) -> Fragment:
        mark = self._dialect.mark
        ours, theirs = _column(row, link.ours), _column(other, link.theirs)
        if link.ours == "id":
            ours = self._ids.get(row, ours)
        if link.strip:
            size = len(link.strip)
            text = f"substr({ours}, 1, {size}) = {mark}"
            rest = f"{theirs} = {mark} || substr({ours}, {size + 1})"
            return Fragment(f"{text} AND {rest}", (link.strip, link.prefix))
        if link.prefix:
            return Fragment(f"{theirs} = {mark} || {ours}", (link.prefix,))
        return Fragment(f"{theirs} = {ours}")

    def _test(self, table: Table, row: str, test: Test) -> Fragment:
        column, mark = self._tested(table, row, test.field), self._dialect.mark
        compare = test.compare
        if compare is Compare.IN:
            assert isinstance(test.value, tuple)
            return self._is_in(table, row, test.field, test.value)
        bound = to_parameter(table, test.field, test.value)
        if bound is None:
            null = {Compare.EQ: "IS NULL", Compare.NE: "IS NOT NULL"}.get(compare)
            return Fragment(f"{column} {null}") if null else NEVER
        if compare in _OPERATORS:
            return Fragment(f"{column} {_OPERATORS[compare]} {mark}", (bound,))
        assert isinstance(bound, str)
        if compare is Compare.PREFIX:
            end = end_of_prefix(bound)
            if end is None:
                return Fragment(f"{column} >= {mark}", (bound,))
            return Fragment(f"({column} >= {mark} AND {column} < {mark})", (bound, end))
        if compare is Compare.LIKE:
            return Fragment(f"{column} {self._dialect.like}", (self._dialect.pattern(bound),))
        return Fragment(f"{column} {self._dialect.ilike}", (bound,))

    def _tested(self, table: Table, row: str, field: str) -> str:
        column = self.column(row, field)
        if field in self._aside.get(row, ()):
            return self._dialect.aside(column, table.by_name[field].type)
        return column

    def _is_in(self, table: Table, row: str, field: str, values: tuple[object, ...]) -> Fragment:
        column = self._tested(table, row, field)
        present = [to_parameter(table, field, value) for value in values if value is not None]
        null = f" OR {column} IS NULL" if len(present) < len(values) else ""
        if not present:
            return Fragment(f"(1 = 0{null})")
        marks = ", ".join([self._dialect.mark] * len(present))
        return Fragment(f"({column} IN ({marks}){null})", tuple(present))


def _column(row: str, field: str) -> str:
    return f"{row}.{quoted(field)}"


def _joined(word: str, parts: Iterable[Fragment], empty: Fragment) -> Fragment:
    pieces = list(parts)
    if not pieces:
        return empty
    if len(pieces) == 1:
        return pieces[0]
    text = "(" + word.join(piece.text for piece in pieces) + ")"
    return Fragment(text, tuple(_values(pieces)))


def _values(pieces: Iterable[Fragment]) -> Iterator[SqlValue]:
    for piece in pieces:
        yield from piece.values
