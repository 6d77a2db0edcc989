"""The master of a group of workers: forks them, starts dead ones again, and ends them in order."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from everloop.serve.notify import Notifier
from everloop.serve.observe.jsonlog import say, say_failure
from everloop.serve.worker import DRAIN_S, ENDINGS

PAUSE_S: Final = 0.5
_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of prctl(2)


class Master:
    """Forks the workers, starts dead ones again, and ends them in order."""

    def __init__(self, work: Callable[[int], None], count: int) -> None:
        self._work = work
        self._count = count
        self._workers: dict[int, tuple[int, float]] = {}

    def run(self) -> None:
        """Return when the group was told to end, and has ended."""
        watched = {*ENDINGS, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        gc.collect()
        gc.freeze()  # what is loaded is shared: the collector must not write into its pages
        # A library's thread may be given the signal while this one does not wait for it; without a
        # handler that would be the end of the process, in no order.
        asked: list[int] = []
        for number in ENDINGS:
            signal.signal(number, lambda known, _: asked.append(known))
        notifier = Notifier(os.environ)
        for place in range(self._count):
            self._start(place)
        notifier.ready()
        while not asked:
            notifier.beat()
            found = signal.sigtimedwait(watched, 1.0)
            if found is not None and found.si_signo in ENDINGS:
                break
            for place, started in self._reap():
                if time.monotonic() - started < PAUSE_S:
                    time.sleep(PAUSE_S)  # one that dies at once must not take the machine with it
                self._start(place)
        notifier.ending()
        self._stop()

    def _start(self, place: int) -> None:
        started = time.monotonic()
        master = os.getpid()
        pid = os.fork()
        if pid:
            self._workers[pid] = (place, started)
            return
        code = 1
        try:
            _die_with_parent()
            if os.getppid() != master:
                os._exit(code)  # killed before we asked to be told of it
            for number in ENDINGS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*ENDINGS, signal.SIGCHLD})
            self._work(place)
            code = 0
        except BaseException as error:  # noqa: BLE001 -- a fork must end here, whatever happens
            say_failure("worker", error, everloop__worker=place)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> list[tuple[int, float]]:
        ended = []
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            place, started = self._workers.pop(pid)
            say("warn", "worker-ended", f"Worker {place} ended with status {status}.")
            ended.append((place, started))
        return ended

    def _stop(self) -> None:
        for pid in self._workers:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 2 * DRAIN_S + 1
        while self._workers and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.01)
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _die_with_parent() -> None:
    """End this worker when the master is killed, so that the port is free for the next one."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
