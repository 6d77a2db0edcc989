"""The small server of a device answers clean errors to anything, and goes on answering."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from everloop.edge.device.bundle import open_bundle
from everloop.edge.device.engine import Engine
from everloop.edge.device.service import MOST_CALLERS, Handler, Service
from tests.kit import world
from tests.unit.edge import sealed


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("edge")
    made = world()
    built = sealed.seal(made, sealed.register(made, sealed.lightgbm_model(rounds=3)))
    path: Path = sealed.fetch(made, built, folder)
    found = Service(Engine(open_bundle(path), folder / "log"), ("127.0.0.1", 0))
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def ask(
    service: Service, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, dict[str, object]]:
    host, port = service.server_address[:2]
    connection = http.client.HTTPConnection(str(host), port, timeout=10)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, data, headers)
    response = connection.getresponse()
    told = json.loads(response.read())
    connection.close()
    return response.status, told


def test_rows_are_answered_with_ids_and_counted(service: Service) -> None:
    before = service.engine.answers

    status, told = ask(service, "POST", "/predict", {"inputs": [sealed.ROW, sealed.ROW]})

    found = told["predictions"]
    assert isinstance(found, list)
    assert (200, 2) == (status, len({answer["id"] for answer in found}))
    expected = sealed.lightgbm_model(rounds=3).predict([[5.0, 3200.0, 41.0, 0.25]])[0]
    assert [expected] * 2 == [answer["output"] for answer in found]
    assert before + 2 == ask(service, "GET", "/healthz")[1]["answers"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("POST", "/predict", b"{", {}, 400, "edge.row_invalid"),
        ("POST", "/predict", b"[" * 100_000, {}, 400, "edge.row_invalid"),
        ("POST", "/predict", b"\xff\xfe", {}, 400, "edge.row_invalid"),
        ("POST", "/predict", {"age": 1}, {}, 400, "edge.row_invalid"),
        ("POST", "/predict", [], {}, 400, "edge.too_many_rows"),
        ("POST", "/predict", [1] * 1_001, {}, 400, "edge.too_many_rows"),
        ("POST", "/predict", b"", {"content-length": "99999999"}, 413, "edge.too_large"),
        ("POST", "/predict", {**sealed.ROW, "city": "\ud800" * 70}, {}, 400, "edge.row_invalid"),
        ("POST", "/predict", b"", {"content-length": "-1"}, 411, "edge.length_missing"),
        ("POST", "/predict", b"", {"content-length": "\u00b2"}, 411, "edge.length_missing"),
        ("POST", "/predict", b"0\r\n\r\n", {"transfer-encoding": "chunked"}, 411,
         "edge.length_missing"),
        ("POST", "/else", b"{}", {}, 404, "edge.not_found"),
        ("GET", "/predict", None, {}, 404, "edge.not_found"),
        ("PUT", "/predict", b"{}", {}, 501, "edge.bad_request"),
    ],
)  # fmt: skip
def test_what_can_not_be_answered_gets_a_clean_error(
    service: Service,
    *,
    method: str,
    path: str,
    body: object,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    found, told = ask(service, method, path, body, **headers)

    error = told["error"]
    assert isinstance(error, dict)
    assert (status, code) == (found, error["code"])
    assert 200 == ask(service, "GET", "/healthz")[0]


def test_a_body_that_never_comes_is_not_waited_for_long(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "timeout", 0.2)
    with socket.create_connection(service.server_address[:2]) as slow:  # type: ignore[arg-type]
        slow.sendall(b"POST /predict HTTP/1.1\r\ncontent-length: 50\r\n\r\n{")

        answered = slow.makefile("rb").readline()

    assert b" 408 " in answered
    assert 200 == ask(service, "GET", "/healthz")[0]


@pytest.mark.parametrize("line", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"x" * 70_000])
def test_what_is_no_http_is_refused(service: Service, line: bytes) -> None:
    with socket.create_connection(service.server_address[:2]) as odd:  # type: ignore[arg-type]
        odd.sendall(line)
        odd.shutdown(socket.SHUT_WR)
        odd.makefile("rb").read()

    assert 200 == ask(service, "GET", "/healthz")[0]


def test_callers_beyond_the_bound_are_told_to_come_again(service: Service) -> None:
    address = ("127.0.0.1", service.server_address[1])
    before = threading.active_count()
    with contextlib.ExitStack() as idle:
        for _ in range(MOST_CALLERS + 5):
            idle.enter_context(socket.create_connection(address))
        with socket.create_connection(address) as late:
            told = late.makefile("rb").read()
        most = threading.active_count()

    assert told.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in told
    assert most <= before + MOST_CALLERS


def test_a_caller_that_was_told_so_is_answered_later(service: Service) -> None:
    for _ in range(MOST_CALLERS + 5):  # each gives its place back
        assert 200 == ask(service, "GET", "/healthz")[0]
