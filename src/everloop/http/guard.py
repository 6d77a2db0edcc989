"""What every request passes first: Host and Origin, size limits, and security headers.

A page in a foreign tab can make a browser call a server on loopback; the Host header gives away
DNS rebinding and the Origin header a forged request, whatever the method.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from everloop.core.errors import Denied, EverloopError, InvalidInput, LimitExceeded
from everloop.http.errors import error_response

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_PATH_CHARS = 2_048
MAX_QUERY_CHARS = 8_192

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    # Files of users are shown in frames; their answers carry a sandbox of their own.
    "frame-src 'self'; "
    "base-uri 'none'"
)
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Front(Protocol):
    """An application that stands before the routes and says which addresses are its own."""

    def claims(self, path: str) -> bool:
        """Tell whether an address is answered here."""
        ...

    def takes_upload(self, method: str, path: str) -> bool:
        """Tell whether a request brings a file, whose size its handler bounds itself."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        ...


class Guard:
    """ASGI middleware that refuses foreign hosts and origins and bounds what is read.

    Args:
        app: What is guarded.
        hosts: Values of the Host header to answer to, without port.
        unlimited: Path prefix of uploads, whose handler bounds them itself.
        front: Applications that are asked before ``app``.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: frozenset[str],
        unlimited: str = "",
        front: Sequence[Front] = (),
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._unlimited = unlimited
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with_headers = _with_security_headers(send)
        try:
            self._check(scope)
        except EverloopError as refusal:
            await error_response(refusal)(scope, receive, with_headers)
            return
        bounded = receive if self._is_upload(scope) else _bounded(receive)
        path = scope["path"]
        app = next((front for front in self._front if front.claims(path)), self._app)
        await app(scope, bounded, with_headers)

    def _is_upload(self, scope: Scope) -> bool:
        method, path = scope["method"], scope["path"]
        is_bytes = method == "PUT" and "/blobs/" in path
        is_bytes |= method == "POST" and path.endswith(("/blobs:batch", "/blobs:stream"))
        if self._unlimited and is_bytes:
            return True
        return any(front.takes_upload(method, path) for front in self._front)

    def _check(self, scope: Scope) -> None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        # Two of them: whoever stands in front may have looked at the other one.
        is_single = sum(name == b"host" for name, _ in scope["headers"]) == 1
        if not is_single or _host_name(headers["host"]) not in self._hosts:
            raise Denied(
                "host.refused",
                "This server does not answer to that Host.",
                hint="Use the address it printed, or add the name to server.hosts.",
            )
        origin = headers.get("origin")
        if origin is not None and _network_place(origin) != headers["host"]:
            raise Denied(
                "origin.refused",
                "Requests from another site are refused.",
                hint="Open the pages at the address that the server printed.",
            )
        if len(scope["path"]) > MAX_PATH_CHARS or len(scope["query_string"]) > MAX_QUERY_CHARS:
            raise InvalidInput(
                "request.too_long",
                "The address is too long.",
                hint=f"At most {MAX_PATH_CHARS} characters of path and {MAX_QUERY_CHARS} of query.",
            )
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise InvalidInput(
                "request.null_character",
                "The address holds a null character.",
                hint="No name has one; leave it out.",
            )
        length = headers.get("content-length", "0")
        if not self._is_upload(scope) and length.isdigit() and int(length) > MAX_BODY_BYTES:
            raise body_too_large()


def body_too_large() -> LimitExceeded:
    """Return the refusal of a body over the limit."""
    return LimitExceeded(
        "request.too_large",
        f"The body is larger than {MAX_BODY_BYTES:,} bytes.",
        hint="Send less at once; bytes of files go to the blobs address.",
    )


def _bounded(receive: Receive) -> Receive:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise body_too_large()
        return message

    return bounded


def _with_security_headers(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            extra = [item for item in SECURITY_HEADERS if item[0] not in present]
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return sender


def _network_place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _host_name(host: str) -> str:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.strip("[]").lower()
