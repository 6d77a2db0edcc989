"""Ships a live run's spool beside the training; waits for a server only while something moves."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from everloop.core.errors import EverloopError, StaleVersion, Unavailable
from everloop.track.shipper import Shipment

SHIP_EVERY_S: Final = 1.0
MAX_BACKOFF_S: Final = 30.0
PATIENCE_S: Final = 20.0
_LOOK_EVERY_S: Final = 0.25
_TELL_AFTER_S: Final = 2.0

_log = logging.getLogger(__name__)


class Courier:
    """Ships one spool from a thread of its own, as long as the process lives.

    It never raises into the training: while the server is away it tries again, ever more rarely,
    and a refusal stops it with a line in the log. The spool stays until everything has arrived.
    """

    def __init__(
        self,
        shipment: Shipment,
        *,
        every_s: float = SHIP_EVERY_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Make a courier.

        Args:
            shipment: What it brings.
            every_s: Seconds between two batches.
            patience_s: Seconds for which a call here waits for a server while nothing moves.
        """
        self._shipment = shipment
        self._every_s = every_s
        self._patience_s = patience_s
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.refusal: EverloopError | None = None

    def notify(self) -> None:
        """Say that there is something to ship; starts the thread the first time."""
        with self._lock:  # stop() may come from another thread, and joins only what has started
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="everloop-ship", daemon=True)
                thread.start()
                self._thread = thread
        self._wake.set()

    def ship_now(self) -> bool:
        """Ship what waits; return whether everything has arrived."""
        if self.refusal is not None:
            return False
        try:
            self._wait_for(self._ship_or_raise)
        except Unavailable as error:
            _log.info("everloop: %s", error)
            return False
        return self.refusal is None

    def begin(self) -> None:
        """Ship what waits.

        Raises:
            Unavailable: the server is away, or nothing moved for too long.
            EverloopError: the server refuses.
        """
        self._wait_for(self._shipment.ship)

    def stop(self) -> bool:
        """Stop the thread and try once more; return whether everything has arrived."""
        self._stop.set()
        self._wake.set()
        with self._lock:
            thread = self._thread

        def ship_the_rest() -> None:
            if thread is not None and thread is not threading.current_thread():
                thread.join()
            if self.refusal is None:
                self._ship_or_raise()

        try:
            self._wait_for(ship_the_rest)
        except Unavailable as error:
            _log.info("everloop: %s", error)
            return False
        return self.refusal is None

    def _wait_for(self, work: Callable[[], None]) -> None:
        """Let a thread work, as long as something moves: a call to a server can hang for long."""
        raised: list[BaseException] = []
        done = threading.Event()

        def attempt() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 -- raised again by who waits
                raised.append(error)
            finally:
                done.set()

        threading.Thread(target=attempt, name="everloop-attempt", daemon=True).start()
        moved, since = self._shipment.progress(), time.monotonic()
        begun, told = since, False
        while not done.wait(_LOOK_EVERY_S):
            now, present = time.monotonic(), self._shipment.progress()
            if present != moved:
                moved, since = present, now
            if now - since > self._patience_s:
                raise Unavailable(
                    "server.slow",
                    f"The server did not answer for {self._patience_s:g} seconds.",
                    hint="What it has not got waits in the spool; `everloop sync` ships it.",
                )
            if not told and now - begun > _TELL_AFTER_S and sys.stderr.isatty():
                told = True
                print(  # noqa: T201 -- whoever sits there wonders
                    "everloop: waiting for the server (Ctrl-C leaves the rest in the spool) ...",
                    file=sys.stderr,
                )
        if raised:
            raise raised[0]

    def _work(self) -> None:
        delay = self._every_s
        while not self._stop.is_set() and self.refusal is None:
            self._wake.wait()
            self._stop.wait(delay)
            if self._stop.is_set():
                return
            self._wake.clear()
            if self._try():
                delay = self._every_s
            else:
                delay = min(delay * 2, MAX_BACKOFF_S)
                self._wake.set()

    def _ship_or_raise(self) -> None:
        if not self._try() and self.refusal is None:
            raise Unavailable(
                "server.away", "The server is away.", hint="Run `everloop sync` later."
            )

    def _try(self) -> bool:
        try:
            self._shipment.ship()
        except (Unavailable, StaleVersion, OSError) as error:
            _log.info("everloop: the server is away, points wait in the spool: %s", error)
            return False
        except EverloopError as error:
            self.refusal = error
            _log.warning("everloop: the server refuses this run's points: %s", error)
            return False
        return True
