"""Erases what devices sent when the time is over that their model's settings give predictions."""

from __future__ import annotations

from datetime import timedelta

from everloop.core.clock import Clock, Instant
from everloop.core.errors import EverloopError
from everloop.fleet.erasing import CountDeviceRows, ErasedDeviceRows, EraseDeviceRows
from everloop.fleet.queries import FleetList, FleetSummary, ListFleets
from everloop.kernel.performer import Performer
from everloop.loop.settings import read_settings

LOOK_EVERY = timedelta(hours=1)


class DeviceRetention:
    """Looks once an hour; used by one thread."""

    def __init__(self, performer: Performer, clock: Clock) -> None:
        self._performer = performer
        self._clock = clock
        self._next: Instant | None = None

    def step(self) -> int:
        """Erase what is due; return how many batches that were.

        Raises:
            EverloopError: what stopped the last fleet that could not be looked at; the others were.
        """
        now = self._clock.now()
        if self._next is not None and now < self._next:
            return 0
        self._next = now + LOOK_EVERY
        erased, after = 0, None
        failure: EverloopError | None = None
        while True:
            ask = ListFleets(after=after)
            page = self._performer.perform("fleet.list", ask, FleetList)
            for fleet in page.items:
                try:
                    erased += self._look(fleet, now)
                except EverloopError as error:  # of this fleet, and not of those after it
                    failure = error
            after = page.next
            if after is None:
                break
        if failure is not None:
            raise failure
        return erased

    def _look(self, fleet: FleetSummary, now: Instant) -> int:
        days = read_settings(self._performer, fleet.model).log.keep_days
        return 0 if days is None else self._erase(fleet.name, now - timedelta(days=days))

    def _erase(self, fleet: str, before: Instant) -> int:
        erased = 0
        due = CountDeviceRows(fleet=fleet, before=before)
        while self._performer.perform("fleet.erasable", due, ErasedDeviceRows).batches:
            ask = EraseDeviceRows(fleet=fleet, before=before)
            erased += self._performer.perform("fleet.erase", ask, ErasedDeviceRows).batches
        return erased
