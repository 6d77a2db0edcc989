"""What the news add to a release's standing: each unit once, each event at its own share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import structs

from everloop.core.wire import Arm
from everloop.release import eprocess, watching
from everloop.release.config import ReleaseConfig, Strategy
from everloop.release.model import Guardrail, News, Standing

STRICT = frozenset({Guardrail.ERROR, Guardrail.INVALID})
SPLIT: Final = "split"
PAIRS: Final = "pairs"
MOST_UNITS: Final = 2_000
"""Units that a guardrail remembers. It ignores further ones, which is valid: whether it does was
settled before their outcome; and so many bad units have long since said what there is to say.
Pairs go on: of the requests with several rows the newest so many are remembered."""


def begin(config: ReleaseConfig, strategy: Strategy) -> Standing:
    """Return the standing of a release that has seen nothing."""
    guardrails = {
        guardrail.value: eprocess.start_bad_events(
            rollback_ratio=1.0 if guardrail in STRICT else 1.0 + config.margin,
            promote_ratio=1.0 + config.proof_margin,
        )
        for guardrail in Guardrail
    }
    is_paired = strategy == "shadow" or (strategy == "blue_green" and config.blue_green_pairs > 0)
    paired = eprocess.start_paired(margin=config.paired_margin) if is_paired else None
    return Standing(guardrails=guardrails, split=eprocess.start_sample_ratio(), paired=paired)


def advance(standing: Standing, news: News, *, seed: str) -> Standing:
    """Return the standing after the news.

    Args:
        standing: What was known.
        news: What is new.
        seed: Makes the draws of the watch repeatable; the release's id.

    Raises:
        InvalidInput: ``release.bad_loss`` or ``release.bad_share``.
    """
    census = Census(standing.units)
    guardrails = dict(standing.guardrails)
    # A unit speaks once, whichever arm answers it: when the share grows, those that fail whoever
    # answers them move to the canary, and would be new there while the champion's were known.
    for event in news.events:
        if census.admits(event.guardrail.value, event.unit):
            guardrails[event.guardrail] = eprocess.update(
                guardrails[event.guardrail], by_canary=event.arm is Arm.CANARY, share=event.share
            )
    paired = standing.paired
    if paired is not None:
        for pair in news.pairs:
            if not census.admits(PAIRS, pair.unit, forgets=True):
                continue
            paired = eprocess.update_paired(
                paired, loss_champion=pair.champion, loss_challenger=pair.candidate
            )
    watch = standing.watch
    if watch is not None:
        fresh = [found for found in news.watched if census.admits(_watch_of(found), found.unit)]
        watch = watching.advance(watch, fresh, seed=seed)
    return structs.replace(
        standing,
        guardrails=guardrails,
        paired=paired,
        split=_advance_split(standing.split, news, census),
        units=census.marks(),
        traffic=standing.traffic.plus(news.traffic),
        stage_traffic=standing.stage_traffic.plus(news.traffic),
        watch=watch,
    )


class Census:
    """Which units have been counted; requests without a unit always count."""

    def __init__(self, known: Mapping[str, tuple[str, ...]]) -> None:
        self._known = {name: dict.fromkeys(marks) for name, marks in known.items()}

    def admits(self, name: str, mark: str | None, *, forgets: bool = False) -> bool:
        """Count a unit; return False when it was counted before, or when there are too many.

        Args:
            name: By what it is counted.
            mark: Stands for the unit; None for a request without one.
            forgets: Whether the oldest unit gives way where there are too many.
        """
        if mark is None:
            return True
        known = self._known.setdefault(name, {})
        if mark in known or (len(known) >= MOST_UNITS and not forgets):
            return False
        if len(known) >= MOST_UNITS:
            del known[next(iter(known))]
        known[mark] = None
        return True

    def marks(self) -> dict[str, tuple[str, ...]]:
        """Return what to keep."""
        return {name: tuple(marks) for name, marks in self._known.items()}


def _watch_of(found: watching.Judgement) -> str:
    return f"watch:{found.guardrail.value}"


def _advance_split(
    split: eprocess.SampleRatioProcess, news: News, census: Census
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
