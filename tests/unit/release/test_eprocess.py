"""The rows of the published simulation at reduced size, and the ways to break the guarantee."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput
from everloop.release.eprocess import (
    BadEventProcess,
    PairedProcess,
    is_ratio_broken,
    judge,
    start_bad_events,
    start_paired,
    start_sample_ratio,
    update,
    update_many,
    update_paired,
    update_sample_ratio,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

RAMP = (0.01, 0.05, 0.1, 0.25, 0.5)


def chance(share: float, ratio: float) -> float:
    return share * ratio / (1 - share + share * ratio)


def limit(level: float, runs: int) -> float:
    """The level and three standard errors."""
    return level + 3 * math.sqrt(level * (1 - level) / runs)


def ever_bad(events: Iterable[tuple[bool, float]], alpha: float) -> bool:
    state = start_bad_events()
    for by_canary, share in events:
        state = update(state, by_canary=by_canary, share=share)
        if state.log_evidence_bad >= -math.log(alpha):
            return True
    return False


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_identical_versions_are_rarely_rolled_back_however_often_one_looks(share: float) -> None:
    rng, runs, alpha = np.random.default_rng(41), 300, 0.05

    false = sum(
        ever_bad(((bool(x), share) for x in rng.random(300) < share), alpha) for _ in range(runs)
    )

    assert false / runs <= limit(alpha, runs)


def ramped(
    rng: np.random.Generator, *, ratio: float = 1.0, each: int = 80
) -> list[tuple[bool, float]]:
    return [(bool(rng.random() < chance(s, ratio)), s) for s in RAMP for _ in range(each)]


def test_evidence_carries_over_a_ramp_of_the_traffic() -> None:
    rng, runs, alpha = np.random.default_rng(42), 300, 0.05

    false = sum(ever_bad(ramped(rng), alpha) for _ in range(runs))

    assert false / runs <= limit(alpha, runs)


def test_a_better_challenger_is_rolled_back_even_less() -> None:
    rng, runs = np.random.default_rng(43), 300

    false = sum(ever_bad(ramped(rng, ratio=0.5), 0.05) for _ in range(runs))

    assert false / runs <= 0.03


def test_a_share_taken_after_the_outcome_breaks_the_guarantee() -> None:
    """Mutation: a canary's error halves its share, and the halved share is what is logged."""
    rng, runs, alpha = np.random.default_rng(44), 100, 0.05

    false = sum(
        ever_bad(((x, s / 2 if x else s) for x, s in ramped(rng)), alpha) for _ in range(runs)
    )

    assert false / runs > limit(alpha, runs)


def test_starting_over_at_each_step_breaks_the_guarantee() -> None:
    """Mutation: every restart buys a fresh chance of a false rollback."""
    rng, runs, alpha, restarts = np.random.default_rng(45), 100, 0.05, 12

    false = sum(
        any(
            ever_bad(((bool(x), 0.5) for x in rng.random(150) < 0.5), alpha)
            for _ in range(restarts)
        )
        for _ in range(runs)
    )

    assert false / runs > limit(alpha, runs)


@pytest.mark.parametrize(
    ("ratio", "median", "p90"), [(10.0, 534, 1_105), (5.0, 1_518, 3_324), (3.0, 4_797, 9_836)]
)
def test_a_worse_challenger_is_found_as_fast_as_published(
    ratio: float, median: int, p90: int
) -> None:
    """Requests until rollback; base error 1 %, share 10 %, alpha 1 %."""
    rng, share, base = np.random.default_rng(46), 0.1, 0.01
    requests = []
    for _ in range(200):
        state, seen = start_bad_events(), 0
        while state.log_evidence_bad < math.log(100):
            # The next bad event of either arm, and who did it.
            seen += int(rng.geometric(base * (1 - share + share * ratio)))
            by_canary = bool(rng.random() < chance(share, ratio))
            state = update(state, by_canary=by_canary, share=share)
        requests.append(seen)

    assert np.median(requests) <= 1.3 * median
    assert np.quantile(requests, 0.9) <= 1.3 * p90


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_challenger_just_as_bad_as_excluded_is_rarely_promoted(share: float) -> None:
    rng, runs, beta = np.random.default_rng(47), 300, 0.05
    promoted = 0
    for _ in range(runs):
        state = start_bad_events(rollback_ratio=1.0, promote_ratio=2.0)
        for x in rng.random(300) < chance(share, 2.0):
            state = update(state, by_canary=bool(x), share=share)
            if state.log_evidence_good >= -math.log(beta):
                promoted += 1
                break

    assert promoted / runs <= limit(beta, runs)


def test_an_identical_version_is_promoted_in_the_published_time() -> None:
    """Requests to prove "not 2x worse"; base error 1 %, share 50 %: 4,700."""
    rng, requests = np.random.default_rng(48), []
    for _ in range(100):
        state, seen = start_bad_events(promote_ratio=2.0), 0
        while judge({"errors": state}).decision == "not_proven":
            seen += int(rng.geometric(0.01))
            state = update(state, by_canary=bool(rng.random() < 0.5), share=0.5)
        requests.append(seen)

    assert np.median(requests) == pytest.approx(4_700, rel=0.3)


def test_relabelling_the_arms_swaps_the_evidence() -> None:
    rng = np.random.default_rng(49)
    events = [(bool(rng.random() < 0.8), 0.5) for _ in range(100)]

    state = mirrored = start_bad_events()
    for by_canary, share in events:
        state = update(state, by_canary=by_canary, share=share)
        mirrored = update(mirrored, by_canary=not by_canary, share=1 - share)

    assert judge({"errors": state}).decision == "rollback"
    assert judge({"errors": mirrored}).decision == "promote"
    assert state.challenger_events + mirrored.challenger_events == state.events


def test_counting_events_together_equals_one_by_one() -> None:
    one = start_bad_events(rollback_ratio=1.1)
    for by_canary in (True, False, False, True, True):
        one = update(one, by_canary=by_canary, share=0.25)

    many = update_many(start_bad_events(rollback_ratio=1.1), canary=3, champion=2, share=0.25)

    assert many.log_bad == pytest.approx(one.log_bad)
    assert many.log_good == pytest.approx(one.log_good)
    assert (many.events, many.challenger_events) == (5, 3)


def test_guardrails_share_one_guarantee_by_their_weighted_mean() -> None:
    bad = update_many(start_bad_events(), canary=9, champion=0, share=0.1)
    quiet = start_bad_events()

    alone, beside = judge({"e": bad}), judge({"e": bad, "q": quiet, "r": quiet, "s": quiet})
    unheard = judge({"e": bad, "q": quiet}, weights={"e": 0.0, "q": 1.0})

    assert alone.decision == beside.decision == "rollback"
    assert beside.evidence_bad == pytest.approx((alone.evidence_bad + 3) / 4)
    assert unheard.evidence_bad == pytest.approx(1.0)
    assert unheard.decision == "not_proven"


def test_every_guardrail_must_be_proven_before_a_promotion() -> None:
    good = update_many(start_bad_events(promote_ratio=2.0), canary=20, champion=60, share=0.5)

    verdict = judge({"errors": good, "latency": start_bad_events()})

    assert judge({"errors": good}).decision == "promote"
    assert (verdict.decision, verdict.unproven) == ("not_proven", ("latency",))
    assert judge({}).decision == "not_proven"


def paired_run(rng: np.random.Generator, worse: float, better: float, rows: int) -> PairedProcess:
    state = start_paired()
    for u in rng.random(rows):
        challenger, champion = float(u < worse), float(worse <= u < worse + better)
        state = update_paired(state, loss_champion=champion, loss_challenger=challenger)
        if state.log_evidence_bad >= math.log(100):
            break
    return state


def test_in_the_shadow_identical_versions_are_rarely_called_worse() -> None:
    rng, runs = np.random.default_rng(50), 100
    states = [paired_run(rng, 0.025, 0.025, 600) for _ in range(runs)]

    false = sum(state.log_evidence_bad >= math.log(100) for state in states)

    assert false / runs <= limit(0.01, runs)


def test_in_the_shadow_three_points_less_are_found_in_the_published_rows() -> None:
    rng = np.random.default_rng(51)
    rows = [paired_run(rng, 0.04, 0.01, 5_000).pairs for _ in range(60)]

    assert np.median(rows) <= 509 * 1.3


def test_in_the_shadow_an_equal_version_is_shown_not_to_be_worse_by_the_margin() -> None:
    state = paired_run(np.random.default_rng(52), 0.025, 0.025, 2_000)

    assert judge({"shadow": state}).decision == "promote"
    assert state.total / state.pairs == pytest.approx(0.0, abs=0.02)


def test_differences_of_losses_are_cut_at_the_scale() -> None:
    huge = update_paired(start_paired(scale=2.0), loss_champion=0.0, loss_challenger=1e9)
    full = update_paired(start_paired(scale=2.0), loss_champion=0.0, loss_challenger=2.0)

    assert huge == full


def test_a_router_that_does_not_keep_to_its_share_is_found() -> None:
    rng = np.random.default_rng(53)
    fair, broken = start_sample_ratio(), start_sample_ratio()
    for _ in range(50):
        right, wrong = int(rng.binomial(400, 0.1)), int(rng.binomial(400, 0.08))
        fair = update_sample_ratio(fair, canary=right, champion=400 - right, share=0.1)
        broken = update_sample_ratio(broken, canary=wrong, champion=400 - wrong, share=0.1)

    assert is_ratio_broken(broken)
    assert not is_ratio_broken(fair)


def test_states_go_on_from_their_json() -> None:
    state = update(start_bad_events(), by_canary=True, share=0.1)
    paired = update_paired(start_paired(), loss_champion=0.2, loss_challenger=0.1)

    assert msgspec.json.decode(canonical_json(state), type=BadEventProcess) == state
    assert msgspec.json.decode(canonical_json(paired), type=PairedProcess) == paired
    overwhelming = update_many(state, canary=100_000, champion=0, share=0.01)
    assert canonical_json(judge({"errors": overwhelming}))


def test_an_arm_with_all_the_traffic_gives_no_evidence() -> None:
    state = update(start_bad_events(), by_canary=True, share=1.0)

    assert (state.log_evidence_bad, state.log_evidence_good) == (0.0, 0.0)
    assert state.events == 1


@pytest.mark.parametrize(
    ("by_canary", "share"), [(True, 0.0), (False, 1.0), (True, 1.5), (True, -0.1), (True, math.nan)]
)
def test_an_impossible_share_is_refused(by_canary: bool, share: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        update(start_bad_events(), by_canary=by_canary, share=share)
    assert refused.value.code == "release.bad_share"


def test_settings_and_losses_without_meaning_are_refused() -> None:
    with pytest.raises(InvalidInput):
        start_bad_events(promote_ratio=1.0)
    with pytest.raises(InvalidInput):
        start_bad_events(rollback_ratio=0.0)
    with pytest.raises(InvalidInput):
        start_paired(scale=0.0)
    with pytest.raises(InvalidInput):
        start_paired(margin=0.0)
    with pytest.raises(InvalidInput):
        judge({"errors": start_bad_events()}, alpha=0.0)
    with pytest.raises(InvalidInput):
        judge({"errors": start_bad_events()}, weights={})
    with pytest.raises(InvalidInput):
        update_paired(start_paired(), loss_champion=math.nan, loss_challenger=0.0)
