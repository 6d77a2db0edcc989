"""Counts what came in, in the bins that were frozen at training: mergeable, and without the rows.

The counts are those of the control plane's profiles, so that it can merge devices, days and
versions without seeing a row. Bin edges stay here: the control plane has its own.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import Any, Dict, List

LARGEST_MAGNITUDE = 1e150  # values beyond count as infinite, because their squares would be
UNSEEN_LIMIT = 50
LONGEST_NAME = 64


class Sketch:
    """What one version was asked and answered.

    Args:
        columns: Of each input, in order: its name, how it is counted (``numeric`` with ``edges``,
            ``category`` with ``known`` and ``complete``, or ``opaque``), and whether it is masked.
        told: A sketch from before, to go on counting in; None begins anew.
    """

    def __init__(self, columns: List[Dict[str, Any]], told: Any = None) -> None:
        self._columns = columns
        self._places = [
            {name: place for place, name in enumerate(column.get("known") or ())}
            for column in columns
        ]
        self.told: Dict[str, Any] = told or {
            "answers": 0,
            "errors": 0,
            "invalid": 0,
            "latency_us": 0,
            "output": _moments(),
            "columns": {c["name"]: _begin(c) for c in columns if not c.get("masked")},
        }

    def add(self, values: List[Any], output: Any, status: str, latency_us: int) -> None:
        """Count one answer.

        Args:
            values: What was asked, in the signature's order; None for a missing value.
            output: The answer: a number, a list of them, or None without one.
            status: ``ok``, ``invalid`` or ``error``.
            latency_us: How long it took.
        """
        told = self.told
        told["answers"] += 1
        told["latency_us"] += latency_us
        if status == "error":
            told["errors"] += 1
        elif status == "invalid":
            told["invalid"] += 1
        if isinstance(output, (int, float)) and abs(output) <= LARGEST_MAGNITUDE:
            _add_moment(told["output"], float(output))
        for column, places, value in zip(self._columns, self._places, values):
            if not column.get("masked"):
                _count(told["columns"][column["name"]], column, places, value)


def _begin(column: Dict[str, Any]) -> Dict[str, Any]:
    begun: Dict[str, Any] = {"rows": 0, "nulls": 0}
    if column["kind"] == "numeric":
        begun.update(below=0, above=0, high=0, low=0, moments=_moments())
        begun["counts"] = [0] * len(column["edges"])
    elif column["kind"] == "category":
        begun.update(counts=[0] * len(column["known"]), other=0, unseen={})
    return begun


def _count(
    told: Dict[str, Any], column: Dict[str, Any], places: Dict[str, int], value: Any
) -> None:
    told["rows"] += 1
    if value is None:
        told["nulls"] += 1
    elif column["kind"] == "numeric":
        _count_number(told, column["edges"], float(value))
    elif column["kind"] == "category":
        _count_name(told, places, _name_of(value), is_complete=column["complete"])


def _count_number(told: Dict[str, Any], edges: List[float], value: float) -> None:
    if abs(value) > LARGEST_MAGNITUDE:
        told["high" if value > 0 else "low"] += 1
        return
    _add_moment(told["moments"], value)
    if not edges or value > edges[-1]:
        told["above"] += 1
    elif value < edges[0]:
        told["below"] += 1
    else:
        told["counts"][bisect_left(edges, value)] += 1


def _count_name(
    told: Dict[str, Any], places: Dict[str, int], name: str, *, is_complete: bool
) -> None:
    place = places.get(name)
    if place is not None:
        told["counts"][place] += 1
        return
    told["other"] += 1
    unseen = told["unseen"]
    if is_complete and (name in unseen or len(unseen) < UNSEEN_LIMIT):
        unseen[name] = unseen.get(name, 0) + 1


def _name_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    name = str(value)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:16]}...#{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _moments() -> Dict[str, Any]:
    return {"n": 0, "mean": 0.0, "m2": 0.0, "total": 0.0, "minimum": None, "maximum": None}


def _add_moment(told: Dict[str, Any], value: float) -> None:
    """Take in one value by the update of Welford (1962)."""
    told["n"] += 1
    gap = value - told["mean"]
    told["mean"] += gap / told["n"]
    told["m2"] += gap * (value - told["mean"])
    told["total"] += value
    told["minimum"] = value if told["minimum"] is None else min(told["minimum"], value)
    told["maximum"] = value if told["maximum"] is None else max(told["maximum"], value)
