"""Moves drills on by what the serving processes report; their own clocks say how long it took."""

from __future__ import annotations

import logging
from typing import Final

from msgspec import Struct

from everloop.app.home import Home
from everloop.app.ingest import find_log
from everloop.core.clock import Instant
from everloop.core.ids import Id, ProjectId
from everloop.core.wire import Applied
from everloop.kernel.authz import Caller, Project
from everloop.kernel.perform import Kernel
from everloop.kernel.performer import LocalPerformer
from everloop.kernel.unit_of_work import View
from everloop.release.halting import DrillView, SettleDrill, live_drills
from everloop.release.model import Deployment, Drill
from everloop.serve.applied import read_applied

_LOG: Final = logging.getLogger(__name__)


class _Waiting(Struct, frozen=True, kw_only=True):
    drill: Drill
    deployment: str
    project: str


class Drills:
    """The drills that wait for their server; used by one thread.

    Attributes:
        are_waiting: Whether the last look found any.
    """

    def __init__(self, home: Home, kernel: Kernel, caller: Caller) -> None:
        self._home = home
        self._kernel = kernel
        self._caller = caller
        self.are_waiting = True
        self._problems: dict[Id, str] = {}

    def step(self) -> None:
        """Tell each waiting drill what its server has in force; none holds up another."""
        waiting = self._find()
        self.are_waiting = bool(waiting)
        for one in waiting:
            try:
                performer = LocalPerformer(self._kernel, self._caller, one.project)
                performer.perform("deployment.settle", self._report(one), DrillView)
            except Exception as error:  # noqa: BLE001 -- the servers must be kept, whatever fails here
                self._tell_once(one, repr(error))

    def _tell_once(self, one: _Waiting, problem: str) -> None:
        if self._problems.get(one.drill.id) != problem:
            self._problems[one.drill.id] = problem
            _LOG.error("the drill of %s can't be settled: %s", one.deployment, problem)

    def _find(self) -> list[_Waiting]:
        found = []
        with self._kernel.store.read() as tx:
            for project in tx.select(Project):
                view = View(tx, self._caller, ProjectId(project.id), self._kernel.services)
                for drill in live_drills(view):
                    deployment = view.find(Deployment, drill.deployment)
                    name = deployment.name if deployment else drill.deployment
                    found.append(_Waiting(drill=drill, deployment=name, project=project.name))
        return found

    def _report(self, one: _Waiting) -> SettleDrill:
        log = find_log(self._home, one.drill.deployment, one.deployment)
        applied = None if log is None else read_applied(log.parent)
        if applied is None:
            return SettleDrill(drill=one.drill.id, epoch=0, applied_at=self._now())
        return SettleDrill(
            drill=one.drill.id,
            epoch=applied.epoch,
            applied_at=applied.at,
            refused=_refusal(one.drill, applied),
        )

    def _now(self) -> Instant:
        return self._kernel.services.clock.now()


def _refusal(drill: Drill, applied: Applied) -> str:
    """Return why the server did not take the pinned version; empty when it did, or is behind."""
    if applied.seen_epoch < drill.epoch:
        return ""
    mine = [one for one in applied.refused if one.version_id == drill.version]
    return f"{mine[0].code}: {mine[0].message}"[:500] if mine else ""
