from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from everloop.core.clock import SystemClock
from everloop.core.ids import IdSource
from everloop.serve.answer import Answerer
from everloop.serve.app import MAX_IN_FLIGHT, Message, ServeApp
from everloop.serve.lines import LogWriter, read_rows
from everloop.serve.protocol import ModelCard
from everloop.serve.switchboard import Switchboard
from tests.unit.serve.served import INPUTS, ROW, TOKEN, Served, make_folder, version_id

BODY = msgspec.json.encode({"inputs": [ROW]})


class Desk:
    """The application without a network."""

    def __init__(self, served: Served) -> None:
        self.folder = served.folder / "log"
        self.log = LogWriter(self.folder)
        clock = SystemClock()
        board = Switchboard(served.folder, clock)
        board.reload()
        answerer = Answerer(self.log, IdSource(lambda: 1, os.urandom), clock)
        self.app = ServeApp(board, answerer, self.log, clock)

    async def ask(
        self,
        receive: Callable[[], Awaitable[Message]],
        path: str = "/v1/predict",
        method: str = "POST",
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "path": path,
            "method": method,
            "headers": [(b"authorization", b"Bearer " + TOKEN.encode())],
        }
        await self.app(scope, receive, send)
        start, body = sent
        return start["status"], dict(start["headers"]), body["body"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    served = make_folder(tmp_path)
    served.route(served.seal(1), shadow=served.seal(2))
    made = Desk(served)
    yield made
    made.log.close()


def whole(body: bytes) -> Callable[[], Awaitable[Message]]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def test_a_body_may_come_in_pieces(desk: Desk) -> None:
    pieces = iter([BODY[:10], BODY[10:20], BODY[20:]])
    left = 3

    async def receive() -> Message:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": next(pieces), "more_body": left > 0}

    status, _, _ = asyncio.run(desk.ask(receive))

    assert 200 == status


def test_too_many_requests_at_once_are_told_to_come_again(desk: Desk) -> None:
    async def crowd() -> tuple[list[int], tuple[int, dict[bytes, bytes], bytes]]:
        gate = asyncio.Event()

        async def slow() -> Message:
            await gate.wait()
            return {"type": "http.request", "body": BODY, "more_body": False}

        waiting = [asyncio.create_task(desk.ask(slow)) for _ in range(MAX_IN_FLIGHT)]
        await asyncio.sleep(0)
        refused = await desk.ask(whole(BODY))
        gate.set()
        return [(await one)[0] for one in waiting], refused

    statuses, (status, headers, _) = asyncio.run(crowd())

    assert {200} == set(statuses)
    assert (429, b"1") == (status, headers[b"retry-after"])


def test_the_model_card_tells_what_to_send(desk: Desk) -> None:
    status, _, body = asyncio.run(desk.ask(whole(b""), "/v1/model", "GET"))

    card = msgspec.json.decode(body, type=ModelCard)
    assert (200, version_id(1), INPUTS) == (status, card.version, card.inputs)


def test_draining_finishes_what_the_shadow_owes(desk: Desk) -> None:
    async def answer_and_end() -> None:
        for _ in range(5):
            await desk.ask(whole(BODY))
        await desk.app.drain()

    asyncio.run(answer_and_end())

    rows = read_rows(desk.folder, "w0-00000001.jsonl").rows
    assert 5 == len(rows)
    assert None not in {row.shadow_output for row in rows}


def test_an_unexpected_failure_shows_no_trace(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    async def receive() -> Message:
        raise RuntimeError("secret detail")

    status, _, body = asyncio.run(desk.ask(receive))

    assert 500 == status
    assert b"secret detail" not in body
    assert "secret detail" in capfd.readouterr().err
