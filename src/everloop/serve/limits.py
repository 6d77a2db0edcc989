"""What a client may take of the server, and how it is told that it was too much."""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded

MOST_HEADERS: Final = 100


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may take.

    Attributes:
        body_bytes: The longest body, also after it was unpacked.
        buffered_bytes: All bodies together that came in pieces and wait to be whole or answered.
        head_bytes: The longest head of a request.
        target_bytes: The longest path with its query.
        request_s: How long a request may take to arrive, from its first byte to its last.
        idle_s: How long a connection may wait for its next request.
        write_s: How long a client may take no byte of its replies.
        in_flight: Requests that wait for an answer at one time; more are told to come again.
        pipelined: Requests of one connection that may wait for the one before.
        connections: Open connections.
    """

    body_bytes: int = 32 * 1024 * 1024
    buffered_bytes: int = 512 * 1024 * 1024
    head_bytes: int = 32 * 1024
    target_bytes: int = 8 * 1024
    request_s: float = 10.0
    idle_s: float = 75.0
    write_s: float = 30.0
    in_flight: int = 512
    pipelined: int = 16
    connections: int = 8_192


def unpack(encoding: bytes, body: bytes, limits: Limits) -> bytes:
    """Return a body unpacked, as far as it is allowed to grow.

    Raises:
        InvalidInput: ``request.malformed``.
        LimitExceeded: ``request.too_large``.
    """
    try:
        unpacker = zlib.decompressobj(31 if encoding == b"gzip" else 15)
        found = unpacker.decompress(body, limits.body_bytes + 1)
    except zlib.error as error:
        raise _not_packed(encoding, str(error)) from error
    if len(found) > limits.body_bytes:
        raise too_large(limits)
    if not unpacker.eof or unpacker.unused_data:
        raise _not_packed(encoding, "it ends too early, or too late")
    return found


def _not_packed(encoding: bytes, problem: str) -> InvalidInput:
    return InvalidInput(
        "request.malformed",
        f"The body is not {encoding.decode()}: {problem}.",
        hint="Send the body plain, or packed as its content-encoding says.",
    )


def failed() -> EverloopError:
    """Return the error that says that the fault is ours."""
    return EverloopError(
        "server.failed", "The server failed.", hint="Its log on standard error says why."
    )


def malformed(problem: str) -> InvalidInput:
    """Return the refusal of what is not HTTP/1.1."""
    return InvalidInput(
        "request.malformed",
        f"This is not HTTP/1.1: {problem[:120]}.",
        hint="Check the client, or what stands between it and this server.",
    )


def busy(message: str) -> EverloopError:
    """Return the refusal of what is too much at this moment."""
    return LimitExceeded("server.busy", message, hint="Try again in a second.")


def head_too_large(limits: Limits) -> EverloopError:
    """Return the refusal of a head."""
    return LimitExceeded(
        "request.head_too_large",
        "The head of the request is too large.",
        hint=f"Send at most {limits.head_bytes:,} bytes and {MOST_HEADERS} headers.",
    )


def too_large(limits: Limits) -> EverloopError:
    """Return the refusal of a body."""
    return LimitExceeded(
        "request.too_large",
        "The body is too large.",
        hint=f"Send at most {limits.body_bytes:,} bytes a request, in several if need be.",
    )
