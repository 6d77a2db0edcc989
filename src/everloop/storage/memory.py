"""Records in dictionaries: for tests and for stores that live as long as their process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from everloop.core.errors import Conflict
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition
from everloop.core.records import Kind, R, Record
from everloop.core.search import Filter, Order, Page
from everloop.storage.memory_search import Evaluation, is_alike
from everloop.storage.searching import keys_of, require_simple
from everloop.storage.sql import exists, stale
from everloop.storage.statements import require_few
from everloop.storage.tables import Table, table_of, to_parameter

Rows = Mapping[str, dict[str, Record]]


class MemoryMetadataStore:
    """A store that forgets with its process; meets the port's contract but for durability.

    It refuses whatever a database would refuse, so that tests over it find such mistakes.
    """

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._tables = {kind.type: table_of(kind) for kind in kinds.values()}
        self._rows: Rows = {name: {} for name in kinds}
        self._write_lock = threading.Lock()
        self._writer: int | None = None

    @contextmanager
    def write(self) -> Iterator[MemoryTransaction]:
        """Open a serial read-write transaction."""
        thread = threading.get_ident()
        if self._writer == thread:
            message = "this thread has a write transaction open already"
            raise RuntimeError(message)
        with self._write_lock:
            self._writer = thread
            work = MemoryTransaction(self._tables, self._rows, is_read_only=False)
            try:
                yield work
                self._rows = work.finish()
            finally:
                self._writer = None
                work.end()

    @contextmanager
    def read(self) -> Iterator[MemoryTransaction]:
        """Open a read-only snapshot."""
        work = MemoryTransaction(self._tables, self._rows, is_read_only=True)
        try:
            yield work
        finally:
            work.end()

    def scrub(self) -> None:
        """Do nothing; what was overwritten is gone."""

    def compact(self) -> None:
        """Do nothing; what was deleted is gone."""

    def close(self) -> None:
        """Do nothing; there is nothing to release."""


class MemoryTransaction:
    """A transaction that copies a kind's dictionary before its first change to it."""

    def __init__(
        self, tables: Mapping[type[Record], Table], rows: Rows, *, is_read_only: bool
    ) -> None:
        self._tables = tables
        self._rows = dict(rows)
        self._own: set[str] = set()
        self._is_read_only = is_read_only
        self._refusal: Conflict | None = None
        self._has_ended = False

    def finish(self) -> Rows:
        """Return the rows after this transaction.

        Raises:
            Conflict: one was raised within it, after which only abandoning it is right.
        """
        if self._refusal is not None:
            raise self._refusal
        return self._rows

    def end(self) -> None:
        """Refuse all further use."""
        self._has_ended = True

    def insert(self, record: Record) -> None:
        """Add a row.

        Raises:
            Conflict: ``record.exists``.
        """
        table, rows = self._writable(record)
        table.to_row(record)  # refuses what would not read back as it is
        if record.id in rows:
            raise self._exists(table)
        self._check_unique(table, record)
        rows[record.id] = record

    def replace(self, record: R) -> R:
        """Overwrite the row of the same id and revision.

        Raises:
            StaleVersion: ``record.stale``.
            Conflict: ``record.exists``.
        """
        table, rows = self._writable(record)
        fresh = msgspec.structs.replace(record, revision=record.revision + 1)
        table.to_row(fresh)
        _require_fresh(table, rows, record)
        self._check_unique(table, fresh)
        rows[record.id] = fresh
        return fresh

    def insert_many(self, records: Sequence[Record]) -> None:
        """Add rows of one kind; raises as ``insert``."""
        for record in records:
            self.insert(record)

    def replace_many(self, records: Sequence[R]) -> list[R]:
        """Overwrite rows of one kind; raises as ``replace``."""
        return [self.replace(record) for record in records]

    def delete(self, record: Record) -> None:
        """Remove the row of the same id and revision.

        Raises:
            StaleVersion: ``record.stale``.
        """
        table, rows = self._writable(record)
        _require_fresh(table, rows, record)
        del rows[record.id]

    def find(self, kind: type[R], id: Id) -> R | None:
        """Return the row with this id, or None."""
        table, rows = self._of(kind)
        to_parameter(table, "id", id)
        found = rows.get(id)
        return found if isinstance(found, kind) else None

    def select(
        self,
        kind: type[R],
        *conditions: Condition,
        order: str = "id",
        descending: bool = False,
        limit: int | None = None,
        after: R | None = None,
    ) -> list[R]:
        """Return rows that meet all conditions, sorted, nulls first, then by id."""
        table, _ = self._of(kind)
        to_parameter(table, order, None)  # refuses an unknown field
        rows = self._meeting(kind, conditions)
        rows.sort(key=lambda row: _sort_key(table, row, order), reverse=descending)
        if after is not None:
            mark = _sort_key(table, after, order)
            rows = [
                row
                for row in rows
                if (
                    _sort_key(table, row, order) < mark
                    if descending
                    else _sort_key(table, row, order) > mark
                )
            ]
        return rows if limit is None else rows[:limit]

    def count(self, kind: type[Record], *conditions: Condition) -> int:
        """Return how many rows meet all conditions."""
        return len(self._meeting(kind, conditions))

    def values(
        self, kind: type[Record], fields: Sequence[str], *conditions: Condition
    ) -> list[tuple[object, ...]]:
        """Return these fields of all rows that meet all conditions, in no certain order."""
        self._of(kind)[0].require_fields(fields)
        return [
            tuple([getattr(row, name) for name in fields])
            for row in self._meeting(kind, conditions)
        ]

    def distinct(
        self, kind: type[Record], field: str, *conditions: Condition, limit: int
    ) -> list[str]:
        """Return the first of the different texts that a field has, ascending."""
        table, _ = self._of(kind)
        table.text_column(field)
        values = {getattr(row, field) for row in self._meeting(kind, conditions)}
        return sorted(str(value) for value in values if value is not None)[:limit]

    def search(
        self,
        kind: type[R],
        filter: Filter,
        *,
        order: Sequence[Order] = (),
        limit: int,
        after: str | None = None,
    ) -> Page[R]:
        """Return one page of the rows that meet a filter."""
        _, rows = self._of(kind)
        require_simple(self._tables, kind, filter)
        keys = keys_of(self._tables, kind, order)
        evaluation = Evaluation(self._tables, lambda other: self._of(other)[1].values())
        own = (row for row in rows.values() if isinstance(row, kind))
        return evaluation.page(own, filter, keys, limit, after)

    def mentions(self, kind: type[Record], text: str) -> Iterator[tuple[Id, str, str]]:
        """Yield id, field and content of every text or structure that contains a text."""
        table, rows = self._of(kind)
        for row in sorted(rows.values(), key=lambda row: row.id):
            for column in table.wordy:
                value = column.to_sql(getattr(row, column.name))
                if isinstance(value, str) and text in value:
                    yield row.id, column.name, column.to_text(value)

    def _meeting(self, kind: type[R], conditions: tuple[Condition, ...]) -> list[R]:
        table, rows = self._of(kind)
        for condition in conditions:
            _check(table, condition)
        return [
            row
            for row in rows.values()
            if isinstance(row, kind) and all(_meets(row, each) for each in conditions)
        ]

    def _of(self, kind: type[Record]) -> tuple[Table, dict[str, Record]]:
        if self._has_ended:
            message = "this transaction has ended"
            raise RuntimeError(message)
        table = self._tables[kind]
        return table, self._rows[table.name]

    def _writable(self, record: Record) -> tuple[Table, dict[str, Record]]:
        if self._is_read_only:
            message = "a read transaction can't write"
            raise TypeError(message)
        table, rows = self._of(type(record))
        if table.name not in self._own:
            self._own.add(table.name)
            rows = self._rows[table.name] = dict(rows)
        return table, rows

    def _check_unique(self, table: Table, record: Record) -> None:
        for group in table.kind.unique:
            values = [getattr(record, field) for field in group]
            if None in values:
                continue
            for other in self._rows[table.name].values():
                if other.id != record.id and values == [getattr(other, f) for f in group]:
                    raise self._exists(table)

    def _exists(self, table: Table) -> Conflict:
        self._refusal = exists(table.name)
        return self._refusal


def _require_fresh(table: Table, rows: Mapping[str, Record], record: Record) -> None:
    stored = rows.get(record.id)
    if stored is None or stored.revision != record.revision:
        raise stale(table.name)


def _sort_key(table: Table, row: Record, order: str) -> tuple[bool, object, str]:
    value = getattr(row, order)
    if value is None:
        return (False, 0, row.id)
    return (True, value if order == "id" else to_parameter(table, order, value), row.id)


def _check(table: Table, condition: Condition) -> None:
    name, compare, value = condition
    if compare is Compare.IN:
        if not isinstance(value, tuple):
            message = "IN takes a tuple"
            raise TypeError(message)
        require_few(value)
        for each in value:
            to_parameter(table, name, each)
        return
    bound = to_parameter(table, name, value)
    is_textual = compare in {Compare.PREFIX, Compare.LIKE, Compare.ILIKE}
    if is_textual and not isinstance(bound, str | None):
        message = f"{compare.name} compares text"
        raise TypeError(message)


def _meets(row: Record, condition: Condition) -> bool:
    value = getattr(row, condition.field)
    wanted = condition.value
    match condition.compare:
        case Compare.EQ:
            return bool(value == wanted)
        case Compare.NE:
            return bool(value != wanted)
        case Compare.IN:
            return isinstance(wanted, tuple) and value in wanted
    if value is None or wanted is None:
        return False
    match condition.compare:
        case Compare.PREFIX | Compare.LIKE | Compare.ILIKE:
            return is_alike(condition.compare, str(value), str(wanted))
        case Compare.LT:
            return bool(value < wanted)
        case Compare.LE:
            return bool(value <= wanted)
        case Compare.GT:
            return bool(value > wanted)
        case _:
            return bool(value >= wanted)
