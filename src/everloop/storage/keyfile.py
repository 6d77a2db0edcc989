"""Private keys in files of their own, readable by their owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from everloop.core.errors import IntegrityError
from everloop.storage.files import create_durably

KEY_BYTES = 32
PRIVATE_FILE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def load_or_create_key(path: Path, random_bytes: Callable[[int], bytes]) -> bytes:
    """Return the 32 private bytes in a file, made of fresh randomness when it is not there.

    Of processes that make the same key at once, one wins and all return its key.

    Raises:
        IntegrityError: ``key.exposed`` when others can read or write the file, it is not a plain
            file or not one's own; ``key.malformed`` when it does not hold a key.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_durably(path, random_bytes(KEY_BYTES).hex().encode() + b"\n")
    return _load(path)


def _load(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _exposed(path, error.strerror or str(error)) from error
    with os.fdopen(handle, "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise _exposed(path, "it is not a plain file")
        if state.st_mode & _OTHERS:
            raise _exposed(path, f"its mode is {stat.S_IMODE(state.st_mode):o}")
        if state.st_uid != os.geteuid():
            raise _exposed(path, "it belongs to another user")
        text = file.read(2 * KEY_BYTES + 2)
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise IntegrityError(
            "key.malformed",
            f"The key file {path.name} does not hold a key.",
            hint="Restore it from a backup; without it nothing can be signed as before.",
        )
    return key


def _exposed(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        "key.exposed",
        f"The key file {path.name} can't be trusted: {why}.",
        hint=f"If nobody else used it, run `chmod 600 {path}`; else replace the key.",
    )
