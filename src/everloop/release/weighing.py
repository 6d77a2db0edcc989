"""One number for all evidence against a candidate, and in words what is known of each guardrail.

All evidence, of the shadow, of every guardrail and of the watch after the promotion, is one
weighted mean of e-processes with weights that are fixed before the release begins; it alarms when
it reaches ``1 / alpha``. Half of the weight before the promotion is the shadow's, if there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from everloop.release import eprocess
from everloop.release.config import ReleaseConfig
from everloop.release.model import Finding, Guardrail, Standing
from everloop.release.watching import PART

PAIRED: Final = "paired_loss"
WATCH: Final = "watch"
MOST_LOG: Final = 690.0
_WORDS = {
    Guardrail.ERROR: "errors",
    Guardrail.INVALID: "invalid answers",
    Guardrail.LATENCY: "slow answers",
    Guardrail.LABEL_LOSS: "great losses",
    Guardrail.RANGE: "unusual answers",
    Guardrail.OVERRIDE: "overridden answers",
}


def processes_of(standing: Standing) -> dict[str, eprocess.Guardrail]:
    """Return every process before the promotion, by name."""
    found: dict[str, eprocess.Guardrail] = dict(standing.guardrails)
    if standing.paired is not None:
        found[PAIRED] = standing.paired
    return found


def weigh(standing: Standing, config: ReleaseConfig) -> float:
    """Return the combined evidence that the candidate is worse; capped to stay a number."""
    processes = processes_of(standing)
    weights = config.all_weights()
    if standing.paired is not None:
        weights[PAIRED] = sum(weights.values())
    before = _mean(processes, weights)
    if config.watch_days == 0:
        return before
    watched = standing.watch.guardrails if standing.watch is not None else {}
    return (1.0 - PART) * before + PART * _mean(watched, weights)


def _mean(processes: Mapping[str, eprocess.Guardrail], weights: Mapping[str, float]) -> float:
    """Return the weighted mean of the evidence; 1 where nothing has a weight."""
    total = sum(weights[name] for name in processes)
    if total == 0:
        return 1.0
    evidence = sum(
        weights[name] * math.exp(min(process.log_evidence_bad, MOST_LOG))
        if _has_seen(process)
        else weights[name]
        for name, process in processes.items()
        if weights[name]
    )
    return evidence / total


def _has_seen(process: eprocess.Guardrail) -> bool:
    seen = process.events if isinstance(process, eprocess.BadEventProcess) else process.pairs
    return seen > 0


def find(standing: Standing, config: ReleaseConfig) -> dict[str, Finding]:
    """Return what is known of each guardrail."""
    found = {
        name: _finding(process, process.events, config)
        for name, process in standing.guardrails.items()
    }
    if standing.paired is not None:
        found[PAIRED] = _finding(standing.paired, standing.paired.pairs, config)
    return found


def _finding(process: eprocess.Guardrail, seen: int, config: ReleaseConfig) -> Finding:
    if not seen:
        return Finding.NO_EVENT
    proof = -math.log(config.beta)
    if process.log_evidence_bad >= -math.log(config.alpha):
        return Finding.WORSE
    if isinstance(process, eprocess.BadEventProcess) and process.log_evidence_better >= proof:
        return Finding.BETTER
    if process.log_evidence_good >= proof:
        return Finding.PROVEN
    return Finding.NOT_PROVEN


def prove(standing: Standing, config: ReleaseConfig) -> str | None:
    """Return in words what proves that the candidate is not worse, or None.

    Everything that ``prove`` names must be proven, each with a chance of error of ``beta``.
    """
    said = [_proof_of(Guardrail(name), standing, config) for name in config.prove]
    return None if None in said else "; ".join(words for words in said if words)


def _proof_of(guardrail: Guardrail, standing: Standing, config: ReleaseConfig) -> str | None:
    level = -math.log(config.beta)
    process, paired = standing.guardrails[guardrail], standing.paired
    proof = process.log_evidence_good
    by_pairs = -math.inf
    if guardrail is Guardrail.LABEL_LOSS and paired is not None:
        # Two ways to be proven share one chance of error: the mean of both is an e-process, too.
        by_pairs = paired.log_evidence_good
        proof = eprocess.log_mean_exp((proof, by_pairs))
    if proof < level:
        return None
    if paired is not None and by_pairs > process.log_evidence_good:
        return (
            f"Proven by {paired.pairs} paired answers: loss not worse by "
            f"{config.paired_margin:.0%} of the bound"
        )
    words = _WORDS[guardrail]
    return f"Proven by {process.events} {words}: not {config.proof_margin:.0%} more of them"


def explain_alarm(standing: Standing, evidence_bad: float, config: ReleaseConfig) -> str:
    """Say which guardrail raised the alarm."""
    logs = {
        name: process.log_evidence_bad
        for name, process in processes_of(standing).items()
        if name == PAIRED or config.all_weights()[name] > 0
    }
    watch: Mapping[str, eprocess.BadEventProcess] = (
        standing.watch.guardrails if standing.watch is not None else {}
    )
    logs |= {f"{name} after the promotion": it.log_evidence_bad for name, it in watch.items()}
    worst = max(logs, key=lambda name: logs[name])
    return (
        f"Evidence {evidence_bad:.3g} that the candidate is worse reached "
        f"{1.0 / config.alpha:.0f}, most of it from {worst.replace('_', ' ')}."
    )
