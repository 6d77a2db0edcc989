"""One serving process: started, watched, started again with growing pauses, adopted, stopped."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from everloop.core.wire import Address

ADDRESS_FILE = "server.json"
OUTPUT_FILE = "serve.log"
OUTPUT_BYTES = 1_000_000
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0
HEALTHY_S = 10.0
MOST_FAILED_STARTS = 2
STOP_S = 8.0
_PROGRAM = re.compile(rb"(^|/)everloop[.-]serve(\.main)?$")


class ServingProcess:
    """The process of a serving folder; at most one runs, whoever started it."""

    def __init__(self, folder: Path, *, key: str, port: int = 0, workers: int = 1) -> None:
        self._folder = folder
        self._key = key
        self._port = port
        self._workers = workers
        self._child: subprocess.Popen[bytes] | None = None
        self._adopted = find_running(folder)
        self._started_at = 0.0
        self._not_before = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._failed_starts = 0

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        if self._adopted is not None:
            return self._adopted
        return self._child.pid if self._child is not None else None

    def keep(self) -> None:
        """Start the process if it does not run and its pause is over; bound what it wrote."""
        self._bound_output()
        if self._is_alive():
            if self._child is not None and time.monotonic() - self._started_at > HEALTHY_S:
                self._pause_s = FIRST_PAUSE_S
            return
        now = time.monotonic()
        if self._child is not None or self._adopted is not None:
            has_come_up = self._child is None or self._child.pid == self._told_pid()
            self._failed_starts = 0 if has_come_up else self._failed_starts + 1
            self._child, self._adopted = None, None
            self._not_before = now + self._pause_s if self._started_at else now
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        if now < self._not_before:
            return
        # One that a killed control plane had just begun tells of itself only now.
        self._adopted = find_running(self._folder)
        if self._adopted is None:
            self._start()

    def ask_to_stop(self) -> None:
        """Send SIGTERM if it runs."""
        if self._is_alive() and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> None:
        """Wait for its end; kill it when that takes too long."""
        deadline = time.monotonic() + STOP_S
        while self._is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._is_alive() and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def _is_alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self._adopted is not None and is_serving(self._adopted, self._folder)

    def _start(self) -> None:
        command = [sys.executable, "-m", "everloop.serve.main", "--home", str(self._folder)]
        command += ["--public-key", self._key, "--port", str(self._next_port())]
        command += ["--workers", str(self._workers)]
        with (self._folder / OUTPUT_FILE).open("ab") as stream:
            self._child = subprocess.Popen(  # noqa: S603 -- our own program, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                # Ctrl-C in the terminal goes to the control plane alone, which ends this in order.
                start_new_session=True,
            )
        self._started_at = time.monotonic()

    def _bound_output(self) -> None:
        """Begin the file of its messages anew when it is long; the last one is kept beside it.

        The process has the file open, to append: it goes on at its new beginning. A line that is
        written between the copy and the cut is lost.
        """
        output = self._folder / OUTPUT_FILE
        with contextlib.suppress(OSError):
            if output.stat().st_size > OUTPUT_BYTES:
                shutil.copyfile(output, output.with_suffix(".old"))
                os.truncate(output, 0)

    def _told_pid(self) -> int | None:
        address = read_address(self._folder)
        return None if address is None else address.pid

    def _next_port(self) -> int:
        """Return the port of last time, so that callers find it again, when that went well."""
        if self._port:
            return self._port
        known = read_address(self._folder)
        # One that died later had the port; those that never came up may have found it taken.
        if known is None or self._failed_starts >= MOST_FAILED_STARTS:
            return 0
        return int(known.url.rpartition(":")[2])


def read_address(folder: Path) -> Address | None:
    """Return what the process last wrote about itself, or None."""
    try:
        return msgspec.json.decode((folder / ADDRESS_FILE).read_bytes(), type=Address)
    except (OSError, msgspec.MsgspecError):
        return None


def find_running(folder: Path) -> int | None:
    """Return the id of the serving process of a folder that somebody else started, or None."""
    address = read_address(folder)
    if address is not None and is_serving(address.pid, folder):
        return address.pid
    return None


def is_serving(pid: int, folder: Path) -> bool:
    """Tell whether a process lives and is the serving process of this folder.

    The command line is looked at, since process ids are used again.
    """
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return _is_alive_without_proc(pid)
    except OSError:
        return False
    # The folder alone would do for other programs too, such as the control plane of this home; a
    # deployment's folder lies in that of the process which serves it.
    is_ours = any(_PROGRAM.search(part) for part in command)
    return is_ours and any(str(place).encode() in command for place in (folder, folder.parent))


def _is_alive_without_proc(pid: int) -> bool:
    if Path("/proc/self/cmdline").exists():
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
