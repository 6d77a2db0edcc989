"""Around the dispatcher: times for who asks for them, spans for who traces, a line for who logs."""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter_ns

import msgspec

from everloop.serve.exchange import Answer, Reply, Request
from everloop.serve.http import Application
from everloop.serve.observe.access import say_request
from everloop.serve.observe.timing import HEADER, Marks, current
from everloop.serve.observe.tracing import Tracer


class Watched:
    """An application whose requests are timed, traced or logged as far as somebody wants it."""

    def __init__(self, inner: Application, *, tracer: Tracer | None, has_access_log: bool) -> None:
        self._inner = inner
        self._tracer = tracer
        self._has_access_log = has_access_log
        self._is_wanted = tracer is not None or has_access_log

    def handle(self, request: Request) -> Answer:
        """Answer a request, or begin to."""
        if not self._is_wanted and HEADER not in request.headers:
            return self._inner.handle(request)
        marks = Marks(request.arrived_ns or perf_counter_ns())
        marks.end("read")
        current.marks = marks
        try:
            answer = self._inner.handle(request)
        finally:
            current.marks = None
        if isinstance(answer, Reply):
            return self._told(request, answer, marks)
        return self._later(request, answer, marks)

    async def _later(self, request: Request, answer: Awaitable[Reply], marks: Marks) -> Reply:
        return self._told(request, await answer, marks)

    def _told(self, request: Request, reply: Reply, marks: Marks) -> Reply:
        marks.end("encode")
        if self._tracer is not None:
            self._tracer.record(request, reply, marks)
        if self._has_access_log:
            say_request(request, reply, marks.stages[-1][1] - marks.begin_ns)
        if HEADER not in request.headers:
            return reply
        headers = (*reply.headers, (b"server-timing", marks.header()))
        return msgspec.structs.replace(reply, headers=headers)
