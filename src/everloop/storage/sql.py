"""The transaction that SQLite and PostgreSQL share: records in and out of a driver's cursor.

It runs prepared texts on the driver itself. SQLAlchemy describes the schema for migrations, but is
not on this path: importing it takes half a second, more than most commands of the CLI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from everloop.core.errors import Conflict, StaleVersion
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition
from everloop.core.records import Kind, R, Record
from everloop.core.search import Filter, Order, Page
from everloop.storage.cursors import from_cursor, to_cursor
from everloop.storage.planning import Plan
from everloop.storage.searching import keys_of, require_simple
from everloop.storage.statements import Dialect, Fixed, Query, joined
from everloop.storage.tables import Row, SqlValue, Table, tables_of, to_parameter

MENTIONS_A_PAGE = 5_000


class Cursor(Protocol):
    """What a driver gives back for a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows a change met."""
        ...

    def fetchall(self) -> Sequence[Row]:
        """Return all rows of the answer."""
        ...


class Runner(Protocol):
    """Runs statements on a driver's connection, with its errors in our words."""

    def run(self, text: str, values: Sequence[SqlValue]) -> Cursor:
        """Run one statement.

        Raises:
            DuplicateRow: an id or a unique group is taken.
        """
        ...

    def run_many(self, text: str, rows: Sequence[Row]) -> int:
        """Run a change once for each row; return how many rows it met in all; raises as ``run``."""
        ...


class Schema:
    """The tables of all kinds with their statements in one dialect; made once per store."""

    def __init__(self, kinds: Mapping[str, Kind], dialect: Dialect) -> None:
        self.kinds = kinds
        tables = tables_of(kinds)
        self._by_type: dict[type[Record], tuple[Table, Fixed, Query]] = {
            table.kind.type: (table, Fixed.of(table, dialect), Query(table, dialect))
            for table in tables.values()
        }
        self.limit = f" LIMIT {dialect.mark}"
        self.dialect = dialect
        self.tables: dict[type[Record], Table] = {
            table.kind.type: table for table in tables.values()
        }

    def of(self, kind: type[Record]) -> tuple[Table, Fixed, Query]:
        """Return a kind's table and statements.

        Raises:
            LookupError: the store was opened without this kind.
        """
        return self._by_type[kind]


class SqlTransaction:
    """One transaction on a connection that its store has begun and will end."""

    def __init__(self, schema: Schema, runner: Runner, *, is_read_only: bool) -> None:
        self._schema = schema
        self._runner: Runner | None = runner
        self._is_read_only = is_read_only
        self._refusal: Conflict | None = None

    def require_sound(self) -> None:
        """Let the store commit.

        Raises:
            Conflict: one was raised within, after which only a rollback is right.
        """
        if self._refusal is not None:
            raise self._refusal

    def end(self) -> None:
        """Refuse all further use."""
        self._runner = None

    def insert(self, record: Record) -> None:
        """Add a row.

        Raises:
            Conflict: ``record.exists``.
        """
        table, fixed, _ = self._writable(record)
        self._change(table, fixed.insert, table.to_row(record))

    def replace(self, record: R) -> R:
        """Overwrite the row of the same id and revision.

        Raises:
            StaleVersion: ``record.stale``.
            Conflict: ``record.exists``.
        """
        table, fixed, _ = self._writable(record)
        fresh = msgspec.structs.replace(record, revision=record.revision + 1)
        values = (*table.to_row(fresh), record.id, record.revision)
        if self._change(table, fixed.replace, values) != 1:
            raise stale(table.name)
        return fresh

    def insert_many(self, records: Sequence[Record]) -> None:
        """Add rows of one kind; raises as ``insert``."""
        if not records:
            return
        table, fixed, _ = self._writable(records[0])
        self._change_many(table, fixed.insert, [table.to_row(record) for record in records])

    def replace_many(self, records: Sequence[R]) -> list[R]:
        """Overwrite rows of one kind; raises as ``replace``."""
        if not records:
            return []
        table, fixed, _ = self._writable(records[0])
        fresh = [msgspec.structs.replace(row, revision=row.revision + 1) for row in records]
        rows = [
            (*table.to_row(after), before.id, before.revision)
            for before, after in zip(records, fresh, strict=True)
        ]
        if self._change_many(table, fixed.replace, rows) != len(records):
            raise stale(table.name)
        return fresh

    def delete(self, record: Record) -> None:
        """Remove the row of the same id and revision.

        Raises:
            StaleVersion: ``record.stale``.
        """
        table, fixed, _ = self._writable(record)
        if self._change(table, fixed.delete, (record.id, record.revision)) != 1:
            raise stale(table.name)

    def find(self, kind: type[R], id: Id) -> R | None:
        """Return the row with this id, or None."""
        table, fixed, _ = self._schema.of(kind)
        rows = self._run(fixed.find, (to_parameter(table, "id", id),)).fetchall()
        return table.from_row(rows[0], kind) if rows else None

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
        table, fixed, query = self._schema.of(kind)
        filters = query.filters(conditions)
        if after is not None:
            filters.append(query.after(after, order, descending=descending))
        clause = joined(filters)
        text = fixed.select + clause.text + query.order(order, descending=descending)
        values: tuple[SqlValue, ...] = clause.values
        if limit is not None:
            text, values = text + self._schema.limit, (*values, limit)
        return [table.from_row(row, kind) for row in self._run(text, values).fetchall()]

    def values(
        self, kind: type[Record], fields: Sequence[str], *conditions: Condition
    ) -> list[tuple[object, ...]]:
        """Return these fields of all rows that meet all conditions, in no certain order."""
        table, fixed, query = self._schema.of(kind)
        table.require_fields(fields)
        clause = joined(query.filters(conditions))
        rows = self._run(fixed.some(fields) + clause.text, clause.values).fetchall()
        return table.from_columns(rows, fields)

    def count(self, kind: type[Record], *conditions: Condition) -> int:
        """Return how many rows meet all conditions."""
        _, fixed, query = self._schema.of(kind)
        clause = joined(query.filters(conditions))
        found = self._run(fixed.count + clause.text, clause.values).fetchall()[0][0]
        assert isinstance(found, int)
        return found

    def distinct(
        self, kind: type[Record], field: str, *conditions: Condition, limit: int
    ) -> list[str]:
        """Return the first of the different texts that a field has, ascending."""
        table, fixed, query = self._schema.of(kind)
        column = table.text_column(field)
        found: list[str] = []
        # Neither database skips along an index for SELECT DISTINCT; one step a value does.
        while len(found) < limit:
            beyond = () if not found else (Condition(field, Compare.GT, found[-1]),)
            clause = joined(query.filters((*conditions, *beyond)))
            text = fixed.least(column.name) + clause.text
            value = self._run(text, clause.values).fetchall()[0][0]
            if value is None:
                break
            assert isinstance(value, str)
            found.append(str(column.decode(value)) if column.decode is not None else value)
        return found

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
        tables, dialect = self._schema.tables, self._schema.dialect
        table = tables[kind]
        require_simple(tables, kind, filter)
        keys = keys_of(tables, kind, order)
        plan = Plan(tables, dialect, lambda text, values: self._run(text, values).fetchall(), kind)
        start = None if after is None else from_cursor(keys, after)
        found = plan.hits(filter, keys, start, limit + 1)
        more = len(found) > limit > 0
        return Page(
            [table.from_row(hit.row, kind) for hit in found[:limit]],
            to_cursor(keys, found[limit - 1].places) if more else None,
        )

    def mentions(self, kind: type[Record], text: str) -> Iterator[tuple[Id, str, str]]:
        """Yield id, field and content of every text or structure that contains a text."""
        table, fixed, _ = self._schema.of(kind)
        names = [column.name for column in table.wordy]
        if not names:
            return
        statement = fixed.mentioning(names, self._schema.dialect.mark)
        # Underscores match any character for LIKE; what is found is looked at again.
        patterns = [f"%{text}%"] * len(names)
        last = ""
        while True:
            rows = self._run(statement, (last, *patterns, MENTIONS_A_PAGE)).fetchall()
            for row in rows:
                for column, value in zip(table.wordy, row[1:], strict=True):
                    if isinstance(value, str) and text in value:
                        yield Id(str(row[0])), column.name, column.to_text(value)
            if len(rows) < MENTIONS_A_PAGE:
                return
            last = str(rows[-1][0])

    def _writable(self, record: Record) -> tuple[Table, Fixed, Query]:
        if self._is_read_only:
            message = "a read transaction can't write"
            raise TypeError(message)
        return self._schema.of(type(record))

    def _change(self, table: Table, text: str, values: Sequence[SqlValue]) -> int:
        try:
            return self._run(text, values).rowcount
        except DuplicateRow as error:
            self._refusal = exists(table.name)
            raise self._refusal from error

    def _change_many(self, table: Table, text: str, rows: Sequence[Row]) -> int:
        try:
            return self._live().run_many(text, rows)
        except DuplicateRow as error:
            self._refusal = exists(table.name)
            raise self._refusal from error

    def _run(self, text: str, values: Sequence[SqlValue]) -> Cursor:
        return self._live().run(text, values)

    def _live(self) -> Runner:
        if self._runner is None:
            message = "this transaction has ended"
            raise RuntimeError(message)
        return self._runner


class DuplicateRow(Exception):
    """A driver reported that an id or a unique group is taken."""


def exists(kind: str) -> Conflict:
    """Return the refusal of a row whose id or unique group is taken."""
    return Conflict(
        "record.exists",
        f"There is such a {kind.replace('_', ' ')} already.",
        hint="Read what is there; another call may have made it just now.",
    )


def stale(kind: str) -> StaleVersion:
    """Return the refusal of a change to a row that moved on."""
    return StaleVersion(
        "record.stale",
        f"This {kind.replace('_', ' ')} was changed by somebody else.",
        hint="Read it again, then retry.",
    )
