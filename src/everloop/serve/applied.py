"""What the workers of a deployment report of its routes, for the control plane to read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from everloop.core.wire import Applied
from everloop.serve.files import held, write_atomically

APPLIED_FILE: Final = "applied.json"
WORKERS: Final = "workers"


def write_applied(folder: Path, worker: str, applied: Applied) -> None:
    """Report what a worker applied; of several workers the one that is furthest behind counts."""
    place = folder / WORKERS
    place.mkdir(exist_ok=True)
    with held(place / ".lock"):
        write_atomically(place / f"{worker}.json", msgspec.json.encode(applied))
        told = [_read(path) for path in place.glob("*.json")]
        least = min((each for each in told if each is not None), key=lambda each: each.epoch)
        write_atomically(folder / APPLIED_FILE, msgspec.json.encode(least))


def read_applied(folder: Path) -> Applied | None:
    """Return what a deployment's server applied, or None before there is a readable report."""
    return _read(folder / APPLIED_FILE)


def _read(path: Path) -> Applied | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Applied)
    except (OSError, msgspec.MsgspecError):
        return None
