"""Runs side by side: what they were given, measured and ran in, and their lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from everloop.core.errors import InvalidInput
from everloop.core.filter.printer import print_filter
from everloop.core.filter.tree import Comparison, How, Name, Text
from everloop.core.ids import is_id
from everloop.track.model import MetricSummary
from everloop.track.queries import RunDetails
from everloop.track.search import Deleted, FoundRuns
from everloop.ui.charts import send_json
from everloop.ui.environment import (
    RunEnvironment,
    environment_rows,
    read_environment,
    read_patch,
)
from everloop.ui.render import address
from everloop.ui.runs import NONE
from everloop.ui.visit import Visit

MOST_COMPARED: Final = 20
MOST_AXES: Final = 12


@dataclass(frozen=True, slots=True)
class Row:
    """One name with its value in each run.

    Attributes:
        differs: Whether the values are not all the same.
        best: Index of the least and of the greatest number, None without numbers that differ.
    """

    name: str
    values: tuple[str | None, ...]
    differs: bool
    best: tuple[int, int] | None = None

    def mark(self, index: int) -> str:
        """Return whether the value at an index is the least or the greatest."""
        if self.best is None or index not in self.best:
            return ""
        return "least" if index == self.best[0] else "greatest"


def show(visit: Visit) -> Response:
    """Show several runs side by side, with what differs between them marked."""
    chosen = list(dict.fromkeys(visit.params("run")))[:MOST_COMPARED]
    if len(chosen) < 2:
        raise InvalidInput(
            "compare.too_few",
            "Two runs at least can be compared.",
            hint="Tick them in the list of runs.",
        )
    details = [visit.get("run.show", RunDetails, run=run) for run in chosen]
    environments = [read_environment(visit, item.run) for item in details]
    only = visit.param("only") == "different"
    measured = rows_of([_last(item.metrics) for item in details])
    given = rows_of([item.run.params for item in details])
    packages = package_rows(environments)
    return visit.show(
        "compare.html",
        chosen=[item.run.id for item in details],
        runs=details,
        only=only,
        address_of=lambda **more: _address(visit, chosen, **more),
        sections=[
            ("Metrics", _shown(measured, only=only), len(measured)),
            ("Parameters", _shown(given, only=only), len(given)),
            ("Tags", *_counted(rows_of([_own_tags(item.run.tags) for item in details]), only=only)),
            ("Code and environment", *_counted(_environments(environments), only=only)),
            ("Packages", packages, len(packages)),
        ],
        packages=packages,
        patches=[(item.run, read_patch(visit, item.run)) for item in details],
        axes=axes_of(given, measured),
        points=address("p", visit.project, "compare", "points")
        + "?"
        + urlencode([("run", run) for run in chosen]),
    )


def send_points(visit: Visit) -> Response:
    """Send parameters and last metrics of the runs, for axes side by side."""
    chosen = [run for run in dict.fromkeys(visit.params("run")) if is_id(run)][:MOST_COMPARED]
    if not chosen:
        return send_json(NONE)
    wanted = Comparison(Name(("id",)), How.IN, tuple(Text(run) for run in chosen))
    found = visit.get(
        "run.search",
        FoundRuns,
        filter=print_filter(wanted),
        fields=("metrics",),
        deleted=Deleted.ALL,
        limit=MOST_COMPARED,
    )
    return send_json(found)


def rows_of(columns: Sequence[Mapping[str, str]]) -> list[Row]:
    """Return a row for each name that occurs; those that differ come first, each part by name."""
    names = sorted({name for column in columns for name in column})
    rows = []
    for name in names:
        values = tuple(column.get(name) for column in columns)
        differs = len(set(values)) > 1
        rows.append(Row(name, values, differs, _extremes(values) if differs else None))
    return sorted(rows, key=lambda row: not row.differs)


def axes_of(given: Sequence[Row], measured: Sequence[Row]) -> list[str]:
    """Return the columns worth an axis: what differs, parameters before metrics."""
    params = [f"params.{row.name}" for row in given if row.differs]
    metrics = [
        f"metrics.{row.name}"
        for row in measured
        if row.differs and not row.name.startswith("system/")
    ]
    return [*params[: MOST_AXES // 2], *metrics[: MOST_AXES // 2]]


def package_rows(environments: Sequence[RunEnvironment | None]) -> list[Row]:
    """Return the installed distributions that are not the same in all runs."""
    columns = [
        dict(package.partition("==")[::2] for package in found.packages) if found else {}
        for found in environments
    ]
    return [row for row in rows_of(columns) if row.differs] if any(columns) else []


def _last(metrics: Sequence[MetricSummary]) -> dict[str, str]:
    return {metric.key: metric.last_text for metric in metrics}


def _own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if not name.startswith("mlflow.")}


def _environments(environments: Sequence[RunEnvironment | None]) -> list[Row]:
    return rows_of([environment_rows(found) for found in environments])


def _counted(rows: list[Row], *, only: bool) -> tuple[list[Row], int]:
    return _shown(rows, only=only), len(rows)


def _shown(rows: list[Row], *, only: bool) -> list[Row]:
    return [row for row in rows if row.differs] if only else rows


def _extremes(values: Sequence[str | None]) -> tuple[int, int] | None:
    try:
        numbers = [(float(value), index) for index, value in enumerate(values) if value is not None]
    except ValueError:
        return None
    finite = [(number, index) for number, index in numbers if abs(number) < float("inf")]
    if len(finite) < 2 or min(finite)[0] == max(finite)[0]:
        return None
    return min(finite)[1], max(finite)[1]


def _address(visit: Visit, chosen: Sequence[str], **more: str) -> str:
    pairs = [("run", run) for run in chosen] + list(more.items())
    return f"{address('p', visit.project, 'compare')}?{urlencode(pairs)}"
