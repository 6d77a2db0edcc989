"""What the log is given of a request: who answered it, with what, and in what state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from everloop.core.wire import Arm, Status
from everloop.serve.ask import Ask
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray
from everloop.serve.lineup import Lineup
from everloop.serve.log import STATUS_CODES, Block, Source
from everloop.serve.scoring import Scored, Scorer, judge


class Log(Protocol):
    """Where answers are kept; ``everloop.serve.log.LogWriter``, or nothing.

    Attributes:
        is_kept: Whether there is a place at all; where there is none, nothing can be missing.
    """

    is_kept: bool

    def append_all(self, blocks: Sequence[Block]) -> list[bool]:
        """Keep blocks; False for each one that was dropped."""
        ...

    def append_shadow(
        self, first: bytes, outputs: Sequence[float] | FloatArray, statuses: bytes | None = None
    ) -> bool:
        """Keep what the shadow answered to a block; False when it was dropped."""
        ...

    def close(self) -> None:
        """Make everything durable."""
        ...


class Plan(msgspec.Struct, gc=False):
    """What was decided about a request before it was scored."""

    lineup: Lineup
    ask: Ask
    first: bytes
    now_us: int
    arm: Arm
    share: float
    scorer: Scorer


class ScoredPlan(NamedTuple):
    """A request that was scored.

    Attributes:
        scored: What the version made of it that it was planned for.
        spare: What another one answers in its place; None where none has to.
    """

    plan: Plan
    scored: Scored
    spare: Scored | None = None


def to_block(source: Source, done: ScoredPlan, *, has_shadow: bool) -> Block:
    """Return what the log is given of a request."""
    plan, scored, spare = done
    ask = plan.ask
    rows = ask.rows
    is_sound = scored.status is Status.OK
    return Block(
        source=source,
        first=plan.first,
        rows=rows,
        at_us=plan.now_us if ask.at_us is None else ask.at_us,
        logged_us=plan.now_us,
        latency_us=scored.latency_us,
        values=ask.matrix if ask.values is None else ask.values,
        outputs=numbers_of(scored, rows),
        statuses=None if is_sound else statuses_of(plan.scorer.loaded, scored, rows),
        fallback=None if spare is None else spare.outputs,
        has_shadow=has_shadow,
        unit=ask.unit,
        keys=ask.keys,
        request=ask.request,
    )


def source_of(plan: Plan) -> Source:
    """Return what the log has to know of this version; the rows are as the caller sent them."""
    lineup, bundle = plan.lineup, plan.scorer.loaded.bundle
    assert lineup.champion is not None
    champion = lineup.champion.loaded.bundle
    # The signature that read them is the champion's, but for a version that was asked by name.
    fields = (plan.ask.version or lineup.champion.loaded).bundle.inputs
    is_canary = plan.arm is Arm.CANARY
    return Source(
        version=bundle.version_id,
        arm=plan.arm,
        share=plan.share,
        epoch=lineup.epoch,
        names=tuple(field.name for field in fields),
        dtypes=tuple(field.dtype for field in fields),
        outputs=bundle.outputs,
        masked=frozenset((*bundle.masked, *champion.masked, *lineup.log.masked)),
        sample=lineup.log.sample,
        max_bytes=lineup.log.max_bytes,
        fallback_version=champion.version_id if is_canary else None,
        shadow_version=None if lineup.shadow is None else lineup.shadow.loaded.bundle.version_id,
    )


def numbers_of(scored: Scored, rows: int) -> FloatArray:
    """Return the answers as numbers; NaN for rows without one."""
    return np.full(rows, np.nan) if scored.outputs is None else scored.outputs


def statuses_of(loaded: LoadedBundle, scored: Scored, rows: int) -> bytes:
    """Return the status of each row, as the log has it."""
    if scored.outputs is None:
        return bytes([STATUS_CODES[Status.ERROR]]) * rows
    return bytes(STATUS_CODES[judge(loaded, each)] for each in scored.outputs.reshape(rows, -1))
