"""The runs of a project: found, sorted, in columns of choice; saved views; the trash."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.responses import RedirectResponse, Response

from everloop.core.errors import EverloopError, InvalidInput
from everloop.track.names import RunNames, RunValues
from everloop.track.search import Deleted, FoundExperiments, FoundRuns
from everloop.track.views import SavedViews
from everloop.ui.cells import cell_writer, numeric_columns
from everloop.ui.charts import send_json
from everloop.ui.columns import (
    BUILT_IN,
    Column,
    chosen_columns,
    find_column,
    metrics_of,
    usual_columns,
)
from everloop.ui.render import address
from everloop.ui.visit import Visit

SIZES: Final = (50, 100, 200)
MOST_DRAWN: Final = 50
MOST_POINTS: Final = 500
MOST_EXPERIMENTS: Final = 200
NONE: Final = FoundRuns(items=(), next=None)
MODES: Final = ("table", "charts", "parallel")
_DESCENDS_FIRST: Final = frozenset({"started", "ended", "took"})


@dataclass(frozen=True)
class Listing:
    """What the address of the list says: the whole state of the page, so that a link shares it."""

    project: str
    filter: str = ""
    order: str = ""
    experiment: str = ""
    columns: tuple[str, ...] = ()
    mode: str = "table"
    size: int = SIZES[0]
    trash: bool = False
    after: str = ""

    @classmethod
    def of(cls, visit: Visit) -> Listing:
        """Read the state from an address; what it cannot mean falls back to the usual."""
        size, mode = visit.param("size") or "", visit.param("show") or ""
        status = visit.param("status")
        given = visit.param("filter") or (f"status = '{status}'" if _is_word(status) else "")
        return cls(
            project=visit.project,
            filter=given.strip(),
            order=(visit.param("order") or "").strip(),
            experiment=visit.param("experiment") or "",
            columns=tuple(column.key for column in chosen_columns(visit.params("col"))),
            mode=mode if mode in MODES else MODES[0],
            size=int(size) if size in map(str, SIZES) else SIZES[0],
            trash=visit.param("trash") == "yes",
            after=visit.param("after") or "",
        )

    def fields(self) -> list[tuple[str, str]]:
        """Return the parameters of the address but where in the list it stands."""
        usual = Listing(project=self.project)
        pairs = [
            ("filter", self.filter),
            ("order", self.order),
            ("experiment", self.experiment),
            *(("col", key) for key in self.columns),
            ("show", self.mode if self.mode != usual.mode else ""),
            ("size", str(self.size) if self.size != usual.size else ""),
            ("trash", "yes" if self.trash else ""),
        ]
        return [(name, value) for name, value in pairs if value]

    def href(self, **changes: object) -> str:
        """Return the address of this state with some of it changed; it begins at the first page."""
        changed = replace(self, **changes)  # type: ignore[arg-type]
        pairs = changed.fields()
        if "after" in changes and changed.after:
            pairs.append(("after", changed.after))
        path = address("p", self.project, "runs")
        return f"{path}?{urlencode(pairs)}" if pairs else path

    @property
    def query(self) -> str:
        """What a saved view keeps."""
        return urlencode(self.fields())

    @property
    def points_href(self) -> str:
        """Where the script finds what it draws between axes."""
        return f"{address('p', self.project, 'runs', 'points')}?{self.query}"

    @property
    def drawn_href(self) -> str:
        """Where the script finds the values of the runs of this page alone."""
        here = [("drawn", "yes"), *([("after", self.after)] if self.after else [])]
        return f"{self.points_href}&{urlencode(here)}"

    def export_href(self, kind: str) -> str:
        """Return where the whole list comes as a file, in these columns and this order."""
        pairs = [*self.fields(), ("format", kind)]
        return f"{address('p', self.project, 'runs', 'export')}?{urlencode(pairs)}"

    def sorted_by(self, column: Column) -> str:
        """Return ``ascending``, ``descending`` or nothing, as the list is sorted by a column."""
        first = self.order.partition(",")[0].strip()
        for ending, direction in (
            (" DESC", "descending"),
            (" ASC", "ascending"),
            ("", "ascending"),
        ):
            if column.order and first.lower() == (column.order + ending).lower():
                return direction
        return ""

    def sort_href(self, column: Column) -> str:
        """Return the address that sorts by a column, or the other way round if it does already."""
        now = self.sorted_by(column)
        descends_first = column.space == "metrics" or column.key in _DESCENDS_FIRST
        descends = now == "ascending" if now else descends_first
        return self.href(order=column.order + (" DESC" if descends else ""))

    @property
    def is_narrowed(self) -> bool:
        """Whether anything but all runs is asked for."""
        return bool(self.filter or self.experiment or self.trash or self.after)


@dataclass(frozen=True)
class Found:
    """What a listing found, or why it could not be read."""

    runs: FoundRuns = NONE
    problem: EverloopError | None = None


def show_list(visit: Visit) -> Response:
    """Show the runs that a filter lets through: as a table, as charts or between axes."""
    listing = Listing.of(visit)
    found = find_runs(visit, listing)
    experiments = _experiment_names(visit, listing.experiment)
    columns = chosen_columns(listing.columns) or usual_columns(
        found.runs.items, with_experiment=not listing.experiment
    )
    views = visit.query("view.list", SavedViews)
    page = visit.show(
        "runs.html",
        listing=listing,
        runs=found.runs,
        problem=found.problem,
        columns=columns,
        cell=cell_writer(visit.project, visit.people),
        numeric=numeric_columns(found.runs.items, columns),
        built_in=[find_column(key) for key in BUILT_IN],
        experiments=experiments,
        views=views.items if views else (),
        sizes=SIZES,
        most_drawn=MOST_DRAWN,
    )
    page.status_code = 200 if found.problem is None else 400
    return page


def _experiment_names(visit: Visit, chosen: str) -> list[str]:
    """Return what may be chosen: the newest experiments, and the one that is chosen already."""
    found = visit.query("experiment.search", FoundExperiments, limit=MOST_EXPERIMENTS)
    names = [item.name for item in found.items] if found else []
    return names if not chosen or chosen in names else [chosen, *names]


def find_runs(visit: Visit, listing: Listing, **limits: object) -> Found:
    """Search; a filter or an order that cannot be read is told and not raised."""
    columns = chosen_columns(listing.columns)
    ask = {
        "filter": listing.filter or None,
        "order": listing.order or None,
        "experiment": (listing.experiment,) if listing.experiment else None,
        "limit": listing.size,
        "after": listing.after or None,
        "deleted": Deleted.DELETED if listing.trash else None,
        "fields": metrics_of(columns) if columns else ("metrics",),
    } | limits
    try:
        return Found(visit.get("run.search", FoundRuns, **ask))
    except InvalidInput as error:
        return Found(problem=error)


def send_names(visit: Visit) -> Response:
    """Send the names that a filter or a column may use."""
    return send_json(visit.get("run.names", RunNames, prefix=visit.param("prefix") or ""))


def send_values(visit: Visit) -> Response:
    """Send values of a parameter or tag that begin as written."""
    answer = visit.get(
        "run.values",
        RunValues,
        space=visit.param("space") or "",
        key=visit.param("key") or "",
        prefix=visit.param("prefix") or "",
    )
    return send_json(answer)


def send_points(visit: Visit) -> Response:
    """Send parameters and last metrics of the runs of a listing, for axes side by side."""
    listing = Listing.of(visit)
    if visit.param("drawn") == "yes":
        found = find_runs(visit, listing, fields=("metrics",))
    else:
        found = find_runs(visit, listing, limit=MOST_POINTS, fields=("metrics",))
    if found.problem is not None:
        raise found.problem
    return send_json(found.runs)


def save_view(visit: Visit) -> Response:
    """Save what the list shows under a name."""
    query = urlencode(parse_qsl(visit.form.get("query", "")))
    visit.edit("view.save", name=visit.form.get("name", "").strip(), query=query)
    return RedirectResponse(f"{address('p', visit.project, 'runs')}?{query}", status_code=303)


def delete_view(visit: Visit) -> Response:
    """Delete a saved view."""
    visit.edit("view.delete", name=visit.form.get("name", ""))
    return visit.redirect("runs")


def delete(visit: Visit) -> Response:
    """Put the ticked runs into the trash."""
    _each(visit, "run.delete", visit.ticked)
    return visit.redirect("runs")


def restore(visit: Visit) -> Response:
    """Take the ticked runs out of the trash."""
    _each(visit, "run.restore", visit.ticked)
    return visit.redirect("runs", trash="yes")


def _each(visit: Visit, verb: str, runs: Iterable[str]) -> None:
    chosen = list(dict.fromkeys(runs))
    if not chosen:
        raise InvalidInput(
            "runs.none_ticked", "No run was ticked.", hint="Go back and tick the runs in the list."
        )
    visit.form.pop("request", None)  # one id of a request is for one call
    for run in chosen:
        visit.edit(verb, run=run)


def _is_word(text: str | None) -> bool:
    return text is not None and text.isascii() and text.isalpha()
