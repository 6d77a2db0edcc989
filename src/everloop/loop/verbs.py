"""Verbs of the loop: claim it, begin a run, move it on, switch it off and on."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from everloop.core.clock import Instant
from everloop.core.errors import Conflict, InvalidInput, StaleVersion
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import verb
from everloop.loop.model import (
    FINAL,
    NEXT,
    LoopLease,
    LoopRun,
    LoopState,
    LoopSwitch,
    LoopTransition,
    LoopTurn,
)

IdText = Annotated[Id, Meta(max_length=60)]
Words = Annotated[str, Meta(max_length=2_000)]


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Claim(_Ask, frozen=True, kw_only=True):
    """Ask for the control of a deployment's loop.

    Attributes:
        owner: Names the controller; a new process has a new name.
        seconds: Length of the lease.
    """

    deployment: IdText
    owner: Annotated[str, Meta(max_length=100)]
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The lease as it stands; ``fence`` is only good for the owner."""

    owner: str
    fence: int
    until: Instant


@verb("loop.claim", permission="loop:admin")
def claim(ask: Claim, work: Work) -> Lease:
    """Take or renew the lease on a loop; leaves it with its owner while that one's lasts."""
    until = work.now + timedelta(seconds=ask.seconds)
    held = work.first(LoopLease, *where(deployment=ask.deployment))
    if held is None:
        held = work.insert(
            LoopLease(
                id=work.new_id(),
                project=work.project,
                deployment=ask.deployment,
                owner=ask.owner,
                fence=1,
                until=until,
            )
        )
    elif held.owner == ask.owner:
        held = work.replace(msgspec.structs.replace(held, until=until))
    elif held.until <= work.now:
        changed = msgspec.structs.replace(held, owner=ask.owner, fence=held.fence + 1, until=until)
        held = work.replace(changed)
    return Lease(owner=held.owner, fence=held.fence, until=held.until)


class StartRun(_Ask, frozen=True, kw_only=True):
    """Ask to begin a run.

    Attributes:
        cause: ``alert:<id>`` or ``manual``.
        at: The loop's time.
    """

    deployment: IdText
    model: Annotated[str, Meta(max_length=100)]
    cause: Annotated[str, Meta(max_length=60)]
    at: Instant
    fence: int
    why: Words


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it stands."""

    run: LoopRun


@verb("loop.start", permission="loop:admin")
def start(ask: StartRun, work: Work) -> RunView:
    """Begin a run of the loop.

    Raises:
        StaleVersion: ``loop.fenced`` when another controller took over.
        Conflict: ``loop.live`` while another run is not final, ``loop.paused`` when switched off.
    """
    _require_fence(work, ask.deployment, ask.fence)
    switch = work.first(LoopSwitch, *where(deployment=ask.deployment))
    if switch is not None and not switch.is_on:
        raise Conflict("loop.paused", "The loop is paused.", hint="Use `everloop loop resume`.")
    if work.first(LoopRun, *where(live=ask.deployment)):
        raise Conflict(
            "loop.live",
            "A run of this loop is under way.",
            hint="Wait for its end; `everloop loop list` shows it.",
        )
    run = work.insert(
        LoopRun(
            id=work.new_id(),
            project=work.project,
            deployment=ask.deployment,
            model=ask.model,
            live=ask.deployment,
            state=LoopState.TRIGGERED,
            cause=ask.cause,
            caused_at=ask.at,
            started_at=work.now,
            updated_at=work.now,
            ended_at=None,
            attempt=0,
            transitions=1,
            training=None,
            holdout=None,
            version=None,
            report=None,
            release=None,
            why=ask.why,
        )
    )
    _note(work, run, None, ask.fence, ask.at)
    node = f"loop_run:{run.id}"
    work.touch(node, f"deployment:{ask.deployment}")
    if ask.cause.startswith("alert:"):
        work.link(node, "caused_by", ask.cause)
    return RunView(run=run)


class Advance(_Ask, frozen=True, kw_only=True):
    """Ask to move a run on.

    Attributes:
        before: The state that the caller believes it is in.
        after: The next state; TRAINING again counts another attempt.
        at: The loop's time.
    """

    run: IdText
    before: LoopState
    after: LoopState
    fence: int
    at: Instant
    why: Words
    training: IdText | None = None
    holdout: IdText | None = None
    version: IdText | None = None
    report: IdText | None = None
    release: IdText | None = None


@verb("loop.advance", permission="loop:admin")
def advance(ask: Advance, work: Work) -> RunView:
    """Move a run to its next state; compare-and-swap on state and fence.

    Raises:
        NotFound: ``loop_run.not_found``.
        StaleVersion: ``loop.fenced`` or ``loop.moved`` when somebody else was first.
        InvalidInput: ``loop.no_such_step``.
    """
    run = work.get(LoopRun, ask.run)
    _require_fence(work, run.deployment, ask.fence)
    if run.state is not ask.before:
        raise StaleVersion(
            "loop.moved",
            f"The run is {run.state.value}, not {ask.before.value}.",
            hint="Read it again.",
        )
    is_retry = ask.before is ask.after is LoopState.TRAINING
    if not is_retry and ask.after not in NEXT.get(ask.before, frozenset()):
        raise InvalidInput(
            "loop.no_such_step",
            f"A run can't go from {ask.before.value} to {ask.after.value}.",
            hint="The states are drawn in docs/explanation/loop.md.",
        )
    is_final = ask.after in FINAL
    given = {
        name: getattr(ask, name)
        for name in ("training", "holdout", "version", "report", "release")
        if getattr(ask, name) is not None
    }
    moved = work.replace(
        msgspec.structs.replace(
            run,
            state=ask.after,
            live=None if is_final else run.live,
            updated_at=work.now,
            ended_at=work.now if is_final else None,
            attempt=run.attempt + (ask.after is LoopState.TRAINING),
            transitions=run.transitions + 1,
            why=ask.why,
            **given,
        )
    )
    _note(work, moved, ask.before, ask.fence, ask.at)
    _link(work, moved, given)
    return RunView(run=moved)


def _link(work: Work, run: LoopRun, given: dict[str, Id]) -> None:
    node = f"loop_run:{run.id}"
    work.touch(node, f"deployment:{run.deployment}")
    kinds = {
        "training": ("froze", "dataset_version"),
        "holdout": ("froze", "dataset_version"),
        "version": ("trained", "model_version"),
        "report": ("asked", "gate_report"),
        "release": ("began", "release"),
    }
    for name, key in given.items():
        relation, kind = kinds[name]
        work.link(node, relation, f"{kind}:{key}")


def _note(work: Work, run: LoopRun, before: LoopState | None, fence: int, at: Instant) -> None:
    work.insert(
        LoopTransition(
            id=work.new_id(),
            project=work.project,
            run=run.id,
            seq=run.transitions,
            before=before,
            after=run.state,
            fence=fence,
            at=at,
            made_at=work.now,
            why=run.why,
        )
    )


def _require_fence(work: Work, deployment: Id, fence: int) -> None:
    lease = work.first(LoopLease, *where(deployment=deployment))
    if lease is None or lease.fence != fence:
        raise StaleVersion(
            "loop.fenced",
            "Another controller has taken over this loop.",
            hint="Claim the lease again before acting.",
        )


class Turn(_Ask, frozen=True, kw_only=True):
    """Say how far the controller has come."""

    deployment: IdText
    segment_seq: int
    feedback_seq: int
    is_idle: bool


class TurnView(msgspec.Struct, frozen=True, kw_only=True):
    """How far the controller has come; None before its first round."""

    turn: LoopTurn | None


@verb("loop.turn", permission="loop:admin")
def turn(ask: Turn, work: Work) -> TurnView:
    """Note that a round of the controller is finished, for those who wait for it."""
    last = work.first(LoopTurn, *where(deployment=ask.deployment))
    number = last.number + 1 if last else 1
    fresh = LoopTurn(
        id=last.id if last else work.new_id(),
        revision=last.revision if last else 0,
        project=work.project,
        deployment=ask.deployment,
        number=number,
        segment_seq=ask.segment_seq,
        feedback_seq=ask.feedback_seq,
        is_idle=ask.is_idle,
    )
    return TurnView(turn=work.replace(fresh) if last else work.insert(fresh))


class Pause(_Ask, frozen=True, kw_only=True):
    """Ask to switch a loop off; the reason comes with the call."""

    deployment: IdText


class SwitchView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a loop may begin runs."""

    deployment: Id
    is_on: bool
    why: str


@verb("loop.pause", permission="loop:release")
def pause(ask: Pause, work: Work) -> SwitchView:
    """Keep a loop from beginning anything; a live release goes on being guarded.

    A run under way stays where it is, unless its release has begun, until the loop is resumed.
    """
    return _switch(work, ask.deployment, is_on=False)


class Resume(Pause, frozen=True, kw_only=True):
    """Ask to switch a loop on again."""


@verb("loop.resume", permission="loop:release")
def resume(ask: Resume, work: Work) -> SwitchView:
    """Let a paused loop act again."""
    return _switch(work, ask.deployment, is_on=True)


def _switch(work: Work, deployment: Id, *, is_on: bool) -> SwitchView:
    why = work.reason or "no reason given"
    held = work.first(LoopSwitch, *where(deployment=deployment))
    if held is not None and held.is_on == is_on:
        return SwitchView(deployment=deployment, is_on=held.is_on, why=held.why)
    fresh = LoopSwitch(
        id=held.id if held else work.new_id(),
        revision=held.revision if held else 0,
        project=work.project,
        deployment=deployment,
        is_on=is_on,
        who=work.caller.actor,
        why=why,
        at=work.now,
    )
    kept = work.replace(fresh) if held else work.insert(fresh)
    work.touch(f"deployment:{deployment}")
    return SwitchView(deployment=deployment, is_on=kept.is_on, why=kept.why)
