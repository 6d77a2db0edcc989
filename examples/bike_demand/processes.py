"""The control plane and the serving process, started as anybody would start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.request import urlopen

PATIENCE_S = 60.0
IN_USE = 5
"""What `everloop up` ends with when another one runs on the folder."""


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Run `everloop up` until the end of the block, or go on with one that runs on the folder."""
    log = (folder / "server.log").open("ab")
    command = [sys.executable, "-m", "everloop", "up", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
    )
    plane = None
    try:
        plane = _await(lambda: _find_plane(folder, process))
        yield plane
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=PATIENCE_S)
        elif plane is not None and plane.pid != process.pid:
            _stop_other(plane)
        log.close()


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane; the demo that was killed before may have left it."""

    folder: Path
    url: str
    pid: int
    process: subprocess.Popen[bytes] | None

    def require(self) -> None:
        """End the demo when the control plane is gone."""
        is_gone = self.process is not None and self.process.poll() is not None
        if is_gone or not _is_control_plane(self.pid):
            raise SystemExit("error: the control plane is gone; start the demo again to go on")


def _find_plane(folder: Path, process: subprocess.Popen[bytes]) -> ControlPlane | None:
    found = _read(folder / ".everloop" / "server.json")
    code = process.poll()
    if found is not None and found[1] == process.pid and code is None:
        return ControlPlane(folder, *found, process)
    if code is None:
        return None
    # Refused, since another one holds the folder: left by a demo that was killed.
    if code == IN_USE and found is not None and _is_control_plane(found[1]) and _answers(found[0]):
        return ControlPlane(folder, *found, None)
    if code != IN_USE:
        raise SystemExit("error: the server did not start; see server.log in the demo's folder")
    return None


def _is_control_plane(pid: int) -> bool:
    try:
        return b"up" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _stop_other(plane: ControlPlane) -> None:
    end = time.monotonic() + PATIENCE_S
    while _is_control_plane(plane.pid) and time.monotonic() < end:
        with suppress(ProcessLookupError):
            os.kill(plane.pid, signal.SIGTERM)
        time.sleep(0.05)


def serving_address(plane: ControlPlane, deployment: str) -> str:
    """Return the address of the serving process once it has a model to answer with."""
    place = plane.folder / ".everloop" / "serve" / deployment / "server.json"

    def look() -> str | None:
        plane.require()
        found = _read(place)
        return found[0] if found is not None and _answers(found[0], "readyz") else None

    return _await(look)


def _read(place: Path) -> tuple[str, int] | None:
    try:
        found = json.loads(place.read_text())
        return str(found["url"]), int(found["pid"])
    except (OSError, ValueError, KeyError):
        return None


def _answers(url: str, what: str = "healthz") -> bool:
    try:
        with urlopen(f"{url}/{what}", timeout=1):
            return True
    except OSError:
        return False


A = TypeVar("A")


def _await(look: Callable[[], A | None]) -> A:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(0.02)
    raise SystemExit("error: the server did not start; see server.log in the demo's folder")
