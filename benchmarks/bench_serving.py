"""What one prediction costs over HTTP: the serving process, the peer's, and a bare echo.

Rows and their meaning are in docs/explanation/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from measure import Report, Row, parse_options, quantile, tell, times_of_calls, workplace
from peers import Mlflow, find_mlflow
from processes import Started, free_port, running

from everloop.core.digest import content_digest
from everloop.core.ids import Id
from everloop.core.wire import Routes, Target, TokenHash
from everloop.kernel.authz import hash_secret
from everloop.kernel.signing import Ed25519Signer
from everloop.serve.bundle import Bundle, GoldenAnswer, write_bundle
from everloop.serve.client import PredictClient
from everloop.serve.protocol import InputField
from everloop.serve.runtime import open_model
from everloop.serve.switchboard import write_atomically

FEATURES, TREES, ROWS = 30, 200, 5_000
REQUESTS = 3_000
TOKEN = "evl_" + "5e" * 32
NAMES = [f"feature_{number}" for number in range(FEATURES)]
VERSION = Id("01930000-0000-7000-8000-000000000001")
ECHO = """
import asyncio, sys, uvicorn, uvloop
ANSWER = {"type": "http.response.body", "body": b'{"predictions":[{"output":0.5}]}'}
START = {"type": "http.response.start", "status": 200,
         "headers": [(b"content-type", b"application/json"), (b"content-length", b"32")]}
async def echo(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send(ANSWER)
config = uvicorn.Config(echo, port=int(sys.argv[1]), http="httptools", lifespan="off",
                        log_config=None, access_log=False, server_header=False)
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(uvicorn.Server(config).serve())
"""
KEPT = (
    "Everloop has written the prediction to its log before it answers (it survives the process; "
    "fsync follows within 50 ms); the peer and the limit keep nothing."
)


def main() -> None:
    """Measure and report."""
    options = parse_options(__doc__)
    peer = find_mlflow(options)
    report = Report(
        "serving",
        options,
        peer=peer.name if peer else "",
        notes=f"one row of {FEATURES} features, LightGBM with {TREES} trees, one connection; "
        "limit: uvicorn with a bare ASGI echo.",
    )
    with workplace() as folder:
        text = folder / "model.txt"
        text.write_text(_train())
        rounds = options.rounds(3)
        requests = REQUESTS // 6 if options.quick else REQUESTS
        with ExitStack() as stack:
            limit = stack.enter_context(_limit(folder))
            ours = stack.enter_context(_everloop(folder, text.read_bytes()))
            theirs = stack.enter_context(_mlflow(peer, folder)) if peer is not None else None
            ready = Row("server ready after its start", "s")
            for endpoint in filter(None, (limit, ours, theirs)):
                ready.add(endpoint.subject, endpoint.ready_s)
            for number in range(rounds):
                tell(f"round {number + 1} of {rounds}")
                _measure(report, limit, requests)
                _measure(report, ours, requests)
                if theirs is not None:
                    _measure(report, theirs, requests // 3)
            _measure_client(report, ours, requests)
            report.rows.append(ready)
    report.close()


@dataclass(frozen=True)
class Endpoint:
    """One server, and the request to send it."""

    subject: str
    process: Started
    port: int
    request: bytes
    ready_s: float


def _measure(report: Report, endpoint: Endpoint, requests: int) -> None:
    """Ask again and again over one kept socket; the same client for every server."""
    if not report.rows:
        report.row("one row over a kept socket, p50", "us", kept=KEPT)
        report.row("one row over a kept socket, p99", "us")
        report.row("server's processor time a request", "us")
        report.row("memory of the server, PSS", "MB")
    ask = _asker(endpoint)
    for number in range(50):
        ask(number)
    before = endpoint.process.cpu_s()
    spent = times_of_calls(ask, requests)
    cpu = endpoint.process.cpu_s() - before
    figures = (
        quantile(spent, 0.5) / 1e3,
        quantile(spent, 0.99) / 1e3,
        1e6 * cpu / requests,
        endpoint.process.memory_mb(),
    )
    for row, figure in zip(report.rows, figures, strict=False):
        row.add(endpoint.subject, figure)


def _asker(endpoint: Endpoint) -> Callable[[int], None]:
    link = socket.create_connection(("127.0.0.1", endpoint.port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(number: int) -> None:
        del number
        link.sendall(endpoint.request)
        data = link.recv(65_536)
        while b"\r\n\r\n" not in data or len(data) < _whole(data):
            data += link.recv(65_536)
        if not data.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(data[:500].decode())

    return ask


def _whole(data: bytes) -> int:
    """Return the length of an answer whose head is there."""
    head, _, _ = data.partition(b"\r\n\r\n")
    length = next(
        line.partition(b":")[2]
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    return len(head) + 4 + int(length)


def _measure_client(report: Report, ours: Endpoint, requests: int) -> None:
    row = report.row("one row through PredictClient, p50", "us")
    tail = report.row("one row through PredictClient, p99", "us")
    inputs = dict.fromkeys(NAMES, 0.5)
    with PredictClient(f"http://127.0.0.1:{ours.port}", TOKEN) as client:
        client.predict([inputs])
        for _ in range(3):
            spent = times_of_calls(lambda _: client.predict([inputs]), requests)
            row.add("everloop", quantile(spent, 0.5) / 1e3)
            tail.add("everloop", quantile(spent, 0.99) / 1e3)


def _train() -> str:
    import lightgbm

    random = np.random.default_rng(7)
    inputs = random.normal(size=(ROWS, FEATURES))
    target = inputs[:, 0] * 3 + np.sin(inputs[:, 1] * 2) + random.normal(size=ROWS) * 0.1
    data = lightgbm.Dataset(inputs, target, feature_name=NAMES)
    settings = {"objective": "regression", "verbose": -1, "num_threads": 1, "num_leaves": 31}
    return str(lightgbm.train(settings, data, num_boost_round=TREES).model_to_string())


@contextmanager
def _limit(folder: Path) -> Iterator[Endpoint]:
    port = free_port()
    begin = time.perf_counter()
    with running([sys.executable, "-c", ECHO, str(port)], folder=folder) as process:
        process.seconds_to_answer(port, "/")
        body = json.dumps({"inputs": [dict.fromkeys(NAMES, 0.5)]}).encode()
        ready = time.perf_counter() - begin
        yield Endpoint("limit", process, port, _post("/", body), ready)


@contextmanager
def _everloop(folder: Path, model: bytes) -> Iterator[Endpoint]:
    place = folder / "serve"
    place.mkdir()
    _seal(place, model)
    port = free_port()
    command = [sys.executable, "-m", "everloop.serve.main", "--folder", str(place)]
    with running([*command, "--port", str(port)], folder=folder) as process:
        ready = process.seconds_to_answer(port, "/readyz")
        body = json.dumps({"inputs": [dict.fromkeys(NAMES, 0.5)]}).encode()
        request = _post("/v1/predict", body, f"Authorization: Bearer {TOKEN}\r\n")
        yield Endpoint("everloop", process, port, request, ready)


def _seal(folder: Path, model: bytes) -> None:
    """Write one sealed bundle and the routes that make it the champion."""
    signer = Ed25519Signer("evaluator", os.urandom(32))
    row = dict.fromkeys(NAMES, 0.5)
    expected = open_model("lightgbm", {"model.txt": model}, FEATURES)(np.full((1, FEATURES), 0.5))
    bundle = Bundle(
        deployment="bench",
        model="bench",
        version_id=VERSION,
        number=1,
        semver="1.0.0",
        artifact=content_digest(model),
        format="lightgbm",
        task="regression",
        inputs=tuple(InputField(name=name, dtype="float64") for name in NAMES),
        output_name="target",
        golden=(GoldenAnswer(inputs=dict(row), expected=float(expected[0])),),
        files={"model.txt": content_digest(model)},
    )
    write_bundle(folder / "bundles" / VERSION, bundle, {"model.txt": model}, signer)
    later = datetime(2100, 1, 1, tzinfo=UTC)
    routes = Routes(
        epoch=1,
        deployment="bench",
        public_key=signer.public_key.hex(),
        tokens=(TokenHash(hash=hash_secret(TOKEN), expires_at=later),),
        champion=Target(version_id=VERSION, bundle=f"bundles/{VERSION}"),
    )
    write_atomically(folder / "routes.json", msgspec.json.encode(routes))


def _post(path: str, body: bytes, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def _mlflow(peer: Mlflow, folder: Path) -> Iterator[Endpoint]:
    """Serve the same model with ``mlflow models serve``, in the peer's own environment."""
    tell("starting mlflow models serve")
    target = folder / "mlflow-model"
    peer.task("save_model", folder, text=str(folder / "model.txt"), target=str(target))
    port = free_port()
    command = [
        *(peer.program, "models", "serve", "--model-uri", str(target), "--env-manager", "local"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
    split = {"columns": NAMES, "data": [[0.5] * FEATURES]}
    request = _post("/invocations", json.dumps({"dataframe_split": split}).encode())
    with running(command, folder=folder, variables=peer.variables) as process:
        ready = process.seconds_to_answer(port, "/ping")
        yield Endpoint("peer", process, port, request, ready)


if __name__ == "__main__":
    main()
