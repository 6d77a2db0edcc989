"""The data of a chart as the page's script draws it."""

from __future__ import annotations

import msgspec
from starlette.responses import Response


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a chart; gaps are None.

    Attributes:
        colour: Place in the palette, for what has the same colour in several charts; by its place
            among the lines when None.
    """

    label: str
    values: tuple[float | None, ...]
    colour: int | None = None


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at a place of the x axis."""

    x: float
    label: str


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """What a chart draws.

    Attributes:
        is_time: Whether x is seconds since 1970.
    """

    x: tuple[float, ...]
    lines: tuple[Line, ...]
    is_time: bool = False
    marks: tuple[Mark, ...] = ()
    note: str = ""


def send_json(answer: msgspec.Struct) -> Response:
    """Return data for the page's script as JSON."""
    return Response(
        msgspec.json.encode(answer),
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )
