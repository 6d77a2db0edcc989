"""What strangers send to the serving process: every answer is a clean refusal, and it lives on."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.unit.serve.served import ROW, TOKEN, Served, make_folder, shifted_model
from tests.unit.serve.standalone import seal, standing

GOOD = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = make_folder(tmp_path_factory.mktemp("serve"))
    made.route(made.seal(1), canary=made.seal(2, shifted_model(1.0)), share=0.5)
    made.start()
    yield made
    made.close()


class Caller:
    def __init__(self, served: Served) -> None:
        address = json.loads((served.folder / "server.json").read_bytes())
        self.host = address["url"].removeprefix("http://")

    def ask(
        self,
        body: bytes | None = None,
        *,
        method: str = "POST",
        path: str = "/v1/predict",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str]:
        """Return the status and the error's code."""
        connection = http.client.HTTPConnection(self.host, timeout=10)
        # A refused body may be cut off while it is sent; the answer is there all the same.
        with suppress(BrokenPipeError):
            connection.request(method, path, body, GOOD if headers is None else headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        assert b"Traceback" not in text
        assert "application/json" == response.getheader("content-type")
        if response.status == 200:
            return 200, ""
        error = json.loads(text)["error"]
        assert error["message"]
        assert error["hint"]
        return response.status, error["code"]


@pytest.fixture
def caller(served: Served) -> Caller:
    return Caller(served)


def body(*rows: object, **fields: object) -> bytes:
    return json.dumps({"inputs": rows or (ROW,), **fields}).encode()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer evl_" + "00" * 32},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer " + "x" * 20_000},
        {"Authorization": "Bearer \xff\xfe"},
        {"X-Forwarded-User": "admin"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/predict"), ("GET", "/v1/model")])
def test_without_the_token_there_is_no_answer(
    caller: Caller, method: str, path: str, headers: dict[str, str]
) -> None:
    assert (401, "token.invalid") == caller.ask(body(), method=method, path=path, headers=headers)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"inputs": null}',
        b'{"inputs": {}}',
        b'{"inputs": []}',
        b'{"inputs": [null]}',
        b'{"inputs": [[]]}',
        b"[" * 200_000,
        b'{"inputs":' * 20_000,
        b"\x00" * 1_000,
        b"\xff\xfe\x00",
        b'{"inputs": [{"hour": NaN}]}',
        b'{"inputs": [{"hour": 1e400}]}',
        b'{"inputs": [{"hour": ' + b"9" * 100_000 + b"}]}",
        body({**ROW, "temperature": "'; DROP TABLE predictions; --"}),
        body({**ROW, "weather": "\ud800"}),
        body({**ROW, "weather": "x" * 1_001}),
        body({**ROW, "__class__": "x"}),
        body(at="2999-01-01T00:00:00Z"),
        body(at="../../etc/passwd"),
        body(at={"$gt": ""}),
        body(unit="u" * 201),
        body(unit=""),
        body(unit=7),
        body(version="2"),
    ],
)
def test_bad_input_is_a_clean_400(caller: Caller, sent: bytes) -> None:
    status, code = caller.ask(sent)

    assert 400 == status
    assert code.startswith("request.")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (body(*[ROW] * 65_537), "request.too_many_rows"),
        (b"x" * 33_554_433, "request.too_large"),
    ],
)
def test_too_much_is_a_clean_413(caller: Caller, sent: bytes, code: str) -> None:
    assert (413, code) == caller.ask(sent)


def test_a_body_that_lies_about_its_length_is_cut_off(served: Served, caller: Caller) -> None:
    host, _, port = caller.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as peer:
        peer.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
        )
        chunk = b"10000\r\n" + b"y" * 0x10000 + b"\r\n"
        answer = b""
        try:
            for _ in range(600):
                peer.sendall(chunk)
            answer = peer.recv(1_000)
        except (BrokenPipeError, ConnectionResetError):
            answer = b"HTTP/1.1 413"

    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("path", ["/x", "/v1", "/v1/../healthz", "/%2e%2e/x", "//x"])
def test_other_addresses_are_a_clean_404(caller: Caller, path: str) -> None:
    assert (404, "path.not_found") == caller.ask(body(), path=path)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_other_methods_are_refused(caller: Caller, method: str) -> None:
    try:
        status, _ = caller.ask(None, method=method)
    except AssertionError:  # the parser itself answers for words that are no methods
        assert "BREW" == method
    else:
        assert (400 if method == "BREW" else 405) == status


def test_garbage_on_the_socket_does_no_harm(caller: Caller) -> None:
    host, _, port = caller.host.partition(":")
    for junk in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 300_000,
        b"\r\n" * 9,
    ):
        with socket.create_connection((host, int(port)), timeout=10) as peer:
            try:
                peer.sendall(junk)
                peer.shutdown(socket.SHUT_WR)
                peer.recv(100)
            except OSError:
                continue

    assert (200, "") == caller.ask(body())


def test_a_caller_cannot_choose_the_arm_or_the_version(served: Served, caller: Caller) -> None:
    for field in ("arm", "version", "share", "salt", "id"):
        assert (400, "request.invalid") == caller.ask(body(**{field: "canary"}))


def test_nothing_was_written_outside_the_folder_and_all_lines_are_whole(
    served: Served, caller: Caller
) -> None:
    caller.ask(body({**ROW, "weather": "a\nb\r\u2028\u0000"}, unit="../../x\n"))

    rows = served.rows()

    assert "../../x\n" == rows[-1].unit
    assert "a\nb\r\u2028\u0000" == rows[-1].inputs["weather"]
    told = {"routes.json", "applied.json", "server.json", "serve.lock"}
    assert {"log", "bundles", "workers"} | told == {
        path.name for path in Path(served.folder).iterdir()
    }


@pytest.mark.parametrize(
    "kind", ["application/x-python-pickle", "text/html", "multipart/form-data"]
)
def test_a_body_that_says_it_is_no_json_is_refused(caller: Caller, kind: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}

    assert (415, "request.unsupported_type") == caller.ask(body(), headers=headers)


def test_pages_of_foreign_and_of_allowed_hosts_meet_an_open_server(tmp_path: Path) -> None:
    allowed = {"EVERLOOP_ALLOWED_HOSTS": "models.example.com"}
    with standing(str(seal(tmp_path / "bundle")), "--port", "0", variables=allowed) as url:
        statuses = [
            httpx.post(
                f"{url}/v1/predict",
                json={"inputs": [ROW]},
                headers={"host": host, "origin": f"https://{host}"},
            ).status_code
            for host in ("evil.example", "models.example.com", "localhost")
        ]

    assert [403, 200, 200] == statuses
