"""The kill switch of a deployment, and the drills that show that it works.

A halt ends the live release, keeps every further one from beginning, and may pin the traffic to a
named version or to a constant. A drill does the same for a moment on the live deployment and notes
how long the way there and back took, as the server that answers saw it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from msgspec import Meta, Struct, structs

from everloop.core.clock import Instant
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query, verb
from everloop.registry.bounds import output_bounds
from everloop.registry.evidence import require_pass
from everloop.registry.formats import require_judgeable, require_served
from everloop.registry.lookup import resolve_model
from everloop.registry.model import ModelVersion
from everloop.release import moving
from everloop.release.allowing import require_not_halted
from everloop.release.model import Deployment, Drill, DrillState, Halt, State
from everloop.release.queries import (
    DeploymentView,
    Name,
    get_deployment,
    live_release,
    view_deployment,
)

Why = Annotated[str, Meta(max_length=2_000)]
DRILL_S = 60.0
"""A drill whose switch is not in force by then has failed."""


class HaltDeployment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The deployment to halt, and what answers until it is resumed.

    Attributes:
        version: Ref or id of the version that answers; the champion when neither is given.
        answer: The number that answers instead of any version; one that would be valid of it.
    """

    deployment: Name
    version: Name | None = None
    answer: Annotated[float, Meta(ge=-1e300, le=1e300)] | None = None
    why: Why = ""


class ResumeDeployment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The halted deployment that goes on."""

    deployment: Name


class DrillDeployment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The deployment to exercise the way back on.

    Attributes:
        version: Ref or id of the version to pin; the champion before when None.
    """

    deployment: Name
    version: Name | None = None


class SettleDrill(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server did of a drill.

    Attributes:
        epoch: The epoch in force at the server.
        applied_at: Since when, by the server's clock.
        refused: Why it could not follow.
    """

    drill: Name
    epoch: Annotated[int, Meta(ge=0)]
    applied_at: Instant
    refused: Annotated[str, Meta(max_length=500)] = ""


class DrillView(Struct, frozen=True, kw_only=True):
    """A drill with the names behind its ids; the pinned version as a semantic version."""

    drill: Drill
    deployment: str
    version: str


class ListDrills(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The deployment whose drills to list, newest first."""

    deployment: Name
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class DrillList(Struct, frozen=True, kw_only=True):
    """Drills of a deployment."""

    items: tuple[DrillView, ...]


@verb("deployment.halt", permission="deployment:release")
def halt_deployment(ask: HaltDeployment, work: Work) -> DeploymentView:
    """Throw the kill switch: end the live release, begin none, and pin the traffic if asked.

    A version needs a passed gate or a waiver, like any that answers. Halting again changes what
    answers.

    Raises:
        NotFound: no such deployment or version.
        InvalidInput: ``deployment.two_answers`` for both a version and a constant,
            ``deployment.constant_unsupported``, ``deployment.constant_out_of_range``, or
            ``release.other_model``.
        GateFailed: the version was never admitted.
    """
    deployment = get_deployment(work, ask.deployment)
    if ask.version is not None and ask.answer is not None:
        raise InvalidInput(
            "deployment.two_answers",
            "A halted deployment is answered by a version or by a constant, not by both.",
            hint="Leave one of them out.",
        )
    _require_constant(work, deployment, ask.answer)
    version = None if ask.version is None else _admitted(work, deployment, ask.version)
    why = ask.why or work.reason or "Halted by a person."
    live = live_release(work, deployment)
    if live is not None:
        ended = State.ROLLED_BACK if live.state is State.CANARY else State.REFUSED
        moving.end(work, live, ended, f"Halted: {why}", work.now)
    _end_drill(work, deployment, f"The deployment was halted: {why}")
    deployment = work.get(Deployment, deployment.id)
    halt = Halt(
        at=work.now,
        by=work.caller.actor,
        why=why,
        version=None if version is None else version.id,
        answer=ask.answer,
    )
    _set(work, deployment, halt)
    if version is not None:
        work.link(f"deployment:{deployment.id}", "pinned", f"model_version:{version.id}")
    return view_deployment(work, work.get(Deployment, deployment.id))


@verb("deployment.resume", permission="deployment:release")
def resume_deployment(ask: ResumeDeployment, work: Work) -> DeploymentView:
    """Take a halt back: the champion answers, and releases may begin.

    Raises:
        NotFound: ``deployment.not_found``.
        Conflict: ``deployment.not_halted``.
    """
    deployment = get_deployment(work, ask.deployment)
    if deployment.halt is None:
        raise Conflict(
            "deployment.not_halted",
            f"The deployment {deployment.name!r} is not halted.",
            hint="There is nothing to do.",
        )
    _end_drill(work, deployment, "The deployment was resumed by a person.")
    _set(work, work.get(Deployment, deployment.id), None)
    return view_deployment(work, work.get(Deployment, deployment.id))


@verb("deployment.drill", permission="deployment:release")
def drill_deployment(ask: DrillDeployment, work: Work) -> DrillView:
    """Exercise the way back on the live deployment: pin another version, then return.

    Returns at once; the server's own report moves the drill on, and the champion answers again
    as soon as the switch was seen to be in force.

    Raises:
        NotFound: ``deployment.not_found``.
        Conflict: ``deployment.halted``, ``release.live``, ``deployment.no_champion``, or
            ``drill.nothing_to_switch`` without another version to pin.
    """
    deployment = get_deployment(work, ask.deployment)
    require_not_halted(deployment)
    if live_release(work, deployment) is not None:
        raise Conflict(
            "release.live",
            f"The deployment {deployment.name!r} has a live release.",
            hint="Wait for its end: a drill would bend its evidence.",
        )
    if deployment.champion is None:
        raise Conflict(
            "deployment.no_champion",
            f"The deployment {deployment.name!r} answers nothing yet.",
            hint="Release a version first.",
        )
    named = None if ask.version is None else _admitted(work, deployment, ask.version).id
    version = named or deployment.previous
    if version is None or version == deployment.champion:
        # To pin the champion switches nothing, and would be kept as evidence of a way back.
        raise Conflict(
            "drill.nothing_to_switch",
            f"The deployment {deployment.name!r} has no champion before to practise with."
            if version is None
            else f"The version answers for {deployment.name!r} already: nothing would be switched.",
            hint=f"Name another version of it: `everloop release drill {deployment.name} "
            "--version NAME@VERSION`.",
        )
    drill = Drill(
        id=work.new_id(),
        project=work.project,
        deployment=deployment.id,
        state=DrillState.SWITCHING,
        version=version,
        epoch=deployment.epoch + 1,
        started_at=work.now,
        started_by=work.caller.actor,
        asked_at=work.now,
    )
    work.insert(drill)
    halt = Halt(at=work.now, by=work.caller.actor, why="A drill.", version=version, drill=drill.id)
    _set(work, deployment, halt)
    work.touch(f"drill:{drill.id}")
    work.link(f"drill:{drill.id}", "exercised", f"deployment:{deployment.id}")
    return _view(work, drill, deployment)


@verb("deployment.settle", permission="deployment:admin")
def settle_drill(ask: SettleDrill, work: Work) -> DrillView:
    """Note what the server did of a drill; asked by the process that reads the server's report.

    Raises:
        NotFound: ``drill.not_found``.
    """
    drill = work.get(Drill, Id(ask.drill.removeprefix("drill:")))
    deployment = work.get(Deployment, drill.deployment)
    view = _view(work, drill, deployment)
    if drill.state in {DrillState.PASSED, DrillState.FAILED}:
        return view
    is_late = work.now - drill.asked_at > timedelta(seconds=DRILL_S)
    if ask.refused or (ask.epoch < drill.epoch and is_late):
        words = ask.refused or f"The server did not follow within {DRILL_S:.0f} seconds."
        _end_drill(work, deployment, words)
        current = work.get(Deployment, deployment.id)
        if current.halt is not None and current.halt.drill == drill.id:
            _set(work, current, None)
        return structs.replace(view, drill=work.get(Drill, drill.id))
    if ask.epoch < drill.epoch:
        return view
    took_ms = max(0.0, (ask.applied_at - drill.asked_at).total_seconds() * 1000.0)
    if drill.state is DrillState.SWITCHING:
        deployment = _set(work, deployment, None)
        moved = structs.replace(
            drill,
            state=DrillState.RETURNING,
            switch_ms=took_ms,
            epoch=deployment.epoch,
            asked_at=work.now,
        )
    else:
        why = f"Switched within {drill.switch_ms or 0.0:.0f} ms, back within {took_ms:.0f} ms."
        moved = structs.replace(
            drill, state=DrillState.PASSED, return_ms=took_ms, ended_at=work.now, why=why
        )
    work.touch(f"drill:{drill.id}", f"deployment:{deployment.id}")
    return structs.replace(view, drill=work.replace(moved))


@query("deployment.drills", permission="deployment:read")
def list_drills(ask: ListDrills, view: View) -> DrillList:
    """List the drills of a deployment, newest first.

    Raises:
        NotFound: ``deployment.not_found``.
    """
    deployment = get_deployment(view, ask.deployment)
    rows = view.select(Drill, *where(deployment=deployment.id), descending=True, limit=ask.limit)
    return DrillList(items=tuple(_view(view, row, deployment) for row in rows))


def _view(view: View, drill: Drill, deployment: Deployment) -> DrillView:
    version = view.get(ModelVersion, drill.version).version
    return DrillView(drill=drill, deployment=deployment.name, version=version)


def live_drills(view: View) -> list[Drill]:
    """Return the drills that wait for their server."""
    waiting = (DrillState.SWITCHING, DrillState.RETURNING)
    return [drill for state in waiting for drill in view.select(Drill, *where(state=state.value))]


def _require_constant(view: View, deployment: Deployment, answer: float | None) -> None:
    champion = None if deployment.champion is None else view.get(ModelVersion, deployment.champion)
    if answer is not None and (champion is None or champion.signature.outputs):
        raise InvalidInput(
            "deployment.constant_unsupported",
            f"No one number can answer for {deployment.name!r}: its champion answers one a class."
            if champion
            else f"The deployment {deployment.name!r} has no champion to answer for.",
            hint="Pin a version instead.",
        )
    if answer is None or champion is None:
        return
    low, high = output_bounds(champion.signature)
    if (low is not None and answer < low) or (high is not None and answer > high):
        raise InvalidInput(
            "deployment.constant_out_of_range",
            f"{answer:g} is no answer that {deployment.name!r} gives: those lie "
            f"{_between(low, high)}, and another one counts as invalid.",
            hint="Give a number in that range, or pin a version.",
        )


def _between(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"at {high:g} or below" if low is None else f"at {low:g} or above"
    return f"between {low:g} and {high:g}"


def _admitted(work: Work, deployment: Deployment, ref: str) -> ModelVersion:
    version = resolve_model(work, ref)
    if version.model != deployment.model:
        raise InvalidInput(
            "release.other_model",
            f"{version.name}@{version.version} is no version of the model that "
            f"{deployment.name!r} serves.",
            hint="Name a version of the deployment's model.",
        )
    require_judgeable(version)
    require_served(version)
    require_pass(work, version)
    return version


def _set(work: Work, deployment: Deployment, halt: Halt | None) -> Deployment:
    work.touch(f"deployment:{deployment.id}")
    return work.replace(structs.replace(deployment, halt=halt, epoch=deployment.epoch + 1))


def _end_drill(work: Work, deployment: Deployment, why: str) -> None:
    """Fail the drills of a deployment that still wait."""
    for drill in live_drills(work):
        if drill.deployment == deployment.id:
            work.touch(f"drill:{drill.id}")
            work.replace(
                structs.replace(drill, state=DrillState.FAILED, ended_at=work.now, why=why)
            )
