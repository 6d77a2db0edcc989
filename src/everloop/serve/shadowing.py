"""The shadow: a version that answers what the champion answered, seen by nobody but the log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from everloop.core.errors import EverloopError
from everloop.core.wire import Arm
from everloop.serve.ask import Ask, rows_for
from everloop.serve.lineup import Lineup
from everloop.serve.observe.tally import Tally
from everloop.serve.recording import Log, ScoredPlan, numbers_of, statuses_of
from everloop.serve.scoring import UNFIT, Scored, Scorer, in_time, is_late

MOST_AWAITED: Final = 2_000
SHADOW: Final = "shadow"
"""Of the arm where a shadow's answers were dropped: they are no predictions."""


class ShadowJob(NamedTuple):
    """Rows for the shadow to answer, after the caller has been answered."""

    scorer: Scorer
    lineup: Lineup
    ask: Ask
    first: bytes


class Shadows:
    """Asks the shadow of one deployment, after the callers have been answered.

    Attributes:
        awaited: Rows that it has not answered yet.
    """

    def __init__(self, log: Log, tally: Tally, answer_s: float) -> None:
        self.awaited = 0
        self._log = log
        self._tally = tally
        self._answer_s = answer_s
        self._jobs: deque[ShadowJob] = deque()
        self._has_jobs = asyncio.Event()

    def wanted(self, done: Sequence[ScoredPlan]) -> list[Scorer | None]:
        """Return who is to be compared with the champion: also where that one had no answer.

        If only the shadow's failures were seen, the flakier of two equals would always be it. What
        the canary answered is compared with nobody: the shadow is the same version.
        """
        found: list[Scorer | None] = []
        awaited = self.awaited
        for plan, _, _ in done:
            shadow = plan.lineup.shadow
            if shadow is None or plan.ask.version is not None or plan.arm is Arm.CANARY:
                shadow = None
            elif awaited + plan.ask.rows > MOST_AWAITED:
                shadow = None  # too busy: users come first, and the row says that none was asked
            else:
                awaited += plan.ask.rows
            found.append(shadow)
        return found

    def ask(self, job: ShadowJob) -> None:
        """Let the shadow answer rows when there is time."""
        self.awaited += job.ask.rows
        self._jobs.append(job)
        self._has_jobs.set()

    async def run(self) -> None:
        """Let the shadow answer what has been answered; runs until cancelled."""
        while True:
            await self._has_jobs.wait()
            self._has_jobs.clear()
            await self.drain()

    async def drain(self) -> None:
        """Finish the shadow's work that is left."""
        while self._jobs:
            job = self._jobs[0]  # it stays there until it is done: this may be cancelled
            try:
                matrix = rows_for(job.scorer, job.lineup, job.ask)
                scored = await in_time(job.scorer.later(matrix), self._answer_s)
            except EverloopError:
                scored = UNFIT
            self._keep(self._jobs.popleft(), scored)
            if is_late(scored, self._answer_s):
                # What waits behind it for the same model would wait as long; and the log for it.
                # It is not asked: one hiccup must not count against it as often as others waited.
                while self._jobs and self._jobs[0].scorer is job.scorer:
                    self._keep(self._jobs.popleft(), None)

    def _keep(self, job: ShadowJob, scored: Scored | None) -> None:
        rows = job.ask.rows
        self.awaited -= rows
        if scored is None:
            is_kept = self._log.append_shadow(job.first, ())
        else:
            statuses = statuses_of(job.scorer.loaded, scored, rows)
            is_kept = self._log.append_shadow(job.first, numbers_of(scored, rows), statuses)
        if not is_kept:
            semver = job.scorer.loaded.bundle.semver
            self._tally.of(job.lineup.deployment, semver, SHADOW).unlogged += rows
