"""How the SQL stores answer a search: what leads it is chosen by asking the indexes first.

Two ways are weighed. Few rows that an index can name are looked up one by one and sorted. Or an
index that holds the rows in the order asked for is walked until the page is full, and each row is
tried against the filter. A walk begins with a stretch of ``STRETCH`` rows; how many of those met
the filter tells what the rest of the walk would cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from everloop.core.records import Record
from everloop.core.search import All, Compare, Filter, Has, Not, Order, Test, Value
from everloop.storage.cursors import Key, Place, Rank
from everloop.storage.reaching import Reach, Reaching, Run, narrowed
from everloop.storage.reading import (
    copy_of,
    fixed_in,
    is_by_id,
    led_by,
    needs_id_only,
    parts_of,
    without,
)
from everloop.storage.searching import Compiler, Tables
from everloop.storage.sorting import Sorting
from everloop.storage.statements import Dialect, Fragment, quoted
from everloop.storage.tables import Row, SqlValue

FEW = 1_000
STRETCH = 1_000
GROWTH = 4
MANY = 50_000


class Hit(NamedTuple):
    """A row that was found, and where it stands."""

    row: Row
    places: list[Place]


class _Question(NamedTuple):
    """What is left to answer: rows that meet the filter, after these places, by these keys."""

    filter: Filter
    keys: Sequence[Key]
    after: Sequence[Place] | None
    need: int


class _Span(NamedTuple):
    """A part of a walk by the values of the first key: behind one, after a place, until one."""

    behind: SqlValue
    after: Sequence[Place] | None
    until: SqlValue = None
    with_edge: bool = True


class Plan:
    """Answers one search."""

    def __init__(self, tables: Tables, dialect: Dialect, run: Run, kind: type[Record]) -> None:
        self._tables = tables
        self._dialect = dialect
        self._run = run
        self._kind = kind
        self._table = tables[kind]
        self._reaching = Reaching(tables, dialect, run)

    def hits(
        self, filter: Filter, keys: Sequence[Key], after: Sequence[Place] | None, need: int
    ) -> list[Hit]:
        """Return the first rows that meet the filter, sorted, after a place."""
        filter = self._reaching.resolved(self._kind, filter)
        ask = _Question(filter, keys, after, need)
        few = self._reaching.ids(self._kind, filter, FEW)
        if few is not None:
            return self._look_up(ask, few)
        ask = self._by_copy(ask)
        if self._leads(ask) is None:
            return self._look_up(ask, self._reaching.ids(self._kind, filter, MANY))
        return self._walk(ask)

    def _leads(self, ask: _Question) -> tuple[str, ...] | None:
        """Return the fields of the index that holds rows by the first key, or None."""
        order = ask.keys[0].order
        if order.via is None:
            equal = fixed_in(ask.filter)
        elif is_by_id(order.via.link):
            equal = fixed_in(order.via.filter)
        else:
            return None
        return led_by(ask.keys[0].table.kind, equal, order.field)

    def _by_copy(self, ask: _Question) -> _Question:
        """Sort by a copy of the first key that stands beside what the filter asks for, if any.

        Its index holds only rows that meet that part of the filter, in the order asked for.
        """
        order = ask.keys[0].order
        if order.via is not None:
            return ask
        for part in parts_of(ask.filter):
            if isinstance(part, Has) and is_by_id(part.link):
                table = self._tables[part.kind]
                name = copy_of(table.kind, part, order.field)
                if name is not None:
                    key = Key(Order(name, order.descending, part), table)
                    return ask._replace(keys=[key, *ask.keys[1:]])
        return ask

    def _walk(self, ask: _Question) -> list[Hit]:
        """Walk the rows that have a value by the first key, then those that have none."""
        after = ask.after
        found: list[Hit] = []
        if after is None or after[0].rank is Rank.VALUE:
            found, is_all = self._walk_values(ask)
            after = None
            if is_all or len(found) >= ask.need or not _may_lack(ask):
                return found
        for rank, filter in _lacking(ask):
            if after is None or after[0].rank <= rank:
                is_here = after is not None and after[0].rank is rank
                rest = after[1:] if after is not None and is_here else None
                need = ask.need - len(found)
                found += self._under([Place(rank)], filter, ask.keys[1:], rest, need)
            if len(found) >= ask.need:
                break
        return found

    def _under(
        self,
        places: list[Place],
        filter: Filter,
        keys: Sequence[Key],
        after: Sequence[Place] | None,
        need: int,
    ) -> list[Hit]:
        """Return hits that stand level by some keys, sorted by the others."""
        found = self.hits(filter, keys, after, need)
        return [Hit(hit.row, [*places, *hit.places]) for hit in found]

    def _walk_values(self, ask: _Question) -> tuple[list[Hit], bool]:
        """Return the first hits with a value, and whether those without follow them already."""
        found: list[Hit] = []
        walked, length = 0, STRETCH
        span = _Span(None, ask.after)
        while True:
            edge = self._edge(ask, span, length)
            if edge is None:
                return found + self._led(ask, span, ask.need - len(found)), False
            is_block = self._ties(ask, edge) >= STRETCH
            before = span._replace(until=edge, with_edge=not is_block)
            found += self._led(ask, before, ask.need - len(found))
            if is_block and len(found) < ask.need:
                found += self._block(ask, span, edge, ask.need - len(found))
            need = ask.need - len(found)
            if need <= 0:
                return found, False
            span, walked = _Span(edge, None), walked + length
            walk = int(need * walked / max(len(found), 0.5))
            reach = self._reaching.ids(self._kind, ask.filter, min(walk, MANY))
            if reach is not None or walk >= MANY:
                # Behind the edge by whatever leads, together with the rows without a value.
                rest = ask._replace(need=need, after=None)
                return found + self._look_up(rest, reach, behind=edge), True
            length *= GROWTH

    def _block(self, ask: _Question, span: _Span, value: SqlValue, need: int) -> list[Hit]:
        """Return hits among the many rows with this one value, walked by the other keys."""
        key, rest = ask.keys[0], ask.keys[1:]
        order, decoded = key.order, self._decoded(key, value)
        level = Test(order.field, Compare.EQ, decoded)
        places = [Place(Rank.VALUE, value)]
        whole, size = key.table.kind.heads.get(order.field, ("", 0))
        if rest and rest[0].order == replace(order, field=whole) and len(str(decoded)) < size:
            places.append(places[0])  # the text ends within its head: all are level by it, too
            rest = rest[1:]
        if order.via is None:
            filter: Filter = All((ask.filter, level))
        else:
            has = Has(order.via.kind, order.via.link, All((order.via.filter, level)))
            filter = All((*without(ask.filter, order.via), has))
            rest = [
                Key(replace(each.order, via=has), each.table)
                if each.order.via == order.via
                else each
                for each in rest
            ]
        after = span.after
        behind = after[len(places) :] if after is not None and after[0].value == value else None
        return self._under(places, filter, rest, behind, need)

    @staticmethod
    def _decoded(key: Key, value: SqlValue) -> Value:
        decode = key.table.by_name[key.order.field].decode
        found = value if decode is None else decode(value)
        assert isinstance(found, bool | int | float | str | datetime)
        return found

    def _ties(self, ask: _Question, value: SqlValue) -> int:
        """Return how many rows of the walk have this value, up to a stretch."""
        row, column, where = self._indexed(ask)
        mark = self._dialect.mark
        text = f"SELECT 1 FROM {row} WHERE {where.text} AND {column} = {mark} LIMIT {mark}"
        found = self._run(f"SELECT COUNT(*) FROM ({text}) c", (*where.values, value, STRETCH))
        assert isinstance(found[0][0], int)
        return found[0][0]

    def _edge(self, ask: _Question, span: _Span, length: int) -> SqlValue:
        """Return the value at the end of the next stretch by the first key; None at the end."""
        key = ask.keys[0]
        mark = self._dialect.mark
        row, column, where = self._indexed(ask)
        text, values = f"{where.text} AND {column} IS NOT NULL", where.values
        onward = "<" if key.order.descending else ">"
        if span.after is not None:
            text, values = f"{text} AND {column} {onward}= {mark}", (*values, span.after[0].value)
        elif span.behind is not None:
            text, values = f"{text} AND {column} {onward} {mark}", (*values, span.behind)
        direction = "DESC" if key.order.descending else "ASC"
        found = self._run(
            f"SELECT {column} FROM {row} WHERE {text} ORDER BY {column} {direction} "
            f"LIMIT 1 OFFSET {mark}",
            (*values, length),
        )
        return found[0][0] if found else None

    def _indexed(self, ask: _Question) -> tuple[str, str, Fragment]:
        """Return table and column of the walk, and the condition that its index serves."""
        key = ask.keys[0]
        compiler = Compiler(self._tables, self._dialect)
        row = compiler.name()
        where = compiler.filter(key.table.kind.type, row, self._served(ask))
        column = compiler.column(row, key.order.field)
        return f"{quoted(key.table.name)} {row}", column, where

    def _served(self, ask: _Question) -> Filter:
        """Return the tests that the index of the walk serves."""
        key = ask.keys[0]
        filter = ask.filter if key.order.via is None else key.order.via.filter
        fields = self._leads(ask) or ()
        return All(
            tuple(
                part
                for part in parts_of(filter)
                if isinstance(part, Test)
                and part.field in fields
                and (part.compare is Compare.EQ or part.field == fields[-1])
            )
        )

    def _led(self, ask: _Question, span: _Span, need: int) -> list[Hit]:
        """Walk a part of the index of the first key."""
        key = ask.keys[0]
        compiler = Compiler(self._tables, self._dialect)
        row = compiler.name()
        sorting = Sorting(compiler, self._dialect, ask.keys, row)
        name, own = quoted(self._table.name), set(self._table.by_name)
        parts = parts_of(ask.filter)
        if key.order.via is None:
            compiler.keep_unled(row, frozenset(own - set(self._leads(ask) or ())))
            first, tables, where = row, f"{name} {row}", []
            sorting.lead()
        else:
            compiler.keep_unled(row, frozenset(own - {"id"}))
            first = sorting.lead()
            on = compiler.belonging(row, key.order.via, first)
            # What belongs to the row is looked for before the row itself is.
            compiler.stand_in(row, f"{first}.{quoted(key.order.via.link.theirs)}")
            parts = without(ask.filter, key.order.via)
            tables = f"{quoted(key.table.name)} {first} {self._dialect.follow} {name} {row}"
            if self._dialect.follow == "JOIN":
                tables += " ON TRUE"
            where = [on]
        column = compiler.column(first, key.order.field)
        where += [
            *(compiler.filter(self._kind, row, part) for part in parts),
            Fragment(f"{column} IS NOT NULL"),
        ]
        onward, mark = "<" if key.order.descending else ">", self._dialect.mark
        if span.behind is not None:
            where.append(Fragment(f"{column} {onward} {mark}", (span.behind,)))
        if span.until is not None:
            back = (">" if key.order.descending else "<") + ("=" if span.with_edge else "")
            where.append(Fragment(f"{column} {back} {mark}", (span.until,)))
        if span.after is not None:
            where.append(sorting.after(span.after))
        return self._select(row, sorting, tables, where, need)

    def _look_up(
        self, ask: _Question, reach: Reach | None, *, behind: SqlValue = None
    ) -> list[Hit]:
        """Sort all rows that meet the filter, among those that an index named."""
        if reach is not None and reach.most == 0:
            return []
        compiler = Compiler(self._tables, self._dialect)
        row = compiler.name()
        sorting = Sorting(compiler, self._dialect, ask.keys, row)
        where: list[Fragment] = []
        parts = parts_of(ask.filter)
        if reach is not None:
            compiler.keep_unled(row, frozenset(self._table.by_name))
            parts = [part for part in parts if part is not reach.whole]
            # What belongs to the row is looked for before the row itself is.
            beside = [part for part in parts if needs_id_only(part)]
            parts = [part for part in parts if part not in beside]
            compiler.stand_in(row, "v.value")
            probes = [compiler.filter(self._kind, row, part) for part in beside]
            compiler.stand_in(row, f'{row}."id"')
            among = narrowed(reach.values, probes)
            text = f'{row}."id" {self._dialect.among.format(among.text)}'
            where.append(Fragment(text, among.values))
        where += [compiler.filter(self._kind, row, part) for part in parts]
        if behind is not None:
            where.append(sorting.behind(behind))
        if ask.after is not None:
            where.append(sorting.after(ask.after))
        tables = f"{quoted(self._table.name)} {row}"
        return self._select(row, sorting, tables, where, ask.need)

    def _select(
        self, row: str, sorting: Sorting, tables: str, where: Sequence[Fragment], need: int
    ) -> list[Hit]:
        columns = ", ".join(f"{row}.{quoted(column.name)}" for column in self._table.columns)
        joins = sorting.joins()
        text = (
            f"SELECT {columns}{sorting.columns()} FROM {tables}{joins.text} "
            f"WHERE {' AND '.join(each.text for each in where) or '1 = 1'}{sorting.clause()} "
            f"LIMIT {self._dialect.mark}"
        )
        values = [*joins.values, *(value for each in where for value in each.values), need]
        width = len(self._table.columns)
        return [
            Hit(found[:width], sorting.places(found[width:])) for found in self._run(text, values)
        ]


def _may_lack(ask: _Question) -> bool:
    """Tell whether rows that meet the filter may have no value by the first key."""
    key = ask.keys[0]
    return not _is_there(ask) or key.table.by_name[key.order.field].nullable


def _is_there(ask: _Question) -> bool:
    """Tell whether the row that the first key is a field of is one that the filter asks for."""
    via = ask.keys[0].order.via
    return via is None or via in parts_of(ask.filter)


def _lacking(ask: _Question) -> list[tuple[Rank, Filter]]:
    """Return the filters for rows without a value by the first key, in their order."""
    order = ask.keys[0].order
    null = Test(order.field, Compare.EQ, None)
    if order.via is None:
        return [(Rank.NULL, All((ask.filter, null)))]
    with_null = Has(order.via.kind, order.via.link, All((order.via.filter, null)))
    found: list[tuple[Rank, Filter]] = [(Rank.NULL, All((ask.filter, with_null)))]
    if not _is_there(ask):
        found.append((Rank.NO_ROW, All((ask.filter, Not(order.via)))))
    return found
