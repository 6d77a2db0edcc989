"""Which names and values exist: what a reader may choose from when they write a filter.

Each name costs one step along an index, however many runs there are.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from everloop.core.ports import Compare, Condition, where
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.track.model import MetricSummary, RunField

MAX_NAMES: Final = 500
Prefix = Annotated[str, msgspec.Meta(max_length=250)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_NAMES)]


class Space(StrEnum):
    """Where a name belongs."""

    METRIC = "metric"
    PARAM = "param"
    TAG = "tag"


class ListNames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.names`` takes; ``limit`` holds for each space."""

    prefix: Prefix = ""
    limit: Limit = 200


class RunNames(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.names``: names in code point order."""

    metrics: tuple[str, ...]
    params: tuple[str, ...]
    tags: tuple[str, ...]


class ListValues(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.values`` takes: a parameter or tag and how its values begin."""

    space: Space
    key: Prefix
    prefix: Prefix = ""
    limit: Limit = 50


class RunValues(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.values``: different values, long ones cut, in code point order."""

    items: tuple[str, ...]


@query("run.names", permission="run:read")
def list_names(ask: ListNames, view: View) -> RunNames:
    """List the names of metrics, parameters and tags that runs of the project have."""
    begins = _begins("key", ask.prefix)
    metrics = view.distinct(MetricSummary, "key", *begins, limit=ask.limit)
    params, tags = (
        view.distinct(RunField, "key", *where(space=space), *begins, limit=ask.limit)
        for space in (Space.PARAM.value, Space.TAG.value)
    )
    return RunNames(metrics=tuple(metrics), params=tuple(params), tags=tuple(tags))


@query("run.values", permission="run:read")
def list_values(ask: ListValues, view: View) -> RunValues:
    """List the different values of a parameter or tag; a metric has none to choose from."""
    if ask.space is Space.METRIC:
        return RunValues(items=())
    same = where(space=ask.space.value, key=ask.key)
    found = view.distinct(RunField, "head", *same, *_begins("head", ask.prefix), limit=ask.limit)
    return RunValues(items=tuple(found))


def _begins(field: str, prefix: str) -> tuple[Condition, ...]:
    return (Condition(field, Compare.PREFIX, prefix),) if prefix else ()
