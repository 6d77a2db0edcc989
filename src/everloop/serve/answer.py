"""One request to one answer: assign, score, fall back, log. Knows no protocol and no network.

All rows of a request are answered by one version. A canary that fails costs nobody an answer: it
is logged as the canary's failure, and the champion answers instead. Nothing is acknowledged that
was not handed to the log before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import time_ns
from typing import Final, NamedTuple, Protocol

import numpy as np

from everloop.core.errors import EverloopError, InvalidInput, Unavailable
from everloop.core.ids import Id
from everloop.core.wire import Arm, Scalar, Status
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray, RowDecoder
from everloop.serve.exchange import Answer, Reply
from everloop.serve.identity import IdBlocks, to_id, to_ids
from everloop.serve.log import STATUS_CODES, Block, Source
from everloop.serve.observe.tally import Answers, Tally
from everloop.serve.observe.timing import Marks, current
from everloop.serve.router import assign_arm
from everloop.serve.scoring import Scored, Scorer, judge
from everloop.serve.switchboard import Lineup

MAX_AWAITED_SHADOWS: Final = 2_000
ANSWER_S: Final = 30.0
"""How long a caller waits for a model that is busy or dear."""
UNFIT: Final = Scored(Status.ERROR, None, 0)
UNASKED: Final = Scored(Status.OK, None, 0)
"""A version that was not asked, since a constant answers: it neither failed nor answered."""

Values = Sequence[tuple[Scalar, ...]]


class Log(Protocol):
    """Where answers are kept; ``everloop.serve.log.LogWriter``, or nothing."""

    def append(self, block: Block) -> bool:
        """Keep a block; False when it was dropped."""
        ...

    def append_shadow(
        self, first: bytes, outputs: Sequence[float] | FloatArray, statuses: bytes | None = None
    ) -> bool:
        """Keep what the shadow answered to a block; False when it was dropped."""
        ...

    def close(self) -> None:
        """Make everything durable."""
        ...


class Ask:
    """What a request asks, whatever protocol it came by.

    Attributes:
        rows: How many rows.
        values: The rows as they were sent; None where the matrix says it all, with NaN for null.
        at_us: Event time in microseconds since 1970; None for now.
        unit: Whom the assignment sticks to.
        request: The caller's own id of the request.
        keys: The caller's own key of each row, by which the truth may come; or none.
        version: A resident version to ask, whoever is champion; None to be routed.
    """

    __slots__ = (
        "_decoder", "_matrix", "at_us", "keys", "request", "rows", "unit", "values", "version",
    )  # fmt: skip

    def __init__(
        self,
        matrix: FloatArray | None = None,
        *,
        values: Values | None = None,
        decoder: RowDecoder | None = None,
        at_us: int | None = None,
        unit: str | None = None,
        request: str | None = None,
        keys: Sequence[str] = (),
        version: LoadedBundle | None = None,
    ) -> None:
        """Take a matrix, or values with the decoder that makes a matrix of them when it is needed.

        Args:
            matrix: The rows as the champion takes them, or as ``version`` does.
            values: The rows as they were sent.
            decoder: That of the champion, or of ``version``.
            at_us: See the attributes; likewise the others.
            unit: See the attributes.
            request: See the attributes.
            keys: See the attributes.
            version: See the attributes.
        """
        self._matrix = matrix
        self._decoder = decoder
        self.values = values
        self.rows = len(values) if values is not None else len(matrix) if matrix is not None else 0
        self.at_us = at_us
        self.unit = unit
        self.request = request
        self.keys = keys
        self.version = version

    @property
    def matrix(self) -> FloatArray:
        """The rows as the champion takes them."""
        if self._matrix is None:
            assert self._decoder is not None
            assert self.values is not None
            self._matrix = self._decoder.to_numbers(self.values)
        return self._matrix

    @property
    def given_matrix(self) -> FloatArray | None:
        """The matrix, where it is made already."""
        return self._matrix

    def only_row(self) -> Sequence[float] | None:
        """Return the one row as plain numbers, if there is one and it is nothing but numbers."""
        if self.rows != 1:
            return None
        if self._matrix is not None:
            row: list[float] = self._matrix[0].tolist()
            return row
        if self._decoder is None or not self._decoder.is_plain or self.values is None:
            return None
        return self.values[0]  # type: ignore[return-value]


class Result(NamedTuple):
    """The answer to a request.

    Attributes:
        first: Bytes of the id of the first row's prediction; the others follow it.
        outputs: One number a row, or one row of numbers.
        loaded: The version whose outputs these are.
        is_fallback: Whether the champion answered because the canary could not.
        is_logged: False when the log had no room, so that these ids will not be found.
    """

    first: bytes
    outputs: FloatArray
    loaded: LoadedBundle
    arm: Arm
    is_fallback: bool
    is_logged: bool

    def ids(self) -> list[Id]:
        """Return the id of each row's prediction."""
        return to_ids(self.first, len(self.outputs))


class Counters:
    """What an answerer did since its start."""

    __slots__ = ("answered", "fallbacks", "predictions", "unlogged")

    def __init__(self) -> None:
        self.predictions = self.fallbacks = self.unlogged = self.answered = 0


class _Plan(NamedTuple):
    lineup: Lineup
    ask: Ask
    first: bytes
    now_us: int
    arm: Arm
    share: float
    scorer: Scorer


class ShadowJob(NamedTuple):
    """Rows for the shadow to answer, after the caller has been answered."""

    scorer: Scorer
    lineup: Lineup
    ask: Ask
    first: bytes


class Answerer:
    """Answers asks of one deployment; used by the event loop's thread alone."""

    def __init__(
        self, log: Log, ids: IdBlocks, tally: Tally | None = None, *, answer_s: float = ANSWER_S
    ) -> None:
        self._answer_s = answer_s
        self._tally = Tally() if tally is None else tally
        self.counters = Counters()
        self.awaited_shadows = 0
        self.shadows: deque[ShadowJob] = deque()
        self.has_shadows = asyncio.Event()
        self._log = log
        self._ids = ids

    def answer(self, lineup: Lineup, ask: Ask, encode: Callable[[Result], Reply]) -> Answer:
        """Answer one request, at once where the model is cheap.

        Raises:
            Unavailable: ``model.none`` before the first release.
            LimitExceeded: ``server.busy``.
            EverloopError: ``model.failed`` when the champion itself has no answer.
        """
        marks = current.marks
        if marks is not None:
            marks.end("decode")
        plan = self._plan(lineup, ask)
        if lineup.constant is not None and ask.version is None:
            spare = Scored(Status.OK, np.full(ask.rows, lineup.constant), 0)
            return self._told(plan, UNASKED, spare, encode, marks)
        if not plan.scorer.is_quick(ask.rows):
            return self._later(plan, encode, marks)
        scored = _ask_now(plan)
        if plan.arm is Arm.CANARY and scored.status is not Status.OK:
            assert lineup.champion is not None
            spare = lineup.champion.now(ask.matrix)
            return self._told(plan, scored, spare, encode, marks)
        return self._told(plan, scored, None, encode, marks)

    def _told(
        self,
        plan: _Plan,
        scored: Scored,
        spare: Scored | None,
        encode: Callable[[Result], Reply],
        marks: Marks | None,
    ) -> Reply:
        if marks is None:
            return encode(self._settle(plan, scored, spare))
        marks.end("score")
        result = self._settle(plan, scored, spare)
        marks.end("log")
        return encode(result)

    async def run_shadows(self) -> None:
        """Let the shadow answer what has been answered; runs until cancelled."""
        while True:
            await self.has_shadows.wait()
            self.has_shadows.clear()
            await self.drain()

    async def drain(self) -> None:
        """Finish the shadow's work that is left."""
        while self.shadows:
            job = self.shadows[0]  # it stays there until it is done: this may be cancelled
            rows = job.ask.rows
            try:
                scored = await job.scorer.later(_rows_for(job.scorer, job.lineup, job.ask))
            except EverloopError:
                scored = UNFIT
            self.shadows.popleft()
            self.awaited_shadows -= rows
            answered = _numbers(scored, rows)
            statuses = statuses_of(job.scorer.loaded, scored, rows)
            if not self._log.append_shadow(job.first, answered, statuses):
                self.counters.unlogged += rows

    def _plan(self, lineup: Lineup, ask: Ask) -> _Plan:
        champion = lineup.champion
        if champion is None:
            raise no_model()
        first, now_us = self._ids.take(), time_ns() // 1_000
        if ask.version is not None:
            return _Plan(lineup, ask, first, now_us, Arm.CHAMPION, 0.0, lineup.scorer(ask.version))
        canary = lineup.canary
        if canary is None:
            return _Plan(lineup, ask, first, now_us, Arm.CHAMPION, 0.0, champion)
        arm = assign_arm(canary.salt, ask.unit or to_id(first), canary.share)
        scorer = canary.scorer if arm is Arm.CANARY else champion
        return _Plan(lineup, ask, first, now_us, arm, canary.share, scorer)

    async def _later(
        self, plan: _Plan, encode: Callable[[Result], Reply], marks: Marks | None
    ) -> Reply:
        try:
            matrix = _rows_for(plan.scorer, plan.lineup, plan.ask)
        except InvalidInput:
            scored = UNFIT
        else:
            scored = await self._in_time(plan.scorer.later(matrix))
        spare = None
        if plan.arm is Arm.CANARY and scored.status is not Status.OK:
            assert plan.lineup.champion is not None
            spare = await self._in_time(plan.lineup.champion.later(plan.ask.matrix))
        return self._told(plan, scored, spare, encode, marks)

    async def _in_time(self, answer: asyncio.Future[Scored]) -> Scored:
        """Wait for an answer, but not for ever: one that is too late is an error of the model."""
        try:
            async with asyncio.timeout(self._answer_s):
                return await answer
        except TimeoutError:
            return Scored(Status.ERROR, None, int(self._answer_s * 1e6))

    def _settle(self, plan: _Plan, scored: Scored, spare: Scored | None) -> Result:
        """Log what was answered, ask the shadow, and return what the caller gets."""
        final = scored if spare is None else spare
        shadow = self._wanted_shadow(plan) if final.outputs is not None else None
        source, answers = self._common(plan)
        block = _to_block(source, plan, scored, spare, has_shadow=shadow is not None)
        is_logged = self._log.append(block)
        rows = plan.ask.rows
        answers.rows[scored.status] = answers.rows.get(scored.status, 0) + rows
        answers.scoring.add(scored.latency_us)
        counters = self.counters
        counters.answered += 1
        counters.predictions += rows
        if spare is not None:
            counters.fallbacks += rows
            answers.fallbacks += rows
        champion = plan.lineup.champion
        assert champion is not None
        if champion.sketch is not None and plan.ask.version is None:
            champion.sketch.add(plan.ask.values, plan.ask.given_matrix)
        if not is_logged:
            counters.unlogged += rows
            answers.unlogged += rows
        elif shadow is not None:
            self.awaited_shadows += rows
            self.shadows.append(ShadowJob(shadow, plan.lineup, plan.ask, plan.first))
            self.has_shadows.set()
        loaded = plan.scorer.loaded if spare is None else champion.loaded
        if final.outputs is None:
            is_late = final.latency_us >= self._answer_s * 1e6
            raise (_too_slow if is_late else _model_failed)(loaded, to_id(plan.first))
        is_fallback = spare is not None
        return Result(plan.first, final.outputs, loaded, plan.arm, is_fallback, is_logged)

    def _common(self, plan: _Plan) -> tuple[Source, Answers]:
        """Return what this request has in common with others; made once for each line-up."""
        key = (plan.scorer, plan.arm, plan.ask.version is not None)
        found = plan.lineup.common.get(key)
        if found is None:
            semver = plan.scorer.loaded.bundle.semver
            answers = self._tally.of(plan.lineup.deployment, semver, plan.arm)
            found = plan.lineup.common[key] = (_source(plan), answers)
        return found

    def _wanted_shadow(self, plan: _Plan) -> Scorer | None:
        shadow = plan.lineup.shadow
        if shadow is None or plan.ask.version is not None:
            return None
        if self.awaited_shadows + plan.ask.rows > MAX_AWAITED_SHADOWS:
            return None  # too busy: users come first, and the row says that no shadow was asked
        return shadow


def _to_block(
    source: Source, plan: _Plan, scored: Scored, spare: Scored | None, *, has_shadow: bool
) -> Block:
    ask = plan.ask
    rows = ask.rows
    is_sound = scored.status is Status.OK
    return Block(
        source=source,
        first=plan.first,
        rows=rows,
        at_us=ask.at_us or plan.now_us,
        logged_us=plan.now_us,
        latency_us=scored.latency_us,
        values=ask.matrix if ask.values is None else ask.values,
        outputs=_numbers(scored, rows),
        statuses=None if is_sound else statuses_of(plan.scorer.loaded, scored, rows),
        fallback=None if spare is None else spare.outputs,
        has_shadow=has_shadow,
        unit=ask.unit,
        keys=ask.keys,
        request=ask.request,
    )


def _source(plan: _Plan) -> Source:
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


def _numbers(scored: Scored, rows: int) -> FloatArray:
    return np.full(rows, np.nan) if scored.outputs is None else scored.outputs


def statuses_of(loaded: LoadedBundle, scored: Scored, rows: int) -> bytes:
    """Return the status of each row, as the log has it."""
    if scored.outputs is None:
        return bytes([STATUS_CODES[Status.ERROR]]) * rows
    return bytes(STATUS_CODES[judge(loaded, each)] for each in scored.outputs.reshape(rows, -1))


def _ask_now(plan: _Plan) -> Scored:
    scorer, ask = plan.scorer, plan.ask
    if scorer is plan.lineup.champion and scorer.has_quick_way:
        row = ask.only_row()
        found = None if row is None else scorer.one(row)
        if found is not None:
            return found
    try:
        return scorer.now(_rows_for(scorer, plan.lineup, ask))
    except InvalidInput:
        return UNFIT


def _rows_for(scorer: Scorer, lineup: Lineup, ask: Ask) -> FloatArray:
    """Return rows as another version takes them than the one that they were read for.

    Raises:
        InvalidInput: ``request.invalid`` when it takes what nobody sent.
    """
    assert lineup.champion is not None
    origin = ask.version or lineup.champion.loaded
    if scorer.loaded is origin or scorer.loaded.bundle.inputs == origin.bundle.inputs:
        return ask.matrix
    return scorer.loaded.rows.adapt(origin.rows, ask.matrix, ask.values)


def no_model() -> EverloopError:
    """Return the error of a deployment without a champion."""
    return Unavailable(
        "model.none",
        "No model is released to this deployment yet.",
        hint="Release one with `everloop release start`.",
    )


def _too_slow(loaded: LoadedBundle, prediction: Id) -> EverloopError:
    return Unavailable(
        "model.too_slow",
        f"Version {loaded.bundle.semver} of {loaded.bundle.model} did not answer in time.",
        hint="Ask fewer rows at once, or serve with more workers.",
        context={"prediction": prediction, "retry_after_s": 1},
    )


def _model_failed(loaded: LoadedBundle, prediction: Id) -> EverloopError:
    return EverloopError(
        "model.failed",
        f"Version {loaded.bundle.semver} of {loaded.bundle.model} has no answer to this.",
        hint="Roll back with `everloop rollback`; the prediction log has the inputs.",
        context={"prediction": prediction},
    )
