"""Who may ask a server that no control plane keeps: a file of hashed tokens, read again on change.

A line holds the SHA-256 of a token in hex and, if it ends some day, the time (RFC 3339); what
follows a ``#`` is for people. The file holds no secret, so it may lie in an image or a repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from everloop.core.clock import Instant
from everloop.core.errors import EverloopError, InvalidInput
from everloop.serve.observe.jsonlog import say_failure

NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)
LARGEST_BYTES: Final = 1 << 20
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class TokensFile:
    """The tokens of a file; whoever changes the file changes who may ask, within a second.

    Attributes:
        known: End of each token by its hash.
        problem: Code of what is wrong with the file now; empty when nothing is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._read_stamp()
        self.known: Mapping[str, Instant] = read_tokens(path)
        self.problem = ""

    def refresh(self) -> None:
        """Read the file again if it changed.

        A line that is none lets nobody in, and the others count: a revocation must not wait for
        the mending of a typing error. Without the file nobody may ask.
        """
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.known = read_tokens(self._path)
            self.problem = ""
        except EverloopError as error:
            say_failure("tokens", error)
            self.problem = error.code
            self.known = _read_sound_lines(self._path)

    def _read_stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def read_tokens(path: Path) -> dict[str, Instant]:
    """Return the end of each token by its hash.

    Raises:
        InvalidInput: ``serving.tokens_unreadable``.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    if len(text) > LARGEST_BYTES:
        raise _unreadable(path, f"it is larger than {LARGEST_BYTES:,} bytes")
    found: dict[str, Instant] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found |= _read_line(path, number, line)
    return found


def _read_sound_lines(path: Path) -> dict[str, Instant]:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES).decode("utf-8", "replace")
    except OSError:
        return {}
    found: dict[str, Instant] = {}
    for number, line in enumerate(text.splitlines(), 1):
        with suppress(InvalidInput):
            found |= _read_line(path, number, line)
    return found


def _read_line(path: Path, number: int, line: str) -> dict[str, Instant]:
    """Return the token of a line, or none of an empty one.

    Raises:
        InvalidInput: ``serving.tokens_unreadable``.
    """
    words = line.partition("#")[0].split()
    if not words:
        return {}
    if len(words) > 2 or _HASH.fullmatch(words[0]) is None:
        raise _unreadable(path, f"line {number} is not a SHA-256 and, at most, a time")
    return {words[0]: _end(words[1], path, number) if len(words) == 2 else NEVER}


def _end(text: str, path: Path, number: int) -> Instant:
    try:
        end = datetime.fromisoformat(text)
    except ValueError as error:
        raise _unreadable(path, f"line {number}: {error}") from error
    if end.tzinfo is None:
        raise _unreadable(path, f"line {number}: the time has no zone")
    return end


def _unreadable(path: Path, problem: str) -> InvalidInput:
    return InvalidInput(
        "serving.tokens_unreadable",
        f"The tokens file {str(path)[:200]} cannot be used: {problem[:200]}.",
        hint="Write one line for each token: its SHA-256 in hex, and when it ends.",
    )
