"""What a run learns by itself, from a thread beside the training: its surroundings, the machine.

Nothing here may break or slow the training: whatever goes wrong is logged once and left out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from everloop.track.code import read_patch
from everloop.track.environment import Environment, capture_environment
from everloop.track.machine import Machine

FIRST_AFTER_S: Final = 5.0
EVERY_S: Final = 10.0
PREFIX: Final = "system/"
PATCH: Final = "environment/uncommitted.patch"
FRESH_S: Final = 10.0
MOST_WAIT_S: Final = 15.0

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_known: dict[Path, tuple[float, Environment, bytes]] = {}


class Watching(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is to find out by itself.

    Attributes:
        root: Folder of the project, where git is asked; None captures no environment.
        every_s: Seconds between two looks at the machine; None does not look. The first look
            comes after five seconds, so that short runs have none.
        first_after_s: Seconds until the first look.
    """

    root: Path | None = None
    every_s: float | None = None
    first_after_s: float = FIRST_AFTER_S


class Watched(Protocol):
    """A run as far as it is watched."""

    @property
    def folder(self) -> Path:
        """A folder on the disk that the run writes."""
        ...

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Log several metrics, each one step after its last."""
        ...

    def surround(self, environment: Environment, patch: bytes) -> None:
        """Keep the environment and the uncommitted changes."""
        ...


class Watch:
    """A thread that captures the environment, then looks at the machine now and then."""

    def __init__(self, run: Watched, watching: Watching, seeds: Mapping[str, str]) -> None:
        self._run = run
        self._watching = watching
        self._seeds = dict(seeds)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="everloop-watch", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def finish(self) -> None:
        """Let the environment be captured to its end, and stop looking at the machine."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(MOST_WAIT_S)

    def _work(self) -> None:
        try:
            if self._watching.root is not None:
                environment, patch = _capture(self._watching.root)
                environment = msgspec.structs.replace(environment, seeds=self._seeds)
                self._run.surround(environment, patch)
        except Exception as error:  # noqa: BLE001 -- a thread's edge: the training goes on
            _log.warning("everloop: the environment could not be captured: %s", error)
        try:
            if self._watching.every_s is not None:
                self._look(self._watching.every_s)
        except Exception as error:  # noqa: BLE001 -- likewise
            _log.warning("everloop: the machine could not be looked at: %s", error)

    def _look(self, every_s: float) -> None:
        machine = Machine(self._run.folder)
        machine.read()
        wait_s = self._watching.first_after_s
        while not self._stop.wait(wait_s):
            values = machine.read()
            self._run.log_metrics({f"{PREFIX}{name}": value for name, value in values.items()})
            wait_s = every_s


def _capture(root: Path) -> tuple[Environment, bytes]:
    """Return environment and patch; what was found within the last ten seconds is taken again."""
    with _lock:
        known = _known.get(root)
        if known is not None and time.monotonic() - known[0] < FRESH_S:
            return known[1], known[2]
        environment = capture_environment(root, seeds={})
        has_changes = environment.code is not None and environment.code.patch is not None
        patch = read_patch(root) if has_changes else b""
        _known[root] = (time.monotonic(), environment, patch)
        return environment, patch
