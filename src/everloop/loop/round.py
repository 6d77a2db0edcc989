"""One round over one deployment: guards its releases, and takes the live run one step further.

What a step did once it finds again: by a request id made of the run and its transition, by the
content (datasets, artifacts), or among the records (releases), since what it would ask for may have
changed meanwhile. So a round may be cut off anywhere, and repeated by another process.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pyarrow as pa

from everloop.core.clock import Instant
from everloop.core.errors import (
    ApprovalRequired,
    Conflict,
    Denied,
    GateFailed,
    InvalidInput,
    MissingExtra,
    NotFound,
    StaleVersion,
    UnsafeArtifact,
)
from everloop.core.ids import Id
from everloop.core.wire import Applied
from everloop.gate.verbs import EvaluateGate
from everloop.kernel.performer import Performer
from everloop.loop import guarding, policy, snapshot
from everloop.loop.model import FINAL, LoopRun, LoopState
from everloop.loop.ports import Trainer, TrainingJob
from everloop.loop.queries import ListRuns, LoopStatus, RunList, ShowStatus
from everloop.loop.settings import ModelSettings
from everloop.loop.verbs import Advance, RunView, StartRun
from everloop.monitor.model import AlertKind
from everloop.monitor.queries import AlertList, ListAlerts
from everloop.monitor.verbs import Observed
from everloop.registry.evidence import GateReport
from everloop.release.model import Limits, Release, State
from everloop.release.queries import (
    DeploymentView,
    ListReleases,
    ReleaseList,
    ReleaseView,
    ShowRelease,
)
from everloop.release.verbs import StartRelease

NEWEST: Final = 10
MOST_RUNS: Final = 1_000
LASTING: Final = (
    GateFailed,
    InvalidInput,
    MissingExtra,
    NotFound,
    UnsafeArtifact,
    pa.ArrowException,
)
"""Refusals that the next round would meet again; others, such as a busy store, are passed on."""

PASSING: Final = frozenset({"release.live", "release.frozen", "deployment.halted"})
"""Refusals of a release that end by themselves, or by a person's word."""


class Place(NamedTuple):
    """Where a round stands: under which fence, at which time, after what was seen and served."""

    fence: int
    now: Instant
    seen: Observed
    applied: Applied | None


class Round:
    """One round over one deployment, at one instant of the loop's time."""

    def __init__(
        self,
        performer: Performer,
        trainer: Trainer,
        view: DeploymentView,
        settings: ModelSettings,
        place: Place,
    ) -> None:
        self._performer = performer
        self._trainer = trainer
        self._view = view
        self._settings = settings
        self._fence, self._now, self._seen, self._applied = place
        self.is_waiting = False

    def act(self) -> bool:
        """Guard the live release, then move the live run on or begin one."""
        acted = self._guard()
        status = self._performer.perform(
            "loop.status", ShowStatus(deployment=self._view.deployment.id), LoopStatus
        )
        may_begin = status.is_on and self._settings.loop.enabled
        if status.live is not None and (may_begin or status.live.state is LoopState.RELEASING):
            return self._move(status.live) or acted
        return (may_begin and status.live is None and self._begin()) or acted

    def _guard(self) -> bool:
        """Tell the watched release first: when it is undone, the live one has ended with it."""
        watched = self._view.watched
        watch = watched.standing.watch if watched is not None else None
        acted = False
        if watched is not None and watch is not None and self._now < watch.until:
            acted = self._tell(watched)
        if self._view.live is None:
            return acted
        return self._tell(self._view.live) or acted

    def _tell(self, release: Release) -> bool:
        before = (release.cursor_segment, release.cursor_feedback, release.state)
        around = guarding.Around(
            segment_seq=self._seen.segment_seq,
            feedback_seq=self._seen.feedback_seq,
            applied=self._applied,
        )
        after = guarding.guard(self._performer, release, self._now, guarding.USUAL, around)
        return before != (after.cursor_segment, after.cursor_feedback, after.state)

    def _begin(self) -> bool:
        deployment = self._view.deployment.id
        if self._view.live is not None:
            return False
        # The open alarm of a champion is its newest one: those before it are resolved with theirs.
        losses = ListAlerts(deployment=deployment, kind=AlertKind.LOSS, limit=NEWEST)
        alerts = self._performer.perform("alert.list", losses, AlertList).items
        if not policy.open_alarms(alerts):
            return False
        past = ListRuns(deployment=deployment, limit=MOST_RUNS)
        runs = self._performer.perform("loop.list", past, RunList).items
        answer = policy.decide(alerts, runs, self._settings.loop, self._now)
        if answer.alert is None:
            return False
        ask = StartRun(
            deployment=deployment,
            model=self._view.model,
            cause=f"alert:{answer.alert.id}",
            at=self._now,
            fence=self._fence,
            why=answer.why,
        )
        try:
            self._performer.perform("loop.start", ask, RunView)
        except StaleVersion:
            raise
        except Conflict:  # paused or begun in between: the next round reads it
            pass
        return True

    def _move(self, run: LoopRun) -> bool:
        """Take the next step; a run that can't is given up, or it would be in the way for ever."""
        try:
            return self._next_step(run)
        except LASTING as refusal:
            if run.state is LoopState.RELEASING:
                raise
            why = f"It can't go on from {run.state.value}: {refusal}"
            return self._advance(run, LoopState.ABANDONED, why[:2000])

    def _next_step(self, run: LoopRun) -> bool:
        match run.state:
            case LoopState.TRIGGERED:
                return self._freeze_and_train(run)
            case LoopState.TRAINING:
                return self._await_training(run)
            case LoopState.GATING:
                return self._gate(run)
            case LoopState.RELEASING:
                return self._await_release(run)
            case _:
                return False

    def _freeze_and_train(self, run: LoopRun) -> bool:
        frozen = snapshot.freeze(
            self._performer,
            deployment=run.deployment,
            target=self._settings.target,
            config=self._settings.loop,
            now=self._now,
        )
        if frozen is None:
            why = f"Fewer than {self._settings.loop.min_rows} labelled rows to train on."
            return self._advance(run, LoopState.ABANDONED, why)
        moved = self._advance(
            run,
            LoopState.TRAINING,
            f"Froze {frozen.training.rows} rows to train on and {frozen.holdout.rows} to judge by.",
            training=frozen.training.id,
            holdout=frozen.holdout.id,
        )
        self.is_waiting = True
        return moved

    def _await_training(self, run: LoopRun) -> bool:
        key = f"{run.id}:{run.attempt}"
        try:
            result = self._trainer.poll(key)
        except NotFound:  # nobody in this process began it: it is new, or its process died
            self._trainer.start(self._job(run, key))
            self.is_waiting = True
            return False
        if result is None:
            self.is_waiting = True
            return False
        if result.version is not None:
            why = "Trained and registered the version."
            return self._advance(run, LoopState.GATING, why, version=result.version)
        if run.attempt < self._settings.loop.max_attempts:
            why = f"Training failed, trying again: {result.error}"[:2000]
            return self._advance(run, LoopState.TRAINING, why)
        return self._advance(run, LoopState.FAILED, f"Training failed: {result.error}"[:2000])

    def _job(self, run: LoopRun, key: str) -> TrainingJob:
        assert run.training is not None
        assert run.holdout is not None
        return TrainingJob(
            key=key,
            pipeline=self._settings.loop.pipeline,
            model=run.model,
            target=self._settings.target,
            task=self._settings.task,
            training=run.training,
            holdout=run.holdout,
            time_column=self._settings.loop.time_column,
            seed=self._settings.loop.seed,
        )

    def _gate(self, run: LoopRun) -> bool:
        assert run.version is not None
        begun = self._find_begun(run)
        if begun is not None:
            why = f"The release began in {begun.state.value}."
            kind, _, key = begun.evidence.partition(":")
            found = {"report": Id(key)} if kind == "gate_report" else {}
            return self._advance(run, LoopState.RELEASING, why, release=begun.id, **found)
        if self._view.live is not None:  # somebody's own: wait, and be judged by what it leaves
            return False
        champion = self._view.deployment.champion
        if run.version == champion:
            why = "Training gave the version that answers already."
            return self._advance(run, LoopState.REFUSED, why)
        report = self._performer.perform(
            "gate.evaluate",
            EvaluateGate(version=run.version, champion=champion),
            GateReport,
            request=f"loop:{run.id}:gate:{champion}",
        )
        if not report.passed:
            failed = " ".join(check.summary for check in report.checks if not check.passed)
            return self._advance(
                run, LoopState.REFUSED, f"The gate refused. {failed}"[:2000], report=report.id
            )
        release = self._release(run)
        if release is None:
            return False
        if isinstance(release, str):
            return self._advance(run, LoopState.REFUSED, release[:2000], report=report.id)
        why = f"The gate let it pass; the release began in {release.state.value}."
        return self._advance(run, LoopState.RELEASING, why, report=report.id, release=release.id)

    def _find_begun(self, run: LoopRun) -> Release | None:
        """Return the release that a controller began for this run and did not live to note."""
        ask = ListReleases(deployment=self._view.deployment.name)
        found = self._performer.perform("release.list", ask, ReleaseList).items
        # Ids are in order of time: an older release of the same version is none of this run's.
        mine = (r.release for r in found if r.release.candidate == run.version)
        return next((release for release in mine if release.id > run.id), None)

    def _release(self, run: LoopRun) -> Release | str | None:
        """Begin the release; None while another one is live, words when it is refused for good."""
        deployment = self._view.deployment
        segment = self._seen.segment_seq
        latency = guarding.latency_limit(
            self._performer, deployment.id, deployment.champion, segment
        )
        assert run.version is not None
        ask = StartRelease(
            deployment=deployment.name,
            version=run.version,
            limits=Limits(latency_us=latency),
            cursor_segment=segment,
            cursor_feedback=self._seen.feedback_seq,
            at=self._now,
        )
        try:
            return self._performer.perform(
                "release.start", ask, ReleaseView, request=f"loop:{run.id}:release:{segment}"
            ).release
        except ApprovalRequired:  # a person's turn: the run waits for their consent
            return None
        except (GateFailed, Conflict, Denied) as refusal:
            if refusal.code in PASSING:
                return None
            return f"The release could not begin: {refusal.message}"

    def _await_release(self, run: LoopRun) -> bool:
        assert run.release is not None
        ask = ShowRelease(release=run.release)
        release = self._performer.perform("release.show", ask, ReleaseView).release
        ends = {
            State.PROMOTED: LoopState.PROMOTED,
            State.ROLLED_BACK: LoopState.ROLLED_BACK,
            State.REFUSED: LoopState.REFUSED,
        }
        if release.state not in ends:
            return False
        return self._advance(run, ends[release.state], release.why[:2000] or release.state.value)

    def _advance(self, run: LoopRun, after: LoopState, why: str, **found: Id) -> bool:
        ask = Advance(
            run=run.id,
            before=run.state,
            after=after,
            fence=self._fence,
            at=self._now,
            why=why,
            **found,
        )
        self._performer.perform(
            "loop.advance", ask, RunView, request=f"loop:{run.id}:{run.transitions}"
        )
        self.is_waiting = self.is_waiting and after not in FINAL
        return True
