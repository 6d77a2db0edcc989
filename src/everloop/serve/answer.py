"""One request to one answer: assign, score, fall back, log. Knows no protocol and no network.

All rows of a request are answered by one version. A canary that fails costs nobody an answer: it
is logged as the canary's failure, and the champion answers instead. Nothing is acknowledged that
was not handed to the log before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import time_ns
from typing import Final, NamedTuple

import numpy as np

from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded, Unavailable
from everloop.core.ids import Id
from everloop.core.wire import Arm, Status
from everloop.serve.ask import Ask, Result
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray
from everloop.serve.exchange import Answer, Reply
from everloop.serve.identity import IdBlocks, to_id
from everloop.serve.lineup import Lineup, no_model
from everloop.serve.log import Source
from everloop.serve.observe.tally import Answers, Tally
from everloop.serve.observe.timing import Marks, current
from everloop.serve.recording import Log, Plan, numbers_of, source_of, statuses_of, to_block
from everloop.serve.router import assign_arm
from everloop.serve.scoring import Scored, Scorer

MAX_AWAITED_SHADOWS: Final = 2_000
ANSWER_S: Final = 30.0
"""How long a caller waits for a model that is busy or dear."""
CONSTANT: Final = "constant"
"""What stands in the counts for version and arm where a constant answered."""
SHADOW: Final = "shadow"
"""Of the arm where a shadow's answers were dropped: they are no predictions."""
UNFIT: Final = Scored(Status.ERROR, None, 0)
UNASKED: Final = Scored(Status.OK, None, 0)
"""A version that was not asked, since a constant answers: it neither failed nor answered."""


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
        self.tally = Tally() if tally is None else tally
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
        if lineup.constant is not None:
            spare = Scored(Status.OK, np.full(ask.rows, lineup.constant), 0)
            return self._told(plan, UNASKED, spare, encode, marks)
        if not plan.scorer.is_quick(ask.rows):
            return self._later(plan, encode, marks)
        scored = _ask_now(plan)
        if plan.arm is Arm.CANARY and scored.status is not Status.OK:
            assert lineup.champion is not None
            if not lineup.champion.is_quick(ask.rows):
                return self._spared(plan, scored, encode, marks)
            spare = lineup.champion.now(ask.matrix)
            return self._told(plan, scored, spare, encode, marks)
        return self._told(plan, scored, None, encode, marks)

    def _told(
        self,
        plan: Plan,
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
            try:
                matrix = _rows_for(job.scorer, job.lineup, job.ask)
                scored = await self._in_time(job.scorer.later(matrix))
            except EverloopError:
                scored = UNFIT
            self._keep_shadow(self.shadows.popleft(), scored)
            if self._is_late(scored):
                # What waits behind it for the same model would wait as long; and the log for it.
                # It is not asked: one hiccup must not count against it as often as others waited.
                while self.shadows and self.shadows[0].scorer is job.scorer:
                    self._keep_shadow(self.shadows.popleft(), None)

    def _keep_shadow(self, job: ShadowJob, scored: Scored | None) -> None:
        rows = job.ask.rows
        self.awaited_shadows -= rows
        if scored is None:
            is_kept = self._log.append_shadow(job.first, ())
        else:
            statuses = statuses_of(job.scorer.loaded, scored, rows)
            is_kept = self._log.append_shadow(job.first, numbers_of(scored, rows), statuses)
        if not is_kept:
            semver = job.scorer.loaded.bundle.semver
            self.tally.of(job.lineup.deployment, semver, SHADOW).unlogged += rows

    def _plan(self, lineup: Lineup, ask: Ask) -> Plan:
        champion = lineup.champion
        if champion is None:
            raise no_model()
        first, now_us = self._ids.take(), time_ns() // 1_000
        if ask.version is not None:
            return Plan(lineup, ask, first, now_us, Arm.CHAMPION, 0.0, lineup.scorer(ask.version))
        canary = lineup.canary
        if canary is None:
            return Plan(lineup, ask, first, now_us, Arm.CHAMPION, 0.0, champion)
        arm = assign_arm(canary.salt, ask.unit or to_id(first), canary.share)
        scorer = canary.scorer if arm is Arm.CANARY else champion
        return Plan(lineup, ask, first, now_us, arm, canary.share, scorer)

    async def _later(
        self, plan: Plan, encode: Callable[[Result], Reply], marks: Marks | None
    ) -> Reply:
        try:
            matrix = _rows_for(plan.scorer, plan.lineup, plan.ask)
            answer = plan.scorer.later(matrix)
        except InvalidInput:
            scored = UNFIT
        except LimitExceeded:
            if plan.arm is not Arm.CANARY:
                raise
            scored = UNFIT  # a canary too slow for its share has failed, and costs no answer
        else:
            scored = await self._in_time(answer)
        return await self._spared(plan, scored, encode, marks)

    async def _spared(
        self, plan: Plan, scored: Scored, encode: Callable[[Result], Reply], marks: Marks | None
    ) -> Reply:
        """Tell what was scored, or what the champion says where a canary could not."""
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

    def _is_late(self, scored: Scored) -> bool:
        return scored.outputs is None and scored.latency_us >= int(self._answer_s * 1e6)

    def _settle(self, plan: Plan, scored: Scored, spare: Scored | None) -> Result:
        """Log what was answered, ask the shadow, and return what the caller gets."""
        final = scored if spare is None else spare
        shadow = self._wanted_shadow(plan)
        source, answers = self._common(plan)
        block = to_block(source, plan, scored, spare, has_shadow=shadow is not None)
        is_logged = self._log.append(block)
        rows = plan.ask.rows
        is_constant = plan.lineup.constant is not None
        answers.rows[scored.status] = answers.rows.get(scored.status, 0) + rows
        if not is_constant:
            answers.scoring.add(scored.latency_us)
            if spare is not None:
                answers.fallbacks += rows
        champion = plan.lineup.champion
        assert champion is not None
        if champion.sketch is not None and plan.ask.version is None:
            champion.sketch.add(plan.ask.values, plan.ask.given_matrix)
        if not is_logged:
            if self._log.is_kept:
                answers.unlogged += rows
        elif shadow is not None:
            self.awaited_shadows += rows
            self.shadows.append(ShadowJob(shadow, plan.lineup, plan.ask, plan.first))
            self.has_shadows.set()
        loaded = plan.scorer.loaded if spare is None or is_constant else champion.loaded
        if final.outputs is None:
            told = _too_slow if self._is_late(final) else _model_failed
            raise told(loaded, to_id(plan.first))
        is_fallback = spare is not None
        return Result(
            plan.first, final.outputs, loaded, plan.arm, is_fallback, is_logged, is_constant
        )

    def _common(self, plan: Plan) -> tuple[Source, Answers]:
        """Return what this request has in common with others; made once for each line-up."""
        key = (plan.scorer, plan.arm, plan.ask.version is not None)
        found = plan.lineup.common.get(key)
        if found is None:
            told = (plan.scorer.loaded.bundle.semver, plan.arm.value)
            if plan.lineup.constant is not None:
                told = (CONSTANT, CONSTANT)
            answers = self.tally.of(plan.lineup.deployment, *told)
            found = plan.lineup.common[key] = (source_of(plan), answers)
        return found

    def _wanted_shadow(self, plan: Plan) -> Scorer | None:
        """Return who is to be compared with the champion: also where that one had no answer.

        If only the shadow's failures were seen, the flakier of two equals would always be it. What
        the canary answered is compared with nobody: the shadow is the same version.
        """
        shadow = plan.lineup.shadow
        if shadow is None or plan.ask.version is not None or plan.arm is Arm.CANARY:
            return None
        if self.awaited_shadows + plan.ask.rows > MAX_AWAITED_SHADOWS:
            return None  # too busy: users come first, and the row says that no shadow was asked
        return shadow


def _ask_now(plan: Plan) -> Scored:
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
