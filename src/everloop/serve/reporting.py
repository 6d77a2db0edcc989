"""Puts a worker's counts where the others find them, and all counts where Prometheus does."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from everloop.serve.dispatch import Route
from everloop.serve.exchange import Reply, Request
from everloop.serve.feedback import read_refused
from everloop.serve.http import Listener
from everloop.serve.observe.prometheus import CONTENT_TYPE, expose
from everloop.serve.observe.tally import Tally, add_up, save_tally
from everloop.serve.service import Service
from everloop.serve.sketch import FOLD_S, Sketch

PAUSE_S: Final = 1.0


class Reporter:
    """The counts of one worker among those of its group.

    Args:
        service: Whose counts.
        folder: Where the workers of the group write them down; None for one that is alone.
        worker: Name of this one.
    """

    def __init__(self, service: Service, folder: Path | None, worker: str) -> None:
        self._service = service
        self._folder = folder
        self._worker = worker
        self.listener: Listener | None = None
        service.count = self.whole

    def routes(self) -> list[Route]:
        """Return the address that Prometheus asks."""
        return [Route("GET", "/metrics", self.metrics)]

    def metrics(self, request: Request) -> Reply:
        """Tell the counts of all workers."""
        del request
        whole = self.whole()
        return Reply(200, expose(whole, self._drifts(whole), self._refused()), CONTENT_TYPE)

    def _refused(self) -> dict[tuple[str, str], int]:
        """Return what the control plane said about labels, by deployment and reason."""
        found: dict[tuple[str, str], int] = {}
        for endpoint in tuple(self._service.endpoints.values()):
            folder = endpoint.switchboard.log
            if folder is not None:
                told = read_refused(folder.parent)
                found.update(((endpoint.name, reason), count) for reason, count in told.items())
        return found

    def whole(self) -> Tally:
        """Return the counts of all workers; those of the others may be a second old."""
        self._measure()
        return add_up(self._service.tally, self._folder, self._worker)

    def _drifts(self, whole: Tally) -> dict[tuple[str, str], dict[str, float]]:
        return {
            where: sketch.drift(whole.inputs[where])
            for where, sketch in self._sketches()
            if where in whole.inputs
        }

    def _sketches(self) -> Iterator[tuple[tuple[str, str], Sketch]]:
        for endpoint in tuple(self._service.endpoints.values()):  # a thread adds new ones
            champion = endpoint.lineup.champion
            if champion is not None and champion.sketch is not None:
                where = (endpoint.lineup.deployment, champion.loaded.bundle.semver)
                yield where, champion.sketch

    async def keep_sketches(self) -> None:
        """Count the inputs that were left to be counted; runs until cancelled."""
        while True:
            await asyncio.sleep(FOLD_S)
            for _, sketch in self._sketches():
                sketch.fold(FOLD_S)

    async def keep(self) -> None:
        """Write the counts down every second; runs until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            self.save()

    def save(self) -> None:
        """Write the counts down."""
        if self._folder is not None:
            self._measure()
            save_tally(self._folder, self._worker, self._service.tally)

    def _measure(self) -> None:
        service, listener = self._service, self.listener
        service.tally.inputs = {where: sketch.counts for where, sketch in self._sketches()}
        all_of = list(service.endpoints.values())
        service.tally.awaited = {each.name: each.answerer.shadows.awaited for each in all_of}
        used = resource.getrusage(resource.RUSAGE_SELF)
        service.tally.gauges = {
            "workers": 1.0,
            "requests_in_flight": float(listener.in_flight) if listener else 0.0,
            "connections": float(len(listener.connections)) if listener else 0.0,
            "shadow_rows_awaited": float(sum(service.tally.awaited.values())),
            "rows_waiting": float(
                sum(scorer.waiting_rows for each in all_of for scorer in each.lineup.resident)
            ),
            "models_resident": float(sum(len(each.lineup.resident) for each in all_of)),
            "bundles_refused": float(sum(len(each.switchboard.refused) for each in all_of)),
            "log_fsync_errors": float(service.fsync_errors()),
            "process_resident_memory_bytes": float(_resident_bytes()),
            "process_cpu_seconds": used.ru_utime + used.ru_stime,
        }


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
