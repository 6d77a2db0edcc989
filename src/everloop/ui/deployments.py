"""Deployments: how they are doing, what drifted, which releases came and went, and the way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from starlette.responses import Response

from everloop.loop.queries import LoopStatus
from everloop.monitor.drift import ColumnDrift
from everloop.monitor.model import Alert, LossPoint, Window
from everloop.monitor.queries import AlertList, LossList, MonitorView, WindowList
from everloop.monitor.refusals import RefusedList
from everloop.registry.queries import ModelView
from everloop.release.history import PROCESSES, History
from everloop.release.queries import DeploymentList, DeploymentView, ReleaseList, ReleaseView
from everloop.release.status import ReleaseStatus
from everloop.ui.charts import Line, Mark, Series, send_json
from everloop.ui.visit import Visit

WINDOWS: Final = 12
POINTS: Final = 1000
LEAST_EVIDENCE: Final = 1e-6
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
        refused=visit.query("feedback.refused", RefusedList, deployment=key),
        latest=losses.items[0] if losses and losses.items else None,
        windows=closed,
        heat=heat_rows(closed),
        alerts=sorted(alerts.items, key=_urgency) if alerts else [],
        releases=visit.query("release.list", ReleaseList, deployment=key, limit=30),
        live=_live(visit, found),
        loop=visit.query("loop.status", LoopStatus, deployment=key),
        standing=visit.query("release.status", ReleaseStatus, deployment=key),
    )


def show_release(visit: Visit) -> Response:
    """Show one release with the evidence of each guardrail, and the way back."""
    found = visit.get("release.show", ReleaseView, release=visit.path("release"))
    deployment = visit.get("deployment.show", DeploymentView, deployment=found.release.deployment)
    return visit.show(
        "release.html",
        view=found,
        release=found.release,
        deployment=deployment,
        is_watched=deployment.deployment.watched == found.release.id,
    )


def send_traffic(visit: Visit) -> Response:
    """Send the candidate's share over the time of a release: as intended, and as it came."""
    found = visit.get("release.history", History, release=visit.path("release"))
    return send_json(traffic_series(found))


def send_evidence(visit: Visit) -> Response:
    """Send the evidence against a candidate over the time of its release, in powers of ten."""
    found = visit.get("release.history", History, release=visit.path("release"))
    return send_json(evidence_series(found, "bad"))


def send_proof(visit: Visit) -> Response:
    """Send the evidence that a candidate is no worse, likewise."""
    found = visit.get("release.history", History, release=visit.path("release"))
    return send_json(evidence_series(found, "good"))


def traffic_series(found: History) -> Series:
    """Return the chart of the traffic split."""
    figures = _columns(found)
    champion, canary = figures["champion"], figures["canary"]
    came: list[float | None] = []
    for before, after in zip((None, *range(len(canary))), range(len(canary)), strict=False):
        ours = (canary[after] or 0.0) - ((canary[before] or 0.0) if before is not None else 0.0)
        theirs = (champion[after] or 0.0) - (
            (champion[before] or 0.0) if before is not None else 0.0
        )
        came.append(ours / (ours + theirs) if ours + theirs > 0 else None)
    return Series(
        x=_times(figures),
        lines=(
            Line(label="intended share", values=figures["share"]),
            Line(label="share that came", values=tuple(came)),
        ),
        is_time=True,
        marks=_turns(figures),
    )


def evidence_series(found: History, part: Literal["bad", "good"]) -> Series:
    """Return the chart of the evidence; a line for each guardrail that something speaks of."""
    figures = _columns(found)
    against = part == "bad"
    level = math.log10(found.rollback_at if against else found.promote_at)
    lines = [Line(label="rolls back" if against else "proves", values=(level,) * len(found.points))]
    if against:
        combined = (
            None if value is None else math.log10(max(value, LEAST_EVIDENCE))
            for value in figures["evidence_bad"]
        )
        lines.append(Line(label="all together", values=tuple(combined)))
    for name, values in figures.items():
        kind, _, guardrail = name.partition(":")
        if guardrail and kind == part and any(values):
            # One colour in both charts; the first two look like those of the level and the sum.
            place = PROCESSES.index(guardrail) + 2
            lines.append(Line(label=guardrail.replace("_", " "), values=values, colour=place))
    return Series(x=_times(figures), lines=tuple(lines), is_time=True, marks=_turns(figures))


def _columns(found: History) -> dict[str, tuple[float | None, ...]]:
    return {
        name: tuple(point[place] if place < len(point) else None for point in found.points)
        for place, name in enumerate(found.figures)
    }


def _times(figures: dict[str, tuple[float | None, ...]]) -> tuple[float, ...]:
    return tuple(value or 0.0 for value in figures["at"])


def _turns(figures: dict[str, tuple[float | None, ...]]) -> tuple[Mark, ...]:
    """Return a mark for each turn, with the share that it led to."""
    after = (*figures["share"][1:], None)
    return tuple(
        Mark(x=at or 0.0, label="end" if share is None else f"to {share:.0%}")
        for at, share, is_turn in zip(figures["at"], after, figures["turn"], strict=True)
        if is_turn
    )


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


def halt(visit: Visit) -> Response:
    """Throw the kill switch; the champion goes on answering, or the version that is pinned."""
    name = visit.path("name")
    pinned = visit.form.get("back", "") or None
    why = visit.form.get("reason", "").strip()
    visit.change("deployment.halt", deployment=name, version=pinned, why=why)
    return visit.redirect("deployments", name)


def resume(visit: Visit) -> Response:
    """Take a halt back."""
    name = visit.path("name")
    visit.change("deployment.resume", deployment=name)
    return visit.redirect("deployments", name)


def drill(visit: Visit) -> Response:
    """Exercise the way back."""
    name = visit.path("name")
    visit.change("deployment.drill", deployment=name)
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
