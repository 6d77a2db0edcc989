"""What the workers of a deployment report of its routes, for the control plane to read."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from everloop.core.wire import Applied
from everloop.serve.files import write_atomically

APPLIED_FILE: Final = "applied.json"
WORKERS: Final = "workers"


def write_applied(folder: Path, worker: str, applied: Applied) -> None:
    """Report what a worker applied; of several workers the one that is furthest behind counts."""
    place = folder / WORKERS
    place.mkdir(exist_ok=True)
    with _held(place / ".lock"):
        write_atomically(place / f"{worker}.json", msgspec.json.encode(applied))
        told = [_read_applied(path) for path in place.glob("*.json")]
        least = min((each for each in told if each is not None), key=lambda each: each.epoch)
        write_atomically(folder / APPLIED_FILE, msgspec.json.encode(least))


def _read_applied(path: Path) -> Applied | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Applied)
    except (OSError, msgspec.MsgspecError):
        return None


@contextmanager
def _held(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
