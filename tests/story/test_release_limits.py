"""What holds a release back, what stops all of them, and what takes a promotion back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import structs

from everloop.core.errors import ApprovalRequired, Conflict, Denied, EverloopError, InvalidInput
from everloop.core.records import declared_kinds
from everloop.gate.verbs import ApproveArtifact
from everloop.kernel.authz import Role
from everloop.kernel.ledger.log import LedgerEntry
from everloop.registry.evidence import Approval
from everloop.release.halting import (
    DrillDeployment,
    DrillView,
    HaltDeployment,
    ResumeDeployment,
    SettleDrill,
)
from everloop.release.history import FIGURES, MOST_POINTS, History, ShowHistory, add, point_of
from everloop.release.model import (
    Deployment,
    DrillState,
    Guardrail,
    Judgement,
    News,
    ReleaseHistory,
    State,
    Tally,
)
from everloop.release.observing import ObserveRelease
from everloop.release.queries import DeploymentView, ReleaseView
from everloop.release.routes import routes_of
from everloop.release.status import ReleaseStatus, ShowStatus
from everloop.release.verbs import AbortRelease, PromoteRelease, StartRelease
from everloop.storage.sqlite import SqliteMetadataStore
from tests.kit import world
from tests.unit.release.released import SIGNATURE, Released, faults, pairs, traffic

RECORD = {
    "error": Tally(answers=2_000, bad=20),
    "label_loss": Tally(answers=2_000, bad=200),
}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Released]:
    store = SqliteMetadataStore(tmp_path / "everloop.db", declared_kinds())
    yield Released(world(store))
    store.close()


def configure(demo: Released, **release: object) -> None:
    merged = {"shares": [0.2, 0.5], "min_stage_requests": 50, "min_canary_requests": 20} | release
    demo.world.configure({"models": {"demand": {"release": merged}}})


def tell(demo: Released, seen: ReleaseView, news: News, **more: object) -> ReleaseView:
    before = seen.release
    ask = ObserveRelease(
        release=before.id,
        after_segment=before.cursor_segment,
        after_feedback=before.cursor_feedback,
        cursor_segment=before.cursor_segment + (1 if news != News() else 0),
        cursor_feedback=before.cursor_feedback,
        news=news,
        **more,  # type: ignore[arg-type]
    )
    return demo.world.loop.perform("release.observe", ask, ReleaseView)


def watched(guardrail: Guardrail, answers: int, bad: int) -> News:
    return News(watched=(Judgement(guardrail=guardrail, answers=answers, bad=bad),))


def halt(demo: Released, **given: object) -> DeploymentView:
    ask = HaltDeployment(deployment="bikes", **given)  # type: ignore[arg-type]
    return demo.owner.perform("deployment.halt", ask, DeploymentView)


def resume(demo: Released) -> DeploymentView:
    return demo.owner.perform(
        "deployment.resume", ResumeDeployment(deployment="bikes"), DeploymentView
    )


def code_of(refused: pytest.ExceptionInfo[EverloopError]) -> str:
    return refused.value.code


# --- strategies ---------------------------------------------------------------------------------


def test_blue_green_switches_once_the_server_holds_the_candidate(demo: Released) -> None:
    first, second = demo.version(1), demo.version(2)
    demo.champion(first)
    seen = demo.start(second, strategy="blue_green")
    unknown = tell(demo, seen, News(), is_resident=None)

    ready = tell(demo, unknown, News(), is_resident=True, record=RECORD)

    assert (State.STANDBY, State.STANDBY, State.PROMOTED) == (
        seen.release.state,
        unknown.release.state,
        ready.release.state,
    )
    deployment = demo.deployment().deployment
    assert (second.id, first.id) == (deployment.champion, deployment.previous)
    assert deployment.watched == seen.release.id


def test_a_candidate_that_the_server_refuses_is_refused(demo: Released) -> None:
    demo.champion(demo.version(1))
    seen = demo.start(demo.version(2), strategy="blue_green")

    ended = tell(demo, seen, News(), is_resident=False, refused="bundle.golden: another answer")

    assert State.REFUSED == ended.release.state
    assert "bundle.golden" in ended.release.why


def test_an_ab_test_keeps_its_share_and_promotes_only_what_is_proven_better(demo: Released) -> None:
    configure(demo, ab_share=0.4, deadline_days=3)
    demo.champion(demo.version(1))
    seen = demo.start(demo.version(2), strategy="ab")

    equal = demo.observe(seen, traffic(600, 400))
    better = demo.observe(equal, faults(Guardrail.LABEL_LOSS, champion=80, canary=10, share=0.4))

    assert (State.CANARY, 0.4) == (equal.release.state, equal.release.share)
    assert State.PROMOTED == better.release.state
    assert "Proven better" in better.release.why


def test_an_ab_test_without_a_difference_says_so(demo: Released) -> None:
    configure(demo, ab_share=0.4, deadline_days=3)
    demo.champion(demo.version(1))
    seen = demo.observe(demo.start(demo.version(2), strategy="ab"), traffic(600, 400))

    ended = demo.observe(seen, traffic(6, 4), at=demo.now + timedelta(days=4))

    assert State.ROLLED_BACK == ended.release.state
    assert "no difference is proven" in ended.release.why


# --- after the promotion ------------------------------------------------------------------------


def test_late_labels_undo_a_promoted_version(demo: Released) -> None:
    first, second = demo.version(1), demo.version(2)
    demo.champion(first)
    seen = demo.start(second, strategy="all_at_once")

    calm = tell(demo, seen, watched(Guardrail.LABEL_LOSS, 500, 50), record=RECORD)
    undone = tell(demo, calm, watched(Guardrail.LABEL_LOSS, 900, 450))

    assert (State.PROMOTED, State.ROLLED_BACK) == (calm.release.state, undone.release.state)
    assert "label loss after the promotion" in undone.release.why
    assert first.id == demo.deployment().deployment.champion
    assert demo.deployment().watched is None


def test_an_equal_version_stays_until_its_watch_ends(demo: Released) -> None:
    demo.champion(demo.version(1))
    seen = tell(demo, demo.start(demo.version(2), strategy="all_at_once"), News(), record=RECORD)

    for _ in range(8):
        seen = tell(demo, seen, watched(Guardrail.ERROR, 200, 2), record=RECORD)

    assert State.PROMOTED == seen.release.state
    watch = seen.release.standing.watch
    assert watch is not None
    assert watch.answers > 1_000


def test_a_program_leaves_no_stage_out_by_promoting_ahead_of_the_evidence(demo: Released) -> None:
    demo.champion(demo.version(1))
    second = demo.version(2)
    ask = StartRelease(deployment="bikes", version=second.id, strategy="canary")
    begun = demo.world.loop.perform("release.start", ask, ReleaseView)
    hurry = PromoteRelease(release=begun.release.id)

    with pytest.raises(Denied) as refused:
        demo.world.loop.perform("release.promote", hurry, ReleaseView)

    assert "release.outside_envelope" == code_of(refused)
    after = demo.owner.perform("release.promote", hurry, ReleaseView)
    assert State.PROMOTED == after.release.state


def test_late_labels_of_the_canary_still_count_after_its_promotion(demo: Released) -> None:
    first, second = demo.version(1), demo.version(2)
    demo.champion(first)
    seen = demo.start(second, strategy="canary")
    ask = PromoteRelease(release=seen.release.id, why="hurry")
    seen = demo.owner.perform("release.promote", ask, ReleaseView)

    undone = tell(
        demo, seen, faults(Guardrail.LABEL_LOSS, champion=1, canary=30, share=0.2), record=RECORD
    )

    assert State.ROLLED_BACK == undone.release.state
    assert first.id == demo.deployment().deployment.champion


def test_a_release_begun_on_a_champion_that_is_undone_ends_with_it(demo: Released) -> None:
    demo.champion(demo.version(1))
    promoted = tell(demo, demo.champion(demo.version(2)), News(), record=RECORD)
    later = demo.start(demo.version(3), strategy="canary")

    tell(demo, promoted, watched(Guardrail.ERROR, 400, 300), record=RECORD)

    assert demo.deployment().live is None
    ended = demo.owner.perform("release.status", ShowStatus(deployment="bikes"), ReleaseStatus)
    assert ended.release is not None
    assert later.release.id == ended.release.release.id
    assert "Its champion was undone" in ended.release.release.why


# --- what holds a release back ------------------------------------------------------------------


def test_in_a_freeze_window_nothing_moves_forward_but_everything_may_go_back(
    demo: Released,
) -> None:
    first, second, third = (demo.version(shift) for shift in (1, 2, 3))
    demo.champion(first)
    demo.champion(second)
    week = {"why": "year's end", "start": "2025-12-20T00:00:00Z", "end": "2026-01-07T00:00:00Z"}
    configure(demo, freeze=[week])

    with pytest.raises(Conflict) as refused:
        demo.start(third, strategy="canary")

    assert "release.frozen" == code_of(refused)
    assert first.id == demo.rollback().deployment.champion


def test_a_release_begun_before_a_freeze_window_waits_in_its_stage(demo: Released) -> None:
    friday = {"why": "the weekend", "days": ["thu"], "begin": "12:00"}
    configure(demo, freeze=[friday])
    demo.champion(demo.version(1))
    seen = demo.start(demo.version(2), strategy="canary")
    demo.world.clock.push(hours=13)  # the clock begins on a Thursday, at midnight

    held = demo.observe(seen, traffic(40, 10))
    undone = demo.observe(held, faults(Guardrail.ERROR, champion=0, canary=8, share=0.2))

    assert (State.CANARY, 0, 0.2) == (held.release.state, held.release.stage, held.release.share)
    assert "the weekend" in held.release.why
    assert State.ROLLED_BACK == undone.release.state


def test_a_model_of_a_high_tier_needs_two_consents_that_are_not_its_authors(
    demo: Released,
) -> None:
    configure(demo, tier="high")
    version = demo.version(1)

    def approve(name: str) -> None:
        person = demo.world.person(name, Role.APPROVER)
        person.perform("gate.approve", ApproveArtifact(version=version.id), Approval)

    approve("ann")
    with pytest.raises(ApprovalRequired) as refused:
        demo.start(version)
    approve("bob")

    assert 1 == refused.value.context["missing"]
    assert State.PROMOTED == demo.start(version).release.state


@pytest.mark.parametrize(
    ("envelope", "strategy", "word"),
    [
        ({"strategies": ["shadow"]}, "canary", "strategy"),
        ({"share_step": 0.25}, "canary", "share grows"),
        ({"releases_per_day": 1}, "canary", "within a day"),
    ],
)
def test_the_loop_may_only_what_its_envelope_allows_and_a_person_more(
    demo: Released, envelope: dict[str, object], strategy: str, word: str
) -> None:
    configure(demo, envelope=envelope)
    demo.champion(demo.version(1))
    second = demo.version(2)
    ask = StartRelease(deployment="bikes", version=second.id, strategy=strategy)  # type: ignore[arg-type]

    with pytest.raises(Denied) as refused:
        demo.world.loop.perform("release.start", ask, ReleaseView)

    assert "release.outside_envelope" == code_of(refused)
    assert word in refused.value.message
    assert State.CANARY == demo.start(second, strategy=strategy).release.state


def test_a_version_has_two_attempts_and_both_chances_are_told(demo: Released) -> None:
    configure(demo)
    demo.champion(demo.version(1))
    second = demo.version(2)

    def attempt() -> ReleaseView:
        seen = demo.observe(demo.start(second, strategy="canary"), traffic(4, 1))
        ask = AbortRelease(release=seen.release.id, why="again")
        return demo.owner.perform("release.abort", ask, ReleaseView)

    first, again = attempt(), attempt()
    with pytest.raises(Conflict) as refused:
        attempt()

    assert [(1, 0.01), (2, 0.02)] == [
        (seen.release.attempt, seen.release.alpha_spent) for seen in (first, again)
    ]
    assert "release.attempts_spent" == code_of(refused)


def test_a_look_by_the_watch_alone_is_an_attempt_too(demo: Released) -> None:
    demo.champion(demo.version(1))
    second = demo.version(2)

    def attempt() -> ReleaseView:
        seen = demo.start(second, strategy="all_at_once")
        seen = tell(demo, seen, watched(Guardrail.ERROR, 200, 2), record=RECORD)
        demo.rollback()
        return seen

    first, again = attempt(), attempt()
    with pytest.raises(Conflict) as refused:
        attempt()

    assert [(1, 0.01), (2, 0.02)] == [
        (seen.release.attempt, seen.release.alpha_spent) for seen in (first, again)
    ]
    assert "release.attempts_spent" == code_of(refused)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shares": [0.5, 0.2]},
        {"freeze": [{"begin": "25:00"}]},
        {"freeze": [{"begin": "12:00", "until": "11:00"}]},
        {"freeze": [{"zone": "Mars/Olympus"}]},
        {"freeze": [{"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}]},
        {"weights": dict.fromkeys(Guardrail, 0.0)},
    ],
)
def test_settings_without_meaning_are_refused(demo: Released, wrong: dict[str, object]) -> None:
    configure(demo, **wrong)

    with pytest.raises(InvalidInput) as refused:
        demo.start(demo.version(1))

    assert "settings.invalid" == code_of(refused)


# --- the kill switch ----------------------------------------------------------------------------


def arms(demo: Released) -> tuple[str | None, bool, float | None]:
    with demo.look() as view:
        routes = routes_of(view, view.select(Deployment)[0], public_key="00")
    champion = routes.champion.version_id if routes.champion else None
    return champion, routes.canary is None and routes.shadow is None, routes.constant


def test_a_halt_ends_the_live_release_and_keeps_others_from_beginning(demo: Released) -> None:
    first, second = demo.version(1), demo.version(2)
    demo.champion(first)
    demo.start(second, strategy="canary")

    halted = halt(demo, why="wrong in the north")
    with pytest.raises(Conflict) as refused:
        demo.start(demo.version(3))
    resumed = resume(demo)

    assert halted.live is None
    assert "deployment.halted" == code_of(refused)
    assert resumed.deployment.halt is None
    assert State.CANARY == demo.start(demo.version(4), strategy="canary").release.state


def test_a_constant_that_the_champion_could_not_answer_is_refused_with_its_range(
    demo: Released,
) -> None:
    output = structs.replace(SIGNATURE.output, minimum=10.0, maximum=40.0)
    demo.champion(demo.version(1, signature=structs.replace(SIGNATURE, output=output)))

    with pytest.raises(InvalidInput) as refused:
        halt(demo, answer=-20.5)
    halt(demo, answer=-20.0)

    assert "deployment.constant_out_of_range" == refused.value.code
    assert "between -20 and 70" in refused.value.message
    assert "in that range" in str(refused.value.hint)
    assert -20.0 == arms(demo)[2]


def test_a_halt_pins_a_version_or_a_constant_but_not_both(demo: Released) -> None:
    first, second = demo.version(1), demo.version(2)
    demo.champion(first)
    demo.champion(second)

    halt(demo, version=first.id)
    pinned = arms(demo)
    halt(demo, answer=12.5)
    constant = arms(demo)
    with pytest.raises(InvalidInput):
        halt(demo, version=first.id, answer=1.0)
    resume(demo)

    assert [(first.id, True, None), (second.id, True, 12.5), (second.id, True, None)] == [
        pinned,
        constant,
        arms(demo),
    ]


def test_only_releasers_halt_and_a_deployment_that_is_not_halted_is_not_resumed(
    demo: Released,
) -> None:
    demo.champion(demo.version(1))
    viewer = demo.world.person("vera", Role.VIEWER)

    with pytest.raises(Denied):
        viewer.perform("deployment.halt", HaltDeployment(deployment="bikes"), DeploymentView)
    with pytest.raises(Conflict) as refused:
        resume(demo)

    assert "deployment.not_halted" == code_of(refused)


def drill(demo: Released) -> DrillView:
    return demo.owner.perform("deployment.drill", DrillDeployment(deployment="bikes"), DrillView)


def settle(demo: Released, seen: DrillView, *, epoch: int, refused: str = "") -> DrillView:
    ask = SettleDrill(drill=seen.drill.id, epoch=epoch, applied_at=demo.now, refused=refused)
    return demo.world.server.perform("deployment.settle", ask, DrillView)


def test_a_drill_pins_the_version_before_and_returns_and_says_how_long_it_took(
    demo: Released,
) -> None:
    first, second = demo.version(1), demo.version(2)
    demo.champion(first)
    demo.champion(second)
    begun = drill(demo)
    during = arms(demo)[0]
    waiting = settle(demo, begun, epoch=begun.drill.epoch - 1)
    demo.world.clock.push(seconds=0.04)

    there = settle(demo, waiting, epoch=begun.drill.epoch)
    demo.world.clock.push(seconds=0.03)
    back = settle(demo, there, epoch=there.drill.epoch)

    assert (first.id, second.id) == (during, arms(demo)[0])
    assert (DrillState.SWITCHING, DrillState.RETURNING, DrillState.PASSED) == (
        waiting.drill.state,
        there.drill.state,
        back.drill.state,
    )
    assert (40.0, 30.0) == pytest.approx((back.drill.switch_ms, back.drill.return_ms))


@pytest.mark.parametrize("refused", ["bundle.digest: another file", ""])
def test_a_drill_that_the_server_does_not_follow_fails_and_lets_go(
    demo: Released, refused: str
) -> None:
    demo.champion(demo.version(1))
    second = demo.version(2)
    demo.champion(second)
    begun = drill(demo)
    demo.world.clock.push(seconds=0 if refused else 61)

    failed = settle(demo, begun, epoch=0, refused=refused)

    assert DrillState.FAILED == failed.drill.state
    assert demo.deployment().deployment.halt is None
    assert second.id == arms(demo)[0]


@pytest.mark.parametrize("named", [True, False])
def test_a_drill_that_would_switch_nothing_is_refused(demo: Released, named: bool) -> None:
    only = demo.version(1)
    demo.champion(only)
    ask = DrillDeployment(deployment="bikes", version=only.id if named else None)

    with pytest.raises(Conflict) as refused:
        demo.owner.perform("deployment.drill", ask, DrillView)

    assert "drill.nothing_to_switch" == code_of(refused)
    demo.world.clock.push(days=400)
    status = demo.owner.perform("release.status", ShowStatus(deployment="bikes"), ReleaseStatus)
    assert (None, None) == (status.last_drill, status.drill_due_at)


def test_a_drill_waits_for_no_release_and_is_overdue_after_its_time(demo: Released) -> None:
    configure(demo, drill_days=30)
    demo.champion(demo.version(1))
    demo.champion(demo.version(2))
    demo.start(demo.version(3), strategy="canary")

    with pytest.raises(Conflict) as refused:
        drill(demo)
    demo.world.clock.push(days=31)
    status = demo.owner.perform("release.status", ShowStatus(deployment="bikes"), ReleaseStatus)

    assert "release.live" == code_of(refused)
    assert status.is_drill_overdue


# --- what is kept -------------------------------------------------------------------------------


def test_every_step_has_its_entry_in_the_ledger(demo: Released) -> None:
    demo.champion(demo.version(0.5))
    demo.champion(demo.version(1))
    seen = demo.start(demo.version(2), strategy="canary")
    demo.observe(seen, traffic(40, 10))
    demo.owner.perform("release.abort", AbortRelease(release=seen.release.id), ReleaseView)
    halt(demo)
    resume(demo)
    settle(demo, drill(demo), epoch=99)

    with demo.world.kernel.store.read() as tx:
        actions = [entry.action for entry in tx.select(LedgerEntry, order="index")]

    assert [
        "release.observe",
        "release.abort",
        "deployment.halt",
        "deployment.resume",
        "deployment.drill",
        "deployment.settle",
    ] == [action for action in actions if action.startswith(("release.", "deployment."))][-6:]


def test_the_history_of_a_release_shows_its_turns_and_its_evidence(demo: Released) -> None:
    demo.champion(demo.version(1))
    seen = demo.observe(demo.start(demo.version(2)), pairs(40))
    seen = demo.observe(seen, traffic(40, 10))
    demo.observe(seen, faults(Guardrail.ERROR, champion=1, canary=2, share=0.5))

    found = demo.owner.perform("release.history", ShowHistory(release=seen.release.id), History)

    columns = {name: [point[place] for point in found.points] for place, name in enumerate(FIGURES)}
    assert [1.0, 1.0, 0.0] == columns["turn"]
    assert [0.0, 40.0, 40.0] == columns["champion"]
    assert columns["bad:error"][:2] == [0.0, 0.0]
    assert columns["bad:error"][2] != 0.0


def test_a_long_history_is_thinned_and_keeps_its_ends_and_turns(demo: Released) -> None:
    release = demo.champion(demo.version(1)).release
    kept = ReleaseHistory(id=release.id, project=release.project, release=release.id)

    for look in range(5_000):
        point = point_of(release, demo.now + timedelta(seconds=look), is_turn=look == 777)
        kept = add(kept, point)

    times = [(point[0] or 0.0) - demo.now.timestamp() for point in kept.points]
    assert len(times) <= MOST_POINTS
    assert (0.0, 4_999.0) == (times[0], times[-1])
    assert 777.0 in times
    assert times == sorted(times)
