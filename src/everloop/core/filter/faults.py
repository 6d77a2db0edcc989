"""The one error of a filter that can't be used: where it is wrong, and what would be right."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

from everloop.core.errors import InvalidInput, JsonValue

_AROUND = 60
_SHOWN = 40
_WIDE = frozenset({"W", "F"})


def fault(text: str, at: int, problem: str, hint: str, *, what: str = "filter") -> InvalidInput:
    """Return the error for a mistake at a character of a filter or an order.

    Its message is one line with the position counted from 1; its context has ``position``,
    ``excerpt`` (the part of the text around it) and ``caret`` (a line that points at it from
    below).
    """
    excerpt, caret = point_at(text, at)
    context: dict[str, JsonValue] = {"position": at + 1, "excerpt": excerpt, "caret": caret}
    message = f"{problem} at position {at + 1} of the {what}."
    if what == "order":
        return InvalidInput("order.invalid", message, hint=hint, context=context)
    return InvalidInput("filter.invalid", message, hint=hint, context=context)


def point_at(text: str, at: int) -> tuple[str, str]:
    """Return the text around a position on one line, and a caret for the line below it."""
    first = max(0, at - _AROUND)
    head = ("..." if first else "") + _flat(text[first:at])
    tail = _flat(text[at : at + _AROUND]) + ("..." if len(text) > at + _AROUND else "")
    return head + tail, " " * sum(map(_columns, head)) + "^"


def shown(text: str) -> str:
    """Return a piece of a filter in quotes, short and without control characters."""
    flat = _flat(text)
    return repr(flat if len(flat) <= _SHOWN else flat[:_SHOWN] + "...")


def nearest(wanted: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like the wanted one, or None."""
    names = sorted(known)
    folded = {name.lower(): name for name in reversed(names)}
    if wanted.lower() in folded:
        return folded[wanted.lower()]
    close = get_close_matches(wanted[:_AROUND], names, n=1)
    return close[0] if close else None


def _flat(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1
