"""Whole release campaigns by the real router and the real decisions, on a clock of their own.

Requests come one a second. The router gives each to an arm; which of them go bad is thrown with
the arm's own rate; the release is told after every few requests, at the share that was in force
when the router was asked. ``Mutant`` switches on one mistake that voids the guarantee.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum

import numpy as np
from msgspec import structs

from everloop.core.wire import Arm
from everloop.release.config import USUAL_WEIGHTS, ReleaseConfig, Strategy
from everloop.release.counting import begin
from everloop.release.decision import Decision, decide, first_place
from everloop.release.model import Assigned, BadEvent, Guardrail, News, Release, State
from everloop.serve.router import assign_arm
from tests.unit.release.test_decision import START, release

RAMP = (0.01, 0.05, 0.1, 0.25, 0.5)
ONLY_ERRORS = dict.fromkeys(USUAL_WEIGHTS, 0.0) | {"error": 1.0}


class Mutant(Enum):
    """A mistake that voids the guarantee."""

    SHARE_AFTER_THE_OUTCOME = "an error of the canary halves its share, and that is what is logged"
    RESET_AT_EACH_STEP = "the evidence begins anew at every step of the ramp"


@dataclass(frozen=True)
class Campaign:
    """One release from its start to a verdict, or to the last request.

    Attributes:
        config: Its settings.
        ratio: How many times as often the candidate errs.
        base: Part of its requests that the champion has no answer to.
        requests: Most requests.
        look_every: Requests between two looks at the news.
    """

    config: ReleaseConfig
    strategy: Strategy = "canary"
    ratio: float = 1.0
    base: float = 0.1
    requests: int = 1_000
    look_every: int = 25
    mutant: Mutant | None = None
    guardrails: tuple[Guardrail, ...] = (Guardrail.ERROR,)

    def run(self, seed: int) -> End:
        """Run it; the seed stands for the release's id and for the luck of its requests."""
        rng = np.random.default_rng(seed)
        state = self._begin()
        chance = rng.random((len(self.guardrails), self.requests))
        now, end = START, End(state.state, 0, [state.share])
        for first in range(0, self.requests, self.look_every):
            last = min(first + self.look_every, self.requests)
            news = self._serve(f"campaign-{seed}", state, chance[:, first:last], first)
            now += timedelta(seconds=last - first)
            decision = decide(state, news, now)
            state = self._follow(state, decision)
            end = End(state.state, last, [*end.shares, state.share])
            if state.state is not State.CANARY:
                break
        return end

    def _begin(self) -> Release:
        place = first_place(self.config, self.strategy)
        return structs.replace(
            release("canary", config=self.config),
            strategy=self.strategy,
            stage=place.stage,
            share=place.share,
            standing=begin(self.config, self.strategy),
        )

    def _serve(
        self,
        salt: str,
        state: Release,
        chance: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
        first: int,
    ) -> News:
        share, size = state.share, chance.shape[1]
        arms = [assign_arm(salt, str(first + place), share) for place in range(size)]
        rates = np.where([arm is Arm.CANARY for arm in arms], self.base * self.ratio, self.base)
        events = tuple(
            BadEvent(guardrail=guardrail, arm=arms[place], share=self._logged(share, arms[place]))
            for guardrail, luck in zip(self.guardrails, chance, strict=True)
            for place in np.flatnonzero(luck < rates)
        )
        canary = arms.count(Arm.CANARY)
        counts = ((Arm.CANARY, canary), (Arm.CHAMPION, size - canary))
        assigned = tuple(
            Assigned(arm=arm, share=share, count=count) for arm, count in counts if count
        )
        return News(assigned=assigned, events=events)

    def _logged(self, share: float, arm: Arm) -> float:
        is_late = self.mutant is Mutant.SHARE_AFTER_THE_OUTCOME and arm is Arm.CANARY
        return share / 2 if is_late else share

    def _follow(self, state: Release, decision: Decision) -> Release:
        standing = decision.standing
        if self.mutant is Mutant.RESET_AT_EACH_STEP and decision.is_new:
            standing = begin(self.config, self.strategy)
        return structs.replace(
            state,
            state=decision.state,
            stage=decision.stage,
            share=decision.share,
            standing=standing,
        )


@dataclass(frozen=True)
class End:
    """How a campaign ended, after how many requests, and the share at each look."""

    state: State
    requests: int
    shares: list[float] = field(default_factory=list)


def settings(**changes: object) -> ReleaseConfig:
    """Settings in which only errors speak, and nothing ends but by evidence."""
    chosen = ReleaseConfig(
        strategy="canary",
        weights=ONLY_ERRORS,  # type: ignore[arg-type]
        watch_days=0.0,
        min_stage_requests=150,
        min_canary_requests=1,
        prove=("error",),
        beta=1e-9,
        deadline_days=365.0,
        shares=RAMP,
    )
    return structs.replace(chosen, **changes)


def rolled_back(campaign: Campaign, runs: int) -> int:
    """Return how many of so many campaigns ended by a rollback."""
    return sum(campaign.run(seed).state is State.ROLLED_BACK for seed in range(runs))
