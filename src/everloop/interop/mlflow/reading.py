"""Reads requests the way protobuf's JSON mapping does, for that is what MLflow's clients write.

Integers may be texts, names snake_case or camelCase, null stands for the default, and unknown
fields are ignored (https://protobuf.dev/programming-guides/json/).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from everloop.core.errors import InvalidInput

S = TypeVar("S", bound=msgspec.Struct)
Number = float | Literal["NaN", "Infinity", "-Infinity"]
# Nothing is given back, so that a long text takes no longer than its length.
_CAMEL = re.compile(rb'"[a-z][a-z0-9]*+[A-Z][A-Za-z0-9]*+"\s*+:')
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def read_body(body: bytes, kind: type[S]) -> S:
    """Read a JSON body.

    Raises:
        InvalidInput: ``input.invalid``, which names the field.
    """
    try:
        if _CAMEL.search(body) is None:
            return msgspec.json.decode(body or b"{}", type=kind, strict=False)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    # Null for a default, camelCase, or a mistake: read again, slowly.
    try:
        return msgspec.convert(_plain(msgspec.json.decode(body or b"{}")), kind, strict=False)
    except (
        msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError,
    ) as error:  # fmt: skip
        raise InvalidInput(
            "input.invalid",
            f"The request cannot be read: {str(error)[:300]}.",
            hint="Send what the field's type asks for, as JSON.",
        ) from error


def read_query(items: Iterable[tuple[str, str]], kind: type[S]) -> S:
    """Read URL parameters; a field that is a list takes every parameter of its name.

    Raises:
        InvalidInput: ``input.invalid``, which names the parameter.
    """
    lists = _list_fields(kind)
    given: dict[str, object] = {}
    for name, value in items:
        if name in lists:
            found = given.setdefault(name, [])
            assert isinstance(found, list)
            found.append(value)
        else:
            given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "input.invalid",
            f"A parameter cannot be read: {str(error)[:300]}.",
            hint="Send what the field's type asks for.",
        ) from error


def check_ask(ask: S) -> S:
    """Return what a verb is asked, checked against the type that the verb declares.

    What is built in Python is not: only reading holds the limits that stand in a type.

    Raises:
        InvalidInput: ``input.invalid``, which names the field.
    """
    try:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(ask), type=type(ask))
    except (msgspec.ValidationError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidInput(
            "input.invalid",
            f"The request asks for what is not possible: {str(error)[:300]}.",
            hint="Keep to the limits of the field.",
        ) from error


def number(value: float) -> Number:
    """Return a float as protobuf writes it in JSON: what is not finite is a text."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def to_float(value: float | str) -> float:
    """Read a number as protobuf's JSON writes it.

    Raises:
        InvalidInput: ``input.invalid``.
    """
    try:
        return float(value)
    except ValueError as error:
        raise InvalidInput(
            "input.invalid",
            f"{str(value)[:60]!r} is not a number.",
            hint='Send a number, or "NaN", "Infinity" or "-Infinity".',
        ) from error


@cache
def _list_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(
        field.encode_name for field in msgspec.structs.fields(kind) if _is_list(field.type)
    )


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in {tuple, list} or any(_is_list(part) for part in get_args(kind))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {_snake(str(key)): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _snake(name: str) -> str:
    # Keys that are data (a map's) keep their form: only identifiers in camelCase are changed.
    if not name.isidentifier() or not name[0].islower():
        return name
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match.group(1).lower(), name)
