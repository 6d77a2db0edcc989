"""A release from its start to its end, through the verbs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from everloop.core.errors import Conflict, Denied, GateFailed, InvalidInput, NotFound, StaleVersion
from everloop.core.ports import where
from everloop.core.records import declared_kinds
from everloop.core.wire import TokenHash
from everloop.kernel.authz import Role
from everloop.kernel.lineage import Edge
from everloop.registry.model import AliasMove, ModelVersion
from everloop.registry.queries import ResolveModel
from everloop.release.model import Deployment, Finding, Guardrail, News, Release, State
from everloop.release.observing import ObserveRelease
from everloop.release.queries import ListReleases, ReleaseList, ReleaseView
from everloop.release.routes import routes_of
from everloop.release.verbs import PromoteRelease, Rollback, StartRelease
from everloop.storage.sqlite import SqliteMetadataStore
from tests.kit import world
from tests.unit.monitor.test_observing import signed_report
from tests.unit.release.released import Released, faults, pairs, traffic


@pytest.fixture(params=["memory", "sqlite"])
def demo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Released]:
    if request.param == "memory":
        yield Released()
        return
    store = SqliteMetadataStore(tmp_path / "everloop.db", declared_kinds())
    yield Released(world(store))
    store.close()


def production(demo: Released) -> str:
    ask = ResolveModel(ref="model:demand@production")
    return demo.owner.perform("model.resolve", ask, ModelVersion).id


def test_the_first_version_is_promoted_since_there_is_nothing_to_compare_with(
    demo: Released,
) -> None:
    first = demo.version(1)

    made = demo.start(first, strategy="shadow")

    assert State.PROMOTED == made.release.state
    assert first.id == demo.deployment().deployment.champion == production(demo)


def test_a_version_goes_from_shadow_through_canary_to_champion(demo: Released) -> None:
    first, second = demo.version(1), demo.version(2)
    demo.champion(first)

    seen = demo.start(second)
    assert (State.SHADOW, 0.0) == (seen.release.state, seen.release.share)
    seen = demo.observe(seen, pairs(600, champion=0.5, candidate=0.4))
    assert (State.CANARY, 0.2) == (seen.release.state, seen.release.share)
    seen = demo.observe(seen, traffic(40, 10))
    assert (State.CANARY, 0.5) == (seen.release.state, seen.release.share)
    seen = demo.observe(seen, traffic(25, 25))

    assert State.PROMOTED == seen.release.state
    assert Finding.PROVEN == seen.release.findings["paired_loss"]
    assert Finding.NO_EVENT == seen.release.findings["error"]
    assert second.id == demo.deployment().deployment.champion == production(demo)
    assert first.id == demo.deployment().deployment.previous


def test_a_shadow_that_loses_more_is_refused_before_it_gets_traffic(demo: Released) -> None:
    demo.champion(demo.version(1))
    seen = demo.start(demo.version(2))

    seen = demo.observe(seen, pairs(60, champion=0.2, candidate=0.9))

    assert State.REFUSED == seen.release.state
    assert "paired loss" in seen.release.why
    assert demo.deployment().live is None


def test_a_canary_that_errs_is_rolled_back_and_the_champion_stays(demo: Released) -> None:
    first = demo.version(1)
    demo.champion(first)
    seen = demo.start(demo.version(2), strategy="canary")

    seen = demo.observe(seen, faults(Guardrail.ERROR, champion=0, canary=6, share=0.2))

    assert State.ROLLED_BACK == seen.release.state
    assert Finding.WORSE == seen.release.findings["error"]
    assert first.id == demo.deployment().deployment.champion == production(demo)


@pytest.mark.parametrize(
    ("choice", "state"),
    [
        ("roll_back", State.ROLLED_BACK),
        ("promote", State.PROMOTED),
        ("hold", State.CANARY),
    ],
)
def test_at_the_deadline_the_configured_choice_falls(
    demo: Released, choice: str, state: State
) -> None:
    demo.champion(demo.version(1))
    release = {"strategy": "canary", "deadline_days": 3, "on_not_proven": choice}
    demo.world.configure({"models": {"demand": {"release": release}}})
    seen = demo.start(demo.version(2))

    seen = demo.observe(seen, News(), segment=0, at=demo.now + timedelta(days=3))

    assert state == seen.release.state
    assert "not proven" in seen.release.why


def test_a_held_release_is_written_once_however_often_it_is_looked_at(demo: Released) -> None:
    demo.champion(demo.version(1))
    release = {"strategy": "canary", "deadline_days": 3, "on_not_proven": "hold"}
    demo.world.configure({"models": {"demand": {"release": release}}})
    late = demo.now + timedelta(days=4)
    held = demo.observe(demo.start(demo.version(2)), News(), segment=0, at=late)

    again = demo.observe(held, News(), segment=0, at=late + timedelta(days=1))

    assert held == again


def test_rollback_ends_the_live_release(demo: Released) -> None:
    demo.champion(demo.version(1))
    demo.start(demo.version(2), strategy="canary")
    before = demo.deployment().deployment

    after = demo.rollback()

    assert after.live is None
    assert before.champion == after.deployment.champion
    assert before.epoch < after.deployment.epoch


def test_rollback_after_a_promotion_goes_back_to_the_champion_before(demo: Released) -> None:
    first, second = demo.version(1), demo.version(2)
    demo.champion(first)
    promoted = demo.champion(second)

    after = demo.rollback("wrong in the north")

    assert first.id == after.deployment.champion == production(demo)
    listed = demo.owner.perform("release.list", ListReleases(deployment="bikes"), ReleaseList)
    assert promoted.release.id == listed.items[0].release.id
    assert (State.ROLLED_BACK, "wrong in the north") == (
        listed.items[0].release.state,
        listed.items[0].release.why,
    )


def test_a_second_rollback_finds_nothing_before(demo: Released) -> None:
    demo.champion(demo.version(1))
    demo.champion(demo.version(2))
    demo.rollback()

    with pytest.raises(Conflict) as refused:
        demo.rollback()

    assert "release.nothing_before" == refused.value.code


def test_a_version_without_gate_or_waiver_is_not_released(demo: Released) -> None:
    version = demo.version(1, waived=False)

    with pytest.raises(GateFailed):
        demo.start(version, strategy="all_at_once")

    assert demo.deployment().deployment.champion is None


def test_a_second_live_release_is_refused(demo: Released) -> None:
    demo.champion(demo.version(1))
    demo.start(demo.version(2))

    with pytest.raises(Conflict) as refused:
        demo.start(demo.version(3))

    assert "release.live" == refused.value.code


def test_the_champion_is_not_released_again(demo: Released) -> None:
    first = demo.version(1)
    demo.champion(first)

    with pytest.raises(Conflict) as refused:
        demo.start(first)

    assert "release.champion_already" == refused.value.code


def test_news_told_twice_count_once(demo: Released) -> None:
    demo.champion(demo.version(1))
    started = demo.start(demo.version(2), strategy="canary")
    news = faults(Guardrail.LABEL_LOSS, champion=3, canary=1, share=0.2)
    once = demo.observe(started, news)
    repeated = ObserveRelease(
        release=once.release.id,
        after_segment=0,
        after_feedback=0,
        cursor_segment=1,
        cursor_feedback=0,
        news=news,
    )

    twice = demo.world.loop.perform("release.observe", repeated, ReleaseView)

    assert once == twice


def test_news_that_overlap_with_known_ones_are_refused(demo: Released) -> None:
    demo.champion(demo.version(1))
    started = demo.start(demo.version(2), strategy="canary")
    demo.observe(started, traffic(4, 1))

    with pytest.raises(StaleVersion):
        demo.observe(started, traffic(4, 1), segment=2)


def test_a_person_promotes_before_the_evidence_suffices(demo: Released) -> None:
    demo.champion(demo.version(1))
    second = demo.version(2)
    started = demo.start(second)
    ask = PromoteRelease(release=started.release.id, why="the truth comes next year")

    ended = demo.owner.perform("release.promote", ask, ReleaseView)

    assert (State.PROMOTED, "the truth comes next year") == (ended.release.state, ended.release.why)
    assert second.id == production(demo)


def test_every_promotion_moves_the_alias_with_a_reason(demo: Released) -> None:
    first, second = demo.version(1), demo.version(2)
    demo.champion(first)
    demo.champion(second)
    demo.rollback()

    with demo.look() as view:
        moves = view.select(AliasMove, order="number")

    assert [first.id, second.id, first.id] == [move.version for move in moves]
    assert all(move.why for move in moves)


def test_lineage_names_the_version_and_the_evidence(demo: Released) -> None:
    first = demo.version(1)
    made = demo.champion(first)

    with demo.look() as view:
        found = view.select(Edge, *where(source=f"release:{made.release.id}"))
    edges = {(edge.relation, edge.target.partition(":")[0]) for edge in found}

    assert {("released", "model_version"), ("allowed_by", "waiver")} == edges


def test_routes_follow_the_records(demo: Released) -> None:
    first, second = demo.version(1), demo.version(2)
    demo.champion(first)
    seen = demo.start(second)
    token = TokenHash(hash="ab", expires_at=demo.now)

    def routes() -> tuple[str | None, ...]:
        with demo.look() as view:
            deployment = view.select(Deployment)[0]
            found = routes_of(view, deployment, public_key="00", tokens=(token,))
        assert (token,) == found.tokens
        arms = (found.champion, found.canary, found.shadow, found.previous)
        return tuple(arm.version_id if arm else None for arm in arms)

    assert (first.id, None, second.id, None) == routes()
    seen = demo.observe(seen, pairs(40))
    assert (first.id, second.id, second.id, None) == routes()
    demo.owner.perform("release.promote", PromoteRelease(release=seen.release.id), ReleaseView)
    assert (second.id, None, None, first.id) == routes()
    demo.rollback()
    assert (first.id, None, None, None) == routes()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.CONTRIBUTOR, Role.APPROVER])
def test_only_releasers_release(demo: Released, role: Role) -> None:
    version = demo.version(1)
    person = demo.world.person(role.value, role)

    with pytest.raises(Denied):
        person.perform(
            "release.start", StartRelease(deployment="bikes", version=version.id), ReleaseView
        )
    with pytest.raises(Denied):
        person.perform("release.rollback", Rollback(deployment="bikes"), ReleaseView)


def test_a_releaser_may_release_but_not_make_up_news(demo: Released) -> None:
    demo.champion(demo.version(1))
    second = demo.version(2)
    rita = demo.world.person("rita", Role.RELEASER)
    started = rita.perform(
        "release.start", StartRelease(deployment="bikes", version=second.id), ReleaseView
    )
    ask = ObserveRelease(
        release=started.release.id,
        after_segment=0,
        after_feedback=0,
        cursor_segment=1,
        cursor_feedback=0,
        news=pairs(100),
    )

    with pytest.raises(Denied):
        rita.perform("release.observe", ask, ReleaseView)


def test_unknown_names_and_other_models_are_refused(demo: Released) -> None:
    version = demo.version(1)

    with pytest.raises(NotFound):
        demo.owner.perform(
            "release.start", StartRelease(deployment="cars", version=version.id), ReleaseView
        )
    with pytest.raises(InvalidInput):
        demo.owner.perform(
            "release.start", StartRelease(deployment="a:b", version=version.id), ReleaseView
        )


def test_settings_changed_meanwhile_do_not_touch_a_live_release(demo: Released) -> None:
    demo.champion(demo.version(1))
    seen = demo.start(demo.version(2))
    demo.world.configure({"models": {"demand": {"release": {"min_pairs": 1}}}})

    seen = demo.observe(seen, pairs(39))

    assert State.SHADOW == seen.release.state


def test_release_records_survive_their_round_trip_through_the_store(demo: Released) -> None:
    demo.champion(demo.version(1))
    seen = demo.observe(demo.start(demo.version(2)), pairs(3, champion=0.1, candidate=0.7))

    with demo.look() as view:
        stored = view.get(Release, seen.release.id)

    assert seen.release == stored


def test_listings_come_in_pages_newest_first(demo: Released) -> None:
    made = [demo.champion(demo.version(shift)).release.id for shift in range(1, 6)]

    found: list[str] = []
    after: str | None = None
    while True:
        ask = ListReleases(deployment="bikes", limit=2, after=after)
        page = demo.owner.perform("release.list", ask, ReleaseList)
        found += [item.release.id for item in page.items]
        after = page.next
        if after is None:
            break

    assert made[::-1] == found


def test_a_champion_without_losses_leaves_a_bound_that_every_loss_exceeds(demo: Released) -> None:
    first = demo.version(1)
    demo.champion(first)
    with demo.world.kernel.store.write() as tx:
        tx.insert(signed_report(demo.world, first, 0.0))

    limits = demo.start(demo.version(2)).release.limits

    assert limits.loss is not None
    assert 0.0 < limits.loss < 1e-6


def test_losses_are_judged_by_the_kind_of_loss_that_the_champions_gate_measured(
    demo: Released,
) -> None:
    first = demo.version(1)
    demo.champion(first)
    with demo.world.kernel.store.write() as tx:
        tx.insert(signed_report(demo.world, first, 0.7, "log_loss"))

    seen = demo.observe(demo.start(demo.version(2)), News())

    assert (0.7, "log_loss") == (seen.release.limits.loss, seen.release.limits.loss_name)


def test_a_deadline_counts_in_the_time_that_the_loop_lives_by(demo: Released) -> None:
    demo.champion(demo.version(1))
    settings = {"release": {"deadline_days": 3}, "loop": {"time": "event"}}
    demo.world.configure({"models": {"demand": settings}})
    then = demo.now - timedelta(days=5_000)

    seen = demo.observe(demo.start(demo.version(2)), pairs(1), at=then)
    before = demo.observe(seen, News(), segment=0, at=then + timedelta(days=2))
    after = demo.observe(before, News(), segment=0, at=then + timedelta(days=3))

    assert then + timedelta(days=3) == seen.release.deadline
    assert (State.SHADOW, State.REFUSED) == (before.release.state, after.release.state)
