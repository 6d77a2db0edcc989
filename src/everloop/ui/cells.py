"""The cells of the runs table.

A page has hundreds of them, so each is made by a function and not by a macro of a template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Final

from markupsafe import Markup, escape

from everloop.track.search import FoundRun
from everloop.ui import render
from everloop.ui.columns import Column

_NOTHING: Final = Markup('<span class="quiet">–</span>')
_LONG: Final = 10
_INSTANTS: Final = frozenset({"started", "ended"})


def value_of(run: FoundRun, column: Column) -> object:
    """Return what stands in a column of a run, None for nothing."""
    if column.space:
        mapping: dict[str, str] = getattr(run, column.space)
        return mapping.get(column.name)
    name = {"by": "created_by", "took": "seconds"}.get(column.key)
    if column.key in _INSTANTS:
        name = f"{column.key}_at"
    return getattr(run, name or column.key)


def cell_writer(
    project: str, people: Mapping[str, str]
) -> Callable[[FoundRun, Column], Markup | str]:
    """Return the function that writes one cell."""

    def write(run: FoundRun, column: Column) -> Markup | str:
        value = value_of(run, column)
        if value is None or value == "":
            return _NOTHING
        if column.space == "metrics":
            return render.number(str(value))
        if column.space or column.key not in _WRITERS:
            return _parent(project, str(value)) if column.key == "parent" else _text(str(value))
        return _WRITERS[column.key](value, people)

    return write


def numeric_columns(runs: Sequence[FoundRun], columns: Iterable[Column]) -> frozenset[str]:
    """Return the columns that stand on the right: all they hold here are numbers."""
    return frozenset(
        column.key
        for column in columns
        if column.is_number
        or (column.space == "params" and _are_numbers(value_of(run, column) for run in runs))
    )


def _are_numbers(values: Iterable[object]) -> bool:
    texts = [str(value) for value in values if value is not None]
    return bool(texts) and all(map(is_number, texts))


def is_number(text: str) -> bool:
    """Return whether a text is a number, NaN and the infinities with them."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _text(value: str) -> Markup:
    shown = value
    if len(value) > _LONG and is_number(value) and any(c in value for c in ".eE"):
        shown = f"{float(value):.6g}"
    safe = escape(value)
    return Markup(f'<span class="clip" title="{safe}">{escape(shown)}</span>')  # noqa: S704 -- both are escaped


def _parent(project: str, run: str) -> Markup:
    href = escape(render.address("p", project, "runs", run))
    return Markup(f'<a href="{href}">{escape(run[-8:])}</a>')  # noqa: S704 -- both are escaped


@cache
def _chip(state: str) -> Markup:
    return Markup(render.macro("parts.html", "chip")(state))  # noqa: S704 -- made by a template


def _instant(value: object, people: Mapping[str, str]) -> Markup | str:
    del people
    return render.when(value) if isinstance(value, datetime) else render.NOTHING


_WRITERS: Final[Mapping[str, Callable[[object, Mapping[str, str]], Markup | str]]] = {
    "status": lambda value, _: _chip(str(value)),
    "started": _instant,
    "ended": _instant,
    "took": lambda value, _: render.span(float(str(value))),
    "by": lambda value, people: (
        escape(people[str(value)]) if str(value) in people else render.short_id(str(value))
    ),
    "id": lambda value, _: render.short_id(str(value)),
}
