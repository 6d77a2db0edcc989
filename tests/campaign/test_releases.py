"""The whole simulation of releases, through the real router and decisions; prints its figures.

The published figures that these are held against: of 2,000 identical versions at most ``alpha`` and
three standard errors are rolled back; a version 2, 5 or 10 times as bad is found within 1.3 times
the published median and 90th percentile of requests; one exactly as bad as the proof must exclude
is promoted at most at ``beta`` and three standard errors.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from everloop.release.config import USUAL_WEIGHTS, Strategy
from everloop.release.model import Guardrail, State
from tests.parts.campaigns import Campaign, Mutant, rolled_back, settings

pytestmark = pytest.mark.campaign
RUNS = 2_000


def most(level: float, runs: int = RUNS) -> float:
    """The level and three standard errors."""
    return level + 3 * math.sqrt(level * (1 - level) / runs)


@pytest.mark.parametrize("strategy", ["canary", "ab", "bandit"])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_identical_versions(strategy: Strategy, alpha: float) -> None:
    config = settings(alpha=alpha, min_stage_requests=400)
    campaign = Campaign(config, strategy, requests=3_000, look_every=25, base=0.1)

    rate = rolled_back(campaign, RUNS) / RUNS

    print(f"A/A {strategy} at {alpha}: {rate:.4f} rolled back, at most {most(alpha):.4f}")
    assert rate <= most(alpha)


def test_identical_versions_under_all_guardrails() -> None:
    config = settings(alpha=0.05, min_stage_requests=400, weights=USUAL_WEIGHTS)
    campaign = Campaign(config, requests=2_000, look_every=20, guardrails=tuple(Guardrail))

    rate = rolled_back(campaign, RUNS) / RUNS

    print(f"A/A with six guardrails at 0.05: {rate:.4f}, at most {most(0.05):.4f}")
    assert rate <= most(0.05)


@pytest.mark.parametrize("mutant", list(Mutant))
def test_each_mistake_breaks_the_promise(mutant: Mutant) -> None:
    steps = tuple(0.5 + 0.01 * step for step in range(10))
    config = settings(alpha=0.05, min_stage_requests=100, shares=steps)
    campaign = Campaign(config, requests=1_000, look_every=10, base=0.5, mutant=mutant)

    rate = rolled_back(campaign, 400) / 400

    print(f"{mutant.name}: {rate:.3f} rolled back, the promise is {most(0.05, 400):.3f}")
    assert rate > most(0.05, 400)


@pytest.mark.parametrize(
    ("ratio", "median", "p90"), [(10.0, 534, 1_105), (5.0, 1_518, 3_324), (2.0, 14_928, 33_279)]
)
def test_detection(ratio: float, median: int, p90: int) -> None:
    campaign = Campaign(
        settings(shares=(0.1,)), ratio=ratio, base=0.01, requests=3 * p90, look_every=20
    )

    ends = [campaign.run(seed) for seed in range(400)]

    found = [end.requests if end.state is State.ROLLED_BACK else 10 * p90 for end in ends]
    middle, late = np.median(found), np.quantile(found, 0.9)
    print(f"r = {ratio:g}: median {middle:.0f} ({median}), p90 {late:.0f} ({p90})")
    assert middle <= 1.3 * median
    assert late <= 1.3 * p90


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_promotion_at_the_boundary(share: float) -> None:
    config = settings(
        alpha=1e-12, beta=0.05, shares=(share,), min_stage_requests=1, step_up_evidence=1e9
    )
    campaign = Campaign(config, ratio=1.5, requests=3_000, look_every=10, base=0.1)

    ends = [campaign.run(seed).state for seed in range(RUNS)]

    rate = ends.count(State.PROMOTED) / RUNS
    print(f"wrong promotions at the boundary, share {share:.0%}: {rate:.4f}")
    assert rate <= most(0.05)
