"""Foreign hosts and origins, and what a browser could be made to do, at the door of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from everloop.app.verbs import load_verbs
from everloop.core.digest import content_digest
from everloop.http.application import create_app
from everloop.http.blobs import MAX_BATCH_ITEMS
from everloop.http.guard import Guard, Message, Receive, Scope, Send
from everloop.kernel.tokens import CreateToken, NewToken
from tests.kit import PROJECT, world
from tests.unit.http.calling import HOST, LoopbackClient

HOSTS = frozenset({"localhost", HOST, "::1", "models.example"})
LIST = f"/api/v1/projects/{PROJECT}/model.list"


@pytest.fixture(scope="module")
def client() -> Iterator[LoopbackClient]:
    load_verbs()
    made = world()
    token = made.instance(CreateToken(name="t", days=30), "token.create")
    assert isinstance(token, NewToken)
    with LoopbackClient(create_app(made.kernel, version="0", hosts=HOSTS)) as opened:
        opened.token = token.secret
        yield opened


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:7300", "127.0.0.1:1", "[::1]", "[::1]:7300", "MODELS.example:80"],
)
def test_a_host_of_ours_is_answered(client: LoopbackClient, host: str) -> None:
    assert 200 == client.get("/healthz", headers={"host": host}).status_code


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "evil.example:7300",
     "localhost@evil.example", "0.0.0.0", "localhost:x", "[::1].evil.example", "[::", "::"],
)  # fmt: skip
def test_a_foreign_host_is_refused_on_every_path(client: LoopbackClient, host: str) -> None:
    for path in ("/healthz", LIST, "/api/v1/openapi.json", "/nowhere"):
        answer = client.get(path, headers={"host": host})
        assert (403, "host.refused") == (answer.status_code, answer.json()["error"]["code"])


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://127.0.0.1:1", "http://[::", "file://",
     "http://127.0.0.1@evil.example", "http://evil.example#127.0.0.1"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_from_another_site_is_refused(
    client: LoopbackClient, origin: str, method: str
) -> None:
    headers = {"origin": origin, "authorization": f"Bearer {client.token}"}

    answer = client.request(method, LIST, headers=headers)

    assert (403, "origin.refused") == (answer.status_code, answer.json()["error"]["code"])


def test_a_request_from_our_own_pages_passes(client: LoopbackClient) -> None:
    headers = {"origin": f"http://{HOST}", "authorization": f"Bearer {client.token}"}

    assert 200 == client.get(LIST, headers=headers).status_code


def test_every_answer_forbids_framing_sniffing_and_foreign_scripts(client: LoopbackClient) -> None:
    for path in ("/healthz", LIST, "/nowhere", "/api/v1/openapi.json"):
        headers = client.get(path).headers
        assert "nosniff" == headers["x-content-type-options"]
        assert "DENY" == headers["x-frame-options"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


def test_bytes_are_never_shown_by_a_browser(client: LoopbackClient) -> None:
    data = b"<script>alert(1)</script>"
    path = f"/api/v1/projects/{PROJECT}/blobs/{content_digest(data)}"
    headers = {"authorization": f"Bearer {client.token}"}

    assert 201 == client.request("PUT", path, headers=headers, content=data).status_code
    answer = client.get(path, headers=headers)

    assert data == answer.content
    assert "attachment" == answer.headers["content-disposition"]
    assert "application/octet-stream" == answer.headers["content-type"]
    assert answer.headers["content-security-policy"].startswith("sandbox")


def test_bytes_under_another_digest_are_refused_and_not_kept(client: LoopbackClient) -> None:
    digest = content_digest(b"promised")
    path = f"/api/v1/projects/{PROJECT}/blobs/{digest}"
    headers = {"authorization": f"Bearer {client.token}"}

    answer = client.request("PUT", path, headers=headers, content=b"other bytes")

    assert (400, "blob.wrong_digest") == (answer.status_code, answer.json()["error"]["code"])
    assert 404 == client.get(path, headers=headers).status_code


def test_two_host_headers_are_refused() -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("must not be reached")

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http", "method": "GET", "path": "/healthz", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"host", b"evil.example")],
    }  # fmt: skip

    asyncio.run(Guard(app, hosts=HOSTS)(scope, receive, send))

    assert 403 == sent[0]["status"]


def test_the_session_cookie_alone_does_not_open_the_api_to_a_form(client: LoopbackClient) -> None:
    headers = {"cookie": "everloop_session=evl_" + "0" * 64, "origin": "http://evil.example"}

    assert 403 == client.request("POST", LIST, headers=headers).status_code


def test_a_batch_of_more_blobs_than_anybody_sends_is_refused(client: LoopbackClient) -> None:
    body = b"\xdd" + (MAX_BATCH_ITEMS + 1).to_bytes(4, "big") + b"\xc4\x00" * (MAX_BATCH_ITEMS + 1)
    headers = {"authorization": f"Bearer {client.token}"}

    path = f"/api/v1/projects/{PROJECT}/blobs:batch"
    answer = client.request("POST", path, content=body, headers=headers)

    assert (400, "blob.batch_invalid") == (answer.status_code, answer.json()["error"]["code"])


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("run.start", '"started_at": "2025-01-01T02:00:00"'),
        ("run.finish", '"ended_at": "2025-01-01T02:00:00"'),
        ("run.log", '"ending": {"ended_at": "2025-01-01T02:00:00"}'),
    ],
)
def test_a_time_without_a_zone_is_refused_with_the_name_of_its_field(
    client: LoopbackClient, verb: str, more: str
) -> None:
    headers = {"authorization": f"Bearer {client.token}"}
    body = '{"run": "01900000-0000-7000-8000-000000000000", ' + more + "}"

    path = f"/api/v1/projects/{PROJECT}/{verb}"
    answer = client.request("POST", path, headers=headers, content=body.encode())

    assert (400, "input.invalid") == (answer.status_code, answer.json()["error"]["code"])
    assert "ed_at" in answer.json()["error"]["message"]
