"""What to do with a release after its news: a function of plain values.

Whatever the strategy, evidence against the candidate ends the release at once; the strategies
differ in how the traffic grows and in what is waited for. The share is always settled before the
requests that it is for, from what was known until then: that alone keeps the evidence valid. Apart
from the evidence stands the split of the traffic: where that is broken, no comparison of the arms
can be believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Final, NamedTuple

from msgspec import Struct, structs

from everloop.core.clock import Instant
from everloop.release import eprocess, weighing
from everloop.release.config import ReleaseConfig, Strategy
from everloop.release.counting import MOST_UNITS, advance, begin
from everloop.release.model import (
    Finding,
    Guardrail,
    News,
    Release,
    Standing,
    State,
    Traffic,
)

__all__ = ["MOST_UNITS", "Decision", "Outside", "begin", "deadline_of", "decide", "first_place"]
LIVE_STATES: Final = frozenset({State.STANDBY, State.SHADOW, State.CANARY})


class Decision(Struct, frozen=True, kw_only=True):
    """Where a release stands after the news, and why.

    Attributes:
        is_new: Whether the routes change by it.
    """

    state: State
    stage: int
    share: float
    standing: Standing
    findings: dict[str, Finding]
    evidence_bad: float
    why: str
    is_new: bool


class Outside(Struct, frozen=True, kw_only=True):
    """What beside the answers bears on a release.

    Attributes:
        frozen: Why nothing may move forward now; empty when it may.
        is_resident: Whether the servers have loaded the candidate; None when nobody knows.
        refused: Why a server refused it; empty when none did.
    """

    frozen: str = ""
    is_resident: bool | None = None
    refused: str = ""


NOTHING: Final = Outside()


class Place(NamedTuple):
    """A state with its stage and share, and why the release is there; no words when it stays."""

    state: State
    stage: int
    share: float
    why: str = ""


def first_place(config: ReleaseConfig, strategy: Strategy) -> Place:
    """Return where a release begins."""
    match strategy:
        case "shadow":
            return Place(State.SHADOW, -1, 0.0)
        case "blue_green":
            return Place(State.STANDBY, -1, 0.0)
        case "ab":
            return Place(State.CANARY, 0, config.ab_share)
        case "bandit":
            return Place(State.CANARY, 0, config.bandit_share)
        case _:
            return Place(State.CANARY, 0, config.shares[0])


def deadline_of(config: ReleaseConfig, started_at: Instant) -> Instant:
    """Return when a release is decided even without proof."""
    return started_at + timedelta(days=config.deadline_days)


def decide(release: Release, news: News, now: Instant, outside: Outside = NOTHING) -> Decision:
    """Take in the news and say whether to go on, step up, promote or end the release.

    A promoted release whose watch goes on can only be undone.

    Raises:
        InvalidInput: ``release.bad_loss`` or ``release.bad_share``.
    """
    standing = advance(release.standing, news, seed=release.id)
    evidence_bad = weighing.weigh(standing, release.config)
    here = Place(release.state, release.stage, release.share)
    place = _next(_Look(release, standing, evidence_bad, here), now, outside)
    is_new = place[:3] != here[:3]
    if is_new:
        standing = structs.replace(standing, stage_traffic=Traffic())
    return Decision(
        state=place.state,
        stage=place.stage,
        share=place.share,
        standing=standing,
        findings=weighing.find(standing, release.config),
        evidence_bad=evidence_bad,
        why=place.why or release.why,
        is_new=is_new,
    )


class _Look(NamedTuple):
    """A release with its standing after the news."""

    release: Release
    standing: Standing
    evidence_bad: float
    here: Place

    @property
    def config(self) -> ReleaseConfig:
        return self.release.config

    @property
    def is_calm(self) -> bool:
        """Whether the stage is full and nothing speaks against the next one."""
        is_full = self.standing.stage_traffic.total >= self.config.min_stage_requests
        return is_full and self.evidence_bad < self.config.step_up_evidence

    def end(self, why: str) -> Place:
        had_traffic = self.here.state in {State.CANARY, State.PROMOTED}
        ended = State.ROLLED_BACK if had_traffic else State.REFUSED
        return Place(ended, self.here.stage, 0.0, why)

    def promote(self, why: str) -> Place:
        return Place(State.PROMOTED, self.here.stage, 1.0, why)


def _next(look: _Look, now: Instant, outside: Outside) -> Place:
    if look.evidence_bad >= 1.0 / look.config.alpha:
        return look.end(weighing.explain_alarm(look.standing, look.evidence_bad, look.config))
    if look.here.state is State.PROMOTED:
        return look.here
    if eprocess.is_ratio_broken(look.standing.split):
        return look.end(_explain_split(look.standing.split))
    if outside.refused:
        return look.end(f"The server refused the candidate: {outside.refused}")
    place = _forward(look, outside)
    if place == look.here and now >= look.release.deadline:
        place = _at_deadline(look)
    if outside.frozen and place.state in LIVE_STATES | {State.PROMOTED} and place != look.here:
        return look.here._replace(why=f"Held: {outside.frozen}.")
    return place


def _forward(look: _Look, outside: Outside) -> Place:
    match look.here.state:
        case State.STANDBY:
            return _from_standby(look, outside)
        case State.SHADOW:
            return _from_shadow(look)
        case _:
            steps: dict[str, Callable[[_Look], Place]] = {"ab": _in_test, "bandit": _in_bandit}
            return steps.get(look.release.strategy, _in_ramp)(look)


def _from_standby(look: _Look, outside: Outside) -> Place:
    """Switch all traffic once the servers hold the candidate and it answered its golden rows."""
    pairs = look.standing.paired.pairs if look.standing.paired is not None else 0
    if not outside.is_resident or pairs < look.config.blue_green_pairs:
        return look.here
    shown = f", {pairs} paired answers without an alarm" if pairs else ""
    return look.promote(f"Loaded, and its golden answers hold{shown}: switched.")


def _from_shadow(look: _Look) -> Place:
    pairs = look.standing.paired.pairs if look.standing.paired is not None else 0
    if pairs < look.config.min_pairs:
        return look.here
    share = look.config.shares[0]
    why = f"{pairs} paired answers without an alarm: canary at {share:.0%}."
    return Place(State.CANARY, 0, share, why)


def _in_ramp(look: _Look) -> Place:
    if not look.is_calm:
        return look.here
    config, stage = look.config, look.here.stage
    if stage + 1 < len(config.shares):
        share = config.shares[stage + 1]
        total = look.standing.stage_traffic.total
        why = f"{total} requests without an alarm: canary at {share:.0%}."
        return Place(look.here.state, stage + 1, share, why)
    return _on_proof(look)


def _on_proof(look: _Look) -> Place:
    proof = weighing.prove(look.standing, look.config)
    answers = look.standing.traffic.canary
    if proof is None or answers < look.config.min_canary_requests:
        return look.here
    return look.promote(f"{proof}, after {answers} canary answers.")


def _in_test(look: _Look) -> Place:
    """Keep the share until one version is proven to be the better one, or time is up."""
    loss = look.standing.guardrails[Guardrail.LABEL_LOSS]
    answers = look.standing.traffic.canary
    is_better = loss.log_evidence_better >= -math.log(look.config.beta)
    if not is_better or answers < look.config.min_canary_requests:
        return look.here
    champion = loss.events - loss.challenger_events
    return look.promote(
        f"Proven better by {loss.challenger_events} great losses against {champion}, "
        f"after {answers} canary answers."
    )


def _in_bandit(look: _Look) -> Place:
    """Give more traffic to the version that seems better; what it seems never decides."""
    if not look.is_calm:
        return look.here
    place = _on_proof(look)
    if place != look.here:
        return place
    share = bandit_share(look.standing, look.config.bandit_share)
    why = f"The share follows what was seen: canary at {share:.0%}."
    return Place(look.here.state, look.here.stage + 1, share, why)


def bandit_share(standing: Standing, least: float) -> float:
    """Return the chance, as far as counts tell, that the candidate is the better one.

    By normal approximation to both versions' rates of bad events, as in Thompson sampling, and
    never less than ``least`` for either version.
    """
    bad = (Guardrail.ERROR, Guardrail.INVALID, Guardrail.LABEL_LOSS)
    events = [standing.guardrails[name] for name in bad]
    by_canary = sum(process.challenger_events for process in events)
    by_champion = sum(process.events for process in events) - by_canary
    canary, spread = _rate(by_canary, standing.traffic.canary)
    champion, other = _rate(by_champion, standing.traffic.champion)
    chance = 0.5 * (1.0 + math.erf((champion - canary) / math.sqrt(2.0 * (spread + other))))
    return round(min(max(chance, least), 1.0 - least), 3)


def _rate(bad: int, answers: int) -> tuple[float, float]:
    """Return the mean and variance of a rate, beginning with one bad and one good answer."""
    total = max(answers, bad) + 2
    mean = (bad + 1) / total
    return mean, mean * (1.0 - mean) / (total + 1)


def _at_deadline(look: _Look) -> Place:
    pairs = look.standing.paired.pairs if look.standing.paired is not None else 0
    said = (
        "no difference is proven"
        if look.release.strategy == "ab"
        else ("the candidate is not proven")
    )
    told = (
        f"The deadline passed and {said} by {pairs} paired and "
        f"{look.standing.traffic.canary} canary answers"
    )
    choice = look.config.on_not_proven
    if choice == "hold":
        return look.here._replace(why=f"{told}: held, a person decides.")
    if choice == "promote" and look.here.state is State.CANARY:
        return look.promote(f"{told}: promoted, as configured.")
    ended = look.end("")
    return ended._replace(why=f"{told}: {ended.state.value.replace('_', ' ')}.")


def _explain_split(split: eprocess.SampleRatioProcess) -> str:
    return (
        f"The traffic is not split as intended: {split.challenger_requests} of {split.requests} "
        "assignments went to the canary. Look for lost logs, retries and the routing."
    )
