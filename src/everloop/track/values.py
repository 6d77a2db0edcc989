"""Values as a run logs them: parameters as texts, times with a zone, and what is no number."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from everloop.core.clock import Instant
from everloop.core.errors import InvalidInput

ParamValue: TypeAlias = str | bool | int | float | None


def to_text(value: ParamValue) -> str:
    """Return a parameter as the text that is stored; numbers of numpy as those of Python."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    is_scalar = getattr(value, "shape", None) == ()
    to_python = getattr(value, "item", None) if is_scalar else None
    return repr(value if to_python is None else to_python())


def check_time(key: str, at: object) -> Instant:
    """Return the time of a point unchanged if it has a zone.

    Raises:
        InvalidInput: ``metric.time_invalid``.
    """
    if isinstance(at, datetime) and at.tzinfo is not None:
        return at
    raise InvalidInput(
        "metric.time_invalid",
        f"Metric {str(key)[:60]!r} cannot be logged: {str(at)[:60]!r} is no time with a zone.",
        hint="Give a datetime of a known zone, such as datetime.now(UTC).",
    )


def not_a_number(key: str, reason: object) -> InvalidInput:
    """Return the error for a point of a metric that cannot be kept."""
    return InvalidInput(
        "metric.value_invalid",
        f"Metric {str(key)[:60]!r} cannot be logged: {reason}.",
        hint="Log a number (NaN and infinity are allowed) at a whole step.",
    )
