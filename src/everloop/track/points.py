"""The question for points of a metric by pages, in the order of time."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from everloop.core.ids import Id
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.track import columns
from everloop.track.columns import Columns
from everloop.track.model import Run
from everloop.track.series import read_series

MAX_PAGE = 100_000


class ReadPoints(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.points`` takes.

    Attributes:
        distinct: Whether a point that was logged twice with the same step, time and value counts
            once, as after a request that a client repeated.
    """

    run: Annotated[str, msgspec.Meta(max_length=300)]
    key: Annotated[str, msgspec.Meta(max_length=300)]
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = MAX_PAGE
    distinct: bool = False


class RunPoints(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.points``: none for a metric that the run never logged.

    Attributes:
        data: The points as a chunk in the format of ``everloop.track.columns``.
        count: How many there are in all.
        next: Offset of the next page; None after the last one.
    """

    data: bytes
    count: int
    next: int | None


@query("run.points", permission="run:read")
def read_points(ask: ReadPoints, view: View) -> RunPoints:
    """Return one page of a metric's points, by time, then step, then value.

    Raises:
        NotFound: ``run.not_found``.
    """
    run = view.get(Run, Id(ask.run.removeprefix("run:")))
    points = read_series(view, run.id, ask.key)
    order = np.lexsort((np.nan_to_num(points.values, nan=0.0), points.steps, points.times_us))
    if ask.distinct:
        order = order[_is_first(points, order)]
    end = ask.offset + ask.limit
    chosen = order[ask.offset : end]
    page = Columns(points.steps[chosen], points.times_us[chosen], points.values[chosen])
    count = len(order)
    return RunPoints(
        data=columns.encode(page, columns.RAW), count=count, next=end if end < count else None
    )


def _is_first(points: Columns, order: np.typing.NDArray[np.int64]) -> np.typing.NDArray[np.bool_]:
    is_first = np.ones(len(order), dtype=np.bool_)
    # As bits: NaN is the same as NaN here, and 0.0 is not -0.0.
    columns_of = (points.times_us, points.steps, points.values.view(np.int64))
    same = [column[order][1:] == column[order][:-1] for column in columns_of]
    is_first[1:] = ~np.logical_and.reduce(same)
    return is_first
