"""How records become rows: one table per kind, derived from the kind's declaration.

Scalar fields are columns, everything else is a column of canonical JSON. The conversion is exact:
a record that is read back has the digest of the record that was written, or the write is refused.
This module knows no database library; every store shares it, the one in memory included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from functools import cached_property
from typing import TypeAlias, TypeVar

import msgspec
from msgspec import inspect

from everloop.core.canonical import canonical_json
from everloop.core.errors import IntegrityError, InvalidInput
from everloop.core.records import Kind, Record

SqlValue: TypeAlias = "bool | int | float | str | bytes | None"
Row: TypeAlias = "tuple[SqlValue, ...]"
Encode: TypeAlias = Callable[[object], "SqlValue"]
Decode: TypeAlias = Callable[..., object]
T = TypeVar("T", bound=Record)

INTEGER_BOUND = 2**63
_ESCAPE = "\x01"
_NO_OFFSET = timedelta(0)
_INSTANT_CHARS = len("2026-01-01T00:00:00.000000")


class ColumnType(StrEnum):
    """What a column holds.

    INSTANT is RFC 3339 text in UTC with microseconds, so that it sorts by time; JSON is text.
    """

    TEXT = "text"
    INSTANT = "instant"
    INTEGER = "integer"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    BINARY = "binary"
    JSON = "json"


class _Inexact(Exception):
    """The value would not read back as it is."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, named as the field it holds."""

    name: str
    type: ColumnType
    nullable: bool
    encode: Encode = field(repr=False, compare=False)
    decode: Decode | None = field(repr=False, compare=False)

    def to_sql(self, value: object) -> SqlValue:
        """Return what is stored for a field's value.

        Raises:
            InvalidInput: ``record.inexact`` or ``text.invalid``.
        """
        if value is None and self.nullable:
            return None
        return self.encode(value)

    def to_text(self, stored: str) -> str:
        """Return the text that was stored; of a structure its canonical JSON."""
        return _decode_text(stored) if self.type is ColumnType.TEXT else stored


@dataclass(frozen=True)
class Table:
    """The table of one kind and the two conversions between its rows and records."""

    kind: Kind
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        """Table name."""
        return self.kind.name

    @cached_property
    def by_name(self) -> Mapping[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.columns}

    def text_column(self, name: str) -> Column:
        """Return a column of text.

        Raises:
            TypeError: the field does not exist or holds something else.
        """
        column = self.by_name.get(name)
        if column is None or column.type is not ColumnType.TEXT:
            message = f"{self.name} has no field {name!r} of text"
            raise TypeError(message)
        return column

    @cached_property
    def wordy(self) -> tuple[Column, ...]:
        """The columns that hold words: texts and structures, without the id."""
        kinds = {ColumnType.TEXT, ColumnType.JSON}
        return tuple(c for c in self.columns if c.type in kinds and c.name != "id")

    @cached_property
    def _encoders(self) -> tuple[Callable[[object], SqlValue], ...]:
        return tuple(c.to_sql if c.nullable else c.encode for c in self.columns)

    @cached_property
    def _decoders(self) -> tuple[tuple[int, Decode], ...]:
        return tuple(
            (i, c.decode)
            for i, c in enumerate(self.columns)
            if c.decode is not None and c.decode is not _decode_text
        )

    @cached_property
    def _texts(self) -> tuple[int, ...]:
        return tuple(i for i, c in enumerate(self.columns) if c.decode is _decode_text)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def to_row(self, record: Record) -> Row:
        """Return the record's values in column order.

        Raises:
            InvalidInput: ``record.inexact`` when a field would not read back as it is, such as an
                int in a float field or an instant that is not in UTC; ``text.invalid``.
        """
        values = msgspec.structs.astuple(record)
        try:
            return tuple(
                [encode(value) for encode, value in zip(self._encoders, values, strict=True)]
            )
        except _Inexact as error:
            raise self._refusal(values, error) from None

    def from_row(self, row: Row, shape: type[T]) -> T:
        """Return the record that a row holds.

        Raises:
            IntegrityError: ``record.unreadable`` for a row that no store has written.
        """
        values: list[object] = list(row)
        try:
            for index in self._texts:
                text = row[index]
                if text is not None and _ESCAPE in text:  # type: ignore[operator]
                    values[index] = _decode_text(text)  # type: ignore[arg-type]
            for index, decode in self._decoders:
                if values[index] is not None:
                    values[index] = decode(values[index])
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise self._unreadable() from error
        return shape(**dict(zip(self._names, values, strict=True)))  # type: ignore[arg-type]

    def from_columns(self, rows: Sequence[Row], fields: Sequence[str]) -> list[tuple[object, ...]]:
        """Return some fields of many rows from what was stored of them.

        Raises:
            IntegrityError: ``record.unreadable`` for rows that no store has written.
        """
        decoders = [self.by_name[name].decode for name in fields]
        try:
            columns = [
                column if decode is None else _decoded(column, decode)
                for column, decode in zip(zip(*rows, strict=True), decoders, strict=False)
            ]
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise self._unreadable() from error
        return list(zip(*columns, strict=True))

    def require_fields(self, fields: Sequence[str]) -> None:
        """Refuse fields that do not exist.

        Raises:
            TypeError: one of them does not exist.
        """
        unknown = [name for name in fields if name not in self.by_name]
        if unknown:
            message = f"{self.name} has no field {unknown[0]!r}"
            raise TypeError(message)

    def _unreadable(self) -> IntegrityError:
        return IntegrityError(
            "record.unreadable",
            f"A row of {self.name} is not in the form in which it was stored.",
            hint="Somebody changed the database. Run `everloop audit verify`.",
            context={"kind": self.name},
        )

    def _refusal(self, values: tuple[object, ...], error: _Inexact) -> InvalidInput:
        for column, value in zip(self.columns, values, strict=True):
            try:
                column.to_sql(value)
            except _Inexact:
                return InvalidInput(
                    "record.inexact",
                    f"Field {column.name} of a {self.name} would not read back as it is: {error}.",
                    hint=f"Give it the declared type ({column.type}); instants in UTC.",
                )
        raise AssertionError  # unreachable: one of them was refused just now


def tables_of(kinds: Mapping[str, Kind]) -> dict[str, Table]:
    """Return the tables of all kinds, by kind name."""
    return {name: table_of(kind) for name, kind in kinds.items()}


def table_of(kind: Kind) -> Table:
    """Derive the table of one kind."""
    info = inspect.type_info(kind.type)
    assert isinstance(info, inspect.StructType)
    hints = {item.name: item.type for item in msgspec.structs.fields(kind.type)}
    return Table(kind, tuple(_column(item, hints[item.name]) for item in info.fields))


def _column(item: inspect.Field, hint: object) -> Column:
    options = item.type.types if isinstance(item.type, inspect.UnionType) else (item.type,)
    present = [option for option in options if not isinstance(option, inspect.NoneType)]
    nullable = len(present) < len(options)
    if len(present) == 1:
        scalar = _scalar(present[0])
        if scalar is not None:
            return Column(item.name, scalar[0], nullable, scalar[1], scalar[2])
    return Column(item.name, ColumnType.JSON, nullable, _json_encoder(hint), _json_decoder(hint))


def _scalar(shape: inspect.Type) -> tuple[ColumnType, Encode, Decode | None] | None:
    match shape:
        case inspect.StrType():
            return ColumnType.TEXT, _encode_text, _decode_text
        case inspect.IntType():
            return ColumnType.INTEGER, _encode_integer, None
        case inspect.FloatType():
            return ColumnType.DOUBLE, _encode_double, None
        case inspect.BoolType():
            return ColumnType.BOOLEAN, _encode_boolean, bool
        case inspect.DateTimeType():
            return ColumnType.INSTANT, _encode_instant, datetime.fromisoformat
        case inspect.BytesType():
            return ColumnType.BINARY, _encode_binary, None
        case inspect.EnumType(cls=members):
            return _enumeration([member.value for member in members], members)
        case inspect.LiteralType(values=values):
            return _enumeration(list(values), None)
    return None


def _enumeration(
    values: list[object], members: type[Enum] | None
) -> tuple[ColumnType, Encode, Decode | None] | None:
    if all(type(value) is str for value in values):
        return ColumnType.TEXT, _encode_text, members
    if all(type(value) is int for value in values):
        return ColumnType.INTEGER, _encode_integer, members
    return None


def _encode_text(value: object) -> str:
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        message = f"{type(value).__name__} instead of text"
        raise _Inexact(message)
    text = value if type(value) is str else str.__str__(value)
    if not text.isascii():
        _require_encodable(text)
    # PostgreSQL has no NUL in text. The escape keeps the order and the prefixes of texts.
    if "\x00" in text or "\x01" in text:
        return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")
    return text


def _require_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "text.invalid",
            f"A text has half a character at position {error.start}.",
            hint="Send well-formed Unicode.",
        ) from error


def _decode_text(text: str) -> str:
    if "\x01" in text:
        return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01")
    return text


def _decoded(column: Sequence[object], decode: Decode) -> Sequence[object]:
    if decode is _decode_text:
        decode = _decode_escaped
    return [None if value is None else decode(value) for value in column]


def _decode_escaped(text: str) -> str:
    return _decode_text(text) if _ESCAPE in text else text


def _encode_integer(value: object) -> int:
    if isinstance(value, Enum):
        value = value.value
    if type(value) is not int or not -INTEGER_BOUND <= value < INTEGER_BOUND:
        message = f"{type(value).__name__} instead of an integer of 64 bits"
        raise _Inexact(message)
    return value


def _encode_double(value: object) -> float:
    if not isinstance(value, float) or not math.isfinite(value):
        message = f"{type(value).__name__} instead of a finite float"
        raise _Inexact(message)
    return value


def _encode_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        message = f"{type(value).__name__} instead of a bool"
        raise _Inexact(message)
    return value


def _encode_binary(value: object) -> bytes:
    if not isinstance(value, bytes):
        message = f"{type(value).__name__} instead of bytes"
        raise _Inexact(message)
    return value


def _encode_instant(value: object) -> str:
    if not isinstance(value, datetime) or value.utcoffset() != _NO_OFFSET:
        message = f"{type(value).__name__} instead of an instant in UTC"
        raise _Inexact(message)
    return value.isoformat(timespec="microseconds")[:_INSTANT_CHARS] + "Z"


def _json_encoder(hint: object) -> Encode:
    decoder = msgspec.json.Decoder(hint)

    def encode(value: object) -> str:
        data = canonical_json(value)
        try:
            again = canonical_json(decoder.decode(data))
        except msgspec.DecodeError as error:  # its subclass ValidationError included
            raise _Inexact(str(error)) from error
        if again != data:
            message = "a part of it is not of its declared type"
            raise _Inexact(message)
        return data.decode()

    return encode


def _json_decoder(hint: object) -> Decode:
    return msgspec.json.Decoder(hint).decode


def to_parameter(table: Table, name: str, value: object) -> SqlValue:
    """Return what a field is compared with for a condition's value.

    Lenient where a comparison makes sense: whole numbers for floats and the other way round,
    integers of any size, instants of any zone.

    Raises:
        TypeError: the field does not exist, is not a scalar, or has another type.
        InvalidInput: ``text.invalid`` or ``number.invalid``.
    """
    column = table.by_name.get(name)
    if column is None or (column.type is ColumnType.JSON and value is not None):
        message = f"{table.name} has no field {name!r} that can be compared"
        raise TypeError(message)
    if value is None:
        return None
    try:
        return _parameter(column, value)
    except _Inexact as error:
        message = f"{table.name}.{name}: {error}"
        raise TypeError(message) from error


def _parameter(column: Column, value: object) -> SqlValue:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return column.encode(value.astimezone(UTC))
    if column.type in {ColumnType.INTEGER, ColumnType.DOUBLE} and type(value) in {int, float}:
        return _number(value)
    return column.encode(value)


def _number(value: object) -> int | float:
    assert isinstance(value, int | float)
    if isinstance(value, float):
        if math.isnan(value):
            raise InvalidInput(
                "number.invalid", "Nothing compares with NaN.", hint="Give a finite number."
            )
        return value
    # Outside 64 bits no stored integer is equal; the nearest floats compare the same way.
    if value >= INTEGER_BOUND:
        return math.inf
    return value if value >= -INTEGER_BOUND else -math.inf
