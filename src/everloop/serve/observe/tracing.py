"""Traces by OpenTelemetry, with the caller's W3C context taken over (``traceparent``).

Nothing is imported and nothing costs until the usual variables ask for it
(``OTEL_EXPORTER_OTLP_ENDPOINT``); they also say whom to sample, where to send and how. The spans of
a request's stages are made after its answer, from the times that `timing.Marks` noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter_ns, time_ns
from typing import Any, Final

from everloop.serve.exchange import Reply, Request
from everloop.serve.observe.jsonlog import say
from everloop.serve.observe.timing import Marks

VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# The variable for traces alone comes first, as OpenTelemetry says.
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP: Final = "http/protobuf"
GRPC: Final = "grpc"
_PREDICTION: Final = b"x-everloop-prediction-id"


def open_tracer(environ: Mapping[str, str]) -> Tracer | None:
    """Return a tracer if the variables ask for one; made after the fork, for it has a thread.

    What is asked for and cannot be had turns traces off with a warning, never to another way of
    sending: what waits at that address would not understand it.
    """
    if not any(environ.get(name) for name in VARIABLES):
        return None
    exporter = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    protocol = next((found for name in PROTOCOLS if (found := environ.get(name))), HTTP)
    if exporter == "none":
        return None
    if exporter != "otlp":
        why = f"OTEL_TRACES_EXPORTER is {exporter!r}; a server sends by otlp or not at all."
    elif protocol not in {HTTP, GRPC}:
        why = f"OpenTelemetry's protocol is set to {protocol!r}; it can be {HTTP} or {GRPC}."
    else:
        try:
            return Tracer(protocol)
        except ImportError as error:
            also = " opentelemetry-exporter-otlp-proto-grpc" if protocol == GRPC else ""
            why = f"{error.name} is not installed. "
            why += f'Install it with: pip install "everloop[otel]"{also}.'
    say("warn", "tracing-off", f"Traces are asked for and are off: {why}")
    return None


def _exporter(protocol: str) -> Any:
    if protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


class Tracer:
    """Makes the spans of requests and sends them in the background."""

    def __init__(self, protocol: str = HTTP) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "everloop-serve"})
        self._provider: Any = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(protocol)))
        self._tracer = self._provider.get_tracer("everloop.serve")
        self._propagator = TraceContextTextMapPropagator()
        # Stages are measured by a clock that never jumps; spans want the time of day.
        self._offset_ns = time_ns() - perf_counter_ns()

    def record(self, request: Request, reply: Reply, marks: Marks) -> None:
        """Send the span of a request and those of its stages, if it is sampled."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        carried = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in request.headers.items()
            if name in {b"traceparent", b"tracestate"}
        }
        offset = self._offset_ns
        span = self._tracer.start_span(
            f"{request.method} {request.path}",
            context=self._propagator.extract(carried),
            kind=SpanKind.SERVER,
            start_time=marks.begin_ns + offset,
            attributes={
                "http.request.method": request.method,
                "url.path": request.path,
                "http.response.status_code": reply.status,
            },
        )
        if not span.is_recording():
            return
        found = dict(reply.headers).get(_PREDICTION)
        if found is not None:
            span.set_attribute("everloop.prediction", found.decode("latin-1"))
        if reply.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        inside, before = set_span_in_context(span), marks.begin_ns
        for stage, at in marks.stages:
            inner = self._tracer.start_span(stage, context=inside, start_time=before + offset)
            inner.end(end_time=at + offset)
            before = at
        span.end(end_time=before + offset)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
