"""Who is let in, who is told what they lack, and which pages a browser may ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from everloop.core.clock import Instant
from everloop.core.errors import NotAuthenticated
from everloop.kernel.authz import hash_secret
from everloop.serve.exchange import Request
from everloop.serve.pages import Pages
from everloop.serve.tokens import TokensFile
from tests.unit.serve.protocols.desk import Desk, make_desk
from tests.unit.serve.served import LATER, ROW, wait_until

BODY = json.dumps({"inputs": [ROW]}).encode()
LABEL = json.dumps({"prediction": "01930000-0000-7000-8000-000000000001", "value": 1.0}).encode()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = make_desk(tmp_path / "log")
    yield made
    made.log.close()


def ask(desk: Desk, headers: dict[bytes, bytes], path: str = "predict", body: bytes = BODY) -> Any:
    reply = desk.ask("POST", f"/models/bikes/{path}", body, headers)
    return reply.status, json.loads(reply.body).get("error", {})


def bearer(token: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {token}".encode()}


def guard(desk: Desk) -> None:
    desk.service.is_open = False
    board: Any = desk.service.endpoints["bikes"].switchboard
    board.lineup = replace(
        board.lineup,
        tokens={hash_secret("asks"): LATER, hash_secret("does both"): LATER},
        feedback_tokens={hash_secret("tells"): LATER, hash_secret("does both"): LATER},
        others={hash_secret("reads"): LATER},
    )


@pytest.mark.parametrize(
    ("path", "token", "status", "scope"),
    [
        ("predict", "asks", 200, None),
        ("predict", "tells", 403, "prediction:predict"),
        ("predict", "reads", 403, "prediction:predict"),
        ("predict", "nobody", 401, None),
        ("feedback", "reads", 403, "feedback:write"),
        ("feedback", "nobody", 401, None),
    ],
)
def test_a_good_token_is_told_the_scope_that_it_lacks(
    desk: Desk, path: str, token: str, status: int, scope: str | None
) -> None:
    guard(desk)

    found, told = ask(desk, bearer(token), path, BODY if path == "predict" else LABEL)

    assert (status, scope) == (found, (told.get("context") or {}).get("scope"))
    assert scope is None or scope in told["message"]


class Read:
    """The time of day, and how often somebody looked: once for each look at a token's hash."""

    def __init__(self) -> None:
        self.looks = 0
        self.at = datetime.now(UTC)

    def now(self) -> Instant:
        self.looks += 1
        return self.at


@pytest.mark.parametrize("token", ["asks", "tells", "does both"])
def test_a_token_that_told_the_truth_once_is_not_hashed_again(desk: Desk, token: str) -> None:
    guard(desk)
    service, clock = desk.service, Read()
    service.clock = clock
    endpoint = service.endpoints["bikes"]
    tell = Request(method="POST", path="", query="", headers=bearer(token), body=b"")
    marks = {service.authorise_feedback(tell, endpoint)}
    looks = clock.looks

    marks |= {service.authorise_feedback(tell, endpoint) for _ in range(3)}

    assert (looks, {hash_secret(token)}) == (clock.looks, marks)


def test_what_was_remembered_of_a_token_goes_with_its_line_up_and_its_time(desk: Desk) -> None:
    guard(desk)
    service = desk.service
    endpoint = service.endpoints["bikes"]
    board: Any = endpoint.switchboard
    soon = service.clock.now() + timedelta(milliseconds=50)
    board.lineup = replace(board.lineup, tokens={hash_secret("asks"): soon})
    tell = Request(method="POST", path="", query="", headers=bearer("asks"), body=b"")
    service.authorise_feedback(tell, endpoint)

    wait_until(lambda: service.clock.now() > soon)

    with pytest.raises(NotAuthenticated):
        service.authorise_feedback(tell, endpoint)
    board.lineup = replace(board.lineup, tokens={hash_secret("asks"): LATER})
    service.authorise_feedback(tell, endpoint)
    board.lineup = replace(board.lineup, tokens={})
    with pytest.raises(NotAuthenticated):
        service.authorise_feedback(tell, endpoint)


@pytest.mark.parametrize(
    ("is_on_loopback", "origin", "status"),
    [
        (True, b"http://evil.example", 403),
        (True, b"http://127.0.0.1:9999", 403),
        (True, b"null", 403),
        (True, b"http://127.0.0.1:8080", 200),
        (True, None, 200),
        (False, b"http://evil.example", 200),
    ],
)
def test_a_page_of_another_site_asks_no_open_server_of_this_machine(
    desk: Desk, is_on_loopback: bool, origin: bytes | None, status: int
) -> None:
    desk.service.pages = Pages() if is_on_loopback else None
    headers = {b"host": b"127.0.0.1:8080"} | ({} if origin is None else {b"origin": origin})

    found, _ = ask(desk, headers)

    assert status == found


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        (b"localhost:8080", True),
        (b"LocalHost.:8080", True),
        (b"models.localhost", True),
        (b"127.8.0.1:8080", True),
        (b"[::1]:8080", True),
        (b"evil.example:8080", False),
        (b"localhost.evil.example:8080", False),
        (b"127.0.0.1.evil.example:8080", False),
        (b"evillocalhost:8080", False),
        (b"", False),
    ],
)
def test_a_site_whose_name_was_made_to_lead_here_asks_nothing(
    desk: Desk, host: bytes, is_own: bool
) -> None:
    desk.service.pages = Pages()

    status, told = ask(desk, {b"host": host, b"origin": b"http://" + host})

    assert (200, None) if is_own else (403, "request.foreign_host") == (status, told.get("code"))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/openapi.json",
        "/healthz",
        "/v1/models",
        "/models/bikes",
        "/models/bikes/healthz",
        "/models/bikes/openapi.json",
        "/v2/models/bikes",
        "/v2/models/bikes/ready",
    ],
)
def test_what_such_a_site_reads_without_saying_so_is_refused_too(desk: Desk, path: str) -> None:
    desk.service.pages = Pages()

    statuses = [
        desk.ask("GET", path, headers=headers).status
        for headers in ({b"host": b"evil.example:8080"}, {b"host": b"localhost:8080"}, {})
    ]

    assert [403, 200, 200] == statuses


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (b"127.0.0.1:8080", b"https://models.example.com", 200),  # a proxy that rewrites Host
        (b"models.example.com", b"https://models.example.com", 200),  # one that does not
        (b"Models.Example.com:443", b"https://models.example.com:8443", 200),
        (b"shop.example.com:8443", b"https://shop.example.com:8443", 200),
        (b"shop.example.com", b"https://shop.example.com", 403),
        (b"127.0.0.1:8080", b"https://shop.example.com", 403),
        (b"models.example.com", b"https://evil.example", 403),
        (b"models.example.com.evil.example", b"https://models.example.com.evil.example", 403),
    ],
)
def test_pages_of_allowed_hosts_may_ask(
    desk: Desk, host: bytes, origin: bytes, status: int
) -> None:
    desk.service.pages = Pages(["models.example.com", "shop.example.com:8443"])

    found, told = ask(desk, {b"host": host, b"origin": origin}, "whatif")

    assert status == found
    assert status == 200 or "EVERLOOP_ALLOWED_HOSTS" in told["hint"]


def test_a_server_whose_tokens_are_gone_says_so_and_is_not_ready(
    desk: Desk, tmp_path: Path
) -> None:
    file = tmp_path / "tokens"
    file.write_text(hash_secret("asks"))
    desk.service.is_open, desk.service.tokens = False, TokensFile(file)
    before = desk.get("/readyz")[0]

    file.write_text(f"{hash_secret('asks')}\nbroken\n")
    desk.service.tokens.refresh()
    damaged = desk.get("/readyz")
    file.unlink()
    desk.service.tokens.refresh()
    gone = desk.get("/readyz")

    assert (200, 200, 503) == (before, damaged[0], gone[0])
    assert [["serving.tokens_unreadable"]] * 2 == [damaged[1]["refused"], gone[1]["refused"]]
    assert 401 == ask(desk, bearer("asks"))[0]
