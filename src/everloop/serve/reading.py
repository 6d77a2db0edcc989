"""Bytes to requests: llhttp's callbacks, and the limits of what a client may send.

What two readers of one head could read differently is refused (RFC 9112, sections 3.2 and 6.3),
and whatever is kept of a request that has not come to its end is counted.
"""

from __future__ import annotations

from http import HTTPMethod
from time import perf_counter_ns
from typing import Final, NoReturn, Protocol

import httptools
import msgspec

from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded
from everloop.serve.exchange import Request
from everloop.serve.limits import (
    MOST_HEADERS,
    Limits,
    busy,
    head_too_large,
    malformed,
    too_large,
    unpack,
)

VERSIONS: Final = frozenset({"1.0", "1.1"})
ONCE: Final = frozenset(
    {
        *(b"host", b"content-length", b"transfer-encoding"),
        *(b"content-encoding", b"content-type", b"authorization"),
    }
)
_METHODS: Final = {method.value.encode(): method.value for method in HTTPMethod}


class Room:
    """The bytes of requests that all connections of a process may hold together, and do."""

    __slots__ = ("limits", "taken")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.taken = 0

    def take(self, count: int) -> bool:
        """Count bytes that are kept, and tell whether they may be; give them back in any case."""
        self.taken += count
        return self.taken <= self.limits.buffered_bytes

    def give_back(self, count: int) -> None:
        """Count bytes that are kept no more."""
        self.taken -= count


class Whole(msgspec.Struct, gc=False):
    """A request that has come to its end; ``held`` is its part of the bytes that are counted."""

    request: Request
    keep: bool
    held: int


class Taker(Protocol):
    """Whom requests are read for."""

    def take(self, whole: Whole) -> None:
        """Take a whole request."""
        ...

    def encourage(self) -> None:
        """Tell a client that waits for a word before it sends its body to go on."""
        ...


class Reader:
    """Reads the requests of one connection; of those sent at once, one after the other.

    Attributes:
        is_done: Whether nothing more is read: the last request has come, or one was refused.
        started_ns: ``perf_counter_ns`` of the first byte of the request that is coming in; 0 when
            none is.
    """

    _target: bytes
    _headers: dict[bytes, bytes]
    _body: bytes | bytearray
    _body_bytes: int
    _head_bytes: int
    _encoding: bytes
    _version: str
    __slots__ = (
        "_body", "_body_bytes", "_encoding", "_head_bytes", "_headers", "_held", "_limits",
        "_parser", "_quiet_bytes", "_refusal", "_room", "_taker", "_target", "_version",
        "is_done", "started_ns",
    )  # fmt: skip

    def __init__(self, taker: Taker, room: Room) -> None:
        self._taker = taker
        self._room = room
        self._limits = room.limits
        self._parser = httptools.HttpRequestParser(self)
        self._held = 0
        self._refusal: EverloopError | None = None
        self.is_done = False
        self._begin()

    def feed(self, data: bytes) -> None:
        """Read what came.

        Raises:
            EverloopError: what came is refused, and nothing more is read.
        """
        if self.is_done:
            return
        body_bytes = self._body_bytes
        try:
            rest = self._parse(data)
            if self.started_ns and not self.is_done:
                self._hold(rest, self._body_bytes - body_bytes)
        except httptools.HttpParserError as error:
            if not self.is_done:  # else it follows a last request
                self._refuse(self._refusal or malformed(str(error) or "it cannot be read"))

    def close(self) -> None:
        """Read no more, and give back what is held; idempotent."""
        self.is_done = True
        self._body = b""
        self._room.give_back(self._held)
        self._held = 0

    # --- llhttp's side --------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._target += url
        if len(self._target) > self._limits.target_bytes:
            self._stop(
                LimitExceeded(
                    "request.target_too_long",
                    "The path is too long.",
                    hint=f"Use at most {self._limits.target_bytes:,} bytes.",
                )
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        if self._head_bytes < 0:
            return  # a trailer is no header: nobody looked at it when the head was checked
        headers = self._headers
        key = name.lower()
        if key in ONCE and key in headers:
            self._stop(malformed(f"there are two headers {key.decode()}"))
        headers[key] = value
        self._head_bytes += len(name) + len(value)
        if len(headers) > MOST_HEADERS or self._head_bytes > self._limits.head_bytes:
            self._stop(head_too_large(self._limits))

    def on_headers_complete(self) -> None:
        """Look at what the head says of the body."""
        headers = self._headers
        self._head_bytes = -1
        self._version = self._parser.get_http_version()
        self._require_framing(headers)
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            self._stop(too_large(self._limits))
        if b"content-encoding" in headers:
            self._encoding = headers[b"content-encoding"].strip().lower()
            if self._encoding not in {b"gzip", b"deflate", b"identity"}:
                self._stop(_unknown_encoding(self._encoding))
        if b"expect" in headers and self._version == "1.1":  # RFC 9110, section 10.1.1
            self._taker.encourage()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._stop(too_large(self._limits))
        elif not self._body:
            self._body = body
        elif isinstance(self._body, bytearray):
            self._body += body
        else:
            # One buffer that grows: a body in a million chunks must not become a million objects.
            self._body = bytearray(self._body) + body

    def on_message_complete(self) -> None:
        """Hand over a whole request."""
        if self.is_done:
            return
        parser = self._parser
        keep = parser.should_keep_alive() and self._version == "1.1"
        path, _, query = self._target.partition(b"?")
        method = parser.get_method()
        request = Request(
            method=_METHODS.get(method) or method.decode("ascii", "replace"),
            path=path.decode("latin-1"),
            query=query.decode("latin-1"),
            headers=self._headers,
            body=bytes(self._body) if isinstance(self._body, bytearray) else self._body,
            arrived_ns=self.started_ns,
        )
        if self._encoding not in {b"", b"identity"}:
            self._unpack(request)
        whole = Whole(request, keep, self._held)
        self._held = 0
        self._begin()
        self.is_done = not keep
        self._taker.take(whole)

    # --- our side -------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Make ready for the next request."""
        self._target = b""
        self._headers = {}
        self._body = b""
        self._body_bytes = self._head_bytes = self._quiet_bytes = 0
        self._encoding = b""
        self.started_ns = 0

    def _parse(self, data: bytes) -> int:
        """Parse, and return how many bytes may belong to a request that is not whole."""
        if not self.started_ns:
            self.started_ns = perf_counter_ns()
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # Nothing is upgraded to: the request was answered as it stands (RFC 9110, 7.8).
                self._parser = httptools.HttpRequestParser(self)
                data = data[upgrade.args[0] :]
                self.started_ns = perf_counter_ns() if data else 0
        return len(data)

    def _hold(self, read: int, grown: int) -> None:
        """Count what is kept of a request that has not come to its end."""
        if self._head_bytes >= 0:
            # A header without an end never reaches `on_header`.
            self._head_bytes += read
            if self._head_bytes > 2 * self._limits.head_bytes:
                self._refuse(head_too_large(self._limits))
        elif grown <= 0:
            # Neither does the end of a trailer, or of what may stand beside a chunk's length.
            self._quiet_bytes += read
            if self._quiet_bytes > self._limits.head_bytes:
                self._refuse(head_too_large(self._limits))
        else:
            self._quiet_bytes = 0
            self._held += grown
            if not self._room.take(grown):
                self._refuse(_too_much())

    def _unpack(self, request: Request) -> None:
        try:
            request.body = unpack(self._encoding, request.body, self._limits)
        except EverloopError as error:
            self._stop(error)
        # What little was sent may be much now, and wait for the answers before it.
        self._held += len(request.body)
        if not self._room.take(len(request.body)):
            self._stop(_too_much())

    def _require_framing(self, headers: dict[bytes, bytes]) -> None:
        """Refuse a head that another reader could take for another request."""
        if self._version not in VERSIONS:
            self._stop(
                InvalidInput(
                    "request.http_version",
                    f"HTTP/{self._version} is not spoken here.",
                    hint="Send HTTP/1.1.",
                )
            )
        if b"host" not in headers and self._version == "1.1":
            self._stop(malformed("there is no header host"))
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            self._stop(malformed("the transfer encoding is not chunked"))

    def _stop(self, problem: EverloopError) -> NoReturn:
        """Stop parsing, out of a callback of the parser, which hides what is raised."""
        self._refusal = problem
        raise problem

    def _refuse(self, problem: EverloopError) -> NoReturn:
        self.close()
        raise problem


def _unknown_encoding(encoding: bytes) -> InvalidInput:
    return InvalidInput(
        "request.unsupported_encoding",
        f"The content encoding {encoding[:40].decode('latin-1')!r} is not known here.",
        hint="Send the body plain, as gzip or as deflate.",
    )


def _too_much() -> EverloopError:
    return busy("Too much is being sent at once.")
