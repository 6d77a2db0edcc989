"""The lines of the access log: one for each request and for each call over gRPC, alike in names.

What the Elastic Common Schema does not know of gRPC has the names of OpenTelemetry
(https://opentelemetry.io/docs/specs/semconv/rpc/grpc/). Tokens and bodies are never logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import perf_counter_ns
from typing import Any

from everloop.serve.exchange import Reply, Request
from everloop.serve.observe.jsonlog import say

LONGEST_PATH = 500


def say_request(request: Request, reply: Reply, took_ns: int) -> None:
    """Log a request over HTTP."""
    say(
        "info",
        "request",
        f"{request.method} {request.path} {reply.status}",
        http__request__method=request.method,
        url__path=request.path[:LONGEST_PATH],
        http__request__body__bytes=len(request.body),
        http__response__status_code=reply.status,
        http__response__body__bytes=len(reply.body),
        event__duration=took_ns,
        trace__id=trace_of(request.headers),
    )


class Call:
    """One call over gRPC: what its handler takes for its context, and its line when it has ended.

    Args:
        path: Where it was sent.
        context: That of grpcio.
    """

    def __init__(self, path: str, context: Any) -> None:
        self._begin_ns = perf_counter_ns()
        self._path = path
        self._context = context
        self._received = self._sent = 0

    def __getattr__(self, name: str) -> Any:
        """Return what the context has beside the two that are counted."""
        return getattr(self._context, name)

    async def read(self) -> Any:
        """Return the next message, or the sign that there is none."""
        data = await self._context.read()
        self._received += len(data) if isinstance(data, bytes) else 0
        return data

    async def write(self, message: Any) -> None:
        """Send one of several answers."""
        self._sent += message.ByteSize()
        await self._context.write(message)

    def say(self, answer: Any = None, error: BaseException | None = None) -> None:
        """Log the call as it ended.

        Args:
            answer: Its only answer, if it has one.
            error: What ended it, if something did.
        """
        code = _code_of(self._context, error)
        sent = self._sent if answer is None else answer.ByteSize()
        say(
            "info",
            "request",
            f"gRPC {self._path} {code}",
            http__request__method="POST",
            url__path=self._path[:LONGEST_PATH],
            http__request__body__bytes=self._received,
            http__response__body__bytes=sent,
            rpc__system__name="grpc",
            rpc__response__status_code=code,
            event__duration=perf_counter_ns() - self._begin_ns,
            trace__id=trace_of(headers_of(self._context)),
        )


def headers_of(context: Any) -> dict[bytes, bytes]:
    """Return the metadata of a call over gRPC as the headers of HTTP that they are."""
    return {
        key.encode(): value if isinstance(value, bytes) else value.encode()
        for key, value in context.invocation_metadata() or ()
    }


def trace_of(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the trace that a caller says the request is part of (W3C Trace Context)."""
    parts = headers.get(b"traceparent", b"").split(b"-")
    return parts[1].decode("ascii", "replace")[:32] if len(parts) == 4 else None


def _code_of(context: Any, error: BaseException | None) -> str:
    if isinstance(error, asyncio.CancelledError):
        # Of both grpcio says that the call was cancelled.
        is_late = context.time_remaining() == 0
        return "DEADLINE_EXCEEDED" if is_late else "CANCELLED"
    code = context.code()
    return "OK" if code is None else str(code.name)
