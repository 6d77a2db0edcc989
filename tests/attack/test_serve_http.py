"""What strangers do to the serving process's HTTP itself: framing, floods, half-open connections.

Every wrong request is answered by a clean refusal or a closed connection, no second request is ever
smuggled in behind a first, and the server answers the next caller as if nothing had happened.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.parts.memory import resident_bytes
from tests.parts.raw_http import Answer, RawLink, chunked, request
from tests.unit.serve.served import ROW, TOKEN, Served, make_folder

AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}
BODY = json.dumps({"inputs": [ROW]}).encode()
GOOD = request(body=BODY, headers=AUTHORIZATION | JSON)
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = make_folder(tmp_path_factory.mktemp("serve"))
    made.route(made.seal(1))
    made.start()
    yield made
    made.close()


class Door:
    """Where the server listens."""

    def __init__(self, served: Served) -> None:
        url = urlsplit(json.loads((served.folder / "server.json").read_bytes())["url"])
        self.host, self.port = str(url.hostname), int(url.port or 0)
        assert served.process is not None
        self._pid = served.process.pid

    def link(self) -> RawLink:
        return RawLink(self.host, self.port)

    def memory_bytes(self) -> int:
        """Return the resident memory of the server and its workers."""
        pids = [self._pid]
        for pid in pids:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += [int(child) for child in children.read_text().split()]
        return sum(resident_bytes(pid) for pid in pids)


@pytest.fixture
def door(served: Served) -> Iterator[Door]:
    found = Door(served)
    yield found
    with found.link() as link:  # whatever was done to it, the next caller is answered
        link.send(GOOD)
        answer = link.read()
        assert answer is not None
        assert 200 == answer.status


def refused(answer: Answer | None) -> int:
    """Return the status of a clean refusal; 0 for a connection closed without a word."""
    if answer is None:
        return 0
    assert 400 <= answer.status < 500 or answer.status in {501, 505}, answer
    assert b"Traceback" not in answer.body
    assert "application/json" == answer.headers["content-type"].partition(";")[0]
    error = json.loads(answer.body)["error"]
    assert error["message"]
    assert error["hint"]
    return answer.status


def headed(*lines: bytes, body: bytes = b"") -> bytes:
    """Return a predict request with raw header lines."""
    token = f"Authorization: Bearer {TOKEN}".encode()
    head = [b"POST /v1/predict HTTP/1.1", b"Host: x", token, *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 4", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 4"),
        (b"Content-Length: 4", b"Transfer-Encoding: xchunked"),
        (b"Content-Length: 4", b"Content-Length: 5"),
        (b"Content-Length: 4, 5",),
        (b"Content-Length: +4",),
        (b"Content-Length: -4",),
        (b"Content-Length: 0x4",),
        (b"Content-Length: 4 4",),
        (b"Content-Length: 1e1",),
        (b"Content-Length:",),
        (b"Content-Length: 99999999999999999999999999999",),
        (b"Content-Length : 4",),
        (b"Transfer-Encoding : chunked",),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding:\x0bchunked",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
        (b"Transfer-Encoding:\r\n chunked",),
        (b"X: 1\r\n folded: 2", b"Content-Length: 0"),
        (b"X: a\x00b", b"Content-Length: 0"),
        (b"X: a\rContent-Length: 4",),
        (b"X a: 1", b"Content-Length: 0"),
        (b": nameless", b"Content-Length: 0"),
        (b"nocolon", b"Content-Length: 0"),
        (b"\x80\xff: 1", b"Content-Length: 0"),
    ],
)
def test_a_body_whose_end_can_be_read_in_two_ways_is_refused(
    door: Door, lines: tuple[bytes, ...]
) -> None:
    with door.link() as link:
        link.send(headed(*lines, body=b"0\r\n\r\n" + SMUGGLED))
        link.end()
        answers = link.read_all()

    assert len(answers) <= 1
    assert {refused(answer) for answer in answers} <= {400, 411, 413, 415, 431, 501}


@pytest.mark.parametrize(
    "sent",
    [
        b"FFFFFFFFFFFFFFFFFFFFFF\r\n",
        b"7FFFFFFFFFFFFFFF\r\nx",
        b"-1\r\nx",
        b"0x4\r\nabcd\r\n0\r\n\r\n",
        b"4\r\nabcdX\r\n0\r\n\r\n",
        b"4\nabcd\n0\n\n",
        b"zz\r\n",
        b"\r\n",
        b"4;" + b"x" * 1_000_000,
        b"1;x=y\r\na\r\n" * 200_000,
        b"0\r\n" + b"A: b\r\n" * 100_000,
        b"0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n" + b"A" * 200_000,
    ],
)
def test_wrong_or_endless_chunks_are_refused(door: Door, sent: bytes) -> None:
    before = door.memory_bytes()
    with door.link() as link:
        if link.send(headed(b"Transfer-Encoding: chunked", body=sent)):
            link.end()
        answers = link.read_all()

    assert len(answers) <= 1
    assert {refused(answer) for answer in answers} <= {400, 413, 431}
    assert door.memory_bytes() - before < 32_000_000


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz?" + b"a=1&" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a" * 1_000_000 + b": 1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
        b"A" * 1_000_000,
    ],
)
def test_endless_heads_are_refused_before_they_end(door: Door, sent: bytes) -> None:
    before = door.memory_bytes()
    with door.link() as link:
        link.send(sent)
        answers = link.read_all()

    assert len(answers) <= 1
    assert {refused(answer) for answer in answers} <= {400, 413, 414, 431}
    assert door.memory_bytes() - before < 32_000_000


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/0.9\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /heal thz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET\t/healthz\tHTTP/1.1\r\nHost: x\r\n\r\n",
        b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G\x00T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /heal\x00thz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /heal\x01thz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /heal\xffthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://a:b:c/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"TRACE /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"\x00" * 1_000,
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(door: Door, sent: bytes) -> None:
    with door.link() as link:
        link.send(sent)
        link.end()
        answers = link.read_all()

    assert len(answers) <= 1
    assert {refused(answer) for answer in answers} <= {400, 404, 405, 501, 505}


def test_requests_sent_at_once_are_answered_in_order(door: Door) -> None:
    hours = list(range(24)) * 20
    asked = [
        request(
            body=json.dumps({"inputs": [ROW | {"hour": hour}]}).encode(),
            headers=AUTHORIZATION | JSON,
        )
        for hour in hours
    ]
    with door.link() as link:
        link.send(b"".join(asked))
        answers = [link.read() for _ in asked]

    found: dict[int, set[float]] = {}
    ids = set()
    for hour, answer in zip(hours, answers, strict=True):
        assert answer is not None
        (prediction,) = json.loads(answer.body)["predictions"]
        found.setdefault(hour, set()).add(prediction["output"])
        ids.add(prediction["id"])
    assert len(hours) == len(ids)
    assert {1} == {len(outputs) for outputs in found.values()}
    assert len({min(outputs) for outputs in found.values()}) > 5


def test_a_broken_request_ends_the_line_of_those_sent_at_once(door: Door) -> None:
    with door.link() as link:
        link.send(GOOD + GOOD + headed(b"Content-Length: x") + GOOD)
        answers = link.read_all()

    assert [200, 200, 400] == [answer.status for answer in answers]


def test_a_refused_body_is_not_read_as_the_next_request(door: Door) -> None:
    inner = SMUGGLED * 3
    with door.link() as link:
        link.send(request(body=inner, headers=AUTHORIZATION | JSON) + GOOD)
        first, second = link.read(), link.read()

    assert 400 == refused(first)
    assert second is not None
    assert 200 == second.status


def test_nothing_is_answered_after_the_caller_has_said_close(door: Door) -> None:
    with door.link() as link:
        link.send(request(body=BODY, headers=AUTHORIZATION | JSON | {"Connection": "close"}) + GOOD)
        answers = link.read_all()

    assert [200] == [answer.status for answer in answers]


def test_an_answer_to_head_has_no_body(door: Door) -> None:
    with door.link() as link:
        link.send(request("HEAD", "/healthz") + GOOD)
        head = link.read(is_head=True)
        answer = link.read()

    assert head is not None
    assert head.status in {200, 405}
    assert answer is not None
    assert 200 == answer.status


@pytest.mark.parametrize("cut", [1, 20, 60, len(GOOD) - len(BODY), len(GOOD) - 1])
def test_a_caller_that_leaves_in_the_middle_does_no_harm(door: Door, cut: int) -> None:
    for is_rude in (False, True):
        with door.link() as link:
            link.send(GOOD[:cut])
            if is_rude:
                link.abort()
            else:
                link.end()
                assert {refused(answer) for answer in link.read_all()} <= {400, 408}


def test_a_caller_that_has_said_all_still_gets_its_answer(door: Door) -> None:
    with door.link() as link:
        link.send(GOOD)
        link.end()
        answers = link.read_all()

    assert [200] == [answer.status for answer in answers]


def test_a_request_in_single_bytes_is_answered(door: Door) -> None:
    with door.link() as link:
        for place in range(len(GOOD)):
            link.send(GOOD[place : place + 1])
        answer = link.read()

    assert answer is not None
    assert 200 == answer.status


def test_a_body_in_chunks_is_answered(door: Door) -> None:
    parts = [BODY[place : place + 7] for place in range(0, len(BODY), 7)]
    with door.link() as link:
        link.send(headed(b"Transfer-Encoding: chunked", body=chunked(*parts)) + GOOD)
        answers = [link.read(), link.read()]

    assert [200, 200] == [answer.status for answer in answers if answer is not None]


@pytest.mark.parametrize(("version", "kept"), [("1.0", False), ("1.1", True)])
def test_a_connection_is_kept_as_its_version_says(door: Door, version: str, kept: bool) -> None:
    with door.link() as link:
        link.send(request("GET", "/healthz", version=version) * 2)
        first = link.read()
        assert first is not None
        assert 200 == first.status
        assert kept == (link.read() is not None)


def test_who_expects_100_is_told_to_go_on_or_to_stop(door: Door) -> None:
    head = headed(b"Expect: 100-continue", b"Content-Length: %d" % len(BODY))
    with door.link() as link:
        link.send(head)
        told = link.read()
        assert told is not None
        assert 100 == told.status
        link.send(BODY)
        answer = link.read()
        assert answer is not None
        assert 200 == answer.status
    with door.link() as link:
        link.send(headed(b"Expect: 100-continue", b"Content-Length: 999999999999"))
        assert 413 == refused(link.read())
        assert link.is_closed()


def test_an_answer_comes_before_the_word_to_go_on_with_the_next_request(door: Door) -> None:
    head = headed(b"Expect: 100-continue", b"Content-Length: %d" % len(BODY))
    with door.link() as link:
        link.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + head)
        statuses = [told.status for told in (link.read(), link.read()) if told is not None]
        link.send(BODY)
        answer = link.read()

    assert [200, 100] == statuses
    assert answer is not None
    assert 200 == answer.status


def test_an_upgrade_is_not_taken(door: Door) -> None:
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    for protocol in ("websocket", "h2c"):
        with door.link() as link:
            headers = AUTHORIZATION | JSON | upgrade | {"Upgrade": protocol}
            link.send(request(body=BODY, headers=headers))
            answer = link.read()

        assert answer is not None
        assert 200 == answer.status or 400 <= answer.status < 500


def test_a_large_body_is_refused_and_the_caller_can_read_why(door: Door) -> None:
    before = door.memory_bytes()
    with door.link() as link:
        link.send(headed(b"Content-Length: 400000000"))
        for _ in range(100):
            if not link.send(b"x" * 100_000):
                break
        answer = link.read()

    assert 413 == refused(answer)
    assert door.memory_bytes() - before < 32_000_000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip", "x" * 1_000])
def test_a_body_that_unpacks_to_much_more_is_refused(door: Door, coding: str) -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    before = door.memory_bytes()
    with door.link() as link:
        link.send(request(body=bomb, headers=AUTHORIZATION | JSON | {"Content-Encoding": coding}))
        assert refused(link.read()) in {400, 413, 415}

    assert door.memory_bytes() - before < 64_000_000


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-pickle",
        "application/python-pickle",
        "application/x-python-serialize",
        "application/octet-stream",
        "application/x-msgpack",
        "text/html",
        "multipart/form-data; boundary=x",
    ],
)
def test_a_pickle_or_another_kind_of_body_is_refused_unread(
    door: Door, tmp_path: Path, kind: str
) -> None:
    mark = tmp_path / "executed"
    pickle = b"cos\nsystem\n(S'touch %s'\ntR." % str(mark).encode()
    with door.link() as link:
        link.send(request(body=pickle, headers=AUTHORIZATION | {"Content-Type": kind}))
        assert refused(link.read()) in {400, 415}

    assert not mark.exists()


def test_who_asks_and_never_reads_takes_no_memory(door: Door) -> None:
    before = door.memory_bytes()
    links = []
    for _ in range(4):
        link = socket.create_connection((door.host, door.port))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        link.settimeout(0.3)
        try:
            for _ in range(200):
                link.sendall(request("GET", "/v1/model", headers=AUTHORIZATION) * 200)
        except (TimeoutError, OSError):
            pass
        links.append(link)

    grown = door.memory_bytes() - before

    for link in links:
        link.close()
    assert grown < 32_000_000


def test_many_idle_connections_do_not_keep_others_out(door: Door) -> None:
    links = [door.link() for _ in range(400)]
    try:
        for link in links[::2]:
            link.send(b"POST /v1/pre")
        with door.link() as other:
            other.send(GOOD)
            answer = other.read()
        assert answer is not None
        assert 200 == answer.status
    finally:
        for link in links:
            link.abort()


@pytest.mark.parametrize(
    "value",
    [
        "1\r\nSet-Cookie: a=b",
        "\x7f",
        "a" * 4_000,
        "00-" + "f" * 32 + "-" + "0" * 16 + "-01",
        "00-zz-zz-zz",
        "é" * 50,
    ],
)
@pytest.mark.parametrize("name", ["X-Request-Id", "traceparent", "tracestate", "Idempotency-Key"])
def test_no_header_of_the_caller_writes_headers_of_the_answer(
    door: Door, name: str, value: str
) -> None:
    with door.link() as link:
        link.send(request(body=BODY, headers=AUTHORIZATION | JSON | {name: value}))
        answer = link.read()

    assert answer is None or "set-cookie" not in answer.headers
    assert answer is None or answer.status in {200, 400, 431}
