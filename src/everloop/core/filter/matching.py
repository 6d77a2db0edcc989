"""Whether a text or a number meets a test, for values that the store can't compare itself."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import lru_cache

from everloop.core.filter.tree import Comparison, How, Number, Text

_FOLD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_NUMERIC: dict[How, Callable[[float, float], bool]] = {
    How.EQ: operator.eq,
    How.NE: operator.ne,
    How.LT: operator.lt,
    How.LE: operator.le,
    How.GT: operator.gt,
    How.GE: operator.ge,
}


def meets_text(value: str | None, test: Comparison) -> bool:
    """Return whether a text meets a test of texts; what is missing meets IS NULL only."""
    if test.how is How.NULL:
        return (value is None) is not test.negated
    if value is None:
        return False
    given = [each.value for each in test.values if isinstance(each, Text)]
    match test.how:
        case How.EQ:
            return value == given[0]
        case How.NE:
            return value != given[0]
        case How.IN:
            return (value in given) is not test.negated
        case _:
            alike = is_like(value, given[0], folded=test.how is How.ILIKE)
            return alike is not test.negated


def meets_number(value: float | None, test: Comparison) -> bool:
    """Return whether a number meets a test of numbers; what is missing meets IS NULL only."""
    if test.how is How.NULL:
        return (value is None) is not test.negated
    if value is None:
        return False
    if test.how is How.NAN:
        return (value != value) is not test.negated  # noqa: PLR0124 -- NaN differs from itself
    given = [each.value for each in test.values if isinstance(each, Number)]
    match test.how:
        case How.IN:
            return (value in given) is not test.negated
        case How.BETWEEN:
            return (given[0] <= value <= given[1]) is not test.negated
        case how:
            return _NUMERIC[how](value, given[0])


def is_like(value: str, pattern: str, *, folded: bool) -> bool:
    """Return whether a text has the form of a pattern; folded, ASCII letters match in any case."""
    if folded:
        value, pattern = value.translate(_FOLD), pattern.translate(_FOLD)
    return _compiled(pattern).fullmatch(value) is not None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    # Each piece takes the first place that fits and never gives it back: no pattern is slow.
    first, *others = pattern.split("%")
    text = _literal(first)
    if others:
        *middle, last = others
        text += "".join(f"(?>.*?{_literal(piece)})" for piece in middle if piece)
        text += ".*" + _literal(last)
    return re.compile(text, re.DOTALL)


def _literal(piece: str) -> str:
    return "".join("." if char == "_" else re.escape(char) for char in piece)
