"""The promise of a release, measured: the real router, the real decisions, a clock of their own.

The long form, with more requests and a look after each, is in the campaigns; the figures that are
compared with were published with the method (median and 90th percentile of requests).
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from everloop.core.errors import EverloopError
from everloop.core.wire import Arm
from everloop.release.collect import news_of_rows
from everloop.release.config import USUAL_WEIGHTS, Strategy
from everloop.release.counting import begin
from everloop.release.decision import decide
from everloop.release.eprocess import start_paired, update_paired
from everloop.release.model import Assigned, BadEvent, Guardrail, News, State
from everloop.serve.decode import FloatArray
from everloop.serve.router import assign_arm
from tests.parts.campaigns import RAMP, Campaign, Mutant, rolled_back, settings
from tests.unit.release.test_decision import START, release
from tests.unit.serve.served import version_id
from tests.unit.serve.test_answer import Desk, version

RUNS = 2_000
SHORT = {"requests": 500, "look_every": 20, "base": 0.2}


def most(level: float, runs: int = RUNS) -> float:
    """The level and three standard errors."""
    return level + 3 * math.sqrt(level * (1 - level) / runs)


def test_identical_versions_are_rolled_back_no_more_often_than_promised() -> None:
    rate = rolled_back(Campaign(settings(min_stage_requests=90), **SHORT), RUNS) / RUNS  # type: ignore[arg-type]

    assert rate <= most(0.01)


def test_all_guardrails_together_keep_the_one_promise() -> None:
    config = settings(alpha=0.05, min_stage_requests=90, weights=USUAL_WEIGHTS)
    campaign = Campaign(config, guardrails=tuple(Guardrail), **SHORT)  # type: ignore[arg-type]

    assert rolled_back(campaign, 200) / 200 <= most(0.05, 200)


def test_a_bandit_may_move_the_traffic_as_it_likes() -> None:
    config = settings(alpha=0.05, min_stage_requests=60, bandit_share=0.1)
    campaign = Campaign(config, "bandit", **SHORT)  # type: ignore[arg-type]

    ends = [campaign.run(seed) for seed in range(600)]

    false = sum(end.state is State.ROLLED_BACK for end in ends)
    assert false / 600 <= most(0.05, 600)
    assert len({share for end in ends for share in end.shares}) > 50


@pytest.mark.parametrize("strategy", ["canary", "bandit"])
def test_the_share_after_the_outcome_would_break_the_promise(strategy: Strategy) -> None:
    config = settings(alpha=0.05, min_stage_requests=20)
    sound = Campaign(config, strategy, **SHORT)  # type: ignore[arg-type]
    mutant = replace(sound, mutant=Mutant.SHARE_AFTER_THE_OUTCOME)

    assert rolled_back(sound, 100) / 100 <= most(0.05, 100)
    assert rolled_back(mutant, 100) / 100 > most(0.05, 100)


def test_beginning_anew_at_each_step_would_break_the_promise() -> None:
    steps = tuple(0.5 + 0.01 * step for step in range(10))
    config = settings(alpha=0.05, min_stage_requests=100, shares=steps)
    sound = Campaign(config, requests=1_000, look_every=20, base=0.5)
    mutant = replace(sound, mutant=Mutant.RESET_AT_EACH_STEP)

    assert rolled_back(sound, 100) / 100 <= most(0.05, 100)
    assert rolled_back(mutant, 100) / 100 > most(0.05, 100)


@pytest.mark.parametrize(
    ("ratio", "median", "p90", "runs"),
    [(10.0, 534, 1_105, 100), (5.0, 1_518, 3_324, 100), (2.0, 14_928, 33_279, 40)],
)
def test_a_worse_version_is_rolled_back_as_soon_as_published(
    ratio: float, median: int, p90: int, runs: int
) -> None:
    config = settings(shares=(0.1,))
    campaign = Campaign(config, ratio=ratio, base=0.01, requests=2 * p90, look_every=100)

    ends = [campaign.run(seed) for seed in range(runs)]

    found = [end.requests if end.state is State.ROLLED_BACK else 10 * p90 for end in ends]
    assert np.median(found) <= 1.3 * median
    assert np.quantile(found, 0.9) <= 1.3 * p90


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_version_as_bad_as_is_to_be_excluded_is_rarely_promoted(share: float) -> None:
    config = settings(
        alpha=1e-12,
        beta=0.05,
        shares=(share,),
        min_stage_requests=1,
        step_up_evidence=1e9,
    )
    campaign = Campaign(config, ratio=1.5, **SHORT)  # type: ignore[arg-type]

    ends = [campaign.run(seed).state for seed in range(200)]

    assert ends.count(State.PROMOTED) / 200 <= most(0.05, 200)
    assert ends.count(State.PROMOTED) > 0


def test_relabelling_the_arms_swaps_the_evidence() -> None:
    config = settings(shares=(0.3,))
    state = mirrored = structs.replace(
        release("canary", config=config), standing=begin(config, "canary")
    )
    rng = np.random.default_rng(7)
    for place in range(600):
        arm = assign_arm("salt", str(place), 0.3)
        if rng.random() >= (0.3 if arm is Arm.CANARY else 0.1):
            continue
        other = Arm.CHAMPION if arm is Arm.CANARY else Arm.CANARY
        told = decide(state, _error(arm, 0.3), START)
        swapped = decide(mirrored, _error(other, 0.7), START)
        state = structs.replace(state, standing=told.standing)
        mirrored = structs.replace(mirrored, standing=swapped.standing)

    ours = state.standing.guardrails["error"]
    theirs = mirrored.standing.guardrails["error"]

    assert ours.log_evidence_bad > 1.0
    assert ours.log_bad == pytest.approx(theirs.log_better)
    assert ours.log_better == pytest.approx(theirs.log_bad)


def test_the_router_gives_each_share_what_it_asks_and_units_only_move_to_the_canary() -> None:
    keys = [str(place) for place in range(20_000)]

    chosen = [{key for key in keys if assign_arm("s", key, share) is Arm.CANARY} for share in RAMP]

    assert [share * 20_000 for share in RAMP] == pytest.approx(
        [len(arm) for arm in chosen], rel=0.2
    )
    assert all(before <= after for before, after in pairwise(chosen))


def _error(arm: Arm, share: float) -> News:
    return News(
        assigned=(Assigned(arm=arm, share=share),),
        events=(BadEvent(guardrail=Guardrail.ERROR, arm=arm, share=share),),
    )


def _fail_always(seed: int) -> State:
    """A ramp of equal versions, in which some units fail at each look whoever answers them."""
    units = [f"u{place}" for place in range(300)]
    config = settings(alpha=0.05, min_stage_requests=90, beta=1e-12)
    state = release("canary", config=config)
    state = structs.replace(state, share=config.shares[0], standing=begin(config, "canary"))
    for _ in range(2 * len(config.shares)):
        arms = {unit: assign_arm(f"campaign-{seed}", unit, state.share) for unit in units}
        news = News(
            assigned=tuple(
                Assigned(arm=arm, share=state.share, unit=unit) for unit, arm in arms.items()
            ),
            events=tuple(
                BadEvent(guardrail=Guardrail.ERROR, arm=arm, share=state.share, unit=unit)
                for unit, arm in arms.items()
                if int(unit[1:]) % 5 == 0
            ),
        )
        told = decide(state, news, START)
        state = structs.replace(
            state, state=told.state, stage=told.stage, share=told.share, standing=told.standing
        )
        if state.state is not State.CANARY:
            break
    return state.state


def test_units_that_fail_whoever_answers_them_speak_against_nobody_as_the_share_grows() -> None:
    ends = [_fail_always(seed) for seed in range(100)]

    assert ends.count(State.ROLLED_BACK) / 100 <= most(0.05, 100)


def test_two_equally_flaky_versions_gather_no_evidence_in_the_shadow(tmp_path: Path) -> None:
    luck = np.random.default_rng(7)

    def flaky(matrix: FloatArray) -> FloatArray:
        if luck.random() < 0.2:
            raise ZeroDivisionError
        return np.ones(len(matrix))

    desk = Desk(tmp_path)
    desk.lineup = replace(desk.lineup, champion=version(1, flaky), shadow=version(2, flaky))
    for _ in range(1_500):
        with suppress(EverloopError):
            desk.ask()
        asyncio.run(desk.answerer.shadows.drain())
    rows = desk.rows()
    desk.log.close()
    shadowed = structs.replace(
        release("shadow"), champion=rows[0].version, candidate=version_id(2), epoch=1
    )

    pairs = news_of_rows(shadowed, rows).pairs

    lost = [pair.candidate for pair in pairs]
    assert 400 < len(pairs)
    assert abs(sum(lost) - len(pairs) / 2) < 3 * math.sqrt(len(pairs) / 4)
    false = 0
    runs = np.array_split(np.array(lost), 20)
    for run in runs:
        evidence = start_paired()
        for one in run:
            evidence = update_paired(
                evidence, loss_champion=float(not one), loss_challenger=float(one)
            )
            if evidence.log_evidence_bad >= math.log(100):
                false += 1
                break
    assert false <= most(0.01, len(runs)) * len(runs)
