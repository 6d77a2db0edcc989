"""The champion answers once more out of its record: a valid test without anybody beside it."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np

from everloop.release.config import ReleaseConfig
from everloop.release.model import Guardrail, Judgement, Tally, Watch
from everloop.release.watching import advance, begin

START = datetime(2026, 1, 1, tzinfo=UTC)


def watch(bad: int, answers: int = 2_000) -> Watch:
    record = {"error": Tally(answers=answers, bad=bad), "latency": Tally()}
    return begin(ReleaseConfig(margin=0.0), record, until=START, epoch=1)


def told(answers: int, bad: int) -> list[Judgement]:
    return [Judgement(guardrail=Guardrail.ERROR, answers=answers, bad=bad)]


def ever(seed: int, *, rate: float, ratio: float, level: float) -> int | None:
    """Return after how many answers the evidence reached a level, in looks of 50."""
    rng = np.random.default_rng(seed)
    seen = watch(int(rng.binomial(2_000, rate)))
    for look in range(40):
        seen = advance(seen, told(50, int(rng.binomial(50, rate * ratio))), seed=str(seed))
        if seen.guardrails["error"].log_evidence_bad >= -math.log(level):
            return (look + 1) * 50
    return None


def test_an_equal_version_is_rarely_undone() -> None:
    runs, level = 1_000, 0.05

    false = sum(ever(seed, rate=0.1, ratio=1.0, level=level) is not None for seed in range(runs))

    assert false / runs <= level + 3 * math.sqrt(level * (1 - level) / runs)


def test_a_version_three_times_as_bad_is_undone_before_the_record_is_used_up() -> None:
    found = [ever(seed, rate=0.1, ratio=3.0, level=0.01) for seed in range(100)]

    assert None not in found
    assert np.median([each or 0 for each in found]) <= 250


def test_the_record_is_used_once_and_no_evidence_comes_after_it() -> None:
    seen = advance(watch(20, answers=200), told(5_000, 2_500), seed="s")
    after = advance(seen, told(5_000, 5_000), seed="s")

    assert Tally() == seen.left["error"]
    assert seen.answers < 400
    assert 20 == seen.guardrails["error"].events - seen.guardrails["error"].challenger_events
    assert seen.guardrails["error"].events == after.guardrails["error"].events - (
        after.answers - seen.answers
    )


def test_news_told_again_draw_the_same() -> None:
    assert advance(watch(90), told(70, 9), seed="s") == advance(watch(90), told(70, 9), seed="s")
    assert advance(watch(90), told(70, 9), seed="s") != advance(watch(90), told(70, 9), seed="t")


def test_what_the_record_does_not_speak_of_is_not_judged() -> None:
    slow = [Judgement(guardrail=Guardrail.LATENCY, answers=500, bad=500)]

    assert watch(5) == advance(watch(5), slow, seed="s")
