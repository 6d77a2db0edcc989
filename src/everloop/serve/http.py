"""HTTP/1.1 for the data plane: an asyncio protocol on llhttp (httptools), and its limits.

Parsing is llhttp's; what stands here is the order of things: one reply for each request, in the
order of the requests (RFC 9112, section 9.3.2), no body longer than allowed, no client that holds
a connection by being slow. A refusal is answered and the connection closed after it has been read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from time import monotonic, perf_counter_ns
from typing import Final, Protocol, cast

import httptools
import msgspec

from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded
from everloop.serve.exchange import Answer, Reply, Request, refuse
from everloop.serve.limits import (
    MOST_HEADERS,
    Limits,
    busy,
    failed,
    head_too_large,
    malformed,
    too_large,
    unpack,
)
from everloop.serve.observe.jsonlog import say_failure
from everloop.serve.observe.tally import Tally

SWEEP_S: Final = 0.25
LINGER_S: Final = 2.0
MOST_UNSENT: Final = 32
LONGEST_UNSENT: Final = 16_384
_TOO_MUCH: Final = "Too much is being sent at once."
VERSIONS: Final = frozenset({"1.0", "1.1"})
# What two readers of one head must not read differently (RFC 9112, sections 3.2 and 6.3).
ONCE: Final = frozenset(
    {
        *(b"host", b"content-length", b"transfer-encoding"),
        *(b"content-encoding", b"content-type", b"authorization"),
    }
)
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
}


class Application(Protocol):
    """What answers requests. ``handle`` never raises."""

    def handle(self, request: Request) -> Answer:
        """Answer a request, or begin to."""
        ...


class Listener:
    """All connections of one process, their limits and their end; lives on one event loop."""

    def __init__(
        self, application: Application, limits: Limits, tally: Tally | None = None
    ) -> None:
        self.tally = Tally() if tally is None else tally
        self.application = application
        self.limits = limits
        self.connections: set[Connection] = set()
        self.in_flight = 0
        self.buffered_bytes = 0
        self.refused_busy = 0
        self.is_draining = False
        self.date = b""
        self._outbox: list[tuple[asyncio.Transport, bytes]] = []
        self._stamp()

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write when what has arrived by now is answered.

        A client that sleeps is woken by each write, which costs more than the write; written
        together, the replies of one turn of the loop wake it once.
        """
        outbox = self._outbox
        outbox.append((transport, data))
        if len(outbox) == 1:
            asyncio.get_running_loop().call_soon(self.flush)
        elif len(outbox) >= MOST_UNSENT:
            self.flush()

    def flush(self) -> None:
        """Write what was kept back."""
        outbox, self._outbox = self._outbox, []
        for transport, data in outbox:
            if not transport.is_closing():
                transport.write(data)

    def connect(self) -> Connection:
        """Return the protocol of a new connection; asyncio's protocol factory."""
        return Connection(self)

    async def sweep(self) -> None:
        """Close what is too slow and keep the date; runs until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self._stamp()
            now = monotonic()
            for connection in tuple(self.connections):
                connection.check(now)

    async def drain(self, within_s: float) -> None:
        """Let requests in flight end, close idle connections, and return when none is left."""
        self.is_draining = True
        end = monotonic() + within_s
        while self.connections and monotonic() < end:
            for connection in tuple(self.connections):
                connection.close_if_idle()
            await asyncio.sleep(0.01)
        for connection in tuple(self.connections):
            connection.abort()

    def _stamp(self) -> None:
        self.date = b"date: " + formatdate(usegmt=True).encode() + b"\r\n"


class _Whole(msgspec.Struct, gc=False):
    """A request that has come to its end; ``held`` is its part of the bytes that are counted."""

    request: Request
    keep: bool
    held: int


class Connection(asyncio.Protocol):
    """One connection."""

    _target: bytes
    _headers: dict[bytes, bytes]
    _body: bytes | bytearray
    _body_bytes: int
    _head_bytes: int
    _encoding: bytes
    _version: str
    _started_ns: int
    __slots__ = (
        "_body", "_body_bytes", "_deadline", "_discarding", "_encoding", "_head_bytes", "_headers",
        "_held", "_is_busy", "_is_eof", "_is_stuck", "_listener", "_parser",
        "_quiet_bytes", "_refusal", "_started_ns", "_target", "_transport", "_version", "_waiting",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[_Whole | EverloopError] = deque()
        self._held = 0
        self._is_busy = self._is_eof = self._is_stuck = self._discarding = False
        self._deadline = 0.0
        self._refusal: EverloopError | None = None
        self._begin()

    # --- asyncio's side -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection, or turn it away."""
        self._transport = cast("asyncio.Transport", transport)
        listener = self._listener
        listener.connections.add(self)
        self._deadline = monotonic() + listener.limits.idle_s
        if len(listener.connections) > listener.limits.connections:
            self._last_words(busy("Too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; replies that still come are dropped."""
        del exc
        self._listener.connections.discard(self)
        self._transport = None
        self._drop_waiting()
        self._release(self._held)
        self._held = 0

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self._discarding:
            return
        if not self._started_ns:
            self._started_ns = perf_counter_ns()
            self._deadline = monotonic() + self._listener.limits.request_s
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._misread(str(error))

    def eof_received(self) -> bool:
        """Keep the way back open while answers are due."""
        self._is_eof = True
        return self._is_busy or bool(self._waiting)

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read."""
        self._is_stuck = True
        self._deadline = monotonic() + self._listener.limits.write_s
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_stuck = False
        self._deadline = monotonic() + self._listener.limits.idle_s
        if self._waiting and not self._is_busy:
            self._go_on()
        elif self._transport is not None and not self._waiting:
            self._transport.resume_reading()

    # --- llhttp's side --------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._target += url
        if len(self._target) > self._listener.limits.target_bytes:
            self._stop(
                LimitExceeded(
                    "request.target_too_long",
                    "The path is too long.",
                    hint=f"Use at most {self._listener.limits.target_bytes:,} bytes.",
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
        if len(headers) > MOST_HEADERS or self._head_bytes > self._listener.limits.head_bytes:
            self._stop(head_too_large(self._listener.limits))

    def on_headers_complete(self) -> None:
        """Look at what the head says of the body."""
        headers = self._headers
        self._head_bytes = -1
        self._version = self._parser.get_http_version()
        self._require_framing(headers)
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._listener.limits.body_bytes:
            self._stop(too_large(self._listener.limits))
        if b"content-encoding" in headers:
            self._encoding = headers[b"content-encoding"].strip().lower()
            if self._encoding not in {b"gzip", b"deflate", b"identity"}:
                self._stop(
                    InvalidInput(
                        "request.unsupported_encoding",
                        f"The content encoding {self._encoding[:40]!r} is not known here.",
                        hint="Send the body plain, as gzip or as deflate.",
                    )
                )
        if b"expect" in headers and self._transport is not None and not self._is_before():
            self._listener.flush()
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._listener.limits.body_bytes:
            self._stop(too_large(self._listener.limits))
        elif not self._body:
            self._body = body
        elif isinstance(self._body, bytearray):
            self._body += body
        else:
            # One buffer that grows: a body in a million chunks must not become a million objects.
            self._body = bytearray(self._body) + body

    def on_message_complete(self) -> None:
        """Hand over a whole request."""
        if self._discarding:
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
            arrived_ns=self._started_ns,
        )
        if self._encoding not in {b"", b"identity"}:
            try:
                request.body = unpack(self._encoding, request.body, self._listener.limits)
            except EverloopError as error:
                self._stop(error)
            # What little was sent may be much now, and wait for the answers before it.
            if not self._has_room(len(request.body)):
                self._stop(busy(_TOO_MUCH))
        whole = _Whole(request, keep, self._held)
        self._held = 0
        self._begin()
        self._deadline = 0.0
        self._discarding = not keep
        if self._is_before() or self._is_stuck:
            self._waiting.append(whole)
            is_full = whole.held or len(self._waiting) > self._listener.limits.pipelined
            if is_full and self._transport is not None:
                self._transport.pause_reading()
        else:
            self._start(whole)

    # --- our side -------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Close the connection if its time is over."""
        if not self._deadline or now < self._deadline or self._transport is None:
            return
        if self._discarding or self._is_stuck:
            self._transport.abort()
        elif self._is_busy:
            self._deadline = 0.0
        elif self._started_ns:
            self._refuse_rest(
                InvalidInput(
                    "request.slow",
                    f"The request took longer than {self._listener.limits.request_s:g} seconds.",
                    hint="Send it at once.",
                )
            )
        else:
            self._transport.close()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being read or answered."""
        if self._transport is None or self._is_busy or self._waiting or self._started_ns:
            return
        self._transport.close()

    def abort(self) -> None:
        """Close the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def _is_before(self) -> bool:
        """Tell whether a request is still to be answered before the one that is coming in."""
        return self._is_busy or bool(self._waiting)

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

    def _begin(self) -> None:
        """Make ready for the next request."""
        self._target = b""
        self._headers = {}
        self._body = b""
        self._body_bytes = self._head_bytes = self._quiet_bytes = 0
        self._encoding = b""
        self._started_ns = 0

    def _feed(self, data: bytes) -> None:
        body_bytes = self._body_bytes
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # Nothing is upgraded to: the request was answered as it stands (RFC 9110, 7.8).
                self._parser = httptools.HttpRequestParser(self)
                data = data[upgrade.args[0] :]
                self._started_ns = perf_counter_ns() if data else 0
        if self._started_ns and not self._discarding:
            self._hold(len(data), self._body_bytes - body_bytes)

    def _hold(self, read: int, grown: int) -> None:
        """Count what is kept of a request that has not come to its end."""
        listener = self._listener
        if self._head_bytes >= 0:
            # A header without an end never reaches `on_header`.
            self._head_bytes += read
            if self._head_bytes > 2 * listener.limits.head_bytes:
                self._refuse_rest(head_too_large(listener.limits))
        elif grown <= 0:
            # Neither does the end of a trailer, or of what may stand beside a chunk's length.
            self._quiet_bytes += read
            if self._quiet_bytes > listener.limits.head_bytes:
                self._refuse_rest(head_too_large(listener.limits))
        else:
            self._quiet_bytes = 0
            if not self._has_room(grown):
                self._refuse_rest(busy(_TOO_MUCH))

    def _has_room(self, grown: int) -> bool:
        """Count bytes that are kept, and tell whether they may be."""
        listener = self._listener
        self._held += grown
        listener.buffered_bytes += grown
        if listener.buffered_bytes <= listener.limits.buffered_bytes:
            return True
        listener.refused_busy += 1
        return False

    def _release(self, held: int) -> None:
        self._listener.buffered_bytes -= held

    def _drop_waiting(self) -> None:
        for each in self._waiting:
            if isinstance(each, _Whole):
                self._release(each.held)
        self._waiting.clear()

    def _misread(self, problem: str) -> None:
        """Refuse what the parser cannot read, unless it follows a last request."""
        if not self._discarding:
            self._refuse_rest(self._refusal or malformed(problem or "it cannot be read"))

    def _stop(self, problem: EverloopError) -> None:
        """Stop parsing, out of a callback of the parser."""
        self._refusal = problem
        raise problem

    def _refuse_rest(self, problem: EverloopError) -> None:
        """Refuse the request that is coming in, after those before it, and read no more."""
        self._discarding = True
        self._body = b""
        self._release(self._held)
        self._held = 0
        if self._is_before() or self._is_stuck:
            self._waiting.append(problem)
        else:
            self._last_words(problem)

    def _last_words(self, problem: EverloopError) -> None:
        """Send a refusal; the client may take its time to read it, but not too much."""
        self._discarding = True
        self._write(refuse(problem), is_last=True, with_body=True)
        self._deadline = monotonic() + LINGER_S
        if self._transport is not None and self._transport.can_write_eof():
            # Closing at once would reset a connection with unread bytes, and the reply be lost.
            self._transport.write_eof()

    def _start(self, whole: _Whole) -> None:
        """Answer a request; and those that wait for it, as long as answers come at once."""
        listener = self._listener
        while True:
            listener.in_flight += 1
            if listener.in_flight > listener.limits.in_flight:
                listener.refused_busy += 1
                answer: Answer = refuse(busy("Too many requests at once."))
            else:
                answer = listener.application.handle(whole.request)
            if not isinstance(answer, Reply):
                self._is_busy = True
                task = asyncio.ensure_future(answer)
                task.add_done_callback(self._finisher(whole))
                return
            listener.in_flight -= 1
            # Who does not read is not answered ahead: replies may be much longer than requests.
            if not self._finish(whole, answer) or not self._waiting or self._is_stuck:
                return
            following = self._waiting.popleft()
            if isinstance(following, EverloopError):
                self._last_words(following)
                return
            whole = following

    def _finisher(self, whole: _Whole) -> Callable[[asyncio.Future[Reply]], None]:
        def finish(task: asyncio.Future[Reply]) -> None:
            self._listener.in_flight -= 1
            self._is_busy = False
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or error is not None:
                say_failure("request", error or asyncio.CancelledError("it was cancelled"))
                reply = refuse(failed())
            else:
                reply = task.result()
            if self._finish(whole, reply) and self._waiting and not self._is_stuck:
                self._go_on()

        return finish

    def _go_on(self) -> None:
        following = self._waiting.popleft()
        if isinstance(following, EverloopError):
            self._last_words(following)
        else:
            self._start(following)
        if self._transport is not None and not self._is_stuck and not self._waiting:
            self._transport.resume_reading()

    def _finish(self, whole: _Whole, reply: Reply) -> bool:
        """Send a reply; return whether the connection goes on."""
        if whole.held:
            self._release(whole.held)
        took_us = (perf_counter_ns() - whole.request.arrived_ns) / 1_000
        self._listener.tally.replied(reply.status, took_us)
        is_last = (
            not whole.keep or self._listener.is_draining or (self._is_eof and not self._waiting)
        )
        self._write(reply, is_last=is_last, with_body=whole.request.method != "HEAD")
        transport = self._transport
        if transport is None:
            return False
        if is_last:
            self._drop_waiting()
            transport.close()
            return False
        if not self._is_stuck:
            limits = self._listener.limits
            self._deadline = monotonic() + (limits.request_s if self._started_ns else limits.idle_s)
        return True

    def _write(self, reply: Reply, *, is_last: bool, with_body: bool) -> None:
        if self._transport is None:
            return
        status, body = reply.status, reply.body
        head = b"%scontent-type: %s\r\ncontent-length: %d\r\n%s" % (
            _STATUS_LINES[status], reply.content_type, len(body), self._listener.date,
        )  # fmt: skip
        for name, value in reply.headers:
            head += b"%s: %s\r\n" % (name, value)
        if is_last:
            head += b"connection: close\r\n"
        if with_body and not is_last and len(body) < LONGEST_UNSENT:
            self._listener.send(self._transport, b"%s\r\n%s" % (head, body))
            return
        self._listener.flush()  # what comes before it
        if with_body:
            self._transport.writelines((head, b"\r\n", body))
        else:
            self._transport.write(head + b"\r\n")
