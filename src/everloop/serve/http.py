"""HTTP/1.1 for the data plane: an asyncio protocol on llhttp (httptools), and its limits.

What stands here is the order of things: one reply for each request, in the order of the requests
(RFC 9112, section 9.3.2), and no client that holds a connection by being slow. A refusal is
answered and the connection closed after it has been read. Requests are read in `reading`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from time import monotonic, perf_counter_ns
from typing import Final, Protocol, cast

from everloop.core.errors import EverloopError, InvalidInput
from everloop.serve.exchange import Answer, Reply, Request, refuse
from everloop.serve.limits import (
    Limits,
    busy,
    failed,
)
from everloop.serve.observe.jsonlog import say_failure
from everloop.serve.observe.tally import Tally
from everloop.serve.reading import Reader, Room, Whole
from everloop.serve.turn import Deferred, Turn

SWEEP_S: Final = 0.25
LINGER_S: Final = 2.0
MOST_UNSENT: Final = 32
LARGEST_UNSENT: Final = 16_384
LONGEST_UNSENT_NS: Final = 2_000_000
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Application(Protocol):
    """What answers requests. ``handle`` never raises."""

    def handle(self, request: Request) -> Answer:
        """Answer a request, or begin to."""
        ...


class Listener:
    """All connections of one process, their limits and their end; lives on one event loop."""

    def __init__(
        self,
        application: Application,
        limits: Limits,
        tally: Tally | None = None,
        turn: Turn | None = None,
    ) -> None:
        self.tally = Tally() if tally is None else tally
        self._turn = Turn() if turn is None else turn
        self.application = application
        self.limits = limits
        self.room = Room(limits)
        self.connections: set[Connection] = set()
        self.in_flight = 0
        self.is_draining = False
        self.date = b""
        self._outbox: list[tuple[asyncio.Transport, bytes]] = []
        self._unsent_since_ns = 0
        self._stamp()

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write when what has arrived by now is answered, or what takes its time at the latest.

        A client that sleeps is woken by each write, which costs more than the write; written
        together, the replies of one turn of the loop wake it once.
        """
        outbox, now_ns = self._outbox, perf_counter_ns()
        if not outbox:
            self._unsent_since_ns = now_ns
            self._turn.at_end(self.flush)
        outbox.append((transport, data))
        if len(outbox) >= MOST_UNSENT or now_ns - self._unsent_since_ns > LONGEST_UNSENT_NS:
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


class Connection(asyncio.Protocol):
    """One connection."""

    __slots__ = (
        "_deadline", "_is_busy", "_is_eof", "_is_stuck", "_listener", "_reader", "_transport",
        "_unsent", "_waiting",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._reader = Reader(self, listener.room)
        self._waiting: deque[Whole | EverloopError] = deque()
        self._is_busy = self._is_eof = self._is_stuck = False
        self._deadline = 0.0
        self._unsent = 0

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
        self._reader.close()

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        reader = self._reader
        if not reader.started_ns and not reader.is_done:
            self._deadline = monotonic() + self._listener.limits.request_s
        try:
            reader.feed(data)
        except EverloopError as problem:
            self._refuse_rest(problem)

    def eof_received(self) -> bool:
        """Keep the way back open while answers are due."""
        self._is_eof = True
        self._listener.flush()  # before the connection may be closed
        return self._is_busy or bool(self._waiting)

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read."""
        self._is_stuck = True
        self._unsent = 0
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

    # --- the reader's side ----------------------------------------------------------------------

    def take(self, whole: Whole) -> None:
        """Answer a request, or let it wait for those before it."""
        if not self._is_stuck:
            self._deadline = 0.0
        if self._is_before() or self._is_stuck:
            self._waiting.append(whole)
            is_full = whole.held or len(self._waiting) > self._listener.limits.pipelined
            if is_full and self._transport is not None:
                self._transport.pause_reading()
        else:
            self._start(whole)

    def encourage(self) -> None:
        """Say that a body may be sent, unless answers are due before that."""
        if self._transport is not None and not self._is_before():
            self._listener.flush()
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # --- our side -------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Close the connection if its time is over."""
        if not self._deadline or now < self._deadline or self._transport is None:
            return
        if self._is_stuck or self._transport.is_closing():
            self._abort_unless_read(now)
        elif self._is_busy:
            self._deadline = 0.0
        elif self._reader.is_done:
            self._transport.abort()
        elif self._reader.started_ns:
            self._refuse_rest(
                InvalidInput(
                    "request.slow",
                    f"The request took longer than {self._listener.limits.request_s:g} seconds.",
                    hint="Send it at once.",
                )
            )
        else:
            self._close()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being read or answered."""
        if self._transport is None or self._is_busy or self._waiting or self._reader.started_ns:
            return
        self._close()

    def abort(self) -> None:
        """Close the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        """Close the connection when the client has what was written, or takes none of it."""
        if self._transport is not None:
            self._listener.flush()
            self._transport.close()
            self._unsent = 0
            self._deadline = monotonic() + self._listener.limits.write_s

    def _abort_unless_read(self, now: float) -> None:
        """Close the connection now, unless the client took something since the last look."""
        if self._transport is None:
            return
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        if self._unsent < before or not before:
            self._deadline = now + self._listener.limits.write_s
        else:
            self._transport.abort()

    def _is_before(self) -> bool:
        """Tell whether a request is still to be answered before the one that is coming in."""
        return self._is_busy or bool(self._waiting)

    def _drop_waiting(self) -> None:
        for each in self._waiting:
            if isinstance(each, Whole):
                self._listener.room.give_back(each.held)
        self._waiting.clear()

    def _refuse_rest(self, problem: EverloopError) -> None:
        """Refuse the request that is coming in, after those before it, and read no more."""
        self._reader.close()
        if self._is_before() or self._is_stuck:
            self._waiting.append(problem)
        else:
            self._last_words(problem)

    def _last_words(self, problem: EverloopError) -> None:
        """Send a refusal; the client may take its time to read it, but not too much."""
        self._reader.close()
        self._write(refuse(problem), is_last=True, with_body=True)
        self._deadline = monotonic() + LINGER_S
        if self._transport is not None and self._transport.can_write_eof():
            # Closing at once would reset a connection with unread bytes, and the reply be lost.
            self._transport.write_eof()

    def _start(self, whole: Whole) -> None:
        """Answer a request; and those that wait for it, as long as answers come at once."""
        listener = self._listener
        while True:
            listener.in_flight += 1
            if listener.in_flight > listener.limits.in_flight:
                answer: Answer = refuse(busy("Too many requests at once."))
            else:
                answer = listener.application.handle(whole.request)
            if isinstance(answer, Deferred):
                if answer.found is None:
                    self._is_busy = True
                    answer.then(partial(self._answered, whole))
                    return
                answer = answer.reply()
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

    def _finisher(self, whole: Whole) -> Callable[[asyncio.Future[Reply]], None]:
        def finish(task: asyncio.Future[Reply]) -> None:
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or error is not None:
                say_failure("request", error or asyncio.CancelledError("it was cancelled"))
                reply = refuse(failed())
            else:
                reply = task.result()
            self._answered(whole, reply)

        return finish

    def _answered(self, whole: Whole, reply: Reply) -> None:
        """Send a reply that did not come at once."""
        self._listener.in_flight -= 1
        self._is_busy = False
        if self._finish(whole, reply) and self._waiting and not self._is_stuck:
            self._go_on()

    def _go_on(self) -> None:
        following = self._waiting.popleft()
        if isinstance(following, EverloopError):
            self._last_words(following)
        else:
            self._start(following)
        if self._transport is not None and not self._is_stuck and not self._waiting:
            self._transport.resume_reading()

    def _finish(self, whole: Whole, reply: Reply) -> bool:
        """Send a reply; return whether the connection goes on."""
        if whole.held:
            self._listener.room.give_back(whole.held)
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
            self._close()
            return False
        if not self._is_stuck:
            limits = self._listener.limits
            self._deadline = monotonic() + (
                limits.request_s if self._reader.started_ns else limits.idle_s
            )
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
        if with_body and not is_last and len(body) < LARGEST_UNSENT:
            self._listener.send(self._transport, b"%s\r\n%s" % (head, body))
            return
        self._listener.flush()  # what comes before it
        if with_body:
            self._transport.writelines((head, b"\r\n", body))
        else:
            self._transport.write(head + b"\r\n")
