"""Rows in the shapes that other protocols send: objects, lists, columns, CSV and JSON lines.

What comes out is what plain JSON gives: tuples of plain values in the order of the signature, with
null for a missing value. Types are checked as strictly as there, except that a whole number may be
written with a point (NumPy and pandas do so) and a yes or no as 1 or 0.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn, TypeAlias
from weakref import WeakKeyDictionary

import msgspec

from everloop.core.errors import InvalidInput
from everloop.core.wire import Scalar
from everloop.serve.decode import KINDS, RowDecoder, Values, require_rows
from everloop.serve.protocol import Dtype, InputField

Plain: TypeAlias = object
_HINT: Final = "GET /models/{model} shows the fields that this model takes, in their order."
_MISSING: Final = {"", "nan", "NaN", "NA", "N/A", "null", "None"}
_PLACE: Final = re.compile(r"`\$\[(\d+)\]\[(\d+)\]`")


class Frames:
    """Reads rows for one signature. Immutable, safe between threads."""

    def __init__(self, decoder: RowDecoder) -> None:
        self._fields = decoder.fields
        self._named = decoder.row
        self._required = {field.name for field in self._fields if not field.nullable}
        listed = msgspec.defstruct(
            "Row",
            [(f"f{place}", _kind(field)) for place, field in enumerate(self._fields)],
            array_like=True,
            forbid_unknown_fields=True,
            frozen=True,
        )
        self._rows_of_lists = list[listed]  # type: ignore[valid-type]
        self._rows_of_objects = list[self._named]  # type: ignore[name-defined]
        self._softened = [
            (place, _SOFT[field.dtype])
            for place, field in enumerate(self._fields)
            if field.dtype in _SOFT
        ]
        self._names = [field.name for field in self._fields]
        self._known = frozenset(self._names)

    def from_rows(self, rows: Plain, place: str, *, ignore_others: bool = False) -> Values:
        """Return rows of which each is an object by names, or a list in the signature's order.

        Args:
            rows: What stood in the request.
            place: Where it stood, such as ``$.instances``, for messages.
            ignore_others: Whether fields that the model does not take are passed over.

        Raises:
            InvalidInput: ``request.invalid``, naming the row and the field.
            LimitExceeded: ``request.too_many_rows``.
        """
        if not isinstance(rows, list):
            _refuse("These are no rows: a list is needed", place)
        require_rows(len(rows), place)
        if isinstance(rows[0], dict):
            return self._from_objects(rows, place, ignore_others=ignore_others)
        if not isinstance(rows[0], list) and len(self._fields) == 1:
            rows = [[value] for value in rows]  # one input: its values need no lists of their own
        wrong = next((k for k, row in enumerate(rows) if not isinstance(row, list)), None)
        if wrong is not None:
            _refuse("All rows are objects by names, or all are lists", f"{place}[{wrong}]")
        return self._from_lists(rows, place)

    def from_columns(self, columns: Mapping[str, Plain], place: str) -> Values:
        """Return rows from an object with a list for each input; one of plain values is one row.

        Raises:
            InvalidInput: ``request.invalid``.
            LimitExceeded: ``request.too_many_rows``.
        """
        if not any(isinstance(value, list) for value in columns.values()):
            return self._from_objects([dict(columns)], place, ignore_others=True)
        rows = next((len(each) for each in columns.values() if isinstance(each, list)), 0)
        taken: list[Sequence[object]] = []
        for field in self._fields:
            if field.name not in columns and field.nullable:
                taken.append([None] * rows)
                continue
            column = columns.get(field.name)
            if not isinstance(column, list):
                _refuse(f"There is no list of values for `{field.name}`", place)
            if len(column) != rows:
                _refuse(f"`{field.name}` has {len(column)} values where others have {rows}", place)
            taken.append([_flat(value) for value in column])
        require_rows(rows, place)
        return self._from_lists([list(row) for row in zip(*taken, strict=True)], place)

    def from_split(self, columns: Plain, data: Plain, place: str) -> Values:
        """Return rows from names of columns and lists of values, as pandas splits a frame.

        Without names the order is the signature's; columns that the model does not take are passed
        over, as MLflow does.

        Raises:
            InvalidInput: ``request.invalid``.
            LimitExceeded: ``request.too_many_rows``.
        """
        if not isinstance(data, list) or not all(isinstance(row, list) for row in data):
            _refuse("`data` is a list of lists", place)
        require_rows(len(data), place)
        if columns is None:
            return self._from_lists(data, place)
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            _refuse("`columns` is a list of names", place)
        if len(set(columns)) != len(columns):
            _refuse("Two of `columns` have one name", place)
        wrong = next((k for k, row in enumerate(data) if len(row) != len(columns)), None)
        if wrong is not None:
            told = f"{len(data[wrong])} values for {len(columns)} columns"
            _refuse(f"There are {told}", f"{place}.data[{wrong}]")
        return self._from_lists(self._arranged(columns, data, place), place)

    def from_csv(self, text: str) -> Values:
        """Return rows of comma-separated values.

        The first line is a header if it names every input that must be there; without one the
        values stand in the signature's order, as Amazon SageMaker sends them.

        Raises:
            InvalidInput: ``request.invalid`` or ``request.malformed``.
            LimitExceeded: ``request.too_many_rows``.
        """
        try:
            lines = [line for line in csv.reader(io.StringIO(text), strict=True) if line]
        except csv.Error as error:
            raise InvalidInput(
                "request.malformed", f"The body is not CSV: {error}.", hint="RFC 4180 says how."
            ) from error
        if not lines:
            require_rows(0, "$")
        header: list[str] | None = [name.strip() for name in lines[0]]
        if not self._required <= set(header or ()) or not self._known & set(header or ()):
            header = None
        else:
            del lines[0]
        columns = self._names if header is None else header
        readers = {field.name: (_READERS[field.dtype], field) for field in self._fields}
        chosen = [readers.get(name) for name in columns]
        rows = [
            [
                value if reader is None else _read(reader[0], value, reader[1])
                for value, reader in zip(line, chosen, strict=False)
            ]
            for line in lines
        ]
        wrong = next((k for k, line in enumerate(lines) if len(line) != len(columns)), None)
        if wrong is not None:
            told = f"{len(lines[wrong])} values where the model takes {len(columns)}"
            _refuse(f"There are {told}, and no line names all inputs", f"$[{wrong}]")
        return self.from_split(header, rows, "$")

    def from_json_lines(self, body: bytes) -> Values:
        """Return rows of which each is a line of JSON: an object, a list, or ``features`` of one.

        Raises:
            InvalidInput: ``request.invalid`` or ``request.malformed``.
            LimitExceeded: ``request.too_many_rows``.
        """
        rows = [read_json(line) for line in body.splitlines() if line.strip()]
        if "features" not in self._known:
            rows = [
                row["features"] if isinstance(row, dict) and set(row) == {"features"} else row
                for row in rows
            ]
        return self.from_rows(rows, "$")

    def _arranged(
        self, columns: list[str], data: list[list[object]], place: str
    ) -> list[list[object]]:
        if columns == self._names:
            return data
        at = {name: k for k, name in enumerate(columns)}
        missing = sorted(self._required - set(at))
        if missing:
            _refuse(f"There is no column `{missing[0]}`", f"{place}.columns")
        places = [at.get(name) for name in self._names]
        return [[None if k is None else row[k] for k in places] for row in data]

    def _from_objects(self, rows: list[object], place: str, *, ignore_others: bool) -> Values:
        if ignore_others:
            known = self._known
            rows = [
                {name: value for name, value in row.items() if name in known}
                if isinstance(row, dict) and row.keys() - known
                else row
                for row in rows
            ]
        names = [(self._names[k], soften) for k, soften in self._softened]
        for row in rows:
            if isinstance(row, dict):
                for name, soften in names:
                    if name in row:
                        row[name] = soften(row[name])
        try:
            found = msgspec.convert(rows, self._rows_of_objects)
        except msgspec.ValidationError as error:
            raise _invalid(str(error).replace("`$", f"`{place}", 1)) from error
        return [msgspec.structs.astuple(row) for row in found]

    def _from_lists(self, rows: list[list[object]], place: str) -> Values:
        if self._softened:
            for row in rows:
                if len(row) == len(self._fields):
                    for k, soften in self._softened:
                        row[k] = soften(row[k])
        try:
            found = msgspec.convert(rows, self._rows_of_lists)
        except msgspec.ValidationError as error:
            raise _invalid(self._named_place(str(error), place)) from error
        return [msgspec.structs.astuple(row) for row in found]

    def _named_place(self, message: str, place: str) -> str:
        found = _PLACE.search(message)
        if found is None:
            return message.replace("`$", f"`{place}", 1)
        name = self._names[int(found[2])]
        return message.replace(found[0], f"`{place}[{found[1]}].{name}`", 1)


_MADE: WeakKeyDictionary[RowDecoder, Frames] = WeakKeyDictionary()


def frames_of(decoder: RowDecoder) -> Frames:
    """Return the reader of a signature's other shapes, made once for each version."""
    found = _MADE.get(decoder)
    if found is None:
        found = _MADE[decoder] = Frames(decoder)
    return found


def read_json(body: bytes) -> Plain:
    """Return what JSON says; the token ``NaN`` that Python's own encoder writes reads as null.

    Raises:
        InvalidInput: ``request.malformed``.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem: Exception = error
    if b"NaN" in body:
        try:
            return json.loads(body, parse_constant=_missing)
        except (ValueError, RecursionError) as error:
            problem = error
    raise InvalidInput(
        "request.malformed",
        f"The body is not JSON: {str(problem)[:200]}.",
        hint="Send JSON in UTF-8.",
    ) from problem


def _missing(token: str) -> None:
    if token != "NaN":  # noqa: S105 -- a token of JSON
        message = f"{token} is no number of JSON"
        raise ValueError(message)


def _kind(field: InputField) -> object:
    kind = KINDS[field.dtype]
    return kind | None if field.nullable else kind  # type: ignore[operator]


def _flat(value: object) -> object:
    """Return the value of a list of one: a column of a frame as a tensor of shape [n, 1]."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _truth(value: object) -> object:
    return bool(value) if isinstance(value, int | float) and value in {0, 1} else value


_SOFT: Final[Mapping[Dtype, Callable[[object], object]]] = {"int64": _whole, "bool": _truth}


def _read(reader: Callable[[str], Scalar], text: str, field: InputField) -> Scalar:
    if field.dtype == "string":
        return None if not text and field.nullable else text
    text = text.strip()
    return None if text in _MISSING else reader(text)


def _read_number(text: str) -> Scalar:
    try:
        found = float(text)
    except ValueError:
        return text
    return found if math.isfinite(found) and "_" not in text else text


def _read_whole(text: str) -> Scalar:
    # Not through a float: that would lose what is beyond 2^53.
    return int(text) if text.removeprefix("-").isdecimal() else _read_number(text)


def _read_truth(text: str) -> Scalar:
    return {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}.get(
        text.lower(), text
    )


_READERS: Final[Mapping[Dtype, Callable[[str], Scalar]]] = {
    "float64": _read_number, "int64": _read_whole, "bool": _read_truth, "string": str,
}  # fmt: skip


def _refuse(problem: str, place: str) -> NoReturn:
    raise _invalid(f"{problem} - at `{place}`")


def _invalid(told: str) -> InvalidInput:
    return InvalidInput("request.invalid", f"{told}.", hint=_HINT)
