"""The controller: looks, decides and acts, one small idempotent step after another.

Nothing it knows lives in its memory: every step starts from the records, so a controller that dies
anywhere is continued by the next one. A repeated step finds what the first one did: by a request
id made of the run and its transition, by the content (datasets, artifacts), or among the records
(releases), since what it would ask for may have changed meanwhile.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

import pyarrow as pa

from everloop.core.clock import Clock, Instant, from_text
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
from everloop.loop.model import FINAL, LoopConfig, LoopRun, LoopState
from everloop.loop.ports import PredictionSource, Trainer, TrainingJob
from everloop.loop.queries import ListRuns, LoopStatus, RunList, ShowStatus
from everloop.loop.settings import ModelSettings, read_settings
from everloop.loop.verbs import Advance, Claim, Lease, RunView, StartRun, Turn, TurnView
from everloop.monitor.erasing import Erasable, Erased, ErasePredictions, ListErasable
from everloop.monitor.model import AlertKind
from everloop.monitor.queries import AlertList, ListAlerts
from everloop.monitor.verbs import Observe, Observed
from everloop.registry.evidence import GateReport
from everloop.release.model import Limits, Release, State
from everloop.release.queries import (
    DeploymentView,
    ListReleases,
    ReleaseList,
    ReleaseView,
    ShowDeployment,
    ShowRelease,
)
from everloop.release.verbs import StartRelease

LEASE_S = 30.0
ERASE_EVERY = timedelta(hours=1)
NEWEST = 10
MOST_RUNS = 1_000
LASTING = (GateFailed, InvalidInput, MissingExtra, NotFound, UnsafeArtifact, pa.ArrowException)
"""Refusals that the next round would meet again; others, such as a busy store, are passed on."""

PASSING = frozenset({"release.live", "release.frozen", "deployment.halted"})
"""Refusals of a release that end by themselves, or by a person's word."""


class Controller:
    """Closes the loop of the deployments of one project.

    Not thread-safe: one controller, one thread. Several processes may each run one; the lease
    lets a single one of them act on a deployment.
    """

    def __init__(
        self,
        performer: Performer,
        *,
        trainer: Trainer,
        source: PredictionSource,
        clock: Clock,
        owner: str,
    ) -> None:
        self._performer = performer
        self._trainer = trainer
        self._source = source
        self._clock = clock
        self._owner = owner
        self._leases: dict[Id, Lease] = {}
        self._told: dict[Id, Turn] = {}
        self._erase_at: dict[Id, Instant] = {}

    def step(self, name: str) -> bool:
        """Do what there is to do for one deployment; return whether anything was done.

        Raises:
            EverloopError: what a verb refuses for a reason that the next step won't mend.
        """
        view = self._performer.perform(
            "deployment.show", ShowDeployment(deployment=name), DeploymentView
        )
        deployment = view.deployment
        lease = self._claim(deployment.id)
        if lease is None:
            return False
        settings = read_settings(self._performer, view.model)
        sealed = self._source.seal(
            deployment.id, name, deployment.champion, pause_s=self._pause_s(view, settings)
        )
        if settings.log.keep_days is not None:
            self._erase_old(deployment.id, settings.log.keep_days)
        look = Observe(deployment=deployment.id, model=view.model, champion=deployment.champion)
        seen = self._performer.perform("monitor.observe", look, Observed)
        now = self._now(settings.loop, seen.watermark)
        applied = self._source.applied(deployment.id, name)
        place = _Place(lease.fence, now, seen, applied)
        turn = _Turn(self._performer, self._trainer, view, settings, place)
        try:
            acted = turn.act()
        except StaleVersion:  # another controller or a person was first: start from the records
            self._leases.pop(deployment.id, None)
            return True
        self._report(deployment.id, seen, is_idle=not acted and not turn.is_waiting)
        return bool(acted or sealed or seen.blocks or seen.closed_windows)

    def _pause_s(self, view: DeploymentView, settings: ModelSettings) -> float:
        """Return for how long answers are gathered: not while a release waits for evidence."""
        watch = view.watched.standing.watch if view.watched is not None else None
        is_watched = watch is not None and self._clock.now() < watch.until
        is_waited_for = view.live is not None or is_watched or settings.loop.time == "event"
        return 0.0 if is_waited_for else settings.log.seal_after_s

    def _erase_old(self, deployment: Id, keep_days: int) -> None:
        """Erase predictions whose time is over; looked at once an hour."""
        now = self._clock.now()
        if now < self._erase_at.get(deployment, now):
            return
        self._erase_at[deployment] = now + ERASE_EVERY
        before = now - timedelta(days=keep_days)
        due = ListErasable(deployment=deployment, before=before)
        found = self._performer.perform("prediction.erasable", due, Erasable)
        ask = ErasePredictions(deployment=deployment, before=before)
        while found.segments or found.batches:
            self._performer.perform("prediction.erase", ask, Erased)
            found = self._performer.perform("prediction.erasable", due, Erasable)

    def _claim(self, deployment: Id) -> Lease | None:
        held = self._leases.get(deployment)
        soon = self._clock.now() + timedelta(seconds=LEASE_S / 2)
        if held is None or held.until < soon:
            ask = Claim(deployment=deployment, owner=self._owner, seconds=LEASE_S)
            held = self._performer.perform("loop.claim", ask, Lease)
            self._leases[deployment] = held
        return held if held.owner == self._owner else None

    def _now(self, config: LoopConfig, watermark: str | None) -> Instant:
        if config.time == "event" and watermark is not None:
            return from_text(watermark)
        return self._clock.now()

    def _report(self, deployment: Id, seen: Observed, *, is_idle: bool) -> None:
        """Note how far this round came, when that differs from the round before."""
        ask = Turn(
            deployment=deployment,
            segment_seq=seen.segment_seq,
            feedback_seq=seen.feedback_seq,
            is_idle=is_idle,
        )
        if self._told.get(deployment) != ask:
            self._performer.perform("loop.turn", ask, TurnView)
            self._told[deployment] = ask


class _Place(NamedTuple):
    """Where a round stands: under which fence, at which time, after what was seen and served."""

    fence: int
    now: Instant
    seen: Observed
    applied: Applied | None


class _Turn:
    """One round over one deployment, at one instant of the loop's time."""

    def __init__(
        self,
        performer: Performer,
        trainer: Trainer,
        view: DeploymentView,
        settings: ModelSettings,
        place: _Place,
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
