"""Searches over dictionaries: the plain meaning of ``everloop.core.search``, evaluated row by row.

The other stores are held to agree with it, so it is written to be read and not to be fast.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cmp_to_key
from typing import TypeAlias

from everloop.core.records import R, Record
from everloop.core.search import All, Any, Compare, Filter, Has, Link, Not, Page, Test
from everloop.storage.cursors import Key, Place, Rank, from_cursor, to_cursor
from everloop.storage.tables import SqlValue, Table, to_parameter

RowsOf: TypeAlias = "Callable[[type[Record]], Iterable[Record]]"
_FOLD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


class Evaluation:
    """One search; remembers what belongs to what while it lasts."""

    def __init__(self, tables: Mapping[type[Record], Table], rows_of: RowsOf) -> None:
        self._tables = tables
        self._rows_of = rows_of
        self._groups: dict[tuple[type[Record], str], dict[object, list[Record]]] = {}

    def page(
        self, rows: Iterable[R], filter: Filter, keys: Sequence[Key], limit: int, after: str | None
    ) -> Page[R]:
        """Return the rows that meet the filter, sorted, one page of them."""
        mark = None if after is None else from_cursor(keys, after)

        def compare(one: tuple[Sequence[Place], R], other: tuple[Sequence[Place], R]) -> int:
            return _compare(keys, one[0], other[0])

        found = [(self._places(row, keys), row) for row in rows if self.meets(row, filter)]
        if mark is not None:
            found = [each for each in found if _compare(keys, each[0], mark) > 0]
        found.sort(key=cmp_to_key(compare))
        more = len(found) > limit > 0
        cursor = to_cursor(keys, found[limit - 1][0]) if more else None
        return Page([row for _, row in found[:limit]], cursor)

    def meets(self, row: Record, filter: Filter) -> bool:
        """Return whether a row meets a filter."""
        match filter:
            case Test():
                return _meets(self._tables[type(row)], row, filter)
            case Has():
                return any(
                    self.meets(other, filter.filter) for other in self._belonging(row, filter)
                )
            case All(parts=parts):
                return all(self.meets(row, part) for part in parts)
            case Any(parts=parts):
                return any(self.meets(row, part) for part in parts)
            case Not(part=part):
                return not self.meets(row, part)

    def _belonging(self, row: Record, has: Has) -> list[Record]:
        wanted = _reach(has.link, getattr(row, has.link.ours))
        if wanted is None:
            return []
        name = (has.kind, has.link.theirs)
        if name not in self._groups:
            group: dict[object, list[Record]] = {}
            for other in self._rows_of(has.kind):
                group.setdefault(getattr(other, has.link.theirs), []).append(other)
            self._groups[name] = group
        return self._groups[name].get(wanted, [])

    def _places(self, row: Record, keys: Sequence[Key]) -> list[Place]:
        return [self._place(row, key) for key in keys]

    def _place(self, row: Record, key: Key) -> Place:
        via, owner = key.order.via, row
        if via is not None:
            found = [o for o in self._belonging(row, via) if self.meets(o, via.filter)]
            if not found:
                return Place(Rank.NO_ROW)
            owner = found[0]
        value = _encoded(key.table, key.order.field, owner)
        return Place(Rank.NULL) if value is None else Place(Rank.VALUE, value)


def _reach(link: Link, ours: object) -> str | None:
    if not isinstance(ours, str) or not ours.startswith(link.strip):
        return None
    return link.prefix + ours.removeprefix(link.strip)


def _encoded(table: Table, field: str, row: Record) -> SqlValue:
    return to_parameter(table, field, getattr(row, field))


def _compare(keys: Sequence[Key], one: Sequence[Place], other: Sequence[Place]) -> int:
    for key, ours, theirs in zip(keys, one, other, strict=True):
        if ours.rank is not theirs.rank:
            return ours.rank - theirs.rank
        if ours.rank is Rank.VALUE and ours.value != theirs.value:
            is_less = bool(ours.value < theirs.value)  # type: ignore[operator]
            return -1 if is_less is not key.order.descending else 1
    return 0


_COMPARISONS: dict[Compare, Callable[..., bool]] = {
    Compare.NE: operator.ne,
    Compare.LT: operator.lt,
    Compare.LE: operator.le,
    Compare.GT: operator.gt,
    Compare.GE: operator.ge,
}


def _meets(table: Table, row: Record, test: Test) -> bool:
    held, wanted = getattr(row, test.field), test.value
    if test.compare is Compare.IN:
        return isinstance(wanted, tuple) and held in wanted
    if test.compare is Compare.EQ:
        return bool(held == wanted)
    if wanted is None:
        return test.compare is Compare.NE and held is not None
    if held is None:
        return False
    if test.compare in _COMPARISONS:
        return bool(_COMPARISONS[test.compare](held, wanted))
    # As the databases hold it: there NUL is two characters.
    text, pattern = _encoded(table, test.field, row), to_parameter(table, test.field, wanted)
    return is_alike(test.compare, str(text), str(pattern))


def is_alike(compare: Compare, text: str, pattern: str) -> bool:
    """Return whether a text begins with, or has the form of, a pattern."""
    if compare is Compare.PREFIX:
        return text.startswith(pattern)
    if compare is Compare.ILIKE:
        text, pattern = text.translate(_FOLD), pattern.translate(_FOLD)
    return is_like(text, pattern)


def is_like(text: str, pattern: str) -> bool:
    """Return whether a text has the form of a LIKE pattern, in linear or quadratic time."""
    first, *others = pattern.split("%")
    if not _fits(text, first, 0):
        return False
    if not others:
        return len(text) == len(first)
    at = len(first)
    *middle, last = others
    for piece in middle:
        # The leftmost place leaves the most to the pieces after it.
        while at + len(piece) <= len(text) and not _fits(text, piece, at):
            at += 1
        at += len(piece)
    return at + len(last) <= len(text) and _fits(text, last, len(text) - len(last))


def _fits(text: str, piece: str, at: int) -> bool:
    part = text[at : at + len(piece)]
    return len(part) == len(piece) and all(
        want in {"_", have} for want, have in zip(piece, part, strict=True)
    )
