"""Files that are whole or not there, and a lock that dies with its process."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Optional


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that, whenever the power goes, it has the old content or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    write_whole(path, json.dumps(value, separators=(",", ":")).encode())


def read_json(path: Path) -> Optional[Any]:
    """Return the value in a file of JSON; None when there is no such file, or it is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def sync_folder(folder: Path) -> None:
    """Make new names in a folder outlive a power cut, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Hold a file's lock; it is free again when this process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # one process at a time, on a system without such locks
        yield
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def interpreter() -> List[str]:
    """Return the command that runs Python as this process was run."""
    flags = [
        flag for is_on, flag in ((sys.flags.isolated, "-I"), (sys.flags.no_site, "-S")) if is_on
    ]
    return [sys.executable, *flags]
