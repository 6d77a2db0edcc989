"""What the script of the charts asks for: lines of metrics, whole or only what is new."""

from __future__ import annotations

from starlette.responses import Response

from everloop.core.errors import InvalidInput
from everloop.track.plots import Known, PlotLines
from everloop.ui.charts import send_json
from everloop.ui.visit import Visit


def send_plot(visit: Visit) -> Response:
    """Send lines; ``known`` names by position in the lists what the script has already."""
    runs, keys = visit.params("run"), visit.params("key")
    answer = visit.get(
        "run.plot",
        PlotLines,
        runs=runs,
        keys=keys,
        axis=visit.param("axis"),
        points=visit.param("points"),
        first=_number(visit.param("first")),
        last=_number(visit.param("last")),
        known=[_known(text, runs, keys) for text in visit.params("known")],
    )
    return send_json(answer)


def _known(text: str, runs: list[str], keys: list[str]) -> Known:
    try:
        run, key, step, count = (int(part) for part in text.split(":"))
        return Known(run=runs[run], key=keys[key], step=step, count=count)
    except (ValueError, IndexError) as error:
        raise _invalid("known", text) from error


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise _invalid("first and last", text or "") from error


def _invalid(name: str, text: str) -> InvalidInput:
    return InvalidInput(
        "plot.invalid",
        f"{text[:40]!r} is no value of {name}.",
        hint="Reload the page; its script asks anew.",
    )
