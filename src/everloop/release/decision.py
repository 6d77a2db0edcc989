"""What to do with a release after its news: a function of plain values.

One guarantee covers the whole release: all evidence against the candidate, of the shadow and of
every guardrail, is one weighted mean of e-processes, and alarms when it reaches ``1 / alpha``.
Half of the weight is the shadow's, where there is one; the guardrails share the rest. Apart from
it stands the split of the traffic: where that is broken, no comparison of the arms can be believed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

from msgspec import Struct, structs

from everloop.core.clock import Instant
from everloop.core.wire import Arm
from everloop.release import eprocess
from everloop.release.eprocess import BadEventProcess
from everloop.release.model import (
    BadEvent,
    Finding,
    Guardrail,
    News,
    OnNotProven,
    Release,
    ReleaseConfig,
    Standing,
    State,
    Strategy,
    Traffic,
)

PAIRED = "paired_loss"
STRICT = frozenset({Guardrail.ERROR, Guardrail.INVALID})
SPLIT = "split"
MOST_UNITS = 2_000
"""Units that a guardrail remembers. It ignores further ones, which is valid: whether it does was
settled before their outcome; and so many bad units have long since said what there is to say."""


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


def begin(config: ReleaseConfig, strategy: Strategy) -> Standing:
    """Return the standing of a release that has seen nothing."""
    guardrails = {
        guardrail.value: eprocess.start_bad_events(
            rollback_ratio=1.0 if guardrail in STRICT else 1.0 + config.margin,
            promote_ratio=1.0 + config.proof_margin,
        )
        for guardrail in Guardrail
    }
    paired = eprocess.start_paired(margin=config.paired_margin) if strategy == "shadow" else None
    return Standing(guardrails=guardrails, split=eprocess.start_sample_ratio(), paired=paired)


def deadline_of(config: ReleaseConfig, started_at: Instant) -> Instant:
    """Return when a release is decided even without proof."""
    return started_at + timedelta(days=config.deadline_days)


def decide(release: Release, news: News, now: Instant) -> Decision:
    """Take in the news and say whether to go on, step up, promote or end the release.

    Raises:
        InvalidInput: ``release.bad_loss`` or ``release.bad_share``.
    """
    standing = _advance(release.standing, news)
    evidence_bad = _evidence_bad(standing, release.config)
    findings = _findings(standing, release.config)
    state, stage, why = _next(release, standing, evidence_bad, now)
    is_new = (state, stage) != (release.state, release.stage)
    if is_new:
        standing = structs.replace(standing, stage_traffic=Traffic())
    return Decision(
        state=state,
        stage=stage,
        share=_share(release.config, state, stage),
        standing=standing,
        findings=findings,
        evidence_bad=evidence_bad,
        why=why or release.why,
        is_new=is_new,
    )


class _Census:
    """Which units have been counted; requests without a unit always count."""

    def __init__(self, known: Mapping[str, tuple[str, ...]]) -> None:
        self._known = {name: dict.fromkeys(marks) for name, marks in known.items()}

    def admits(self, name: str, mark: str | None) -> bool:
        """Count a unit; return False when it was counted before, or when there are too many."""
        if mark is None:
            return True
        known = self._known.setdefault(name, {})
        if mark in known or len(known) >= MOST_UNITS:
            return False
        known[mark] = None
        return True

    def marks(self) -> dict[str, tuple[str, ...]]:
        """Return what to keep."""
        return {name: tuple(marks) for name, marks in self._known.items()}


def _advance(standing: Standing, news: News) -> Standing:
    guardrails = dict(standing.guardrails)
    census = _Census(standing.units)
    for event in news.events:
        if not census.admits(event.guardrail.value, _mark(event)):
            continue
        guardrails[event.guardrail] = eprocess.update(
            guardrails[event.guardrail], by_canary=event.arm is Arm.CANARY, share=event.share
        )
    paired = standing.paired
    if paired is not None:
        for pair in news.pairs:
            paired = eprocess.update_paired(
                paired, loss_champion=pair.champion, loss_challenger=pair.candidate
            )
    return Standing(
        guardrails=guardrails,
        paired=paired,
        split=_advance_split(standing.split, news, census),
        units=census.marks(),
        traffic=standing.traffic.plus(news.traffic),
        stage_traffic=standing.stage_traffic.plus(news.traffic),
    )


def _mark(event: BadEvent) -> str | None:
    # A unit may move to the canary when the share grows, and then speaks once for each arm.
    return event.unit and f"{event.arm.value}:{event.unit}"


def _advance_split(
    split: eprocess.SampleRatioProcess, news: News, census: _Census
) -> eprocess.SampleRatioProcess:
    """Take in assignments: each request without a unit, and each unit the first time it is seen."""
    for part in news.assigned:
        if not census.admits(SPLIT, part.unit):
            continue
        count = part.count if part.unit is None else 1
        is_canary = part.arm is Arm.CANARY
        split = eprocess.update_sample_ratio(
            split,
            canary=count * is_canary,
            champion=count * (not is_canary),
            share=part.share,
        )
    return split


def _evidence_bad(standing: Standing, config: ReleaseConfig) -> float:
    processes: dict[str, eprocess.Guardrail] = dict(standing.guardrails)
    weights = dict.fromkeys(processes, 1.0)
    if standing.paired is not None:
        weights[PAIRED] = float(len(processes))
        processes[PAIRED] = standing.paired
    return eprocess.judge(
        processes, alpha=config.alpha, beta=config.beta, weights=weights
    ).evidence_bad


def _findings(standing: Standing, config: ReleaseConfig) -> dict[str, Finding]:
    found = {
        name: _finding(process, process.events, config)
        for name, process in standing.guardrails.items()
    }
    if standing.paired is not None:
        found[PAIRED] = _finding(standing.paired, standing.paired.pairs, config)
    return found


def _finding(process: eprocess.Guardrail, seen: int, config: ReleaseConfig) -> Finding:
    if process.log_evidence_bad >= -math.log(config.alpha):
        return Finding.WORSE
    if process.log_evidence_good >= -math.log(config.beta):
        return Finding.PROVEN
    return Finding.NOT_PROVEN if seen else Finding.NO_EVENT


def _next(
    release: Release, standing: Standing, evidence_bad: float, now: Instant
) -> tuple[State, int, str]:
    config = release.config
    if evidence_bad >= 1.0 / config.alpha:
        ended = State.REFUSED if release.state is State.SHADOW else State.ROLLED_BACK
        return ended, release.stage, _explain_alarm(standing, evidence_bad, config)
    if eprocess.is_ratio_broken(standing.split):
        return State.ROLLED_BACK, release.stage, _explain_split(standing.split)
    if release.state is State.SHADOW:
        state, stage, why = _next_in_shadow(release, standing)
    else:
        state, stage, why = _next_in_canary(release, standing, evidence_bad)
    if (state, stage) == (release.state, release.stage) and now >= release.deadline:
        return _at_deadline(release, standing, config.on_not_proven)
    return state, stage, why


def _next_in_shadow(release: Release, standing: Standing) -> tuple[State, int, str]:
    pairs = standing.paired.pairs if standing.paired is not None else 0
    if pairs < release.config.min_pairs:
        return release.state, release.stage, ""
    share = release.config.shares[0]
    why = f"{pairs} paired answers without an alarm: canary at {share:.0%}."
    return State.CANARY, 0, why


def _next_in_canary(
    release: Release, standing: Standing, evidence_bad: float
) -> tuple[State, int, str]:
    config, stage = release.config, release.stage
    here = (release.state, stage, "")
    is_full = standing.stage_traffic.total >= config.min_stage_requests
    if not is_full or evidence_bad >= config.step_up_evidence:
        return here
    if stage + 1 < len(config.shares):
        share = config.shares[stage + 1]
        why = f"{standing.stage_traffic.total} requests without an alarm: canary at {share:.0%}."
        return release.state, stage + 1, why
    proof = _proof(standing, config)
    if proof is None or standing.traffic.canary < config.min_canary_requests:
        return here
    return State.PROMOTED, stage, f"{proof}, after {standing.traffic.canary} canary answers."


def _proof(standing: Standing, config: ReleaseConfig) -> str | None:
    """Return in words what proves that the candidate loses no more, or None."""
    level = -math.log(config.beta)
    loss: BadEventProcess = standing.guardrails[Guardrail.LABEL_LOSS]
    if loss.log_evidence_good >= level:
        return f"Proven by {loss.events} great losses: not {config.proof_margin:.0%} more of them"
    if standing.paired is not None and standing.paired.log_evidence_good >= level:
        return (
            f"Proven by {standing.paired.pairs} paired answers: loss not worse by "
            f"{config.paired_margin:.0%} of the bound"
        )
    return None


def _at_deadline(
    release: Release, standing: Standing, choice: OnNotProven
) -> tuple[State, int, str]:
    pairs = standing.paired.pairs if standing.paired is not None else 0
    told = (
        f"The deadline passed and the candidate is not proven by {pairs} paired and "
        f"{standing.traffic.canary} canary answers"
    )
    if choice == "hold":
        return release.state, release.stage, f"{told}: held, a person decides."
    if choice == "promote" and release.state is State.CANARY:
        return State.PROMOTED, release.stage, f"{told}: promoted, as configured."
    ended = State.REFUSED if release.state is State.SHADOW else State.ROLLED_BACK
    return ended, release.stage, f"{told}: {ended.value.replace('_', ' ')}."


def _explain_alarm(standing: Standing, evidence_bad: float, config: ReleaseConfig) -> str:
    processes: Mapping[str, eprocess.Guardrail] = standing.guardrails | (
        {PAIRED: standing.paired} if standing.paired is not None else {}
    )
    worst = max(processes, key=lambda name: processes[name].log_evidence_bad)
    return (
        f"Evidence {evidence_bad:.3g} that the candidate is worse reached "
        f"{1.0 / config.alpha:.0f}, most of it from {worst.replace('_', ' ')}."
    )


def _explain_split(split: eprocess.SampleRatioProcess) -> str:
    return (
        f"The traffic is not split as intended: {split.challenger_requests} of {split.requests} "
        "assignments went to the canary. Look for lost logs, retries and the routing."
    )


def _share(config: ReleaseConfig, state: State, stage: int) -> float:
    if state is State.PROMOTED:
        return 1.0
    return config.shares[stage] if state is State.CANARY else 0.0
