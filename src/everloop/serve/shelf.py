"""Bundles that stand alone, brought in and taken out while the process group answers.

What is wanted stands in one small file of the group; each worker does it, says so, and whoever
asked waits for all of them. A worker that starts anew reads the file before it answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from everloop.core.errors import Conflict, EverloopError, NotFound, Unavailable
from everloop.serve.files import held, write_atomically
from everloop.serve.hosting import Host
from everloop.serve.observe.jsonlog import say_failure
from everloop.serve.service import Endpoint, Service

WANTED_FILE: Final = "wanted.json"
LOCK_FILE: Final = ".lock"
PAUSE_S: Final = 0.02
LOAD_WAIT_S: Final = 60.0


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers shall do.

    Attributes:
        epoch: Grows with each wish.
        loads: By name, the epoch in which it was last to be loaded.
        unloaded: Names that shall not be there.
    """

    epoch: int = 0
    loads: dict[str, int] = {}
    unloaded: tuple[str, ...] = ()


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """How far a worker is; ``problems`` by name are of the loads that failed."""

    epoch: int
    problems: dict[str, str] = {}


class BundleShelf:
    """What one worker brings in and takes out.

    Args:
        folder: Shared by the workers of a group, and by nobody else.
        worker: This one's name.
        workers: All names.
    """

    def __init__(
        self, host: Host, service: Service, folder: Path, worker: str, workers: Sequence[str]
    ) -> None:
        self._host = host
        self._service = service
        self._folder = folder
        self._worker = worker
        self._workers = workers
        self._epoch = -1
        self._loaded: dict[str, int] = {}
        self._problems: dict[str, str] = {}
        self._resting: dict[str, Endpoint] = {}

    def absent(self) -> dict[str, str]:
        """Return the bundles that are there and not loaded, and why."""
        found = dict.fromkeys(self._host.find_bundles(), "unloaded")
        found.update(self._host.broken)
        found.update(self._problems)
        return {
            name: why for name, why in sorted(found.items()) if name not in self._service.endpoints
        }

    async def bring_in(self, name: str) -> None:
        """Load a bundle in all workers, or load it again.

        Raises:
            NotFound: ``model.not_available``.
            Conflict: ``model.not_loaded``.
            Unavailable: ``model.load_slow``.
        """
        self._require_available(name)
        with held(self._folder / LOCK_FILE):
            old = self._read()
            wanted = Wanted(
                epoch=old.epoch + 1,
                loads={**old.loads, name: old.epoch + 1},
                unloaded=tuple(each for each in old.unloaded if each != name),
            )
            self._write(wanted)
        problem = await self._await(name, wanted.epoch)
        if problem is not None:
            raise Conflict(
                "model.not_loaded",
                f"The bundle of {name[:60]!r} was not loaded: {problem}",
                hint="Export the bundle again; what answered before goes on answering.",
            )

    async def take_out(self, name: str) -> None:
        """Unload a bundle in all workers; requests in flight are answered.

        Raises:
            NotFound: ``model.not_available``.
            Unavailable: ``model.load_slow``.
        """
        self._require_available(name)
        with held(self._folder / LOCK_FILE):
            old = self._read()
            wanted = msgspec.structs.replace(
                old, epoch=old.epoch + 1, unloaded=tuple({*old.unloaded, name})
            )
            self._write(wanted)
        await self._await(name, wanted.epoch)

    async def keep(self) -> None:
        """Do what is wanted, as it comes; runs until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            try:
                wanted = self._read()
                if wanted.epoch != self._epoch:
                    await asyncio.to_thread(self.apply, wanted)
            except Exception as error:  # noqa: BLE001 -- the watch outlives what it finds
                say_failure("shelf", error)

    def apply(self, wanted: Wanted | None = None) -> None:
        """Do what is wanted now."""
        wanted = self._read() if wanted is None else wanted
        for name, epoch in wanted.loads.items():
            if name not in wanted.unloaded and self._loaded.get(name) != epoch:
                self._load(name)
                self._loaded[name] = epoch
        for name in wanted.unloaded:
            self._unload(name)
            self._loaded.pop(name, None)
        self._epoch = wanted.epoch
        told = Done(epoch=wanted.epoch, problems=self._problems)
        write_atomically(self._folder / f"{self._worker}.json", msgspec.json.encode(told))

    def close(self) -> None:
        """Close the logs of what was unloaded."""
        for endpoint in self._resting.values():
            endpoint.log.close()

    def _load(self, name: str) -> None:
        self._problems.pop(name, None)
        with self._host.guard:
            try:
                self._host.load_bundle(name)
            except Exception as error:  # noqa: BLE001 -- a damaged model file breaks its reader anyhow
                told = str(error) if isinstance(error, EverloopError) else type(error).__name__
                self._problems[name] = told[:500]
                return
            resting = self._resting.pop(name, None)
            if resting is not None:
                self._service.endpoints[name] = resting
            else:
                self._host.open(self._service, self._worker)

    def _unload(self, name: str) -> None:
        with self._host.guard:
            endpoint = self._service.endpoints.pop(name, None)
            if endpoint is not None:
                # Its log stays open for the answers under way, and for when it comes back.
                self._resting[name] = endpoint
            self._host.rest(name)

    def _require_available(self, name: str) -> None:
        available = {*self._host.find_bundles(), *self._service.endpoints}
        if name not in available:
            raise NotFound(
                "model.not_available",
                f"There is no bundle of {name[:60]!r} here.",
                hint=f"There are: {', '.join(sorted(available)[:20]) or 'none'}.",
            )

    async def _await(self, name: str, epoch: int) -> str | None:
        """Wait for all workers; return what went wrong in one of them."""
        try:
            async with asyncio.timeout(LOAD_WAIT_S):
                while True:
                    told = [self._read_done(worker) for worker in self._workers]
                    if all(each is not None and each.epoch >= epoch for each in told):
                        problems = (each.problems.get(name) for each in told if each is not None)
                        return next((each for each in problems if each is not None), None)
                    await asyncio.sleep(PAUSE_S / 2)
        except TimeoutError as error:
            raise Unavailable(
                "model.load_slow",
                f"Not all workers have done it within {LOAD_WAIT_S:g} seconds.",
                hint="Look at the index and at standard error; they go on.",
            ) from error

    def _read(self) -> Wanted:
        try:
            return msgspec.json.decode((self._folder / WANTED_FILE).read_bytes(), type=Wanted)
        except FileNotFoundError:
            return Wanted()

    def _write(self, wanted: Wanted) -> None:
        write_atomically(self._folder / WANTED_FILE, msgspec.json.encode(wanted))

    def _read_done(self, worker: str) -> Done | None:
        try:
            return msgspec.json.decode((self._folder / f"{worker}.json").read_bytes(), type=Done)
        except (OSError, msgspec.MsgspecError):
            return None
