"""The watch over a version after its promotion, when nobody else answers beside it.

There is no arm to compare with any more, so the champion before answers once more out of its
frozen record: for each answer of the new version a fair coin, thrown until it says "new", draws
answers from the record, each once. At every throw either version answers with one half, settled
before the outcome; so when something bad turns up, "who did it?" is the same e-process as in a
canary of 50 %, with no unknown rate in it. What it assumes, and a canary need not: that without
the change the answers would have gone on like the recorded ones. When the record is used up, no
more evidence comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from msgspec import structs

from everloop.core.clock import Instant
from everloop.release import eprocess
from everloop.release.config import ReleaseConfig
from everloop.release.model import Guardrail, Judgement, Tally, Watch

SHARE: Final = 0.5
PART: Final = 0.1
"""The watch's part of all the evidence against a version, kept for it from the beginning."""

__all__ = ["PART", "SHARE", "Judgement", "advance", "begin"]


def begin(
    config: ReleaseConfig, record: Mapping[str, Tally], *, until: Instant, epoch: int
) -> Watch:
    """Return a watch that has seen nothing.

    Args:
        config: The release's settings.
        record: The champion's answers before the release, by guardrail.
        until: When it ends.
        epoch: The deployment's epoch at the promotion.
    """
    known = {name: tally for name, tally in record.items() if tally.answers > 0}
    return Watch(
        until=until,
        epoch=epoch,
        left=known,
        guardrails={
            name: eprocess.start_bad_events(
                rollback_ratio=1.0 + config.margin, promote_ratio=1.0 + config.proof_margin
            )
            for name in known
        },
    )


def advance(watch: Watch, found: Iterable[Judgement], *, seed: str) -> Watch:
    """Return the watch after answers of the new version.

    Only sums count: at one share the order of the events does not matter.
    """
    sums: dict[Guardrail, Tally] = {}
    for one in found:
        before = sums.get(one.guardrail, Tally())
        sums[one.guardrail] = Tally(answers=before.answers + one.answers, bad=before.bad + one.bad)
    for guardrail, tally in sums.items():
        if guardrail.value in watch.left:
            watch = _compare(watch, guardrail.value, tally, seed)
    return watch


def _compare(watch: Watch, name: str, seen: Tally, seed: str) -> Watch:
    left = watch.left[name]
    coin = _coin(f"{seed}:{name}:{watch.draws}")
    used, drawn = _throw(coin, seen.answers, left.answers)
    bad = _pick(coin, seen, used)
    recorded = _pick(coin, left, drawn)
    process = eprocess.update_many(
        watch.guardrails[name], canary=bad, champion=recorded, share=SHARE
    )
    rest = Tally(answers=left.answers - drawn, bad=left.bad - recorded)
    return structs.replace(
        watch,
        left=watch.left | {name: rest},
        guardrails=watch.guardrails | {name: process},
        answers=watch.answers + used,
        draws=watch.draws + 1,
    )


def _coin(text: str) -> np.random.Generator:
    # Repeatable on purpose: news that are told again after a crash must draw the same.
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(key, "big"))


def _throw(coin: np.random.Generator, answers: int, most: int) -> tuple[int, int]:
    """Throw until all new answers are used, or the record has none left to answer with."""
    is_new = coin.random(answers + most + 1) < SHARE
    used, drawn = np.cumsum(is_new), np.cumsum(~is_new)
    end = int(np.argmax((used == answers) | (drawn > most)))
    return int(used[end]), min(int(drawn[end]), most)


def _pick(coin: np.random.Generator, tally: Tally, count: int) -> int:
    """Return how many bad ones are among so many answers drawn without putting back."""
    if count in {0, tally.answers}:
        return tally.bad if count else 0
    return int(coin.hypergeometric(tally.bad, tally.answers - tally.bad, count))
