"""The loop's own verbs: leases and fences, one live run, legal steps, repeats, the switch."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from everloop.core.errors import Conflict, Denied, InvalidInput, StaleVersion
from everloop.core.ids import Id
from everloop.kernel.authz import Role
from everloop.loop import queries, verbs
from everloop.loop.model import LoopRun, LoopState
from tests.kit import World, world

DEPLOYMENT = Id("deployment-1")
AT = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def made() -> World:
    return world()


def claim(made: World, owner: str = "first", seconds: float = 30.0) -> verbs.Lease:
    ask = verbs.Claim(deployment=DEPLOYMENT, owner=owner, seconds=seconds)
    return made.loop.perform("loop.claim", ask, verbs.Lease)


def start(made: World, fence: int, request: str | None = None) -> LoopRun:
    ask = verbs.StartRun(
        deployment=DEPLOYMENT, model="m", cause="manual", at=AT, fence=fence, why="a test"
    )
    return made.loop.perform("loop.start", ask, verbs.RunView, request=request).run


def advance(
    made: World,
    run: LoopRun,
    after: LoopState,
    fence: int,
    *,
    before: LoopState | None = None,
    request: str | None = None,
) -> LoopRun:
    ask = verbs.Advance(
        run=run.id, before=before or run.state, after=after, fence=fence, at=AT, why="a test"
    )
    return made.loop.perform("loop.advance", ask, verbs.RunView, request=request).run


def history(made: World, run: LoopRun) -> queries.RunHistory:
    return made.owner.perform("loop.show", queries.ShowRun(id=run.id), queries.RunHistory)


def test_a_lease_stays_with_its_holder_while_it_lasts(made: World) -> None:
    held = claim(made)
    made.clock.push(seconds=29)

    refused = claim(made, "second")

    assert ("first", 1) == (refused.owner, refused.fence)
    assert held.until == refused.until


def test_an_expired_lease_changes_hands_with_a_greater_fence(made: World) -> None:
    claim(made)
    made.clock.push(seconds=30)

    taken = claim(made, "second")

    assert ("second", 2) == (taken.owner, taken.fence)


def test_the_same_holder_renews_without_a_new_fence(made: World) -> None:
    first = claim(made)
    made.clock.push(seconds=300)

    again = claim(made)

    assert first.fence == again.fence
    assert again.until > first.until


def test_a_late_write_of_an_expired_holder_is_refused(made: World) -> None:
    old = claim(made).fence
    run = start(made, old)
    made.clock.push(seconds=31)
    claim(made, "second")

    with pytest.raises(StaleVersion) as late:
        advance(made, run, LoopState.TRAINING, old)
    with pytest.raises(StaleVersion) as later:
        start(made, old)

    assert ["loop.fenced"] * 2 == [late.value.code, later.value.code]
    assert LoopState.TRIGGERED == history(made, run).run.state


def test_a_write_without_any_lease_is_refused(made: World) -> None:
    with pytest.raises(StaleVersion) as refused:
        start(made, 1)

    assert "loop.fenced" == refused.value.code


def test_a_second_live_run_is_refused(made: World) -> None:
    fence = claim(made).fence
    start(made, fence)

    with pytest.raises(Conflict) as second:
        start(made, fence)

    assert "loop.live" == second.value.code


def test_a_run_may_begin_once_the_last_one_is_final(made: World) -> None:
    fence = claim(made).fence
    ended = advance(made, start(made, fence), LoopState.ABANDONED, fence)

    begun = start(made, fence)

    assert (None, DEPLOYMENT) == (ended.live, begun.live)


@pytest.mark.parametrize(
    "after",
    [LoopState.GATING, LoopState.RELEASING, LoopState.PROMOTED, LoopState.TRIGGERED],
)
def test_a_step_that_skips_a_state_is_refused(made: World, after: LoopState) -> None:
    fence = claim(made).fence
    run = start(made, fence)

    with pytest.raises(InvalidInput) as refused:
        advance(made, run, after, fence)

    assert "loop.no_such_step" == refused.value.code
    assert 1 == len(history(made, run).transitions)


def test_a_final_run_never_moves_again(made: World) -> None:
    fence = claim(made).fence
    run = advance(made, start(made, fence), LoopState.FAILED, fence)

    with pytest.raises(InvalidInput) as refused:
        advance(made, run, LoopState.TRAINING, fence)

    assert "loop.no_such_step" == refused.value.code


def test_a_step_from_a_state_that_has_passed_is_refused(made: World) -> None:
    fence = claim(made).fence
    run = start(made, fence)
    advance(made, run, LoopState.TRAINING, fence)

    with pytest.raises(StaleVersion) as moved:
        advance(made, run, LoopState.TRAINING, fence, before=LoopState.TRIGGERED)

    assert "loop.moved" == moved.value.code


def test_training_again_counts_an_attempt(made: World) -> None:
    fence = claim(made).fence
    once = advance(made, start(made, fence), LoopState.TRAINING, fence)

    twice = advance(made, once, LoopState.TRAINING, fence)

    assert (1, 2) == (once.attempt, twice.attempt)


def test_a_repeated_request_moves_the_run_once(made: World) -> None:
    fence = claim(made).fence
    run = start(made, fence, "start:1")

    again = start(made, fence, "start:1")
    moved = [
        advance(made, run, LoopState.TRAINING, fence, request=f"loop:{run.id}:1") for _ in range(3)
    ]

    assert run == again
    assert 1 == len({step.revision for step in moved})
    told = history(made, run)
    assert [(1, "triggered"), (2, "training")] == [
        (step.seq, step.after.value) for step in told.transitions
    ]
    assert 1 == told.run.attempt


def test_a_request_id_cannot_stand_for_another_step(made: World) -> None:
    fence = claim(made).fence
    run = start(made, fence)
    advance(made, run, LoopState.TRAINING, fence, request="loop:x:1")

    with pytest.raises(Conflict) as reused:
        advance(made, run, LoopState.ABANDONED, fence, request="loop:x:1")

    assert "request.reused" == reused.value.code


def test_a_paused_loop_begins_nothing_but_ends_what_it_began(made: World) -> None:
    fence = claim(made).fence
    run = start(made, fence)
    ask = verbs.Pause(deployment=DEPLOYMENT)
    off = made.owner.perform("loop.pause", ask, verbs.SwitchView, reason="a freeze")

    ended = advance(made, run, LoopState.ABANDONED, fence)
    with pytest.raises(Conflict) as paused:
        start(made, fence)

    assert (False, "a freeze") == (off.is_on, off.why)
    assert LoopState.ABANDONED == ended.state
    assert "loop.paused" == paused.value.code
    status = made.owner.perform(
        "loop.status", queries.ShowStatus(deployment=DEPLOYMENT), queries.LoopStatus
    )
    assert (False, "a freeze") == (status.is_on, status.paused_why)


def test_a_resumed_loop_may_act(made: World) -> None:
    fence = claim(made).fence
    made.owner.perform("loop.pause", verbs.Pause(deployment=DEPLOYMENT), verbs.SwitchView)

    made.owner.perform("loop.resume", verbs.Resume(deployment=DEPLOYMENT), verbs.SwitchView)

    assert LoopState.TRIGGERED == start(made, fence).state


def test_a_contributor_can_neither_drive_nor_pause_the_loop(made: World) -> None:
    somebody = made.person("carl", Role.CONTRIBUTOR)

    with pytest.raises(Denied):
        somebody.perform(
            "loop.claim", verbs.Claim(deployment=DEPLOYMENT, owner="carl"), verbs.Lease
        )
    with pytest.raises(Denied):
        somebody.perform("loop.pause", verbs.Pause(deployment=DEPLOYMENT), verbs.SwitchView)
