"""One canonical JSON form, so that equal values always have equal digests.

Keys sorted by code point, no spaces, UTF-8, shortest round-trip floats; NaN and infinities are
refused here because JSON has no words for them (records that need them carry strings).
The form follows RFC 8785 for all values but floats in exponent notation.
"""

from __future__ import annotations

import math

import msgspec

from everloop.core.errors import InvalidInput

_ENCODER = msgspec.json.Encoder(order="sorted")


def canonical_json(value: object) -> bytes:
    """Return the canonical JSON of builtins or msgspec Structs.

    Raises:
        InvalidInput: ``canonical.not_finite`` for NaN or infinity, ``canonical.unsupported``
            for a type without a JSON form, ``text.invalid`` for half a character.
    """
    try:
        plain = msgspec.to_builtins(value, order="sorted")
    except TypeError as error:
        raise InvalidInput(
            "canonical.unsupported",
            f"A value has no canonical form: {error}.",
            hint="Use JSON types, dates, bytes or msgspec Structs.",
        ) from error
    _require_finite(plain)
    try:
        return _ENCODER.encode(plain)
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "text.invalid",
            f"A text has half a character at position {error.start}.",
            hint="Send well-formed Unicode.",
        ) from error


def _require_finite(value: object) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(
                "canonical.not_finite",
                f"{value} has no canonical JSON form.",
                hint="Leave the value out or write it as text.",
            )
    elif isinstance(value, dict):
        for item in value.values():
            _require_finite(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_finite(item)
