"""What a failed command says and the code it exits with; never a trace unless asked for."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterable
from pathlib import Path

from everloop.cli.text import clean, clean_line
from everloop.core import errors
from everloop.core.errors import EverloopError, NotFound

DEBUG_VARIABLE = "EVERLOOP_DEBUG"
OTHER = 1
USAGE = 2
INTERRUPTED = 130

EXIT_CODES: tuple[tuple[type[EverloopError], int, str], ...] = (
    (errors.Denied, 4, "not authenticated, or not allowed"),
    (errors.NotFound, 3, "no such thing"),
    (errors.Conflict, 5, "the state does not allow it, or somebody was first"),
    (errors.GateFailed, 6, "a gate or a contract refused"),
    (errors.IntegrityError, 7, "a digest, a signature or the ledger does not verify"),
    (errors.Unavailable, 8, "something needed is away; try again"),
    (errors.InvalidInput, USAGE, "the input or the command line is wrong"),
    (errors.UnsafeArtifact, USAGE, "the server's policy does not trust the artifact"),
    (errors.LimitExceeded, USAGE, "too large, too many or too often"),
)


def exit_code(kind: type[EverloopError]) -> int:
    """Return the exit code of a kind of error."""
    return next((code for known, code, _ in EXIT_CODES if issubclass(kind, known)), OTHER)


def report(error: EverloopError) -> int:
    """Print an error with its hint; return the exit code."""
    say(error.message, error.hint, excerpt=_excerpt(error))
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    return exit_code(type(error))


def report_unexpected(error: Exception) -> int:
    """Print one line about an error nobody thought of, and where its trace was written."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
        return OTHER
    log = _log_file()
    place = f"The details are in {log}." if _append(log, error) else ""
    say(
        f"something went wrong inside Everloop: {type(error).__name__}: {error}"[:300],
        f"{place} Set {DEBUG_VARIABLE}=1 to see them here; please report it.".strip(),
    )
    return OTHER


def report_pipeline(error: Exception, folder: Path | None) -> int:
    """Print what the user's own code raised, and the line of the project where it did."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
        return OTHER
    log = _log_file()
    place = f"The trace is in {log}; " if _append(log, error) else ""
    say(
        f"the pipeline failed{_line_of(error, folder)}: {type(error).__name__}: {error}"[:500],
        f"{place}{DEBUG_VARIABLE}=1 prints it here.",
    )
    return OTHER


def _line_of(error: Exception, folder: Path | None) -> str:
    """Name the innermost line of the project's files that the error passed, if any."""
    if folder is None:
        return ""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(folder) and "site-packages" not in frame.filename
    ]
    if not frames:
        return ""
    return f" at {Path(frames[-1].filename).relative_to(folder)}, line {frames[-1].lineno}"


def _excerpt(error: EverloopError) -> tuple[str, ...]:
    """Return the lines that show where in a text the mistake is, if the error says it."""
    lines = (error.context.get("excerpt"), error.context.get("caret"))
    return tuple(line for line in lines if isinstance(line, str))


def say(message: str, hint: str, *, excerpt: Iterable[str] = ()) -> None:
    """Print a refusal on the standard error stream."""
    sys.stderr.write(f"error: {clean(message)}\n")
    for line in excerpt:
        sys.stderr.write(f"  {clean_line(line)}\n")
    if hint:
        sys.stderr.write(f"hint: {clean(hint)}\n")


def _log_file() -> Path:
    from everloop.app.home import find_home

    try:
        return find_home().path / "cli.log"
    except (NotFound, OSError):
        return Path(tempfile.gettempdir()) / f"everloop-cli-{os.getuid()}.log"


def _append(log: Path, error: Exception) -> bool:
    try:
        with os.fdopen(
            os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600), "a"
        ) as file:
            file.write("".join(traceback.format_exception(error)) + "\n")
    except OSError:
        return False
    return True
