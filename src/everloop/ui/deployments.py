"""Deployments: how they are doing, what drifted, which releases came and went, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from everloop.loop.queries import LoopStatus
from everloop.monitor.drift import ColumnDrift
from everloop.monitor.model import Alert, LossPoint, Window
from everloop.monitor.queries import AlertList, LossList, MonitorView, WindowList
from everloop.registry.queries import ModelView
from everloop.release.queries import DeploymentList, DeploymentView, ReleaseList, ReleaseView
from everloop.ui.charts import Line, Mark, Series, send_json
from everloop.ui.visit import Visit

WINDOWS: Final = 12
POINTS: Final = 1000
_LEVELS: Final = (0.02, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class Cell:
    """How far one column had moved in one window; level 0 to 5 is the depth of its colour."""

    effect: float | None
    level: int
    alarm: bool
    title: str


@dataclass(frozen=True, slots=True)
class HeatRow:
    """A column and its cells, one a window, oldest first."""

    column: str
    cells: tuple[Cell, ...]


def show_list(visit: Visit) -> Response:
    """Show the deployments of the project."""
    found = visit.query("deployment.list", DeploymentList, after=visit.param("after"))
    standing = {
        item.deployment.id: visit.query("monitor.show", MonitorView, deployment=item.deployment.id)
        for item in (found.items if found else ())
    }
    return visit.show("deployments.html", deployments=found, standing=standing)


def show_deployment(visit: Visit) -> Response:
    """Show one deployment: traffic, error, drift, alerts, releases, and what may be done."""
    found = visit.get("deployment.show", DeploymentView, deployment=visit.path("name"))
    key = found.deployment.id
    windows = visit.query("monitor.windows", WindowList, deployment=key, limit=WINDOWS)
    losses = visit.query("monitor.losses", LossList, deployment=key, limit=1)
    alerts = visit.query("alert.list", AlertList, deployment=key, limit=50)
    closed = tuple(reversed(windows.items)) if windows else ()
    return visit.show(
        "deployment.html",
        view=found,
        deployment=found.deployment,
        monitor=visit.query("monitor.show", MonitorView, deployment=key),
        latest=losses.items[0] if losses and losses.items else None,
        windows=closed,
        heat=heat_rows(closed),
        alerts=sorted(alerts.items, key=_urgency) if alerts else [],
        releases=visit.query("release.list", ReleaseList, deployment=key, limit=30),
        live=_live(visit, found),
        loop=visit.query("loop.status", LoopStatus, deployment=key),
    )


def show_release(visit: Visit) -> Response:
    """Show one release with the evidence of each guardrail."""
    found = visit.get("release.show", ReleaseView, release=visit.path("release"))
    return visit.show("release.html", view=found, release=found.release)


def send_losses(visit: Visit) -> Response:
    """Send the mean loss of each block of labelled answers, with the changes of champion."""
    found = visit.get("deployment.show", DeploymentView, deployment=visit.path("name"))
    answer = visit.query("monitor.losses", LossList, deployment=found.deployment.id, limit=POINTS)
    points = tuple(reversed(answer.items)) if answer else ()
    names: dict[str, str] = {point.version: "" for point in points}
    for version in names:
        model = visit.find("model.show", ModelView, ref=version)
        names[version] = model.version.version if model else version[-8:]
    return send_json(loss_series(points, names))


def loss_series(points: Sequence[LossPoint], names: dict[str, str]) -> Series:
    """Return the chart of losses over event time."""
    marks = [
        Mark(x=after.at.timestamp(), label=names.get(after.version, ""))
        for before, after in zip((None, *points), points, strict=False)
        if before is None or before.version != after.version
    ]
    return Series(
        x=tuple(point.at.timestamp() for point in points),
        lines=(Line(label="mean loss", values=tuple(point.mean_loss for point in points)),),
        is_time=True,
        marks=tuple(marks),
    )


def heat_rows(windows: Sequence[Window]) -> list[HeatRow]:
    """Return one row for each column that any window tested, alarmed ones first."""
    tested = [
        {column.column: column for column in window.report.columns} if window.report else {}
        for window in windows
    ]
    names = dict.fromkeys(name for columns in tested for name in columns)
    rows = [HeatRow(name, tuple(_cell(columns.get(name)) for columns in tested)) for name in names]
    return sorted(rows, key=lambda row: (-sum(cell.alarm for cell in row.cells), row.column))


def roll_back(visit: Visit) -> Response:
    """End the live release or go back to the champion before."""
    name = visit.path("name")
    visit.change("release.rollback", deployment=name, why=visit.form.get("reason", "").strip())
    return visit.redirect("deployments", name)


def acknowledge(visit: Visit) -> Response:
    """Mark an alert as seen."""
    visit.change("alert.acknowledge", id=visit.path("alert"))
    back = visit.form.get("back", "")
    return visit.redirect("deployments", back) if back else visit.redirect("deployments")


def _cell(column: ColumnDrift | None) -> Cell:
    if column is None:
        return Cell(None, 0, alarm=False, title="not tested")
    effects = {name: value for test in column.tests for name, value in test.effects.items()}
    effect = effects.get("ks", effects.get("js", effects.get("missing")))
    level = sum((effect or 0.0) >= limit for limit in _LEVELS)
    parts = [f"{name} {value:.3g}" for name, value in effects.items()]
    parts.append(f"adjusted p {column.adjusted_p:.2g}")
    return Cell(effect, level, alarm=column.alarm, title=", ".join(parts))


def _live(visit: Visit, found: DeploymentView) -> ReleaseView | None:
    if found.live is None:
        return None
    return visit.find("release.show", ReleaseView, release=found.live.id)


def _urgency(alert: Alert) -> tuple[int, float]:
    order = {"open": 0, "acknowledged": 1}.get(alert.state, 2)
    return order, -alert.raised_at.timestamp()
