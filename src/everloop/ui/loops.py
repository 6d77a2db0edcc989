"""The loop's runs: the list, one as a timeline, and the switch."""

from __future__ import annotations

from starlette.responses import Response

from everloop.loop.queries import LoopStatus, RunHistory, RunList
from everloop.release.queries import DeploymentList, DeploymentView
from everloop.ui.visit import Visit


def show_list(visit: Visit) -> Response:
    """Show the turns of the loop, newest first, and where each deployment's loop stands."""
    deployments = visit.query("deployment.list", DeploymentList)
    named = {item.deployment.id: item for item in (deployments.items if deployments else ())}
    return visit.show(
        "loops.html",
        runs=visit.query("loop.list", RunList, after=visit.param("after"), limit=50),
        named=named,
        standing={key: visit.query("loop.status", LoopStatus, deployment=key) for key in named},
    )


def show_run(visit: Visit) -> Response:
    """Show one turn of the loop from its cause to its end."""
    history = visit.get("loop.show", RunHistory, id=visit.path("run"))
    run = history.run
    return visit.show(
        "loop_run.html",
        run=run,
        transitions=history.transitions,
        deployment=visit.find("deployment.show", DeploymentView, deployment=run.deployment),
    )


def pause(visit: Visit) -> Response:
    """Keep a deployment's loop from beginning anything."""
    return _switch(visit, "loop.pause")


def resume(visit: Visit) -> Response:
    """Let a paused loop act again."""
    return _switch(visit, "loop.resume")


def _switch(visit: Visit, verb: str) -> Response:
    name = visit.path("name")
    found = visit.get("deployment.show", DeploymentView, deployment=name)
    visit.change(verb, deployment=found.deployment.id)
    return visit.redirect("deployments", found.deployment.name)
