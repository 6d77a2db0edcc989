"""Processes under measurement: started, waited for, weighed and stopped, with their children."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

POLL_S = 0.002
STOP_S = 10.0
TICKS = os.sysconf("SC_CLK_TCK")
BYTECODE = Path.home() / ".cache" / "everloop-benchmarks" / "bytecode"


def environment(command: Sequence[str], variables: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment of a program as it is after its first start anywhere.

    That is with its bytecode kept: pip compiles what it installs, a source tree is compiled by its
    first start, and some machines forbid to write either. Ours goes to a folder of its own.
    """
    found = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    if Path(command[0]).parent == Path(sys.executable).parent:
        found["PYTHONPYCACHEPREFIX"] = str(BYTECODE)
    return found | dict(variables or {})


def everloop(*arguments: str) -> list[str]:
    """Return the command line of ``everloop``, as installed beside this interpreter."""
    script = Path(sys.executable).with_name("everloop")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "everloop"]
    return [*start, *arguments]


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Started:
    """A process with its children, in a session of their own."""

    def __init__(
        self, command: Sequence[str], *, folder: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        self._log = folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
        self._began = time.perf_counter()
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(command, variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def seconds_to_answer(self, port: int, path: str, *, limit_s: float = 120.0) -> float:
        """Return the seconds from the start of the process to the first 200."""
        while not _answers(port, path):
            spent = time.perf_counter() - self._began
            if self._process.poll() is not None or spent > limit_s:
                message = f"no answer after {spent:.0f} s:\n{self._log.read_text()[-2_000:]}"
                raise RuntimeError(message)
            time.sleep(POLL_S)
        return time.perf_counter() - self._began

    def memory_mb(self) -> float:
        """Return the proportional set size (PSS) of the whole tree, in MB of 10**6 bytes.

        A page that several processes share counts in parts, so the sum over a tree counts it once.
        """
        return sum(_pss_bytes(pid) for pid in self._tree()) / 1e6

    def says(self, text: str) -> bool:
        """Tell whether a text stands in what it has printed."""
        return text in self._log.read_text(errors="replace")

    def said(self) -> str:
        """Return what it has printed."""
        return self._log.read_text(errors="replace")

    def is_running(self) -> bool:
        """Tell whether it has not ended."""
        return self._process.poll() is None

    def processes(self) -> int:
        """Return how many processes there are."""
        return len(self._tree())

    def cpu_s(self) -> float:
        """Return the seconds of processor time that the tree has used so far."""
        spent = 0
        for pid in self._tree():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                spent += int(fields[11]) + int(fields[12])
        return spent / TICKS

    def stop(self) -> None:
        """Ask the tree to end, then make it."""
        tree = self._tree()
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        for pid in tree:
            with suppress(OSError):
                if os.getsid(pid) == self._process.pid:
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _tree(self) -> list[int]:
        found = [self._process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with suppress(OSError):
                    found += [int(child) for child in children.read_text().split()]
        return found


@contextmanager
def running(
    command: Sequence[str], *, folder: Path, variables: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """Run a process for the length of the block."""
    process = Started(command, folder=folder, variables=variables)
    try:
        yield process
    finally:
        process.stop()


def run_once(
    command: Sequence[str], *, folder: Path, variables: Mapping[str, str] | None = None
) -> tuple[float, str]:
    """Run a command to its end; return its seconds and what it printed.

    Raises:
        RuntimeError: it fails; the message holds the end of what it said.
    """
    begin = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(command, variables),
        capture_output=True,
        text=True,
        check=False,
    )
    spent = time.perf_counter() - begin
    if done.returncode:
        message = f"{shutil.which(command[0]) or command[0]} failed: {done.stderr[-2_000:]}"
        raise RuntimeError(message)
    return spent, done.stdout


def _answers(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _pss_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
