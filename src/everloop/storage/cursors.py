"""Cursors of searches: the sort values of a page's last row, as text that may stand in an address.

A cursor comes back from outside, so it is read as any other input: whatever is not a cursor of
this very order is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

from everloop.core.errors import InvalidInput
from everloop.core.search import Order
from everloop.storage.tables import INTEGER_BOUND, ColumnType, SqlValue, Table

MAX_CURSOR_CHARS = 65_536
_ORDER_CHARS = 8


class Rank(IntEnum):
    """Whether a row has a sort value; the greater comes later in both directions."""

    VALUE = 0
    NULL = 1
    NO_ROW = 2


class Place(NamedTuple):
    """Where a row stands by one key of the order."""

    rank: Rank
    value: SqlValue = None


class Key(NamedTuple):
    """One key of an order, with the table whose field it is."""

    order: Order
    table: Table

    @property
    def column_type(self) -> ColumnType:
        """Return what the field holds."""
        return self.table.by_name[self.order.field].type


class _Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    order: str
    places: tuple[tuple[int, bool | int | float | str | None], ...]


def to_cursor(keys: Sequence[Key], places: Sequence[Place]) -> str:
    """Return the cursor of a row that stands at these places."""
    token = _Token(_name_of(keys), tuple((int(p.rank), p.value) for p in places))  # type: ignore[misc]
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).rstrip(b"=").decode()


def from_cursor(keys: Sequence[Key], cursor: str) -> list[Place]:
    """Read a cursor.

    Raises:
        InvalidInput: ``query.cursor_invalid``.
    """
    try:
        return _read(keys, cursor)
    except (_NoCursor, ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise InvalidInput(
            "query.cursor_invalid",
            "This is not the cursor of a page of this search.",
            hint="Give `after` exactly what `next` said, with the same order, or leave it out.",
        ) from error


class _NoCursor(Exception):
    pass


def _read(keys: Sequence[Key], cursor: str) -> list[Place]:
    if len(cursor) > MAX_CURSOR_CHARS:
        raise _NoCursor
    data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    token = msgspec.json.decode(data, type=_Token)
    if token.order != _name_of(keys) or len(token.places) != len(keys):
        raise _NoCursor
    return [_place(key, *place) for key, place in zip(keys, token.places, strict=True)]


def _name_of(keys: Sequence[Key]) -> str:
    """Return a short name of the order, so that a cursor of another one is not taken for its."""
    text = repr([(key.table.name, key.order) for key in keys])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_ORDER_CHARS]


def _place(key: Key, rank: int, value: SqlValue) -> Place:
    found = Rank(rank)
    if found is not Rank.VALUE:
        if value is not None or (found is Rank.NO_ROW and key.order.via is None):
            raise _NoCursor
        return Place(found)
    match key.column_type, value:
        case ColumnType.BOOLEAN, bool() | 0 | 1:
            return Place(found, bool(value))
        case _, bool():
            raise _NoCursor
        case ColumnType.INTEGER, int() if -INTEGER_BOUND <= value < INTEGER_BOUND:
            return Place(found, int(value))
        case ColumnType.DOUBLE, float() | int() if math.isfinite(value):
            return Place(found, float(value))
        case ColumnType.TEXT | ColumnType.INSTANT, str():
            if "\x00" in value:
                raise _NoCursor
            value.encode()  # half a character is a UnicodeEncodeError, and so a ValueError
            return Place(found, value)
    raise _NoCursor
