"""The agent: keeps the bundle in force answering, asks for the next one, and tells how it goes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Optional
from urllib.parse import urlsplit

from everloop.edge.device.bundle import own_archive
from everloop.edge.device.control import Control, read_enrolment
from everloop.edge.device.files import interpreter
from everloop.edge.device.ids import new_id
from everloop.edge.device.journal import Journal
from everloop.edge.device.refusal import EdgeError
from everloop.edge.device.updates import Updates

START_S = 30.0
LEAST_ANSWERS = 10  # so many before faults count against a bundle on trial
MOST_FAULTS = 0.5


class Agent:
    """One device.

    Args:
        folder: Its state folder, with ``device.json`` in it.
        trial_s: How long a new bundle must be healthy before it is confirmed.
    """

    def __init__(self, folder: Path, *, trial_s: float = 10.0) -> None:
        self._folder = folder
        self._trial_s = trial_s
        self._lock = _lock(folder)
        self.control = Control(read_enrolment(folder))
        self.updates = Updates(folder, self.control.key)
        self.updates.adopt(own_archive())
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._started_at = 0.0

    def run(self, *, host: str, port: int, interval_s: float) -> int:
        """Serve, ask and tell until told to stop."""
        signal.signal(signal.SIGTERM, _stop)
        asked_at = -interval_s
        try:
            while True:
                self._keep_serving(host, port)
                if time.monotonic() - asked_at >= interval_s:
                    asked_at = time.monotonic()
                    self.turn()
                time.sleep(0.1)
        except _Stopped:
            return 0
        finally:
            self._end_child()

    def turn(self) -> None:
        """Ask what to run, follow it, and tell what happened; being offline changes nothing."""
        _quietly("not updated", self.ask)
        _quietly("not told", self.tell)

    def ask(self) -> bool:
        """Ask what to run and follow it; return whether another bundle is in force now.

        Raises:
            EdgeError: why nothing was changed.
        """
        if self.updates.told["trying"]:
            return False  # one at a time: first see whether this one is healthy
        offer = self.control.ask(new_id(), self.updates.current)
        is_changed = self.updates.take(offer, self.control)
        if is_changed:
            _say({"event": "updated", "version": offer["version"], "epoch": offer["epoch"]})
            self._end_child()
        return is_changed

    def tell(self) -> int:
        """Report what runs here, and send all batches; return how many were sent.

        Raises:
            EdgeError: ``edge.offline`` or ``edge.turned_away``; what was not sent waits.
        """
        journal = Journal(self._folder / "log")
        sent = 0
        try:
            while True:
                batch = journal.seal()
                if batch is None and sent:
                    return sent
                self._report(batch)
                if batch is None:
                    return sent
                journal.sent(batch)
                sent += 1
        finally:
            journal.close()

    def _report(self, batch: Optional[Dict[str, Any]]) -> None:
        """Tell what runs here, also where the batch is turned away."""
        told = {
            "running": self.updates.current,
            "epoch": self.updates.told["epoch"],
            "refused": self.updates.refusals(),
        }
        try:
            self.control.report({**told, "batch": batch})
        except EdgeError as error:
            if batch is not None and error.code == "edge.turned_away":
                self.control.report({**told, "batch": None})
            raise

    def _keep_serving(self, host: str, port: int) -> None:
        """Start the child where there is none, and judge a bundle that is on trial."""
        if self._child is None:
            self._start(host, port)
            return
        is_dead = self._child.poll() is not None
        if self.updates.told["trying"]:
            health = None if is_dead else self._health()
            if is_dead or (health is None and self._age() > START_S) or _is_faulty(health):
                _say({"event": "went back", "left": self.updates.current})
                self._end_child()
                self.updates.go_back("edge.unhealthy")
                _quietly("not told", self.tell)
            elif health is not None and self._age() > self._trial_s:
                self.updates.confirm()
                _say({"event": "confirmed", "version": health["version"]})
                _quietly("not told", self.tell)
        elif is_dead:
            self._child = None
            time.sleep(min(1.0, max(0.0, 1.0 - self._age())))  # never spin on one that dies

    def _start(self, host: str, port: int) -> None:
        digest = self.updates.begin_try()
        address = self._folder / "address"
        if address.exists():
            address.unlink()
        command = [
            *interpreter(), str(self.updates.path(digest)), "serve",
            "--state", str(self._folder / "log"), "--host", host, "--port", str(port),
            "--address-file", str(address), "--parent", str(os.getpid()),
            "--key", self.control.key.hex(),
        ]  # fmt: skip
        self._child = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 -- verified
        self._started_at = time.monotonic()

    def _age(self) -> float:
        return time.monotonic() - self._started_at

    def _health(self) -> Optional[Dict[str, Any]]:
        try:
            address = urlsplit((self._folder / "address").read_text())
            connection = http.client.HTTPConnection(
                address.hostname or "", address.port, timeout=5.0
            )
            try:
                connection.request("GET", "/healthz")
                told: Dict[str, Any] = json.loads(connection.getresponse().read())
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return told

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _quietly(what: str, step: Callable[[], object]) -> None:
    """Do a step; whatever hinders it, a full disk or a strange answer, the device goes on."""
    try:
        step()
    except EdgeError as error:
        _say({"event": what, "code": error.code, "message": error.args[0]})
    except Exception as error:  # noqa: BLE001 -- the agent's edge: the child must go on answering
        _say({"event": what, "code": "edge.system", "message": f"{type(error).__name__}: {error}"})


class _Stopped(BaseException):
    pass


def _stop(number: int, frame: object) -> None:
    raise _Stopped


def _is_faulty(health: Optional[Dict[str, Any]]) -> bool:
    return (
        health is not None
        and health["answers"] >= LEAST_ANSWERS
        and health["errors"] > MOST_FAULTS * health["answers"]
    )


def _lock(folder: Path) -> int:
    """Make sure that this is the only agent of the folder; the lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        import fcntl
    except ImportError:
        return descriptor
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise EdgeError(
            "edge.agent_running",
            "Another agent runs in this folder.",
            "Stop it first, or give this one a folder of its own.",
        ) from error
    return descriptor


def _say(told: Dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
