"""Typed errors as HTTP answers: a status, a code, a sentence and a hint; never a trace."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from everloop.core import errors
from everloop.core.errors import EverloopError

_STATUS: tuple[tuple[type[EverloopError], int], ...] = (
    (errors.NotAuthenticated, 401),
    (errors.Denied, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.GateFailed, 422),
    (errors.UnsafeArtifact, 422),
    (errors.InvalidInput, 400),
    (errors.LimitExceeded, 413),
    (errors.Unavailable, 503),
    (errors.MissingExtra, 501),
    (errors.IntegrityError, 500),
)


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong: stable code, sentence, next action, details, and its kind of error."""

    code: str
    message: str
    hint: str
    context: dict[str, object] = {}
    kind: str = ""


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not 2xx."""

    error: ErrorBody


def status_of(error: EverloopError) -> int:
    """Return the HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_response(error: EverloopError) -> Response:
    """Return the HTTP answer for an error."""
    body = ErrorAnswer(
        error=ErrorBody(
            code=error.code,
            message=error.message,
            hint=error.hint,
            context=dict(error.context),
            kind=type(error).__name__,
        )
    )
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, errors.NotAuthenticated) else None
    return json_response(body, status=status_of(error), headers=headers)


def json_response(
    value: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a value as JSON."""
    return Response(
        msgspec.json.encode(value),
        status_code=status,
        media_type="application/json",
        headers=headers,
    )
