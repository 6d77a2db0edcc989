"""Evidence for and against a release that may be looked at after every answer.

When something bad happens and two versions share the traffic, who did it? If the challenger is
not worse, its share of the bad events is at most what its share of the traffic implies, whatever
the base rate does meanwhile. Betting against that gives an e-process: by Ville's inequality the
chance that it ever reaches ``1 / alpha`` is at most ``alpha``, over all looks (Ramdas, Gruenwald,
Vovk and Shafer 2023). Means of e-processes are e-processes, so all guardrails share one guarantee.

The caller sees to it that no event is counted twice, and counts at most one event per unit of
assignment (user, session), whichever arm answered. States are plain values: store them, take them
up again.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from everloop.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

Decision: TypeAlias = Literal["rollback", "promote", "not_proven"]

WORSE_RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
"""How much worse the challenger may be, in units of the tolerated ratio."""

NOT_WORSE_RATIOS = (1.0, 0.9, 0.75, 0.5)
"""How good it may be, when it is to be shown that it is not worse by the promotion ratio."""

BETTER_RATIOS = tuple(1.0 / ratio for ratio in WORSE_RATIOS)
"""How much better it may be: `WORSE_RATIOS` with the arms' names exchanged."""

IMBALANCE_RATIOS = (0.5, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 2.0)
"""How the odds of being routed to the challenger may differ from what was intended."""

PAIRED_BETS = (0.1, 0.2, 0.4, 0.6, 0.8)


class BadEventProcess(Struct, frozen=True, kw_only=True):
    """The evidence of one guardrail, from its bad events alone.

    Attributes:
        rollback_ratio: The tolerated relative risk r0; evidence says "worse than this".
        promote_ratio: The relative risk r0' that must be excluded before a promotion.
        log_bad: Log likelihood ratio of each of `WORSE_RATIOS` against r <= r0.
        log_good: Log likelihood ratio of each of `NOT_WORSE_RATIOS` against r >= r0'.
        log_better: Log likelihood ratio of each of `BETTER_RATIOS` against r >= 1.
        events: Bad events so far.
        challenger_events: Those among them that the challenger answered.
    """

    rollback_ratio: float
    promote_ratio: float
    log_bad: tuple[float, ...]
    log_good: tuple[float, ...]
    log_better: tuple[float, ...] = (0.0,) * len(BETTER_RATIOS)
    events: int = 0
    challenger_events: int = 0

    @property
    def log_evidence_bad(self) -> float:
        """Log of the evidence that the challenger is worse than tolerated."""
        return log_mean_exp(self.log_bad)

    @property
    def log_evidence_good(self) -> float:
        """Log of the evidence that it is not as bad as the promotion ratio."""
        return log_mean_exp(self.log_good)

    @property
    def log_evidence_better(self) -> float:
        """Log of the evidence that it is better than the champion."""
        return log_mean_exp(self.log_better)


class PairedProcess(Struct, frozen=True, kw_only=True):
    """The evidence of a shadow release, in which both versions answer the same requests.

    Attributes:
        scale: The difference of losses that counts as 1; larger ones are cut.
        margin: How much worse, in units of ``scale``, must be excluded before a promotion.
        log_bad: Log wealth of each bet on "worse"; the null is a mean difference <= 0.
        log_good: Log wealth of each bet on "better"; the null is a mean difference >= margin.
        pairs: Requests so far.
        total: The sum of the cut differences, challenger minus champion.
    """

    scale: float
    margin: float
    log_bad: tuple[float, ...]
    log_good: tuple[float, ...]
    pairs: int = 0
    total: float = 0.0

    @property
    def log_evidence_bad(self) -> float:
        """Log of the evidence that the challenger is worse than the champion."""
        return log_mean_exp(self.log_bad)

    @property
    def log_evidence_good(self) -> float:
        """Log of the evidence that it is not worse by the margin."""
        return log_mean_exp(self.log_good)


class SampleRatioProcess(Struct, frozen=True, kw_only=True):
    """The evidence that traffic is not split as intended, from all requests.

    The two-sided form of the same e-process with ratio 1: broken routing, lost logs and retries
    that prefer one arm show here.
    """

    log_bad: tuple[float, ...]
    requests: int = 0
    challenger_requests: int = 0

    @property
    def log_evidence_bad(self) -> float:
        """Log of the evidence against the intended split."""
        return log_mean_exp(self.log_bad)


Guardrail: TypeAlias = BadEventProcess | PairedProcess


class Verdict(Struct, frozen=True, kw_only=True):
    """What the evidence allows at this moment.

    ``not_proven`` is not "passed": at the deadline a person decides, or the release is held.

    Attributes:
        decision: Roll back, promote, or neither yet.
        evidence_bad: The weighted mean of the guardrails' evidence, capped to stay a number.
        rollback_at: The level at which it means rollback, 1 / alpha.
        evidence_good: Each guardrail's evidence for promotion, capped.
        promote_at: The level that each of them must reach, 1 / beta.
        unproven: The guardrails that have not reached it.
    """

    decision: Decision
    evidence_bad: float
    rollback_at: float
    evidence_good: dict[str, float]
    promote_at: float
    unproven: tuple[str, ...]


def start_bad_events(*, rollback_ratio: float = 1.0, promote_ratio: float = 1.5) -> BadEventProcess:
    """Return a guardrail that has seen nothing.

    Raises:
        InvalidInput: ``release.bad_guardrail``.
    """
    if not 0.0 < rollback_ratio < math.inf:
        raise _bad_guardrail(f"its tolerated ratio is {rollback_ratio}, not a positive number")
    if not 1.0 < promote_ratio < math.inf:
        raise _bad_guardrail(f"its promotion ratio is {promote_ratio}, not above 1")
    return BadEventProcess(
        rollback_ratio=rollback_ratio,
        promote_ratio=promote_ratio,
        log_bad=(0.0,) * len(WORSE_RATIOS),
        log_good=(0.0,) * len(NOT_WORSE_RATIOS),
    )


def start_paired(*, scale: float = 1.0, margin: float = 0.05) -> PairedProcess:
    """Return a paired comparison that has seen nothing.

    Raises:
        InvalidInput: ``release.bad_guardrail``.
    """
    if not 0.0 < scale < math.inf:
        raise _bad_guardrail(f"its scale is {scale}, not a positive number")
    if not 0.0 < margin < 1.0:
        raise _bad_guardrail(f"its margin is {margin}, not between 0 and 1")
    return PairedProcess(
        scale=scale,
        margin=margin,
        log_bad=(0.0,) * len(PAIRED_BETS),
        log_good=(0.0,) * len(PAIRED_BETS),
    )


def start_sample_ratio() -> SampleRatioProcess:
    """Return a watch over the split of the traffic that has seen nothing."""
    return SampleRatioProcess(log_bad=(0.0,) * len(IMBALANCE_RATIOS))


def update(state: BadEventProcess, *, by_canary: bool, share: float) -> BadEventProcess:
    """Take in one bad event.

    Args:
        state: The guardrail so far.
        by_canary: Whether the challenger answered the request that went bad.
        share: The challenger's share of the traffic when that request was routed. It must have
            been fixed before the outcome was known; it may change from request to request.

    Raises:
        InvalidInput: ``release.bad_share``, also when an arm without traffic answered.
    """
    return update_many(state, canary=int(by_canary), champion=int(not by_canary), share=share)


def update_many(
    state: BadEventProcess, *, canary: int, champion: int, share: float
) -> BadEventProcess:
    """Take in bad events of both arms that were routed at one share; their order is irrelevant.

    Raises:
        InvalidInput: ``release.bad_share``.
    """
    _require_share(share, canary=canary, champion=champion)
    counted = replace(
        state,
        events=state.events + canary + champion,
        challenger_events=state.challenger_events + canary,
    )
    if share in (0.0, 1.0):
        return counted  # Only one arm could have done it: no evidence either way.
    worse = tuple(state.rollback_ratio * ratio for ratio in WORSE_RATIOS)
    bad = _log_factors(share, state.rollback_ratio, worse)
    good = _log_factors(share, state.promote_ratio, NOT_WORSE_RATIOS)
    better = _log_factors(share, 1.0, BETTER_RATIOS)
    return replace(
        counted,
        log_bad=_advance(state.log_bad, bad, canary, champion),
        log_good=_advance(state.log_good, good, canary, champion),
        log_better=_advance(state.log_better, better, canary, champion),
    )


def update_paired(
    state: PairedProcess, *, loss_champion: float, loss_challenger: float
) -> PairedProcess:
    """Take in the losses of both versions on one request.

    Raises:
        InvalidInput: ``release.bad_loss`` when a loss is not a number.
    """
    if not (math.isfinite(loss_champion) and math.isfinite(loss_challenger)):
        raise InvalidInput(
            "release.bad_loss",
            f"Losses {loss_champion} and {loss_challenger} cannot be compared.",
            hint="Count an answer without a loss as a bad event instead.",
        )
    d = min(1.0, max(-1.0, (loss_challenger - loss_champion) / state.scale))
    slack = d - state.margin
    return replace(
        state,
        log_bad=tuple(
            log + math.log1p(bet * d) for log, bet in zip(state.log_bad, PAIRED_BETS, strict=True)
        ),
        log_good=tuple(
            log + math.log1p(-bet * slack)
            for log, bet in zip(state.log_good, PAIRED_BETS, strict=True)
        ),
        pairs=state.pairs + 1,
        total=state.total + d,
    )


def update_sample_ratio(
    state: SampleRatioProcess, *, canary: int, champion: int, share: float
) -> SampleRatioProcess:
    """Take in requests of both arms that were routed at one share.

    Raises:
        InvalidInput: ``release.bad_share``.
    """
    _require_share(share, canary=canary, champion=champion)
    log_bad = state.log_bad
    if share not in (0.0, 1.0):
        factors = _log_factors(share, 1.0, IMBALANCE_RATIOS)
        log_bad = _advance(log_bad, factors, canary, champion)
    return SampleRatioProcess(
        log_bad=log_bad,
        requests=state.requests + canary + champion,
        challenger_requests=state.challenger_requests + canary,
    )


def is_ratio_broken(state: SampleRatioProcess, *, alpha: float = 0.001) -> bool:
    """Say whether the split of traffic is proven not to be the intended one."""
    return state.log_evidence_bad >= -math.log(alpha)


def judge(
    guardrails: Mapping[str, Guardrail],
    *,
    alpha: float = 0.01,
    beta: float = 0.05,
    weights: Mapping[str, float] | None = None,
) -> Verdict:
    """Say what the evidence allows; ask after every update, the guarantee covers every look.

    Rollback comes first. A challenger that is no worse than tolerated on any guardrail is ever
    rolled back with probability at most ``alpha``; one that is worse by the promotion ratio or
    margin on some guardrail is ever promoted with probability at most ``beta``. Weights must be
    fixed before the release begins.

    Raises:
        InvalidInput: ``release.bad_guardrail`` for levels or weights without meaning.
    """
    if not (0.0 < alpha < 1.0 and 0.0 < beta < 1.0):
        raise _bad_guardrail(f"the error levels are {alpha} and {beta}, not between 0 and 1")
    shares = _normalise(guardrails, weights)
    logs = [
        math.log(shares[name]) + process.log_evidence_bad
        for name, process in guardrails.items()
        if shares[name] > 0.0
    ]
    log_bad = _log_sum_exp(logs) if logs else 0.0
    good = {name: process.log_evidence_good for name, process in guardrails.items()}
    unproven = tuple(name for name, log in good.items() if log < -math.log(beta))
    decision: Decision = "not_proven"
    if log_bad >= -math.log(alpha):
        decision = "rollback"
    elif guardrails and not unproven:
        decision = "promote"
    return Verdict(
        decision=decision,
        evidence_bad=_capped_exp(log_bad),
        rollback_at=1.0 / alpha,
        evidence_good={name: _capped_exp(log) for name, log in good.items()},
        promote_at=1.0 / beta,
        unproven=unproven,
    )


def log_mean_exp(logs: tuple[float, ...]) -> float:
    """Return the logarithm of the mean of the numbers whose logarithms are given."""
    return _log_sum_exp(logs) - math.log(len(logs))


@lru_cache(maxsize=1024)
def _log_factors(
    share: float, null_ratio: float, ratios: tuple[float, ...]
) -> tuple[tuple[float, float], ...]:
    """Return for each ratio the log factors of an event by the challenger, by the champion."""
    null = _chance(share, null_ratio)
    return tuple(
        (
            math.log(_chance(share, ratio) / null),
            math.log((1.0 - _chance(share, ratio)) / (1.0 - null)),
        )
        for ratio in ratios
    )


def _chance(share: float, ratio: float) -> float:
    """Return the chance that the challenger did it, at a traffic share and a relative risk."""
    return share * ratio / (1.0 - share + share * ratio)


def _advance(
    logs: tuple[float, ...], factors: tuple[tuple[float, float], ...], canary: int, champion: int
) -> tuple[float, ...]:
    return tuple(
        log + canary * by_canary + champion * by_champion
        for log, (by_canary, by_champion) in zip(logs, factors, strict=True)
    )


def _normalise(
    guardrails: Mapping[str, Guardrail], weights: Mapping[str, float] | None
) -> dict[str, float]:
    chosen = {name: 1.0 if weights is None else weights.get(name, -1.0) for name in guardrails}
    total = sum(chosen.values())
    if guardrails and not (total > 0.0 and all(0.0 <= w < math.inf for w in chosen.values())):
        raise _bad_guardrail("each needs a weight that is not negative, and one a positive weight")
    return {name: weight / total for name, weight in chosen.items()}


def _require_share(share: float, *, canary: int, champion: int) -> None:
    impossible = (share == 0.0 and canary > 0) or (share == 1.0 and champion > 0)
    if not 0.0 <= share <= 1.0 or impossible or min(canary, champion) < 0:
        raise InvalidInput(
            "release.bad_share",
            f"{canary} and {champion} answers do not fit a traffic share of {share}.",
            hint="Log the share with the routing decision, before the answer.",
        )


def _log_sum_exp(logs: tuple[float, ...] | list[float]) -> float:
    peak = max(logs)
    return peak + math.log(sum(math.exp(log - peak) for log in logs))


def _capped_exp(log: float) -> float:
    return math.exp(min(log, 690.0))


def _bad_guardrail(what: str) -> InvalidInput:
    return InvalidInput(
        "release.bad_guardrail",
        f"A guardrail cannot be used: {what}.",
        hint="Correct the release's settings under `models.<name>.release`.",
    )
