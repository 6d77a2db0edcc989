"""Every error that Everloop raises on purpose.

The tree::

    EverloopError                 code, message, hint, context (JSON-safe, no secrets)
    |-- InvalidInput      (also ValueError)       the caller can fix it
    |-- NotFound          (also LookupError)
    |-- Conflict                                  state moved on; read again, then retry
    |   `-- StaleVersion
    |-- Denied            (also PermissionError)
    |   |-- NotAuthenticated
    |   `-- ApprovalRequired
    |-- GateFailed                                carries the report id and the failed checks
    |-- IntegrityError                            a digest, signature or ledger does not verify
    |-- UnsafeArtifact                            a format or type that the server does not trust
    |-- LimitExceeded
    |-- Unavailable       (also ConnectionError)  a retry is sensible
    `-- MissingExtra      (also ImportError)      names the exact install line

The ``code`` is the stable interface; HTTP statuses live in ``http`` and exit codes in ``cli``.
"""

from __future__ import annotations

from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"


class EverloopError(Exception):
    """Something went wrong that Everloop can explain.

    Attributes:
        code: Stable identifier, ``noun.what_happened``.
        message: One sentence on what was wrong and where.
        hint: What to do next.
        context: JSON-safe details; never a secret.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str,
        context: dict[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.context: dict[str, JsonValue] = context or {}

    def __str__(self) -> str:
        return f"{self.message} ({self.code}) {self.hint}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments: the default pickling of exceptions cannot rebuild them, and a
        # worker process sends its error back to its parent that way.
        return (_rebuild, (type(self), self.code, self.message, self.hint, self.context))


def _rebuild(
    kind: type[EverloopError],
    code: str,
    message: str,
    hint: str,
    context: dict[str, JsonValue],
) -> EverloopError:
    return kind(code, message, hint=hint, context=context)


class InvalidInput(EverloopError, ValueError):
    """The input is wrong and the caller can fix it."""


class NotFound(EverloopError, LookupError):
    """A named thing does not exist, or the caller may not see it."""


class Conflict(EverloopError):
    """The state does not allow this, or somebody else was first."""


class StaleVersion(Conflict):
    """The record changed since it was read."""


class Denied(EverloopError, PermissionError):
    """The actor may not do this."""


class NotAuthenticated(Denied):
    """No valid token or session came with the call."""


class ApprovalRequired(Denied):
    """The transition needs an approval that does not exist yet."""


class GateFailed(EverloopError):
    """A gate refused; the context names the report and the failed checks."""


class IntegrityError(EverloopError):
    """A digest, a signature or the ledger does not verify: page somebody."""


class UnsafeArtifact(EverloopError):
    """A format or type that the server's policy does not trust."""


class LimitExceeded(EverloopError):
    """Too large, too many or too often."""


class Unavailable(EverloopError, ConnectionError):
    """Something needed is away; a retry is sensible."""


class MissingExtra(EverloopError, ImportError):
    """An optional dependency is not installed; the hint is the exact install line."""
