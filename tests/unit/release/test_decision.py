from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.wire import Arm
from everloop.release import weighing
from everloop.release.config import ReleaseConfig, Strategy
from everloop.release.decision import MOST_UNITS, Decision, begin, deadline_of, decide
from everloop.release.model import (
    LIVE,
    Assigned,
    BadEvent,
    Finding,
    Guardrail,
    Limits,
    News,
    Pair,
    Release,
    State,
    Traffic,
)
from tests.unit.release.released import faults, pairs, traffic

START = datetime(2026, 5, 1, tzinfo=UTC)
CONFIG = ReleaseConfig(
    min_pairs=40, shares=(0.2, 0.5), min_stage_requests=50, min_canary_requests=20
)


def release(
    strategy: Strategy = "shadow",
    *,
    stage: int | None = None,
    config: ReleaseConfig = CONFIG,
    told: News | None = None,
) -> Release:
    """A release in the shadow, or in a stage of its canary, that has been told something."""
    at = stage if stage is not None else (-1 if strategy == "shadow" else 0)
    made = Release(
        id=Id("r"),
        project=ProjectId("p"),
        deployment=Id("d"),
        model=Id("m"),
        candidate=Id("new"),
        champion=Id("old"),
        strategy=strategy,
        state=State.SHADOW if at < 0 else State.CANARY,
        live=LIVE,
        stage=at,
        share=0.0 if at < 0 else config.shares[at],
        config=config,
        limits=Limits(loss=10.0, latency_us=100.0),
        epoch=1,
        standing=begin(config, strategy),
        evidence_bad=1.0,
        findings={},
        cursor_segment=0,
        cursor_feedback=0,
        started_at=START,
        updated_at=START,
        deadline=deadline_of(config, START),
        ended_at=None,
        started_by=ActorId("a"),
        why="Started.",
        evidence="gate_report:g",
    )
    if told is None:
        return made
    return msgspec.structs.replace(made, standing=decide(made, told, START).standing)


GOOD_PAIRS = pairs(300, champion=0.5, candidate=0.4)
FINE = faults(Guardrail.LABEL_LOSS, champion=40, canary=10, share=0.5)


@pytest.mark.parametrize(
    ("name", "before", "news", "state", "stage"),
    [
        ("no news", release(), News(), State.SHADOW, -1),
        ("too few pairs", release(), pairs(39), State.SHADOW, -1),
        ("enough pairs", release(), pairs(40), State.CANARY, 0),
        ("better pairs", release(), GOOD_PAIRS, State.CANARY, 0),
        ("much worse pairs", release(), pairs(60, candidate=1.0), State.REFUSED, -1),
        ("errors of the shadow", release(), pairs(30, champion=0.0, candidate=1.0), *(
            State.REFUSED, -1)),
        ("a few requests", release("canary"), traffic(30, 10), State.CANARY, 0),
        ("a full stage", release("canary"), traffic(40, 10), State.CANARY, 1),
        ("a full last stage without proof", release("canary", stage=1), traffic(50, 50), *(
            State.CANARY, 1)),
        ("proof by labels", release("canary", stage=1, told=FINE), traffic(40, 40), *(
            State.PROMOTED, 1)),
        ("proof in an early stage", release("canary", told=FINE), traffic(40, 40), *(
            State.CANARY, 1)),
        ("proof by pairs", release(stage=1, told=GOOD_PAIRS), traffic(40, 40), *(
            State.PROMOTED, 1)),
        ("too few canary answers", release(stage=1, told=GOOD_PAIRS), traffic(99, 19), *(
            State.CANARY, 1)),
        ("errors of the canary", release("canary"), *(
            faults(Guardrail.ERROR, champion=0, canary=6, share=0.2), State.ROLLED_BACK, 0)),
        ("impossible answers", release("canary"), *(
            faults(Guardrail.INVALID, champion=0, canary=6, share=0.2), State.ROLLED_BACK, 0)),
        ("slow answers", release("canary", stage=1), *(
            faults(Guardrail.LATENCY, champion=2, canary=40, share=0.5), State.ROLLED_BACK, 1)),
        ("great losses", release("canary", stage=1), *(
            faults(Guardrail.LABEL_LOSS, champion=2, canary=40, share=0.5), State.ROLLED_BACK, 1)),
        ("faults of the champion", release("canary", stage=1), *(
            faults(Guardrail.ERROR, champion=50, canary=1, share=0.5), State.CANARY, 1)),
        ("faults of both alike", release("canary"), *(
            faults(Guardrail.LABEL_LOSS, champion=80, canary=20, share=0.2), State.CANARY, 0)),
    ],
)  # fmt: skip
def test_the_table_of_decisions(
    name: str, before: Release, news: News, state: State, stage: int
) -> None:
    decision = decide(before, news, START + timedelta(days=1))

    assert (state, stage) == (decision.state, decision.stage), name
    assert decision.is_new == ((state, stage) != (before.state, before.stage))


@pytest.mark.parametrize(
    ("choice", "before", "state"),
    [
        ("roll_back", release("canary"), State.ROLLED_BACK),
        ("roll_back", release(), State.REFUSED),
        ("promote", release("canary"), State.PROMOTED),
        ("promote", release(), State.REFUSED),
        ("hold", release("canary"), State.CANARY),
        ("hold", release(), State.SHADOW),
    ],
)
def test_without_proof_the_deadline_decides_as_configured(
    choice: str, before: Release, state: State
) -> None:
    config = msgspec.convert({"on_not_proven": choice}, ReleaseConfig)
    before = msgspec.structs.replace(before, config=config)

    early = decide(before, News(), before.deadline - timedelta(seconds=1))
    late = decide(before, News(), before.deadline)

    assert (before.state, state) == (early.state, late.state)
    assert "not proven" in late.why


def test_an_alarm_at_the_deadline_is_still_an_alarm() -> None:
    before = msgspec.structs.replace(
        release("canary"), config=ReleaseConfig(on_not_proven="promote")
    )
    news = faults(Guardrail.ERROR, champion=0, canary=6, share=0.1)

    assert State.ROLLED_BACK == decide(before, news, before.deadline).state


def test_weak_evidence_against_it_holds_the_next_stage_back() -> None:
    suspicious = faults(Guardrail.ERROR, champion=0, canary=3, share=0.2)
    before = release("canary", told=suspicious)

    decision = decide(before, traffic(80, 20), START)

    assert (State.CANARY, 0) == (decision.state, decision.stage)
    assert 3.0 < decision.evidence_bad < 100.0


def test_findings_never_call_silence_a_pass() -> None:
    decision = decide(release("canary"), traffic(900, 100), START)

    assert {Finding.NO_EVENT} == set(decision.findings.values())


def test_each_guardrail_has_its_own_finding() -> None:
    before = release("canary", stage=1, told=FINE)
    news = faults(Guardrail.ERROR, champion=1, canary=0, share=0.5).plus(
        faults(Guardrail.LATENCY, champion=0, canary=25, share=0.5)
    )

    decision = decide(before, news, START)

    assert {
        "label_loss": Finding.BETTER,
        "error": Finding.NOT_PROVEN,
        "latency": Finding.WORSE,
        "invalid": Finding.NO_EVENT,
        "range": Finding.NO_EVENT,
        "override": Finding.NO_EVENT,
    } == decision.findings
    assert "latency" in decision.why


def test_the_order_in_which_news_come_in_pieces_does_not_matter() -> None:
    whole = decide(release("canary"), FINE.plus(traffic(3, 4)), START)
    once = decide(release("canary"), FINE, START)
    twice = decide(
        msgspec.structs.replace(release("canary"), standing=once.standing), traffic(3, 4), START
    )

    assert whole.standing == twice.standing


def test_a_new_stage_counts_its_own_requests() -> None:
    decision = decide(release("canary"), traffic(40, 10), START)

    assert Traffic() == decision.standing.stage_traffic
    assert Traffic(champion=40, canary=10) == decision.standing.traffic


def simulate(seed: int, *, ratio: float, days: int = 14) -> Decision:
    """A canary of 400 requests a day at base fault rates of 1 % and 10 %, worse by a ratio."""
    rng = np.random.default_rng(seed)
    config = ReleaseConfig(
        strategy="canary", shares=(0.1, 0.5), min_stage_requests=400, min_canary_requests=100
    )
    before = release("canary", config=config)
    decision = decide(before, News(), START)
    for day in range(days):
        share = before.share
        canary = int(rng.binomial(400, share))
        events = []
        for guardrail, rate in ((Guardrail.ERROR, 0.01), (Guardrail.LABEL_LOSS, 0.1)):
            for arm, count in ((Arm.CANARY, canary), (Arm.CHAMPION, 400 - canary)):
                worse = rate * (ratio if arm is Arm.CANARY else 1.0)
                events += [BadEvent(guardrail=guardrail, arm=arm, share=share)] * int(
                    rng.binomial(count, worse)
                )
        news = traffic(400 - canary, canary, share=share).plus(News(events=tuple(events)))
        decision = decide(before, news, START + timedelta(days=day))
        before = msgspec.structs.replace(
            before,
            state=decision.state,
            stage=decision.stage,
            share=decision.share,
            standing=decision.standing,
        )
        if decision.state is not State.CANARY:
            break
    return decision


def test_an_equal_version_is_promoted_and_hardly_ever_rolled_back() -> None:
    ends = [simulate(seed, ratio=1.0).state for seed in range(60)]

    assert ends.count(State.ROLLED_BACK) <= 3  # alpha is 1 %
    assert ends.count(State.PROMOTED) >= 40


def test_a_version_three_times_as_bad_is_rolled_back_and_never_promoted() -> None:
    ends = [simulate(seed, ratio=3.0).state for seed in range(30)]

    assert [State.ROLLED_BACK] * 30 == ends


def test_pairs_go_on_proving_while_the_canary_runs() -> None:
    before = release(stage=1, told=pairs(40))
    few = traffic(40, 40)

    unproven = decide(before, few, START)
    proven = decide(before, few.plus(pairs(100, champion=0.5, candidate=0.4)), START)

    assert (State.CANARY, State.PROMOTED) == (unproven.state, proven.state)


def test_losses_out_of_range_are_refused_by_their_type() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"champion": 0.1, "candidate": 1.5}, Pair)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"guardrail": "error", "arm": "canary", "share": 1.0}, BadEvent)


def test_a_unit_is_one_bad_event_however_often_it_fails_and_whoever_answers() -> None:
    def fault(arm: Arm, unit: str | None) -> BadEvent:
        return BadEvent(guardrail=Guardrail.ERROR, arm=arm, share=0.2, unit=unit)

    often = News(events=(fault(Arm.CANARY, "a"),) * 50)
    before = msgspec.structs.replace(
        release("canary"), standing=decide(release("canary"), often, START).standing
    )
    others = (fault(Arm.CHAMPION, "a"), fault(Arm.CANARY, "b"), fault(Arm.CANARY, None))

    decision = decide(before, often.plus(News(events=others)), START)

    process = decision.standing.guardrails[Guardrail.ERROR]
    assert (State.CANARY, 3, 3) == (decision.state, process.events, process.challenger_events)


def test_the_units_remembered_are_bounded() -> None:
    events = tuple(
        BadEvent(guardrail=Guardrail.ERROR, arm=Arm.CHAMPION, share=0.2, unit=str(place))
        for place in range(MOST_UNITS + 5)
    )

    standing = decide(release("canary"), News(events=events), START).standing

    assert MOST_UNITS == standing.guardrails[Guardrail.ERROR].events
    assert MOST_UNITS == len(standing.units[Guardrail.ERROR])


def test_traffic_that_is_not_split_as_intended_ends_the_canary() -> None:
    fine = decide(release("canary"), traffic(400, 100), START)
    broken = decide(release("canary"), traffic(500, 40, share=0.2), START)

    assert (State.CANARY, State.ROLLED_BACK) == (fine.state, broken.state)
    assert "not split as intended: 40 of 540" in broken.why


def test_one_busy_unit_is_no_broken_split() -> None:
    busy = News(assigned=(Assigned(arm=Arm.CANARY, share=0.2, count=10_000, unit="a"),))

    decision = decide(release("canary"), busy.plus(busy), START)

    assert decision.state is State.CANARY
    assert (1, 20_000) == (decision.standing.split.requests, decision.standing.traffic.canary)


def test_two_ways_to_prove_the_loss_share_one_chance_of_error() -> None:
    made = release()
    loss, paired = made.standing.guardrails[Guardrail.LABEL_LOSS], made.standing.paired
    assert paired is not None
    level = -math.log(CONFIG.beta)

    def proven(by_events: float, by_pairs: float) -> str | None:
        standing = msgspec.structs.replace(
            made.standing,
            guardrails=made.standing.guardrails
            | {
                Guardrail.LABEL_LOSS: msgspec.structs.replace(
                    loss, log_good=(by_events,) * len(loss.log_good)
                )
            },
            paired=msgspec.structs.replace(paired, log_good=(by_pairs,) * len(paired.log_good)),
        )
        return weighing.prove(standing, CONFIG)

    assert proven(level + 0.01, -50.0) is None
    assert proven(-50.0, level + 0.01) is None
    assert "great losses" in (proven(level + 0.7, -50.0) or "")
    assert "paired answers" in (proven(-50.0, level + 0.7) or "")
    assert proven(level + 0.01, level + 0.02)
