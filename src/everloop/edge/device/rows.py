"""Rows by name, as a caller has them, to the numbers that a model takes: one rule with the server.

Null is NaN, yes and no are 1 and 0, a text is its place among the categories, and one that training
never saw is NaN, like null. Every refusal names the field.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List

from everloop.edge.device.refusal import EdgeError

EXACT = 2**53  # whole numbers up to here have a double of their own
LEAST, MOST = -(2**63), 2**63 - 1
LONGEST_TEXT = 1_000


class Rows:
    """Reads rows for one signature."""

    def __init__(self, fields: List[Dict[str, Any]]) -> None:
        self.fields = fields
        self._names = {field["name"] for field in fields}
        self._codes = [
            {name: float(code) for code, name in enumerate(field.get("categories") or ())}
            for field in fields
        ]

    def to_numbers(self, row: Any) -> List[float]:
        """Return a row as numbers in the signature's order.

        Raises:
            EdgeError: ``edge.row_invalid``.
        """
        if not isinstance(row, dict):
            raise _invalid("A row is an object of inputs by name", "$")
        unknown = sorted(str(name) for name in row if name not in self._names)
        if unknown:
            raise _invalid("The model has no such input", unknown[0])
        return [self._number(place, field, row) for place, field in enumerate(self.fields)]

    def to_values(self, row: Dict[str, Any]) -> List[Any]:
        """Return a row's values in the signature's order; None where there is none."""
        values = [row.get(field["name"]) for field in self.fields]
        return [None if value != value else value for value in values]

    def _number(self, place: int, field: Dict[str, Any], row: Dict[str, Any]) -> float:
        value, name, kind = row.get(field["name"]), field["name"], field["dtype"]
        if value is None or value != value:
            if not field.get("nullable"):
                raise _invalid("A value is missing", name)
            return math.nan
        if kind == "string":
            if not isinstance(value, str) or len(value) > LONGEST_TEXT or not _is_text(value):
                raise _invalid("A short text is needed", name)
            return self._codes[place].get(value, math.nan)
        if kind == "bool":
            if not isinstance(value, bool):
                raise _invalid("true or false is needed", name)
            return float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _invalid("A number is needed", name)
        if kind == "int64" and not _is_whole(value):
            raise _invalid("A whole number of 64 bits is needed, 30.0 only up to 2^53", name)
        return _finite(value, name)


def _is_whole(value: float) -> bool:
    """Tell whether it is a whole number; with a point, whether it surely says which one."""
    if isinstance(value, int):
        return LEAST <= value <= MOST
    return abs(value) <= EXACT and value == int(value)


def _is_text(value: str) -> bool:
    """Tell whether the control plane can be told a text: JSON allows halves of characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _finite(value: float, name: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _invalid("A finite number is needed", name)
    return number


def _invalid(problem: str, place: str) -> EdgeError:
    return EdgeError(
        "edge.row_invalid",
        f"{problem} - at {place[:80]!r}.",
        "The command `describe` shows the inputs that the model takes.",
    )
