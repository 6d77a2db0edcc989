"""When to retrain: a pure decision over the alarms, the past runs and the change envelope.

Only losses trigger: most shifts of inputs are harmless, so drift by itself is shown to people and
changes nothing (Poenaru-Olaru et al. 2025; Mahadevan and Mathioudakis 2024 on the cost of needless
retrains).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from msgspec import Struct

from everloop.core.clock import Instant
from everloop.loop.model import LoopConfig, LoopRun, LoopState
from everloop.monitor.model import Alert, AlertKind, AlertState

FAILURES = frozenset({LoopState.REFUSED, LoopState.ROLLED_BACK, LoopState.FAILED})


class Answer(Struct, frozen=True, kw_only=True):
    """Whether to retrain now, and why or why not.

    Attributes:
        alert: The alarm that is the cause; None when there is nothing to do.
        why: In words, for the record.
    """

    alert: Alert | None
    why: str


def decide(
    alerts: Sequence[Alert], runs: Sequence[LoopRun], config: LoopConfig, now: Instant
) -> Answer:
    """Answer whether the loop retrains now.

    Args:
        alerts: Of this deployment, newest first.
        runs: Past runs of this deployment, newest first; none of them live.
        config: The envelope.
        now: The loop's time.
    """
    alarms = open_alarms(alerts)
    if not config.enabled or not alarms:
        return Answer(alert=None, why="")
    refusal = _refusal(runs, config, now)
    if refusal is not None:
        return Answer(alert=None, why=refusal)
    return Answer(alert=alarms[0], why=alarms[0].summary)


def open_alarms(alerts: Sequence[Alert]) -> list[Alert]:
    """Return the alarms that ask for a retrain, in their order.

    That a person has seen one does not mend the model: an acknowledged alarm counts until the
    champion changes. Who wants no retrain pauses the loop.
    """
    return [a for a in alerts if a.kind is AlertKind.LOSS and a.state is not AlertState.RESOLVED]


def _refusal(runs: Sequence[LoopRun], config: LoopConfig, now: Instant) -> str | None:
    """Return which limit of the envelope forbids a retrain now, or None."""
    if not runs:
        return None
    if now < runs[0].caused_at + timedelta(days=config.min_gap_days):
        return f"The last retrain is less than {config.min_gap_days:g} days ago."
    since = now - timedelta(days=config.max_retrains_days)
    recent = [run for run in runs if run.caused_at >= since]
    if len(recent) >= config.max_retrains:
        return f"{len(recent)} retrains within {config.max_retrains_days:g} days are the limit."
    rest = cool_down(runs, config)
    if now < runs[0].caused_at + rest:
        return f"After a retrain that came to nothing the loop rests for {rest.days} days."
    return None


def cool_down(runs: Sequence[LoopRun], config: LoopConfig) -> timedelta:
    """Return the rest after failures in a row; it doubles with each."""
    failures = 0
    for run in runs:
        if run.state not in FAILURES:
            break
        failures += 1
    if failures == 0:
        return timedelta(0)
    return timedelta(days=config.cool_down_days * 2.0 ** min(failures - 1, 10))
