"""Worker processes on this machine, made on demand and used again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from everloop.core.errors import EverloopError, Unavailable
from everloop.pipeline.decoding import decode
from everloop.pipeline.worker import Answer, Failure, Task, receive, send

_STOP_S: Final = 2.0
_BOOT: Final = "import sys; from everloop.pipeline.worker import main; main(int(sys.argv[1]))"
T = TypeVar("T")


class WorkerPool:
    """Runs tasks in processes; a task that takes too long or dies takes only its process along.

    Thread-safe.
    """

    def __init__(self, size: int | None = None) -> None:
        self._threads = ThreadPoolExecutor(
            max_workers=size or _count_cpus(), thread_name_prefix="everloop-worker"
        )
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run something that performs tasks in one of the pool's threads."""
        return self._threads.submit(work)

    def perform(self, task: Task, timeout_s: float | None) -> Answer:
        """Run a task in a process and return its answer.

        Raises:
            TimeoutError: it took longer than ``timeout_s``; its process is gone.
            Unavailable: ``step.worker_died``.
        """
        worker = self._take()
        try:
            answer = worker.perform(task, timeout_s)
        except BaseException:
            self._drop(worker)
            raise
        with self._lock:
            self._idle.append(worker)
        return answer

    def close(self) -> None:
        """End all processes, also those at work; idempotent."""
        with self._lock:
            self._is_closed = True
            workers = list(self._all)
        for worker in workers:
            worker.end()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _take(self) -> _Worker:
        with self._lock:
            if self._is_closed:
                raise Unavailable(
                    "step.worker_died", "The pipeline has ended.", hint="Run it again."
                )
            if self._idle:
                return self._idle.pop()
            worker = _Worker()
            self._all.add(worker)
            return worker

    def _drop(self, worker: _Worker) -> None:
        worker.end()
        with self._lock:
            self._all.discard(worker)


class _Worker:
    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        source = str(Path(__file__).resolve().parents[2])
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 -- this interpreter, our own module
                [sys.executable, "-c", _BOOT, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )

    def perform(self, task: Task, timeout_s: float | None) -> Answer:
        self._channel.settimeout(timeout_s)
        try:
            send(self._channel, task)
            payload = receive(self._channel)
        except TimeoutError as error:
            message = f"step {task.qualname} took longer than {timeout_s} s"
            raise TimeoutError(message) from error
        except OSError:
            payload = None
        if payload is None:
            raise self._death(task)
        return msgspec.msgpack.decode(payload, type=Answer)

    def end(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _death(self, task: Task) -> Unavailable:
        try:
            code: int | None = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            code = None
        return Unavailable(
            "step.worker_died",
            f"The process of step {task.qualname} ended with exit status {code}.",
            hint="Status -9 often means that memory ran out; a retry starts a fresh process.",
        )


def to_exception(failure: Failure) -> Exception:
    """Return the exception of a worker as itself, as far as its type is known here."""
    module_name, _, qualname = failure.kind.partition(":")
    kind: object = sys.modules.get(module_name)
    for part in qualname.split("."):
        kind = getattr(kind, part, None)
    made: Exception | None = None
    if isinstance(kind, type) and issubclass(kind, EverloopError) and failure.error:
        code, message, hint = failure.error
        made = kind(code, message, hint=hint)
    elif isinstance(kind, type) and issubclass(kind, Exception) and failure.arguments:
        arguments = decode(failure.arguments, Path())
        assert isinstance(arguments, tuple)
        try:
            made = kind(*arguments)
        except TypeError:
            made = None
    made = made or RuntimeError(f"{failure.kind}: {failure.message}")
    made.add_note(f"In a worker process:\n{failure.trace}")
    return made


def _count_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
