"""The overview: each deployment's turn of the loop at a glance, and what was decided last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from starlette.responses import Response

from everloop.core.errors import NotFound
from everloop.data.model import DatasetVersion
from everloop.data.queries import DatasetList
from everloop.gate.queries import GateList, GateSummary
from everloop.loop.model import LoopState
from everloop.loop.queries import LoopStatus, RunList
from everloop.monitor.model import LossPoint
from everloop.monitor.queries import LossList, MonitorView
from everloop.registry.model import ModelVersion
from everloop.registry.queries import ModelList, ModelVersionList
from everloop.release.queries import DeploymentList, DeploymentView, ReleaseList, ReleaseView
from everloop.track.queries import RunDetails
from everloop.track.search import FoundRuns
from everloop.ui.decisions import last_decisions
from everloop.ui.drawing import Spark, spark
from everloop.ui.render import address
from everloop.ui.visit import Visit
from everloop.ui.words import Tone, plain, tone

BLOCKS: Final = 60
_AT_WORK: Final = {
    LoopState.TRIGGERED: "data",
    LoopState.TRAINING: "train",
    LoopState.GATING: "gate",
    LoopState.RELEASING: "release",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One station of the cycle as it stands."""

    key: str
    title: str
    tone: Tone
    state: str
    headline: str
    detail: str = ""
    href: str | None = None
    at_work: bool = False


@dataclass(frozen=True, slots=True)
class Cycle:
    """One deployment's turn of the loop."""

    view: DeploymentView
    stages: dict[str, Stage]
    loop: LoopStatus | None
    last_turn: str | None
    monitor: MonitorView | None
    loss: float | None
    spark: Spark | None
    shares: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True, slots=True)
class FirstStep:
    """Something a new project still has to do, and the command for it."""

    title: str
    command: str
    done: bool


def show(visit: Visit) -> Response:
    """Show where everything stands."""
    if visit.project not in visit.me.projects:
        # The kernel refuses it too; this only spares the ledger a refusal a second.
        raise NotFound(
            "project.not_found",
            f"There is no project {visit.project[:60]!r} that you may open.",
            hint="Choose one of yours from the overview, or ask its admin for a role.",
        )
    deployments = visit.query("deployment.list", DeploymentList)
    cycles = [_cycle(visit, item) for item in (deployments.items if deployments else ())]
    return visit.show(
        "overview.html",
        cycles=cycles,
        steps=[] if cycles else _first_steps(visit),
        decisions=last_decisions(visit),
    )


def _cycle(visit: Visit, view: DeploymentView) -> Cycle:
    key = view.deployment.id
    monitor = visit.query("monitor.show", MonitorView, deployment=key)
    losses = visit.query("monitor.losses", LossList, deployment=key, limit=BLOCKS)
    loop = visit.query("loop.status", LoopStatus, deployment=key)
    turns = visit.query("loop.list", RunList, deployment=key, limit=1)
    versions = visit.query("model.versions", ModelVersionList, name=view.model, limit=1)
    newest = versions.items[0] if versions and versions.items else None
    gates = visit.query("gate.list", GateList, model=view.model, limit=1)
    releases = visit.query("release.list", ReleaseList, deployment=key, limit=1)
    released = releases.items[0] if releases and releases.items else None
    points = tuple(reversed(losses.items)) if losses else ()
    stages = (
        _data_stage(visit, newest),
        _train_stage(visit, newest),
        _gate_stage(visit, view, gates.items[0] if gates and gates.items else None),
        _release_stage(visit, view, released),
        _serve_stage(visit, view),
        _monitor_stage(visit, view, monitor, points),
    )
    at_work = _AT_WORK.get(loop.live.state) if loop and loop.live else None
    return Cycle(
        view=view,
        stages={stage.key: _lit(stage, at_work) for stage in stages},
        loop=loop,
        last_turn=turns.items[0].why if turns and turns.items else None,
        monitor=monitor,
        loss=points[-1].mean_loss if points else None,
        spark=spark([point.mean_loss for point in points], _changes(points)),
        shares=_shares(view, released),
    )


def _lit(stage: Stage, at_work: str | None) -> Stage:
    if stage.key != at_work:
        return stage
    return Stage(
        stage.key, stage.title, "busy", "at work", stage.headline, stage.detail, stage.href, True
    )


def _changes(points: Sequence[LossPoint]) -> list[int]:
    return [
        index
        for index, (before, after) in enumerate(pairwise(points), 1)
        if before.version != after.version
    ]


def _shares(
    view: DeploymentView, released: ReleaseView | None
) -> tuple[tuple[str, str, float], ...]:
    """Return who answers which part of the traffic, for the bar."""
    if not view.champion:
        return ()
    live = view.live
    if live is None or live.share <= 0:
        return (("champion", view.champion, 1.0),)
    candidate = released.candidate if released and released.release.id == live.id else "new"
    return (("champion", view.champion, 1.0 - live.share), ("canary", candidate, live.share))


def _data_stage(visit: Visit, newest: ModelVersion | None) -> Stage:
    version = None
    if newest and newest.dataset_version:
        version = visit.find("data.show", DatasetVersion, ref=newest.dataset_version)
    if version is None:
        listed = visit.query("data.list", DatasetList, limit=1)
        if listed and listed.items:
            first = listed.items[0]
            target = address("p", visit.project, "datasets", first.name)
            return Stage(
                "data", "Data", "idle", "unused", f"{first.name}@{first.versions}", href=target
            )
        return Stage(
            "data", "Data", "idle", "none yet", "No data", "everloop data commit NAME PATH"
        )
    rows = f"{version.rows:,} rows" if version.rows is not None else "files"
    return Stage(
        "data",
        "Data",
        "good",
        "snapshot",
        f"{version.name}@{version.number}",
        rows,
        address("p", visit.project, "datasets", version.name, version.number),
    )


def _train_stage(visit: Visit, newest: ModelVersion | None) -> Stage:
    if newest is None:
        return Stage(
            "train", "Train", "idle", "none yet", "No model version", "everloop run MODULE:PIPELINE"
        )
    run = visit.find("run.show", RunDetails, run=newest.run) if newest.run else None
    headline = f"{newest.name}@{newest.version}"
    if run is None:
        target = address("p", visit.project, "models", newest.name, newest.version)
        return Stage("train", "Train", "good", "registered", headline, href=target)
    status = run.run.status
    return Stage(
        "train",
        "Train",
        tone(status),
        status,
        headline,
        f"run {run.run.name}",
        address("p", visit.project, "runs", run.run.id),
    )


def _gate_stage(visit: Visit, view: DeploymentView, last: GateSummary | None) -> Stage:
    if last is None:
        return Stage(
            "gate",
            "Gate",
            "idle",
            "none yet",
            "Nothing judged",
            f"everloop gate evaluate {view.model}",
        )
    target = address("p", visit.project, "models", last.name, last.version)
    if last.passed:
        return Stage(
            "gate", "Gate", "good", "passed", f"{last.name}@{last.version}", "all checks", target
        )
    failed = ", ".join(plain(name) for name in last.failed)
    if last.waived is not None:
        told = f"let pass: {last.waived} (refused: {failed})"
        return Stage("gate", "Gate", "warn", "waived", f"{last.name}@{last.version}", told, target)
    return Stage("gate", "Gate", "bad", "refused", f"{last.name}@{last.version}", failed, target)


def _release_stage(visit: Visit, view: DeploymentView, item: ReleaseView | None) -> Stage:
    if item is None:
        command = f"everloop release start {view.deployment.name} {view.model}"
        return Stage("release", "Release", "idle", "none yet", "Nothing released", command)
    release = item.release
    detail = f"{release.share:.0%} of traffic" if release.live and release.share else release.why
    return Stage(
        "release",
        "Release",
        tone(release.state),
        plain(release.state),
        f"{item.model}@{item.candidate}",
        detail,
        address("p", visit.project, "releases", release.id),
    )


def _serve_stage(visit: Visit, view: DeploymentView) -> Stage:
    target = address("p", visit.project, "deployments", view.deployment.name)
    if not view.champion:
        return Stage("serve", "Serve", "idle", "no champion", "Nobody answers", href=target)
    detail = f"before: {view.previous}" if view.previous else "no version before it to go back to"
    return Stage(
        "serve", "Serve", "good", "champion", f"{view.model}@{view.champion}", detail, target
    )


def _monitor_stage(
    visit: Visit, view: DeploymentView, monitor: MonitorView | None, points: Sequence[LossPoint]
) -> Stage:
    target = address("p", visit.project, "deployments", view.deployment.name)
    if monitor is None or not monitor.predictions:
        return Stage("monitor", "Monitor", "idle", "nothing yet", "No predictions", href=target)
    detail = f"{monitor.labelled:,} of {monitor.predictions:,} labelled"
    without = "no block is full yet" if monitor.labelled else "no labels yet"
    headline = f"loss {points[-1].mean_loss:.4g}" if points else without
    opened = [alert for alert in monitor.open_alerts if alert.state == "open"]
    if opened:
        count = f"{len(opened)} alert{'s' if len(opened) > 1 else ''}"
        return Stage("monitor", "Monitor", "bad", count, headline, detail, target)
    return Stage("monitor", "Monitor", "good", "quiet", headline, detail, target)


def _first_steps(visit: Visit) -> list[FirstStep]:
    data = visit.query("data.list", DatasetList, limit=1)
    runs = visit.query("run.search", FoundRuns, limit=1)
    models = visit.query("model.list", ModelList, limit=1)
    gates = visit.query("gate.list", GateList, limit=1)
    return [
        FirstStep("Commit data", "everloop data commit NAME PATH", bool(data and data.items)),
        FirstStep("Train", "everloop run MODULE:PIPELINE", bool(runs and runs.items)),
        FirstStep(
            "Register what it trained", "everloop.register(...)", bool(models and models.items)
        ),
        FirstStep(
            "Let its gate judge it", "everloop gate evaluate MODEL", bool(gates and gates.items)
        ),
        FirstStep("Release it", "everloop release deploy NAME MODEL", False),
    ]
