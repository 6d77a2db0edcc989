"""Trains for the loop in a process of its own: a crash or a leak there harms nothing here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from everloop.app.client import ACTOR_VARIABLE, PROJECT_VARIABLE
from everloop.app.home import HOME_VARIABLE, PRIVATE_FOLDER, Home
from everloop.core.digest import sha256_digest
from everloop.core.errors import NotFound
from everloop.kernel.bootstrap import LOOP
from everloop.loop.ports import TrainingJob, TrainingResult

MODULE = "everloop.app.training"
MOST_ERROR_CHARS = 1_000
STOP_S = 5.0


class ProcessTrainer:
    """Starts one process a job, in the project's folder; used by one thread.

    A training outlives a killed control plane. The next one starts the job once more; that process
    waits for the first at the job's lock and takes over its result, so nothing is trained twice.

    Attributes:
        ended: How many trainings have ended; their spools may hold what is not shipped yet.
    """

    def __init__(self, home: Home, project: str) -> None:
        self._home = home
        self._project = project
        self._folder = home.path / "training"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._done: dict[str, TrainingResult] = {}
        self.ended = 0

    def start(self, job: TrainingJob) -> None:
        """Begin a job; one that runs or is done is left alone."""
        if job.key in self._running or job.key in self._done:
            return
        self._folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        place = self._place(job.key)
        known = read_result(place)
        if known is not None:  # of a training that outlived the process that began it
            self._done[job.key] = known
            return
        draft = place.with_suffix(".job.draft")
        draft.write_bytes(msgspec.json.encode(job))
        draft.replace(place.with_suffix(".job.json"))
        with place.with_suffix(".log").open("ab") as output:
            self._running[job.key] = subprocess.Popen(  # noqa: S603 -- our own, no shell
                [sys.executable, "-m", MODULE, str(place)],
                cwd=self._home.project_folder,
                env=os.environ
                | {
                    HOME_VARIABLE: str(self._home.path),
                    PROJECT_VARIABLE: self._project,
                    ACTOR_VARIABLE: LOOP,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self, key: str) -> TrainingResult | None:
        """Return the job's outcome, or None while it runs.

        Raises:
            NotFound: ``training.unknown``.
        """
        if key in self._done:
            return self._done[key]
        process = self._running.get(key)
        if process is None:
            raise NotFound(
                "training.unknown",
                f"This process began no training {key!r}.",
                hint="Start it.",
            )
        if process.poll() is None:
            return None
        del self._running[key]
        self.ended += 1
        self._done[key] = self._outcome(key, process.returncode)
        return self._done[key]

    def stop(self) -> None:
        """End what runs; the next controller starts it again, and finished steps are cached."""
        for process in self._running.values():
            process.terminate()
        for pid in find_trainings(self._folder) - {it.pid for it in self._running.values()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _outcome(self, key: str, code: int) -> TrainingResult:
        place = self._place(key)
        found = read_result(place)
        if found is not None:
            return found
        tail = _tail(place.with_suffix(".log"))
        return TrainingResult(version=None, error=f"The process ended with {code}. {tail}")

    def _place(self, key: str) -> Path:
        # A digest, since a key may hold what a file name may not.
        return self._folder / sha256_digest(key.encode()).removeprefix("sha256:")[:32]


def read_result(place: Path) -> TrainingResult | None:
    """Return what a finished job left beside its files, or None."""
    try:
        return msgspec.json.decode(
            place.with_suffix(".result.json").read_bytes(), type=TrainingResult
        )
    except (OSError, msgspec.MsgspecError):
        return None


def find_trainings(folder: Path) -> set[int]:
    """Return the processes that train in a folder, whoever began them; none without /proc."""
    found = set()
    start = f"{folder}/".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if MODULE.encode() in words and any(word.startswith(start) for word in words):
            found.add(int(path.parent.name))
    return found


def _tail(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[-MOST_ERROR_CHARS:].strip()
    except OSError:
        return ""
