"""What runs beside the web application: configuration, serving processes, and the loop.

Each is a thread that survives its own errors: it says what went wrong, once, and tries again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from everloop.app.client import Client
from everloop.app.config import Config
from everloop.app.home import Home
from everloop.app.starting import put_in_force
from everloop.core.digest import sha256_digest
from everloop.core.errors import EverloopError
from everloop.core.events import Event
from everloop.kernel.bootstrap import LOOP, SERVER, local_caller
from everloop.kernel.performer import LocalPerformer
from everloop.release.queries import DeploymentList, ListDeployments

_LOG = logging.getLogger("everloop.keeper")
SERVING_EVERY_S = 0.1
LOOP_EVERY_S = 0.5
LOOK_EVERY_S = 0.01
QUIET_S = 0.02
GATHER_S = 0.2
AFTER_ERROR_S = 2.0
STOP_S = 20.0
TRACKING = frozenset({"blob", "experiment", "run", "trace"})


def _controller_name(home: Home) -> str:
    """Return a name that the next process of this home folder has again.

    The lock on the folder lets one of them live at a time, so a restarted control plane goes on at
    once with the lease of the one before, instead of waiting for its end.
    """
    place = f"{os.uname().nodename}:{home.path.resolve()}"
    return f"{os.uname().nodename[:40]}:{sha256_digest(place.encode())[7:39]}"


class Keeper:
    """Keeps configuration, serving and loop of one home folder going."""

    def __init__(
        self, home: Home, client: Client, config: Config, *, serve: bool, loop: bool
    ) -> None:
        self._home = home
        self._client = client
        self._config = config
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._news = threading.Event()
        self._jobs: list[Callable[[], None]] = [self._keep_serving] if serve else []
        if loop:
            self._jobs.append(self._keep_loop)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Put the configuration in force and begin; returns at once."""
        first = threading.Thread(target=self._begin, name="keeper")
        first.start()
        self._threads.append(first)

    def stop(self) -> None:
        """End everything, the serving processes too."""
        self._stop.set()
        self._changed.set()
        self._news.set()
        for thread in list(self._threads):
            thread.join(STOP_S)

    def _begin(self) -> None:
        try:
            put_in_force(self._client, self._home)
        except EverloopError as error:
            _LOG.error("everloop.yaml is not in force: %s %s", error.message, error.hint)
        for job in self._jobs:
            thread = threading.Thread(target=job, name=job.__name__.strip("_"))
            self._threads.append(thread)
            thread.start()

    def _keep_serving(self) -> None:
        from everloop.app.drilling import Drills
        from everloop.app.serving import Supervisor

        kernel = self._client.kernel
        assert kernel is not None
        caller = local_caller(kernel, SERVER)
        supervisor = Supervisor(self._home, kernel, caller, self._config)
        drills = Drills(self._home, kernel, caller)
        kernel.subscribe(lambda event: self._changed.set())

        def step() -> bool:
            is_new = supervisor.step()
            if is_new or drills.are_waiting:
                drills.step()
            return is_new

        try:
            self._repeat(step, lambda done: SERVING_EVERY_S)
        finally:
            supervisor.stop()

    def _keep_loop(self) -> None:
        from everloop.app.ingest import LogSource
        from everloop.app.retention import DeviceRetention
        from everloop.app.trainer import ProcessTrainer
        from everloop.loop.controller import Controller

        kernel = self._client.kernel
        assert kernel is not None
        performer = LocalPerformer(kernel, local_caller(kernel, LOOP), self._client.project)
        trainer = ProcessTrainer(self._home, self._client.project)
        source = LogSource(self._home, performer)
        retention = DeviceRetention(performer, kernel.services.clock)
        kernel.subscribe(self._hear)
        controller = Controller(
            performer,
            trainer=trainer,
            source=source,
            clock=kernel.services.clock,
            owner=_controller_name(self._home),
        )

        shipped = -1

        def step() -> bool:
            nonlocal shipped
            if shipped != trainer.ended:
                self._ship_leftovers(performer)
                shipped = trainer.ended
            self._news.clear()
            retention.step()
            names = performer.perform(
                "deployment.list", ListDeployments(limit=1000), DeploymentList
            ).items
            acted = [controller.step(view.deployment.name) for view in names]
            if not names:
                self._news.wait(LOOP_EVERY_S)
            elif not any(acted):
                self._await_news(source.size_bytes)
            return True

        try:
            self._repeat(step, lambda done: 0.0)
        finally:
            trainer.stop()

    def _hear(self, event: Event) -> None:
        """Wake the loop, but not for what trainings write down many times a second."""
        if event.verb.partition(".")[0] not in TRACKING:
            self._news.set()

    def _ship_leftovers(self, performer: LocalPerformer) -> None:
        """Bring in what processes that were killed had measured, and end their runs."""
        from everloop.track import sync_spool

        # A run belongs to the one who began it: the loop's trainings, the owner's own.
        for who in (performer, self._client):
            sync_spool(self._home.spool, who)

    def _await_news(self, logged: Callable[[], int]) -> None:
        """Wait for a change, or for answers that were logged and have come to a pause.

        A burst of answers becomes one segment instead of many; none waits longer than a moment.
        """
        before = logged()
        for _ in range(round(LOOP_EVERY_S / LOOK_EVERY_S)):
            if self._stop.is_set() or self._news.wait(LOOK_EVERY_S):
                return
            now = logged()
            if now == before:
                continue
            for _ in range(round(GATHER_S / QUIET_S)):
                before = now
                self._stop.wait(QUIET_S)
                now = logged()
                if now == before:
                    return
            return

    def _repeat(self, step: Callable[[], bool], pause: Callable[[bool], float]) -> None:
        """Do a step again and again; after an error wait longer, and say each error once."""
        told = ""
        while not self._stop.is_set():
            try:
                wait_s = pause(step())
                told = ""
            except Exception as error:  # noqa: BLE001 -- a thread's edge: it must not die
                text = f"{type(error).__name__}: {error}"
                if text != told:
                    is_known = isinstance(error, EverloopError)
                    _LOG.error("%s", text, exc_info=None if is_known else error)
                told, wait_s = text, AFTER_ERROR_S
            self._stop.wait(wait_s)
