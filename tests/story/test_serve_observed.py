"""What a running server says of itself: to Prometheus, to a log, to a collector of traces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import psutil
import pytest

from everloop.serve.feedback import REFUSED_FILE
from tests.campaign.grpc_fuzz import sound_call
from tests.parts.prometheus import Scrape
from tests.unit.serve.served import ROW, TOKEN, Served, make_folder, wait_until

HEADERS = {"authorization": f"Bearer {TOKEN}"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = make_folder(tmp_path / "bikes")
    made.route(made.seal(1))
    yield made
    made.close()


def ask(url: str, count: int = 1, /, **headers: str) -> httpx.Response:
    rows = {"inputs": [ROW] * count}
    return httpx.post(f"{url}/v1/predict", json=rows, headers={**HEADERS, **headers})


def series(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def total(url: str, name: str) -> float:
    return sum(value for key, value in series(url).items() if key.startswith(name))


def test_a_real_prometheus_reads_the_counts_of_all_workers_also_after_one_was_killed(
    served: Served, prometheus: Scrape
) -> None:
    address = served.start("--workers", "2")
    for _ in range(20):
        assert 200 == ask(address.url, 3).status_code
    wait_until(lambda: total(address.url, "everloop_predictions_total") == 60)
    query = prometheus(urlsplit(address.url).netloc)

    found = query('sum(everloop_predictions_total{arm="champion",status="ok"}) > 59')
    assert {"": 60.0} == found
    assert {"": 2.0} == query("sum(everloop_workers) > 1")

    workers = psutil.Process(address.pid).children()
    workers[0].send_signal(signal.SIGKILL)
    wait_until(lambda: workers[0].pid not in {each.pid for each in live_workers(address.pid)})
    wait_until(lambda: len(live_workers(address.pid)) == 2)
    wait_until(lambda: total(address.url, "everloop_predictions_total") == 60)
    for _ in range(10):
        assert 200 == ask(address.url).status_code

    assert {"": 70.0} == query("sum(everloop_predictions_total) > 69")
    assert query("sum(everloop_request_seconds_count)")[""] >= 30


def live_workers(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


def test_labels_that_could_not_be_used_are_counted_by_reason(served: Served) -> None:
    (served.folder / REFUSED_FILE).write_bytes(b'{"unknown_class": 3}')

    found = series(served.start().url)

    name = 'everloop_labels_refused_total{deployment="bikes",reason="unknown_class"}'
    assert 3.0 == found[name]


def test_who_asks_is_told_where_the_time_went(served: Served) -> None:
    url = served.start().url

    told = ask(url, 1, **{"x-everloop-timing": "1"}).headers["server-timing"]

    stages = dict(part.split(";dur=") for part in told.split(", "))
    assert ["read", "decode", "score", "log", "encode", "total"] == list(stages)
    parts = sum(float(took) for stage, took in stages.items() if stage != "total")
    assert float(stages["total"]) == pytest.approx(parts, abs=0.01)
    assert "server-timing" not in ask(url).headers


@contextmanager
def logged(served: Served, *arguments: str) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Serve with an access log; give the address and, when the server has ended, the lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "everloop.serve.main", "--home", str(served.folder), *arguments],
        stderr=subprocess.PIPE,
        env={**os.environ, "EVERLOOP_ACCESS_LOG": "1"},
    )
    lines: list[Any] = []
    try:
        wait_until((served.folder / "server.json").exists)
        yield json.loads((served.folder / "server.json").read_text()), lines
    finally:
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=20)
    assert TOKEN not in told.decode()
    lines += [json.loads(line) for line in told.decode().splitlines()]


def test_requests_are_logged_as_json_under_the_names_of_ecs(served: Served) -> None:
    with logged(served) as (address, lines):
        found = ask(address["url"], traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    assert 200 == found.status_code

    (line,) = [line for line in lines if line.get("url.path") == "/v1/predict"]
    assert (200, "POST", TRACE, "info") == (
        line["http.response.status_code"],
        line["http.request.method"],
        line["trace.id"],
        line["log.level"],
    )
    assert line["event.duration"] > 0


def test_calls_over_grpc_have_the_same_line_however_they_end(served: Served) -> None:
    infer, live = (
        f"/inference.GRPCInferenceService/{name}" for name in ("ModelInfer", "ServerLive")
    )
    watch = "/grpc.health.v1.Health/Watch"
    carried = (("authorization", HEADERS["authorization"]), ("traceparent", f"00-{TRACE}-b7-01"))
    sent = sound_call()
    with logged(served, "--grpc-port", "0") as (address, lines):  # noqa: SIM117 -- it ends first
        with grpc.insecure_channel(address["grpc"]) as channel:
            answer = channel.unary_unary(infer)(sent, metadata=carried)
            for path in (infer, "/no.Such/Call"):
                with pytest.raises(grpc.RpcError):
                    channel.unary_unary(path)(sent)
            watched = channel.unary_stream(watch)(b"")
            status = next(watched)
            watched.cancel()
            channel.unary_unary(live)(b"")  # behind it on the same connection: it has arrived

    told = [
        (line["url.path"], line["rpc.response.status_code"], line["http.request.body.bytes"],
         line["http.response.body.bytes"], line.get("trace.id"))
        for line in lines if line.get("rpc.system.name") == "grpc" and line["url.path"] != live
    ]  # fmt: skip
    assert [
        (infer, "OK", len(sent), len(answer), TRACE),
        (infer, "UNAUTHENTICATED", len(sent), 0, None),
        ("/no.Such/Call", "UNIMPLEMENTED", 0, 0, None),
        (watch, "CANCELLED", 0, len(status), None),
    ] == told
    assert all(line["event.duration"] > 0 for line in lines if "url.path" in line)


class Collector(BaseHTTPRequestHandler):
    """Takes what is exported by OTLP over HTTP."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.taken.append((self.headers["content-encoding"], body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Collector)
    server.taken = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def trace(served: Served, **variables: str) -> None:
    """Ask a server with these variables twice, once unsampled; stopped, it has sent its spans."""
    process = subprocess.Popen(
        [sys.executable, "-m", "everloop.serve.main", "--home", str(served.folder)],
        env={**os.environ, **variables},
    )
    try:
        wait_until((served.folder / "server.json").exists)
        url = json.loads((served.folder / "server.json").read_text())["url"]
        ask(url, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
        ask(url, traceparent=f"00-{'1' * 32}-b7ad6b7169203331-00")  # its caller does not sample it
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def require_spans(bodies: list[bytes]) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = []
    for body in bodies:
        told = ExportTraceServiceRequest.FromString(body)
        for resource in told.resource_spans:
            spans += [span for scope in resource.scope_spans for span in scope.spans]
    assert {TRACE} == {span.trace_id.hex() for span in spans}
    (root,) = [span for span in spans if span.name == "POST /v1/predict"]
    assert "b7ad6b7169203331" == root.parent_span_id.hex()
    inner = [span for span in spans if span.parent_span_id == root.span_id]
    assert {"read", "decode", "score", "log", "encode"} == {span.name for span in inner}
    assert all(
        root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        for span in inner
    )


def test_a_traced_request_is_part_of_its_callers_trace(
    served: Served, collector: HTTPServer
) -> None:
    trace(served, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}")

    taken = collector.taken  # type: ignore[attr-defined]
    assert {None} == {encoding for encoding, _ in taken}
    require_spans([body for _, body in taken])


def test_spans_go_over_grpc_where_the_protocol_says_so(served: Served) -> None:
    taken: list[bytes] = []

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        taken.append(request)
        return b""

    door = grpc.server(ThreadPoolExecutor(1))
    methods = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    door.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = door.add_insecure_port("127.0.0.1:0")
    door.start()
    try:
        trace(
            served,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        )
    finally:
        door.stop(None).wait()

    require_spans(taken)
