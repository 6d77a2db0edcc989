"""One request to one answer: assign, score, fall back, log. Knows no protocol and no network.

All rows of a request are answered by one version. A canary that fails costs nobody an answer: it
is logged as the canary's failure, and the champion answers instead. Nothing is acknowledged that
was not handed to the log before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import time_ns
from typing import Final, NamedTuple

import numpy as np

from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded, Unavailable
from everloop.core.ids import Id
from everloop.core.wire import Arm, Status
from everloop.serve.ask import Ask, Result, rows_for
from everloop.serve.bundle import LoadedBundle
from everloop.serve.exchange import Answer, Reply
from everloop.serve.identity import IdBlocks, to_id
from everloop.serve.limits import failed
from everloop.serve.lineup import Lineup, no_model
from everloop.serve.log import Source
from everloop.serve.observe.jsonlog import say_failure
from everloop.serve.observe.tally import Answers, Tally
from everloop.serve.observe.timing import Marks, current
from everloop.serve.recording import Log, Plan, ScoredPlan, source_of, to_block
from everloop.serve.router import assign_arm
from everloop.serve.scoring import INLINE_US, UNFIT, Scored, Scorer, in_time, is_late
from everloop.serve.shadowing import ShadowJob, Shadows
from everloop.serve.turn import Deferred, Turn

MOST_KEPT: Final = 32
LONGEST_KEPT_US: Final = 1_000.0
ANSWER_S: Final = 30.0
"""How long a caller waits for a model that is busy or dear."""
CONSTANT: Final = "constant"
"""What stands in the counts for version and arm where a constant answered."""
UNASKED: Final = Scored(Status.OK, None, 0)
"""A version that was not asked, since a constant answers: it neither failed nor answered."""


class Pending(NamedTuple):
    """A request that is answered at the end of the turn."""

    plan: Plan
    encode: Callable[[Result], Reply]
    deferred: Deferred


class Answerer:
    """Answers asks of one deployment; used by the event loop's thread alone.

    Args:
        turn: At whose end the requests of a turn are answered together; None answers each at once.
    """

    def __init__(
        self,
        log: Log,
        ids: IdBlocks,
        tally: Tally | None = None,
        *,
        turn: Turn | None = None,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._answer_s = answer_s
        self._turn = turn
        self._kept: list[Pending] = []
        self._kept_us = 0.0
        self._tasks: set[asyncio.Task[Reply]] = set()
        self.tally = Tally() if tally is None else tally
        self.shadows = Shadows(log, self.tally, answer_s)
        self._log = log
        self._ids = ids

    def answer(self, lineup: Lineup, ask: Ask, encode: Callable[[Result], Reply]) -> Answer:
        """Answer one request: with the others of its turn, or at once where there are no turns.

        A dear model takes its time. What is not answered at once tells its errors when it is
        awaited; the reply of a turn, where that ends.

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
            return self._told(ScoredPlan(plan, UNASKED, spare), encode, marks)
        cost_us = plan.scorer.cost_us(ask.rows)
        if cost_us > INLINE_US:
            return self._later(plan, encode, marks)
        if self._turn is not None and marks is None:
            return self._keep(self._turn, Pending(plan, encode, Deferred()), cost_us)
        scored = _ask_now(plan)
        done = _spared_now(plan, scored)
        if done is None:
            return self._spared(plan, scored, encode, marks)
        return self._told(done, encode, marks)

    def _keep(self, turn: Turn, kept: Pending, cost_us: float) -> Deferred:
        """Let a request wait for the end of the turn, or for what takes its time at the latest."""
        if not self._kept:
            turn.at_end(self._answer_kept)
        self._kept.append(kept)
        self._kept_us += cost_us
        if len(self._kept) >= MOST_KEPT or self._kept_us > LONGEST_KEPT_US:
            self._answer_kept()
        return kept.deferred

    def _answer_kept(self) -> None:
        kept, self._kept, self._kept_us = self._kept, [], 0.0
        if not kept:
            return  # there were many, and they were answered before the end
        try:
            self._answer_together(kept)
        except Exception as error:  # noqa: BLE001 -- nobody may wait for an answer for ever
            told = _told_of(error)
            for each in kept:
                if each.deferred.found is None:
                    each.deferred.settle(told)

    def _answer_together(self, kept: Sequence[Pending]) -> None:
        """Answer the requests of a turn: each step for all of them, then the next.

        Each is scored by a call of its own. One call for all would be cheaper for some runtimes,
        but latency is a guardrail of releases, and how many others ask must not change it: beside
        a canary the two arms would have batches of different sizes.
        """
        waiting, done = [], []
        for each, scored in zip(kept, [_ask_now(each.plan) for each in kept], strict=True):
            spared = _spared_now(each.plan, scored)
            if spared is None:
                self._answer_later(each, scored)
            else:
                waiting.append(each)
                done.append(spared)
        replies = [
            _caught(each.encode, result) if isinstance(result, Result) else result
            for each, result in zip(waiting, self._settle(done), strict=True)
        ]
        for each, reply in zip(waiting, replies, strict=True):
            each.deferred.settle(reply)

    def _answer_later(self, kept: Pending, scored: Scored) -> None:
        task = asyncio.ensure_future(self._spared(kept.plan, scored, kept.encode, None))
        self._tasks.add(task)  # the loop itself would let it be forgotten

        def settle(task: asyncio.Task[Reply]) -> None:
            self._tasks.discard(task)
            kept.deferred.settle(_outcome(task))

        task.add_done_callback(settle)

    def _told(
        self, done: ScoredPlan, encode: Callable[[Result], Reply], marks: Marks | None = None
    ) -> Reply:
        if marks is not None:
            marks.end("score")
        (result,) = self._settle([done])
        if marks is not None:
            marks.end("log")
        if isinstance(result, EverloopError):
            raise result
        return encode(result)

    def _plan(self, lineup: Lineup, ask: Ask) -> Plan:
        champion = lineup.champion
        if champion is None:
            raise no_model()
        now_us = time_ns() // 1_000
        first = self._ids.take(now_us)
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
            matrix = rows_for(plan.scorer, plan.lineup, plan.ask)
            answer = plan.scorer.later(matrix)
        except InvalidInput:
            scored = UNFIT
        except LimitExceeded:
            if plan.arm is not Arm.CANARY:
                raise
            scored = UNFIT  # a canary too slow for its share has failed, and costs no answer
        else:
            scored = await in_time(answer, self._answer_s)
        return await self._spared(plan, scored, encode, marks)

    async def _spared(
        self, plan: Plan, scored: Scored, encode: Callable[[Result], Reply], marks: Marks | None
    ) -> Reply:
        """Tell what was scored, or what the champion says where a canary could not."""
        spare = None
        if plan.arm is Arm.CANARY and scored.status is not Status.OK:
            assert plan.lineup.champion is not None
            spare = await in_time(plan.lineup.champion.later(plan.ask.matrix), self._answer_s)
        return self._told(ScoredPlan(plan, scored, spare), encode, marks)

    def _settle(self, done: Sequence[ScoredPlan]) -> list[Result | EverloopError]:
        """Log what was answered, ask the shadow, and return what each caller gets."""
        common = [self._common(each.plan) for each in done]
        shadows = self.shadows.wanted(done)
        blocks = [
            to_block(source, each, has_shadow=shadow is not None)
            for each, (source, _), shadow in zip(done, common, shadows, strict=True)
        ]
        logged = self._log.append_all(blocks)
        return [
            self._settle_one(each, answers, shadow, is_logged)
            for each, (_, answers), shadow, is_logged in zip(
                done, common, shadows, logged, strict=True
            )
        ]

    def _settle_one(
        self, done: ScoredPlan, answers: Answers, shadow: Scorer | None, is_logged: bool
    ) -> Result | EverloopError:
        """Count what was answered, ask the shadow, and return what the caller gets."""
        plan, scored, spare = done.plan, done.scored, done.spare
        ask, lineup = plan.ask, plan.lineup
        rows = ask.rows
        answers.rows[scored.status] = answers.rows.get(scored.status, 0) + rows
        is_constant = lineup.constant is not None
        if not is_constant:
            answers.scoring.add(scored.latency_us)
            if spare is not None:
                answers.fallbacks += rows
        champion = lineup.champion
        assert champion is not None
        if champion.sketch is not None and ask.version is None:
            champion.sketch.add(ask.values, ask.given_matrix)
        if not is_logged:
            if self._log.is_kept:
                answers.unlogged += rows
        elif shadow is not None:
            self.shadows.ask(ShadowJob(shadow, lineup, ask, plan.first))
        loaded = plan.scorer.loaded if spare is None or is_constant else champion.loaded
        final = scored if spare is None else spare
        if final.outputs is None:
            told = _too_slow if is_late(final, self._answer_s) else _model_failed
            return told(loaded, to_id(plan.first))
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


def _caught(encode: Callable[[Result], Reply], result: Result) -> Reply | EverloopError:
    """Return a reply, or its error, which is nobody else's."""
    try:
        return encode(result)
    except Exception as error:  # noqa: BLE001 -- it must not take the others' answers away
        return _told_of(error)


def _outcome(task: asyncio.Task[Reply]) -> Reply | EverloopError:
    if task.cancelled():
        return _told_of(asyncio.CancelledError("it was cancelled"))
    error = task.exception()
    return task.result() if error is None else _told_of(error)


def _told_of(error: BaseException) -> EverloopError:
    if isinstance(error, EverloopError):
        return error
    say_failure("request", error)
    return failed()


def _spared_now(plan: Plan, scored: Scored) -> ScoredPlan | None:
    """Return what is told: the champion's answer where the canary has none.

    None where that is not had at once.
    """
    if plan.arm is not Arm.CANARY or scored.status is Status.OK:
        return ScoredPlan(plan, scored)
    champion = plan.lineup.champion
    assert champion is not None
    if not champion.is_quick(plan.ask.rows):
        return None
    return ScoredPlan(plan, scored, champion.now(plan.ask.matrix))


def _ask_now(plan: Plan) -> Scored:
    scorer, ask = plan.scorer, plan.ask
    if scorer is plan.lineup.champion and scorer.has_quick_way:
        row = ask.only_row()
        found = None if row is None else scorer.one(row)
        if found is not None:
            return found
    try:
        return scorer.now(rows_for(scorer, plan.lineup, ask))
    except InvalidInput:
        return UNFIT


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
