"""Writes a tree as the shortest text that is read as the same tree."""

from __future__ import annotations

import math
from collections.abc import Iterable

from everloop.core.filter.lexer import is_bare
from everloop.core.filter.parser import KEYWORDS
from everloop.core.filter.tree import (
    Both,
    Comparison,
    Either,
    How,
    Literal,
    Name,
    Negated,
    Node,
    Number,
    SortKey,
    Text,
)

_UNITS = (("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def print_filter(node: Node) -> str:
    """Return the text of a filter; empty for the one that holds for every row."""
    match node:
        case Comparison():
            return _test(node)
        case Negated(part):
            inner = print_filter(part)
            return f"NOT ({inner})" if isinstance(part, Both | Either) else f"NOT {inner}"
        case Both(parts):
            return " AND ".join(_grouped(parts))
        case Either(parts):
            return " OR ".join(_grouped(parts))


def print_order(keys: Iterable[SortKey]) -> str:
    """Return the text of an order."""
    return ", ".join(print_name(key.name) + (" DESC" if key.descending else "") for key in keys)


def print_name(name: Name) -> str:
    """Return a name with backticks where it needs them."""
    parts = [_part(part, first=index == 0) for index, part in enumerate(name.parts)]
    if len(parts) == 1 and parts[0].upper() in KEYWORDS:
        return f"`{parts[0]}`"
    return ".".join(parts)


def _part(part: str, *, first: bool) -> str:
    return part if is_bare(part, first=first) else "`" + part.replace("`", "``") + "`"


def _grouped(parts: Iterable[Node]) -> list[str]:
    return [
        f"({print_filter(part)})" if isinstance(part, Both | Either) else print_filter(part)
        for part in parts
    ]


def _test(test: Comparison) -> str:
    name = print_name(test.name)
    negation = "NOT " if test.negated else ""
    values = [_value(value) for value in test.values]
    match test.how:
        case How.NULL | How.NAN:
            return f"{name} IS {negation}{test.how.value}"
        case How.IN:
            return f"{name} {negation}IN ({', '.join(values)})"
        case How.BETWEEN:
            return f"{name} {negation}BETWEEN {values[0]} AND {values[1]}"
    return f"{name} {negation}{test.how.value} {values[0]}"


def _value(value: Literal) -> str:
    match value:
        case Text(text):
            return "'" + text.replace("'", "''") + "'"
        case Number(number):
            return repr(number) if math.isfinite(number) else ("inf" if number > 0 else "-inf")
    seconds = abs(value.seconds)
    if not seconds:
        return "now"
    unit, size = next((unit, size) for unit, size in _UNITS if seconds % size == 0)
    return f"now {'-' if value.seconds < 0 else '+'} {seconds // size}{unit}"
