"""Requests to matrices: one decoder per model, made from the model's signature.

Types, missing and unknown fields are checked while the JSON is read, so that a wrong request costs
no more than a right one. Every refusal names the field. Whole numbers beyond 2^53 reach the model
as the nearest float64, as they do in training; the log keeps them exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Final, Generic, Literal, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np
import numpy.typing as npt

from everloop.core.clock import Instant, from_text
from everloop.core.errors import InvalidInput, LimitExceeded
from everloop.core.wire import Scalar
from everloop.serve.identity import MOST_ROWS
from everloop.serve.protocol import Dtype, InputField

MAX_UNIT_CHARS: Final = 200
MAX_FUTURE: Final = timedelta(days=1)
MOST_SEARCHED: Final = 1_000_000
INPUT_HINT: Final = "GET / tells where the fields of each model are described."
EXACT: Final = 2**53  # up to here each whole number is a float of its own
# What a value of each type may be.
KINDS: Final[Mapping[Dtype, object]] = {
    "float64": float,
    "int64": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "bool": bool,
    "string": Annotated[str, msgspec.Meta(max_length=1_000)],
}

Row = TypeVar("Row", bound=msgspec.Struct)
FloatArray = npt.NDArray[np.float64]
Values = Sequence[tuple[Scalar, ...]]
Short = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_UNIT_CHARS)]


class PredictRequest(msgspec.Struct, Generic[Row], frozen=True, forbid_unknown_fields=True):
    """The body of a plain JSON request.

    Attributes:
        at: Event time, when it is not now.
        unit: Whom a canary's assignment sticks to.
        keys: The caller's own key of each row, by which the truth may come back.
        explain: Whether, or by which method, to say what each input added to the answer.
    """

    inputs: list[Row]
    at: str | None = None
    unit: Short | None = None
    keys: list[Short] = []
    explain: bool | Literal["sampling", "tree"] = False


class RowDecoder:
    """Reads requests for one signature. Immutable, safe between threads."""

    def __init__(self, fields: tuple[InputField, ...], name: str = "") -> None:
        """Make the decoder.

        Args:
            fields: The inputs of the signature.
            name: Under which the model is served, to say where its fields are described.
        """
        self.fields = fields
        at = f"GET /models/{quote(name, safe='')} tells what this model takes."
        self.hint = at if name else INPUT_HINT
        # Field names are the user's and may be anything; attribute names are ours.
        self._names = {f"f{place}": field.name for place, field in enumerate(fields)}
        self.row: type[msgspec.Struct] = msgspec.defstruct(
            "Row",
            [_declare(place, field) for place, field in enumerate(fields)],
            rename=self._names,
            forbid_unknown_fields=True,
            frozen=True,
            kw_only=True,
        )
        self._decoder = msgspec.json.Decoder(PredictRequest[self.row])  # type: ignore[name-defined]
        self._codes = [
            (place, {value: float(code) for code, value in enumerate(field.categories or ())})
            for place, field in enumerate(fields)
            if field.dtype == "string"
        ]

    @property
    def is_plain(self) -> bool:
        """Whether all inputs are numbers: a row without nulls is the row of a matrix."""
        return not self._codes

    def decode(self, body: bytes) -> PredictRequest[msgspec.Struct]:
        """Read a plain JSON request.

        Raises:
            InvalidInput: ``request.malformed`` or ``request.invalid``, naming the field.
            LimitExceeded: ``request.too_many_rows``.
        """
        try:
            request: PredictRequest[msgspec.Struct] = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            found = self._with_points(body)
            if found is None:
                raise InvalidInput("request.invalid", f"{error}.", hint=self.hint) from error
            request = found
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(body, error) from error
        require_rows(len(request.inputs), "$.inputs")
        if request.keys and len(request.keys) != len(request.inputs):
            raise InvalidInput(
                "request.invalid",
                f"There are {len(request.keys)} keys for {len(request.inputs)} rows - at `$.keys`.",
                hint="Send one key for each row, or none at all.",
            )
        return request

    @cached_property
    def _lenient(self) -> msgspec.json.Decoder[PredictRequest[msgspec.Struct]]:
        """Read whole numbers with a point, too."""
        row = msgspec.defstruct(
            "Row",
            [_declare(place, field, has_points=True) for place, field in enumerate(self.fields)],
            rename=self._names,
            forbid_unknown_fields=True,
            kw_only=True,
        )
        return msgspec.json.Decoder(PredictRequest[row])  # type: ignore[valid-type]

    def _with_points(self, body: bytes) -> PredictRequest[msgspec.Struct] | None:
        """Return a request that writes whole numbers as 30.0, which is an integer of JSON Schema.

        Beyond 2^53 the text of such a number may say another one than its float, and it is refused.
        """
        if all(field.dtype != "int64" for field in self.fields):
            return None
        try:
            found = self._lenient.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        rows = []
        for row in found.inputs:
            values = msgspec.structs.asdict(row)
            for place, field in enumerate(self.fields):
                value = values[f"f{place}"]
                if field.dtype == "int64" and isinstance(value, float):
                    if not (value.is_integer() and abs(value) <= EXACT):
                        return None
                    values[f"f{place}"] = int(value)
            rows.append(self.row(**values))
        return msgspec.structs.replace(found, inputs=rows)

    def from_values(self, values: Mapping[str, Scalar]) -> msgspec.Struct:
        """Return one row from plain values.

        Raises:
            InvalidInput: ``request.invalid``.
        """
        try:
            return msgspec.convert(dict(values), self.row)
        except msgspec.ValidationError as error:
            raise InvalidInput("request.invalid", f"{error}.", hint=self.hint) from error

    def to_matrix(self, rows: Iterable[msgspec.Struct]) -> FloatArray:
        """Return the rows as numbers in the order of the signature; null is NaN."""
        return self.to_numbers([msgspec.structs.astuple(row) for row in rows])

    def to_numbers(self, values: Values) -> FloatArray:
        """Return rows of plain values as numbers; null is NaN.

        A string is its code among the categories; one that training never saw is NaN, as a
        missing value is. The log keeps the string itself.
        """
        if self._codes:
            values = [self._encoded(row) for row in values]
        return np.array(values, dtype=np.float64)

    def adapt(self, origin: RowDecoder, matrix: FloatArray, values: Values | None) -> FloatArray:
        """Return rows that another signature's decoder read as this signature takes them.

        Raises:
            InvalidInput: ``request.invalid`` when a field that this one needs is not there.
        """
        places = {field.name: place for place, field in enumerate(origin.fields)}
        plain = values if values is not None else to_plain(origin.fields, matrix)
        wanted = [field.name for field in self.fields if field.name in places]
        return self.to_matrix(
            self.from_values({name: row[places[name]] for name in wanted}) for row in plain
        )

    def _encoded(self, row: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        changed = list(row)
        for place, codes in self._codes:
            value = row[place]
            changed[place] = codes.get(value) if isinstance(value, str) else None
        return tuple(changed)


def to_plain(fields: Sequence[InputField], matrix: FloatArray) -> list[tuple[Scalar, ...]]:
    """Return a matrix as the values that a caller would have sent; NaN is null."""
    columns = [_plain_column(field, matrix[:, place]) for place, field in enumerate(fields)]
    return list(zip(*columns, strict=True))


def _plain_column(field: InputField, column: FloatArray) -> list[Scalar]:
    names = field.categories or ()
    made: dict[Dtype, Callable[[float], Scalar]] = {
        "float64": lambda number: number,
        "int64": int,
        "bool": bool,
        "string": lambda number: names[int(number)] if 0 <= number < len(names) else None,
    }
    make = made[field.dtype]
    return [make(number) if math.isfinite(number) else None for number in column.tolist()]


def require_rows(count: int, place: str) -> None:
    """Let pass a number of rows that one request may have.

    Raises:
        InvalidInput: ``request.invalid`` for none.
        LimitExceeded: ``request.too_many_rows``.
    """
    if not count:
        raise InvalidInput("request.invalid", f"There are no rows - at `{place}`.", hint=INPUT_HINT)
    if count > MOST_ROWS:
        raise LimitExceeded(
            "request.too_many_rows",
            f"{count} rows are too many - at `{place}`.",
            hint=f"Send at most {MOST_ROWS} rows a request.",
        )


def event_time(text: str | None, now: Instant) -> Instant:
    """Return when the asked-about thing happens: as the caller says, or now.

    Raises:
        InvalidInput: ``request.time`` for an unreadable time or one more than a day ahead.
    """
    if text is None:
        return now
    try:
        at = from_text(text)
    except (InvalidInput, OverflowError) as error:
        raise InvalidInput(
            "request.time",
            f"{text[:60]!r} is not a time - at `$.at`.",
            hint="Write it as 2026-11-21T09:30:00Z, or leave it out.",
        ) from error
    if at - now > MAX_FUTURE:
        raise InvalidInput(
            "request.time",
            f"{text[:60]!r} is more than a day in the future - at `$.at`.",
            hint="Check the clock and the time zone of the caller.",
        )
    return at


def _declare(
    place: int, field: InputField, *, has_points: bool = False
) -> tuple[str, object, object] | tuple[str, object]:
    kind = KINDS[field.dtype]
    if has_points and field.dtype == "int64":
        kind = KINDS["int64"] | KINDS["float64"]  # type: ignore[operator]
    if field.nullable:
        return (f"f{place}", kind | None, None)  # type: ignore[operator]
    return (f"f{place}", kind)


def malformed(body: bytes, error: Exception) -> InvalidInput:
    """Return the refusal of a body that is not JSON, or has NaN in it."""
    place = _find_not_finite(body)
    if place is not None:
        return InvalidInput(
            "request.invalid",
            f"NaN and infinity are not JSON numbers - at `{place}`.",
            hint="Send null for a missing value, if the field is nullable.",
        )
    return InvalidInput(
        "request.malformed",
        f"The body is not JSON: {str(error)[:200]}.",
        hint='Send {"inputs": [{...}]} in UTF-8.',
    )


def _find_not_finite(body: bytes) -> str | None:
    """Return the path of the first NaN or infinity in otherwise readable JSON that is not long."""
    if len(body) > MOST_SEARCHED:
        return None
    try:
        return _search(
            json.loads(body),
            "$",
            lambda item: isinstance(item, float) and not math.isfinite(item),
        )
    except (ValueError, RecursionError):
        return None


def _search(value: object, path: str, is_wanted: Callable[[object], bool]) -> str | None:
    if is_wanted(value):
        return path
    inner: Iterable[tuple[str, object]] = ()
    if isinstance(value, dict):
        inner = ((f"{path}.{key}", item) for key, item in value.items())
    elif isinstance(value, list):
        inner = ((f"{path}[{place}]", item) for place, item in enumerate(value))
    for where, item in inner:
        found = _search(item, where, is_wanted)
        if found is not None:
            return found
    return None
