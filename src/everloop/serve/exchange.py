"""What a request and a reply are, apart from any network; every protocol module speaks in these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import msgspec

from everloop.core.errors import (
    Conflict,
    Denied,
    EverloopError,
    InvalidInput,
    LimitExceeded,
    NotAuthenticated,
    NotFound,
    Unavailable,
)

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"
# What curl calls the data of `-d` counts as JSON, and so does what is not called anything.
_JSON_TYPES: Final = frozenset({b"", JSON, b"application/x-www-form-urlencoded"})
Headers: TypeAlias = Mapping[bytes, bytes]

_STATUSES: tuple[tuple[type[EverloopError], int], ...] = (
    (NotAuthenticated, 401),
    (Denied, 403),
    (InvalidInput, 400),
    (NotFound, 404),
    (Conflict, 409),
    (LimitExceeded, 413),
    (Unavailable, 503),
)
# Codes whose status differs from that of their class.
_BY_CODE = {
    "server.busy": 429,
    "feedback.too_often": 429,
    "request.slow": 408,
    "request.unsupported_encoding": 415,
    "request.unsupported_type": 415,
    "request.head_too_large": 431,
    "request.target_too_long": 414,
    "request.http_version": 505,
    "method.not_allowed": 405,
    "model.too_slow": 503,
}


class Request(msgspec.Struct):
    """One request, read whole.

    Attributes:
        path: Percent-encoded, as it was sent, without the query.
        headers: By lower-case name; of a name that came twice the last one.
        arrived_ns: ``perf_counter_ns`` when its first byte was seen.
        params: What the path's pattern named, percent-decoded.
    """

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes
    arrived_ns: int = 0
    params: Mapping[str, str] = {}


class Reply(msgspec.Struct, frozen=True):
    """One answer."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


Answer: TypeAlias = Reply | Awaitable[Reply]
Handler: TypeAlias = Callable[[Request], Answer]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of an error."""

    code: str
    message: str
    hint: str
    context: dict[str, object] | None = None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an error in our own protocol."""

    error: Told


def is_json(kind: bytes) -> bool:
    """Tell whether a media type, in small letters and without its parameters, is read as JSON."""
    return kind in _JSON_TYPES or (kind.startswith(b"application/") and kind.endswith(b"+json"))


def require_json(request: Request) -> None:
    """Let pass a request that does not say that its body is something else than JSON.

    Raises:
        InvalidInput: ``request.unsupported_type``.
    """
    told = request.headers.get(b"content-type")
    if told is None or told == JSON:
        return
    if not is_json(told.partition(b";")[0].strip().lower()):
        raise InvalidInput(
            "request.unsupported_type",
            f"The content type {told[:60].decode('latin-1')!r} is not read here.",
            hint="Send JSON, as application/json.",
        )


def status_of(error: EverloopError) -> int:
    """Return the HTTP status of an error; 500 for one that is nobody's fault but ours."""
    found = _BY_CODE.get(error.code)
    if found is not None:
        return found
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def extra_headers(error: EverloopError, status: int) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that go with an error, in any protocol."""
    if status in {429, 503}:
        wait = error.context.get("retry_after_s", 1)
        return ((b"retry-after", str(wait).encode()),)
    if status == 405:
        return ((b"allow", str(error.context.get("allowed", "")).encode()),)
    return ((b"www-authenticate", b"Bearer"),) if status == 401 else ()


def refuse(error: EverloopError) -> Reply:
    """Return an error as our own protocol says it."""
    status = status_of(error)
    told = Told(
        code=error.code, message=error.message, hint=error.hint, context=dict(error.context) or None
    )
    body = msgspec.json.encode(ErrorBody(error=told))
    return Reply(status, body, JSON, extra_headers(error, status))


def to_json(value: object) -> Reply:
    """Return a value as a JSON reply."""
    return Reply(200, msgspec.json.encode(value))
