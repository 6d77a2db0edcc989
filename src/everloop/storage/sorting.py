"""How one statement sorts its rows and begins after a cursor."""

from __future__ import annotations

from collections.abc import Sequence

from everloop.core.search import Has
from everloop.storage.cursors import Key, Place, Rank
from everloop.storage.searching import NEVER, Compiler
from everloop.storage.statements import Dialect, Fragment, quoted
from everloop.storage.tables import SqlValue


class Sorting:
    """The parts of one statement that sort it and begin it after a cursor."""

    def __init__(self, compiler: Compiler, dialect: Dialect, keys: Sequence[Key], row: str) -> None:
        self._compiler = compiler
        self._dialect = dialect
        self._row = row
        self._first: str | None = None
        # Keys that are fields of one and the same row share its name.
        names: list[tuple[Has | None, str]] = [(None, row)]
        self._keys: list[tuple[Key, str]] = []
        for key in keys:
            name = next((name for via, name in names if via == key.order.via), None)
            if name is None:
                name = compiler.name()
                names.append((key.order.via, name))
            self._keys.append((key, name))

    def lead(self) -> str:
        """Let the rows of the first key lead, those with a value; return their name."""
        self._first = self._keys[0][1]
        return self._first

    def joins(self) -> Fragment:
        """Return the joins with the rows whose fields count."""
        pieces = []
        joined = {self._row, self._first}
        for key, name in self._keys:
            via = key.order.via
            if via is not None and name not in joined:
                joined.add(name)
                on = self._compiler.looked_up(self._row, via, name)
                pieces.append(
                    Fragment(f" LEFT JOIN {quoted(key.table.name)} {name} ON {on.text}", on.values)
                )
        return Fragment("".join(p.text for p in pieces), tuple(v for p in pieces for v in p.values))

    def columns(self) -> str:
        """Return what to select beside the row, for ``places``: two columns a key."""
        return "".join(
            f', {_column(name, key.order.field)}, {name}."id" IS NOT NULL'
            for key, name in self._keys
        )

    def places(self, tail: Sequence[SqlValue]) -> list[Place]:
        """Return where a row stands, from what was selected beside it."""
        return [
            Place(Rank.VALUE, tail[2 * i])
            if tail[2 * i] is not None
            else Place(Rank.NULL if tail[2 * i + 1] else Rank.NO_ROW)
            for i in range(len(self._keys))
        ]

    def clause(self) -> str:
        """Return the ORDER BY clause."""
        pieces = []
        for key, name in self._keys:
            column = self._compiler.column(name, key.order.field)
            nulls = ""
            if self._may_lack(key, name):
                nulls = " NULLS LAST"
            pieces.append(f"{column} {'DESC' if key.order.descending else 'ASC'}{nulls}")
            if nulls and name not in {self._row, self._first}:
                pieces.append(f'({name}."id" IS NULL) ASC')
        return " ORDER BY " + ", ".join(pieces)

    def after(self, places: Sequence[Place]) -> Fragment:
        """Return the condition that leaves what comes after these places."""
        beyond = NEVER
        for (key, name), place in reversed(list(zip(self._keys, places, strict=True))):
            beyond = self._beyond(key, name, place, beyond)
        return beyond

    def behind(self, edge: SqlValue) -> Fragment:
        """Return the condition that leaves what comes after all rows with this first value."""
        key, name = self._keys[0]
        column = self._compiler.column(name, key.order.field)
        operator = ">=" if key.order.descending else "<="
        return Fragment(f"({column} {operator} {self._dialect.mark}) IS NOT TRUE", (edge,))

    def _beyond(self, key: Key, name: str, place: Place, rest: Fragment) -> Fragment:
        """Return: further by this key, or level by it and further by the rest."""
        column, id_column = self._compiler.column(name, key.order.field), f'{name}."id"'
        mark = self._dialect.mark
        if place.rank is Rank.NO_ROW:
            return Fragment(f"({id_column} IS NULL AND {rest.text})", rest.values)
        if place.rank is Rank.NULL:
            level = f"({id_column} IS NOT NULL AND {column} IS NULL AND {rest.text})"
            return Fragment(f"({level} OR {id_column} IS NULL)", rest.values)
        operator = "<" if key.order.descending else ">"
        value = place.value
        is_nullable = self._may_lack(key, name)
        null = f" OR {column} IS NULL" if is_nullable else ""
        text = f"{column} {operator} {mark} OR ({column} = {mark} AND {rest.text}){null}"
        # The first half alone is what an index can seek by.
        seek = "" if is_nullable else f"{column} {operator}= {mark} AND "
        values = (value, value, *rest.values)
        return Fragment(f"({seek}({text}))", values if is_nullable else (value, *values))

    def _may_lack(self, key: Key, name: str) -> bool:
        if self._first is not None and key is self._keys[0][0]:
            return False
        is_joined = name not in {self._row, self._first}
        return is_joined or key.table.by_name[key.order.field].nullable


def _column(row: str, field: str) -> str:
    return f"{row}.{quoted(field)}"
