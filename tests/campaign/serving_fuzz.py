"""Thousands of damaged requests to every address of the serving process.

Valid requests are damaged in their bytes, their head or their JSON, alone or several behind each
other on one connection. Whatever comes back must be sound HTTP and no error of the server; now and
then a sound request must be answered, and the memory must stay what it was.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from everloop.core.clock import SystemClock
from everloop.serve.addresses import all_routes
from everloop.serve.environment import Found
from everloop.serve.service import Service
from tests.parts.memory import resident_bytes
from tests.parts.raw_http import Answer, RawLink, chunked, request
from tests.unit.serve.served import ROW, TOKEN, Served, make_folder, version_id

HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
LEAST, MOST = 400, 500
CHECK_EVERY = 250
GROWTH_BYTES = 64_000_000
NASTY: tuple[Any, ...] = (
    *(None, True, "", "x" * 10_000, -1, 0, 2**31, 2**53 + 1, 2**63, -(2**64), 10**400, 1e308),
    *(-0.0, [], {}, [[]], [None], {"": ""}, {"__proto__": 1}, "\x00", "\ud800", "\u202e", "NaN"),
    *("../../etc/passwd", "2026-13-45T99:99:99Z", "0001-01-01T00:00:00Z", [[[[[[1]]]]]], [1e999]),
)
TOKENS: tuple[bytes, ...] = (
    *(b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b":", b" ", b"\t", b"0", b"-1", b"99999999999999"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Encoding: gzip\r\n"),
    *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n"),
    *(b"Upgrade: h2c\r\n", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"0\r\n\r\n", b"5\r\n", b"%00"),
    *(b'"', b"{", b"}", b"[" * 2_000, b"]", b"\\u", b"\\", b"NaN", b"1e999", b"null", b","),
)
NAMES = (
    *("Content-Type", "Content-Encoding", "Content-Length", "Authorization", "Host", "Accept"),
    *("Transfer-Encoding", "Inference-Header-Content-Length", "traceparent", "X-Request-Id"),
)
VALUES = (
    *("", "x", "gzip", "application/x-pickle", "application/octet-stream", "-1", "999999999999"),
    *("text/csv", "application/json; charset=utf-16", "a" * 20_000, "chunked", "\xff\xfe", "*/*"),
    *("00-" + "f" * 32 + "-" + "f" * 16 + "-ff", "Bearer", "multipart/form-data"),
)


def fuzz(folder: Path, *, rounds: int, seed: int) -> dict[str, object]:
    """Send so many damaged requests; return the statuses, and what should not have been."""
    served = make_folder(folder)
    served.route(served.seal(1))
    try:
        served.start()
        return _Fuzz(served, random.Random(seed)).run(rounds)
    finally:
        served.close()


class _Fuzz:
    def __init__(self, served: Served, chance: random.Random) -> None:
        url = urlsplit(json.loads((served.folder / "server.json").read_bytes())["url"])
        self._at = str(url.hostname), int(url.port or 0)
        self._served = served
        self._chance = chance
        self._asks = _valid_asks()
        self._statuses: Counter[int] = Counter()
        self._found: list[str] = []

    def run(self, rounds: int) -> dict[str, object]:
        self._require_alive()
        for number in range(min(CHECK_EVERY, rounds)):
            self._once(number)
        before = self._resident_bytes()
        for number in range(CHECK_EVERY, rounds):
            self._once(number)
            if number % CHECK_EVERY == 0:
                self._require_alive()
        self._require_alive()
        grown = self._resident_bytes() - before
        if grown > GROWTH_BYTES:
            self._found.append(f"the memory grew by {grown / 1e6:.0f} MB")
        return {
            "statuses": dict(sorted(self._statuses.items())),
            "found": self._found[:20],
            "grown_mb": round(grown / 1e6, 1),
        }

    def _once(self, number: int) -> None:
        chance = self._chance
        sent = b"".join(self._damaged() for _ in range(chance.choice((1, 1, 1, 2, 5))))
        try:
            with RawLink(*self._at) as link:
                if chance.random() < 0.2:
                    cut = chance.randrange(len(sent))
                    link.send(sent[:cut])
                    sent = sent[cut:]
                if link.send(sent):
                    link.end()
                answers = link.read_all()
        except (AssertionError, OSError, ValueError) as error:
            self._found.append(f"{number}: {type(error).__name__}: {error} after {sent[:300]!r}")
            return
        for answer in answers:
            self._statuses[answer.status] += 1
            problem = _problem(answer)
            if problem:
                self._found.append(f"{number}: {problem} to {sent[:500]!r}")

    def _damaged(self) -> bytes:
        method, path, value, headers = self._chance.choice(self._asks)
        damage: Callable[[str, str, Any, dict[str, str]], bytes] = self._chance.choice(
            (self._in_bytes, self._in_head, self._in_json, self._in_path, self._in_framing)
        )
        return damage(method, path, copy.deepcopy(value), dict(headers))

    def _in_bytes(self, method: str, path: str, value: Any, headers: dict[str, str]) -> bytes:
        chance = self._chance
        data = bytearray(request(method, path, _dump(value), headers))
        for _ in range(chance.choice((1, 1, 2, 8))):
            place = chance.randrange(len(data))
            kind = chance.randrange(5)
            if kind == 0:
                data[place] = chance.randrange(256)
            elif kind == 1:
                del data[place : place + chance.choice((1, 2, 20, 200))]
            elif kind == 2:
                data[place:place] = chance.choice(TOKENS)
            elif kind == 3:
                part = data[place : place + chance.randrange(1, 100)]
                data[place:place] = part * chance.choice((1, 2, 50))
            else:
                del data[place:]
            data = data or bytearray(b"G")
        return bytes(data)

    def _in_head(self, method: str, path: str, value: Any, headers: dict[str, str]) -> bytes:
        chance = self._chance
        for _ in range(chance.choice((1, 2, 4))):
            headers[chance.choice(NAMES)] = chance.choice(VALUES)
        if chance.random() < 0.3:
            headers.pop(chance.choice(list(headers)))
        host = chance.choice(("x", None, "", "a b", "x" * 5_000))
        other = chance.choice((method, method, "DELETE", "PUT", "OPTIONS", "TRACE", "BREW", "get"))
        version = chance.choice(("1.1", "1.1", "1.0", "2.0", "0.9", "11"))
        return request(other, path, _dump(value), headers, host=host, version=version)

    def _in_json(self, method: str, path: str, value: Any, headers: dict[str, str]) -> bytes:
        chance = self._chance
        for _ in range(chance.choice((1, 1, 2, 5))):
            value = self._bent(value)
        body = _dump(value)
        if body and chance.random() < 0.05:
            body = body.decode().encode(chance.choice(("utf-16", "utf-32", "utf-8-sig")))
        return request(method, path, body, headers)

    def _in_path(self, method: str, path: str, value: Any, headers: dict[str, str]) -> bytes:
        chance = self._chance
        parts = path.split("/")
        place = chance.randrange(1, len(parts))
        parts[place] = chance.choice(
            ("", "..", "%2e%2e", "%00", "%ff", "x" * 9_000, "a%2fb", "é", "{model}", "bikes", "*")
        )
        query = chance.choice(("", "?", "?x", "?explain=true", "?a=" + "b" * 9_000, "?%00=%ff&&="))
        target = "/".join(parts) + query
        return request(method, target.encode().decode("latin-1"), _dump(value), headers)

    def _in_framing(self, method: str, path: str, value: Any, headers: dict[str, str]) -> bytes:
        chance = self._chance
        body = _dump(value) or b"{}"
        kind = chance.randrange(4)
        if kind == 0:
            size = chance.choice((1, 3, 1_000))
            parts = [body[place : place + size] for place in range(0, len(body), size)]
            head = request(method, path, None, headers | {"Transfer-Encoding": "chunked"})
            data = bytearray(head + chunked(*parts))
            if chance.random() < 0.5:
                data[chance.randrange(len(head), len(data))] = chance.randrange(256)
            return bytes(data)
        length = chance.choice((0, 1, len(body) - 1, len(body) + 1, 10**9, 10**20))
        wrong = {**headers, "Content-Length": str(length)}
        if kind == 1:
            return request(method, path, None, wrong) + body
        if kind == 2:
            return request(method, path, body, wrong)
        return request(method, path, body, headers | {"Transfer-Encoding": "chunked"})

    def _bent(self, value: Any) -> Any:
        """Return a JSON value with one place of it replaced, dropped, doubled or renamed."""
        chance = self._chance
        if isinstance(value, dict) and value and chance.random() < 0.8:
            key = chance.choice(list(value))
            kind = chance.randrange(6)
            if kind == 0:
                del value[key]
            elif kind == 1:
                value[chance.choice(("x", "", "f0", "inputs", key + " "))] = value[key]
            else:
                value[key] = self._bent(value[key])
            return value
        if isinstance(value, list) and value and chance.random() < 0.8:
            place = chance.randrange(len(value))
            kind = chance.randrange(6)
            if kind == 0:
                del value[place]
            elif kind == 1:
                value += copy.deepcopy(value[:2]) * chance.choice((1, 20))
            else:
                value[place] = self._bent(value[place])
            return value
        return copy.deepcopy(chance.choice(NASTY))

    def _require_alive(self) -> None:
        with RawLink(*self._at) as link:
            body = json.dumps({"inputs": [ROW]}).encode()
            link.send(request(path="/v1/predict", body=body, headers=HEADERS))
            answer = link.read()
        assert answer is not None, "the server answers no more"
        assert 200 == answer.status, answer

    def _resident_bytes(self) -> int:
        assert self._served.process is not None
        return resident_bytes(self._served.process.pid)


def _problem(answer: Answer) -> str:
    if b"Traceback" in answer.body:
        return f"a trace: {answer.body[:300]!r}"
    if answer.status >= MOST and answer.status not in {501, 505}:
        return f"{answer.status} {answer.body[:300]!r}"
    if answer.status >= LEAST and answer.body:
        kind = answer.headers.get("content-type", "")
        if kind.startswith("application/json"):
            told = json.loads(answer.body)
            if not isinstance(told, dict) or not ({"error", "error_code"} & set(told)):
                return f"{answer.status} without words: {answer.body[:200]!r}"
    return ""


def _valid_asks() -> list[tuple[str, str, Any, dict[str, str]]]:
    """Return a sound request of each kind to each address that the server has."""
    tensor = {"name": "hour", "shape": [1, 1], "datatype": "INT64", "data": [8]}
    split = {"columns": list(ROW), "data": [list(ROW.values())]}
    bodies: tuple[Any, ...] = (
        {"inputs": [ROW], "unit": "u", "keys": ["k"], "at": "2026-11-21T09:30:00Z"},
        {"inputs": [ROW] * 3},
        {"prediction": "01930000-0000-7000-8000-000000000001", "value": 1.5},
        [{"key": "k", "value": True}, {"key": "l", "value": "x", "overridden": True}],
        {"id": "1", "inputs": [tensor], "outputs": [{"name": "rentals"}]},
        {"dataframe_split": split},
        {"dataframe_records": [ROW]},
        {"instances": [ROW], "parameters": {"explain": True}},
    )
    names = {"model": "bikes", "version": version_id(1)}
    asks = []
    for route in all_routes(Service(SystemClock()), Found()):
        path = route.pattern
        for name, value in names.items():
            path = path.replace("{" + name + "}", value)
        if route.method == "GET":
            asks.append((route.method, path, None, HEADERS))
        else:
            asks += [(route.method, path, body, HEADERS) for body in bodies]
    return asks


def _dump(value: Any) -> bytes | None:
    if value is None:
        return None
    return json.dumps(value).encode("utf-8", "surrogatepass")
