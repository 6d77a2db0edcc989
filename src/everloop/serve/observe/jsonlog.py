"""The server's own log: one JSON object a line on standard error, under the names of ECS.

Elastic Common Schema 8 (https://www.elastic.co/docs/reference/ecs): ``@timestamp``, ``log.level``,
``message``, and what else is known in fields of standard names. Secrets and bodies are never
logged.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from time import time_ns
from typing import Literal

import msgspec

Level = Literal["info", "warn", "error"]
Value = str | int | float | bool | None


def say(level: Level, action: str, message: str, **fields: Value) -> None:
    """Log one line.

    Args:
        level: How bad it is.
        action: What happened, for machines (``event.action``).
        message: What happened, for people.
        fields: More fields of ECS, with ``__`` for the dot.
    """
    at = datetime.fromtimestamp(time_ns() / 1e9, UTC).isoformat(timespec="milliseconds")
    line: dict[str, Value] = {
        "@timestamp": at.replace("+00:00", "Z"),
        "log.level": level,
        "message": message[:2_000],
        "ecs.version": "8.11.0",
        "service.name": "everloop-serve",
        "process.pid": os.getpid(),
        "event.action": action,
    }
    line |= {name.replace("__", "."): value for name, value in fields.items() if value is not None}
    sys.stderr.write(msgspec.json.encode(line).decode() + "\n")


def say_failure(action: str, error: BaseException, **fields: Value) -> None:
    """Log an unexpected error, without its trace."""
    say(
        "error", action, f"{type(error).__name__}: {error}", error__type=type(error).__name__,
        error__message=str(error)[:500], **fields,
    )  # fmt: skip
