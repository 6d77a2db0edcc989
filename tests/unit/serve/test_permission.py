"""Who is let in, who is told what they lack, and which pages a browser may ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from everloop.kernel.authz import hash_secret
from everloop.serve.tokens import TokensFile
from tests.unit.serve.protocols.desk import Desk, make_desk
from tests.unit.serve.served import LATER, ROW

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
        tokens={hash_secret("asks"): LATER},
        feedback_tokens={hash_secret("tells"): LATER},
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
    desk.service.is_on_loopback = is_on_loopback
    headers = {b"host": b"127.0.0.1:8080"} | ({} if origin is None else {b"origin": origin})

    found, _ = ask(desk, headers)

    assert status == found


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
