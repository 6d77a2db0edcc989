"""Typed errors as MLflow's clients expect them: an HTTP status, an error code and a message."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from everloop.core import errors
from everloop.core.errors import EverloopError

_KINDS: tuple[tuple[type[EverloopError], int, str], ...] = (
    (errors.NotAuthenticated, 401, "UNAUTHENTICATED"),
    (errors.Denied, 403, "PERMISSION_DENIED"),
    (errors.NotFound, 404, "RESOURCE_DOES_NOT_EXIST"),
    (errors.Conflict, 409, "RESOURCE_CONFLICT"),
    (errors.Unavailable, 503, "TEMPORARILY_UNAVAILABLE"),
    (errors.MissingExtra, 501, "NOT_IMPLEMENTED"),
    # No 500: clients repeat that for minutes, and bytes that changed get no better.
    (errors.IntegrityError, 422, "DATA_LOSS"),
    (EverloopError, 400, "INVALID_PARAMETER_VALUE"),
)
# What MLflow refuses as a wrong value is a conflict here; its clients ask for this status.
_VALUES = frozenset(
    {"run.param_changed", "run.deleted", "experiment.deleted", "experiment.active", "run.ended"}
)


def status_and_code(error: EverloopError) -> tuple[int, str]:
    """Return the HTTP status and MLflow's code of an error."""
    if isinstance(error, errors.Conflict):
        if error.code.endswith((".exists", ".taken")):
            return 400, "RESOURCE_ALREADY_EXISTS"
        if error.code in _VALUES:
            return 400, "INVALID_PARAMETER_VALUE"
    return next((status, code) for kind, status, code in _KINDS if isinstance(error, kind))


def error_response(error: EverloopError) -> Response:
    """Return the answer for an error; ``everloop_code`` is our own stable code."""
    status, code = status_and_code(error)
    return refusal(status, code, f"{error.message} {error.hint}", everloop_code=error.code)


def refusal(status: int, code: str, message: str, *, everloop_code: str = "") -> Response:
    """Return an answer that refuses, in MLflow's form."""
    body = {"error_code": code, "message": message}
    if everloop_code:
        body["everloop_code"] = everloop_code
    headers = {"WWW-Authenticate": 'Basic realm="everloop"'} if status == 401 else None
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/json",
        headers=headers,
    )
