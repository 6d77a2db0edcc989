"""The columns of the runs table: which there are, which are shown, and how each sorts.

A column is written in an address as ``status`` or ``metrics.auc``: a space, a dot and the name as
it is. In a filter or an order the name stands in backticks where it needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from everloop.core.filter.printer import print_name
from everloop.core.filter.tree import Name

MOST_COLUMNS: Final = 60
MOST_METRICS: Final = 5
MOST_PARAMS: Final = 4
SPACES: Final = ("metrics", "params", "tags")
# What each built-in is called in the heading and in an order.
BUILT_IN: Final[Mapping[str, tuple[str, str]]] = {
    "status": ("Status", "status"),
    "experiment": ("Experiment", "experiment.name"),
    "started": ("Started", "started_at"),
    "ended": ("Ended", "ended_at"),
    "took": ("Took", ""),
    "by": ("By", "created_by"),
    "pipeline": ("Pipeline", "pipeline"),
    "parent": ("Within", ""),
    "id": ("Id", "id"),
}
_ALWAYS: Final = ("status", "started", "took")


class Shown(Protocol):
    """What of a run decides which columns are worth showing."""

    @property
    def params(self) -> Mapping[str, str]:
        """Return its parameters."""
        ...

    @property
    def metrics(self) -> Mapping[str, str]:
        """Return the last values of its metrics."""
        ...


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: As it stands in an address.
        space: ``metrics``, ``params`` or ``tags``; empty for what every run has.
        name: Within the space.
        order: As it stands in an order; empty when nothing can be sorted by it.
    """

    key: str
    space: str
    name: str
    label: str
    order: str

    @property
    def is_number(self) -> bool:
        """Whether its values stand on the right."""
        return self.space == "metrics" or self.key == "took"


def find_column(key: str) -> Column | None:
    """Return the column that an address names, or None for a name that is none."""
    if key in BUILT_IN:
        label, order = BUILT_IN[key]
        return Column(key, "", key, label, order)
    space, dot, name = key.partition(".")
    if not dot or not name or space not in SPACES or len(name) > 250:
        return None
    return Column(key, space, name, name, print_name(Name((space, name))))


def chosen_columns(keys: Iterable[str]) -> tuple[Column, ...]:
    """Return the columns that an address names, once each, in its order."""
    found = [column for key in dict.fromkeys(keys) if (column := find_column(key)) is not None]
    return tuple(found[:MOST_COLUMNS])


def usual_columns(runs: Sequence[Shown], *, with_experiment: bool) -> tuple[Column, ...]:
    """Return what is worth seeing of these runs: common metrics, and parameters that differ."""
    metrics = _frequent(run.metrics for run in runs)[:MOST_METRICS]
    params = [
        name
        for name in _frequent(run.params for run in runs)
        if len(runs) < 2 or len({run.params[name] for run in runs if name in run.params}) > 1
    ][:MOST_PARAMS]
    keys = [
        *(("status", "experiment", "started", "took") if with_experiment else _ALWAYS),
        *(f"metrics.{name}" for name in metrics),
        *(f"params.{name}" for name in params),
    ]
    return chosen_columns(keys)


def metrics_of(columns: Iterable[Column]) -> tuple[str, ...]:
    """Return the names of the metrics that a search has to fetch for these columns."""
    return tuple(column.key for column in columns if column.space == "metrics")


def _frequent(mappings: Iterable[Mapping[str, str]]) -> list[str]:
    counts: dict[str, int] = {}
    for mapping in mappings:
        for name in mapping:
            counts[name] = counts.get(name, 0) + 1
    # What a machine says of itself is for the page of one run.
    names = [name for name in counts if not name.startswith("system/")]
    return sorted(names, key=lambda name: (-counts[name], name))
