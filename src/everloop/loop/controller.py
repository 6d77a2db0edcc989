"""The controller: whose turn it is, what was answered meanwhile, and one round after another.

Nothing it knows lives in its memory: every round starts from the records, so a controller that dies
anywhere is continued by the next one.
"""

from __future__ import annotations

from datetime import timedelta

from everloop.core.clock import Clock, Instant, from_text
from everloop.core.errors import StaleVersion
from everloop.core.ids import Id
from everloop.kernel.performer import Performer
from everloop.loop.model import LoopConfig
from everloop.loop.ports import PredictionSource, Trainer
from everloop.loop.round import Place, Round
from everloop.loop.settings import ModelSettings, read_settings
from everloop.loop.verbs import Claim, Lease, Turn, TurnView
from everloop.monitor.erasing import Erasable, Erased, ErasePredictions, ListErasable
from everloop.monitor.verbs import Observe, Observed
from everloop.release.queries import DeploymentView, ShowDeployment

LEASE_S = 30.0
ERASE_EVERY = timedelta(hours=1)


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
        place = Place(lease.fence, now, seen, applied)
        round_ = Round(self._performer, self._trainer, view, settings, place)
        try:
            acted = round_.act()
        except StaleVersion:  # another controller or a person was first: start from the records
            self._leases.pop(deployment.id, None)
            return True
        self._report(deployment.id, seen, is_idle=not acted and not round_.is_waiting)
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
