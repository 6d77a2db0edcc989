"""Labels that a server takes: on the disk before they are acknowledged, and nothing but labels."""

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from everloop.core.clock import SystemClock
from everloop.core.errors import Denied, InvalidInput, LimitExceeded, NotAuthenticated, Unavailable
from everloop.core.ids import Id
from everloop.core.wire import Label
from everloop.serve.answer import Answerer
from everloop.serve.exchange import Reply, Request
from everloop.serve.feedback import (
    FOLDER,
    MAX_LABELS,
    FeedbackDesk,
    FeedbackLog,
    TokenBuckets,
    read_labels,
    require_fit,
)
from everloop.serve.hosting import NoLog
from everloop.serve.identity import IdBlocks
from everloop.serve.lineup import Lineup
from everloop.serve.log import list_files
from everloop.serve.log.reader import read_feedback
from everloop.serve.service import Endpoint, Service
from everloop.serve.switchboard import Switchboard
from tests.unit.serve.served import make_folder

ONE = Id("01a1fdf4-0000-7000-8000-000000000001")
SECRET = b"evl_secret"


def desk(folder: Path) -> FeedbackDesk:
    clock = SystemClock()
    board = Switchboard(folder, clock)
    expires = datetime(2100, 1, 1, tzinfo=UTC)
    board.lineup = Lineup(tokens={hashlib.sha256(SECRET).hexdigest(): expires})
    service = Service(clock)
    log = NoLog()
    service.endpoints["demand"] = Endpoint("demand", board, Answerer(log, IdBlocks()), log)
    return FeedbackDesk(service)


def post(body: bytes, secret: bytes = SECRET, kind: bytes = b"application/json") -> Request:
    headers = {b"authorization": b"Bearer " + secret, b"content-type": kind}
    return Request("POST", "/feedback", "", headers, body)


def take(at: FeedbackDesk, *requests: Request) -> list[Reply]:
    async def all_of() -> list[Reply]:
        return list(await asyncio.gather(*(at.take(request) for request in requests)))

    return asyncio.run(all_of())


def kept(folder: Path) -> list[Label]:
    home = folder / "log" / FOLDER
    return [
        label
        for file in list_files(home)
        for item in read_feedback(home / file.name).items
        for label in item.labels
    ]


def test_labels_are_in_the_file_when_they_are_acknowledged(tmp_path: Path) -> None:
    body = b'[{"prediction": "%s", "value": 1}, {"key": "order-7", "value": "yes"}]'

    (reply,) = take(desk(tmp_path), post(body % ONE.encode()))

    assert (202, b'{"accepted":2}') == (reply.status, reply.body)
    assert [Label(prediction=ONE, value=1.0), Label(key="order-7", value="yes")] == kept(tmp_path)


def test_requests_that_come_together_are_all_kept(tmp_path: Path) -> None:
    requests = [post(b'{"key": "k%d", "value": %d}' % (n, n)) for n in range(50)]

    replies = take(desk(tmp_path), *requests)

    assert {202} == {reply.status for reply in replies}
    assert {f"k{n}" for n in range(50)} == {label.key for label in kept(tmp_path)}


def test_nobody_without_a_token_leaves_a_label(tmp_path: Path) -> None:
    with pytest.raises(NotAuthenticated):
        take(desk(tmp_path), post(b'{"key": "a", "value": 1}', secret=b"other"))

    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"[[[[",
        b"[" * 100_000,
        b'{"key": "a"}',
        b'{"value": 1}',
        b'{"key": "", "value": 1}',
        b'{"key": "a", "value": NaN}',
        b'{"key": "a", "value": 1e999}',
        b'{"key": "a", "value": [1]}',
        b'{"key": "a", "value": 1, "admin": true}',
        b'{"key": "a", "value": 1, "at": "2026-01-01T00:00:00"}',
        b'{"key": "a", "value": 1, "at": "0001-01-01T00:00:00+14:00"}',
        b'{"key": "a", "value": 1, "at": "9999-12-31T23:59:59-14:00"}',
        b'{"prediction": "../../etc/passwd", "value": 1}',
        b'{"key": "\xff", "value": 1}',
        b'{"key": "' + b"k" * 201 + b'", "value": 1}',
        b'{"key": "\\ud800", "value": 1}',
    ],
)
def test_what_is_no_label_is_refused_with_a_hint(body: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_labels(b"application/json", body)

    assert "feedback.invalid" == refused.value.code
    assert "prediction" in refused.value.hint


def test_one_bad_line_refuses_all_and_is_named() -> None:
    with pytest.raises(InvalidInput, match="Line 2"):
        read_labels(b"application/x-ndjson", b'{"key": "a", "value": 1}\n{"key": 2}\n')


def test_a_pickle_is_not_looked_at() -> None:
    with pytest.raises(InvalidInput) as refused:
        read_labels(b"application/x-pickle", b"\x80\x04.")

    assert "request.unsupported_type" == refused.value.code


def test_more_labels_than_a_request_may_have_are_refused() -> None:
    line = b'{"key": "a", "value": 1}\n'

    with pytest.raises(LimitExceeded):
        read_labels(b"application/x-ndjson", line * (MAX_LABELS + 2))


def test_a_token_that_sends_too_fast_is_told_when_to_come_again() -> None:
    now = [100.0]
    buckets = TokenBuckets(rate=10.0, burst=20.0, clock=lambda: now[0])
    buckets.take("ann", 20)

    with pytest.raises(LimitExceeded) as refused:
        buckets.take("ann", 15)
    buckets.take("bob", 20)
    now[0] += 2
    buckets.take("ann", 15)

    assert 2 == refused.value.context["retry_after_s"]


def test_without_space_nothing_is_acknowledged(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path / "feedback", max_bytes=1_000)

    with pytest.raises(Unavailable):
        asyncio.run(log.keep([Label(key="a", value=1.0)]))


def test_a_full_file_is_completed_and_the_next_one_begun(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path)
    labels = [Label(key=f"k{number:0190}", value=1.0) for number in range(10_000)]

    async def three_times() -> None:
        for _ in range(3):
            await log.keep(labels)

    asyncio.run(three_times())

    found = [read_feedback(tmp_path / file.name) for file in list_files(tmp_path)]
    assert 3 == sum(len(chunk.items) for chunk in found)
    assert [True, True, False] == [chunk.is_finished for chunk in found]


def test_requests_that_fill_a_file_together_begin_one_next_file(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path)
    labels = [Label(key=f"k{number:0190}", value=1.0) for number in range(13_000)]

    async def together() -> None:
        await log.keep(labels)
        await asyncio.gather(*(log.keep(labels[:5_000]) for _ in range(3)))

    asyncio.run(together())

    found = [read_feedback(tmp_path / file.name) for file in list_files(tmp_path)]
    assert 4 == sum(len(chunk.items) for chunk in found)
    assert [True, False] == [chunk.is_finished for chunk in found]


def test_what_cannot_be_the_truth_is_refused_at_once(tmp_path: Path) -> None:
    served = make_folder(tmp_path / "bikes")
    served.route(served.seal(1))
    board = Switchboard(served.folder, SystemClock())
    board.reload()
    endpoint = Endpoint("bikes", board, Answerer(NoLog(), IdBlocks()), NoLog())
    latest = datetime(2026, 1, 2, tzinfo=UTC)

    for label in (
        Label(key="a", value="many"),
        Label(key="a", value=1.0, at=datetime(2026, 1, 3, tzinfo=UTC)),
    ):
        with pytest.raises(InvalidInput):
            require_fit(0, label, endpoint, latest)
    require_fit(0, Label(key="a", value=1.0, at=latest), endpoint, latest)


def test_a_token_that_may_tell_the_truth_need_not_be_one_that_may_ask(tmp_path: Path) -> None:
    made = desk(tmp_path)
    endpoint = made._service.endpoints["demand"]
    expires = datetime(2100, 1, 1, tzinfo=UTC)
    marks = {hashlib.sha256(b"evl_teller").hexdigest(): expires}
    endpoint.switchboard.lineup = Lineup(feedback_tokens=marks)
    headers = {b"authorization": b"Bearer evl_teller"}
    body = b'{"key": "order-7", "value": 42}'
    asked = Request("POST", "/feedback", "", headers, body)

    reply = asyncio.run(made.take(asked))

    assert 202 == reply.status
    with pytest.raises(Denied, match="prediction:predict"):
        made._service.authorise(asked, endpoint)
