"""Brings what was written through memory onto the disk, behind the answers."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final, Protocol

FSYNC_PAUSE_S: Final = 0.05


class Flushed(Protocol):
    """What is brought onto the disk."""

    def sync(self) -> None:
        """Bring everything onto the disk, if there is something.

        Raises:
            OSError: the disk is broken.
        """
        ...


class Flusher:
    """One thread that brings the logs of a process onto the disk, behind the answers."""

    def __init__(self, pause_s: float = FSYNC_PAUSE_S) -> None:
        self.errors = 0
        self._pause_s = pause_s
        self._logs: list[Flushed] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-fsync", daemon=True)
        self._thread.start()

    def add(self, log: Flushed) -> None:
        """Look after a log from now on."""
        self._logs.append(log)

    def drop(self, log: Flushed) -> None:
        """Look after a log no more; idempotent."""
        with suppress(ValueError):
            self._logs.remove(log)

    def close(self) -> None:
        """Stop the thread; idempotent."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._pause_s):
            for log in tuple(self._logs):
                try:
                    log.sync()
                except OSError:
                    self.errors += 1
