"""Whatever is sent to a route by somebody who may use it: an answer, or a clean refusal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from everloop.app.verbs import load_verbs
from everloop.core.records import declared_kinds
from everloop.http.application import create_app
from everloop.http.routes import LOCAL_ONLY, verb_path
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.kernel.verbs import Verb, declared_verbs
from everloop.storage.sqlite import SqliteMetadataStore
from tests.kit import PROJECT, world
from tests.unit.http.asking import smallest
from tests.unit.http.calling import HOST, LoopbackClient

load_verbs()
# Those that would end the test's own access are left out; they are attacked elsewhere.
ROUTED = [
    verb
    for verb in declared_verbs().values()
    if verb.name not in LOCAL_ONLY | {"actor.disable", "role.revoke", "token.revoke"}
]
CLEAN = {200, 201, 400, 401, 403, 404, 405, 409, 413, 422, 501}
TRICKS = (
    "../../etc/passwd", "..%2f..%2fetc", "%00", "\x00", "a" * 1_000, "' OR 1=1 --", "\ud7ff",
    "{{7*7}}", "<script>", "C:\\con", "model:x@../../y", "01a1fdf4-37a0-7000-a8e3-a8e6a7449909",
    "\u202e", "-1", "NaN", "1e999", str(2**70), "true", "null", "[]", "é" * 100, " ", "",
)  # fmt: skip


class Server(NamedTuple):
    """A server over SQLite and an admin's token."""

    client: LoopbackClient
    headers: dict[str, str]

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, path, headers=self.headers, **options)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = SqliteMetadataStore(tmp_path_factory.mktemp("db") / "a.db", declared_kinds())
    made = world(store)
    token = made.instance(CreateToken(name="t", days=30), "token.create")
    assert isinstance(token, NewToken)
    app = create_app(made.kernel, version="0", hosts=frozenset({HOST}))
    with LoopbackClient(app) as client:
        yield Server(client, {"Authorization": f"Bearer {token.secret}"})
    store.close()


def require_clean(answer: httpx.Response) -> None:
    """Demand a status that is promised, and for refusals a code, a sentence and a hint."""
    assert answer.status_code in CLEAN, (answer.status_code, answer.text)
    assert "Traceback" not in answer.text
    if answer.is_error:
        error = answer.json()["error"]
        assert error["code"]
        assert error["message"]
        assert error["hint"]
        assert len(answer.content) < 20_000, "a refusal does not repeat what it was sent"


def path_of(verb: Verb, project: str = PROJECT) -> str:
    return verb_path(verb).replace("{project}", project)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=50)
    | st.sampled_from(TRICKS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("verb", ROUTED, ids=lambda verb: verb.name)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_wrong_values_in_any_field_give_a_clean_refusal(
    server: Server, verb: Verb, data: st.DataObject
) -> None:
    shape = inspect.type_info(verb.ask)
    assert isinstance(shape, inspect.StructType)
    ask = smallest(shape)
    names = [field.encode_name for field in shape.fields] or ["unknown"]
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)):
        ask[name] = data.draw(json_values)

    if verb.is_query:
        texts = {
            name: value if isinstance(value, str) else str(value) for name, value in ask.items()
        }
        require_clean(server.send("GET", path_of(verb), params=texts))
    else:
        require_clean(server.send("POST", path_of(verb), json=ask))


@pytest.mark.parametrize("verb", ROUTED, ids=lambda verb: verb.name)
def test_the_smallest_input_that_fits_gives_a_clean_answer(server: Server, verb: Verb) -> None:
    ask = smallest(inspect.type_info(verb.ask))

    if verb.is_query:
        answer = server.send("GET", path_of(verb), params={k: str(v) for k, v in ask.items()})
    else:
        answer = server.send("POST", path_of(verb), json=ask)

    require_clean(answer)


@pytest.mark.parametrize("verb", [v for v in ROUTED if not v.is_query], ids=lambda verb: verb.name)
@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b'{"a":', b"\xff\xfe", b"[" * 50_000, b'{"name": NaN}', b'"' + b"a" * 99,
     b'{"name": "\\ud800"}', b'{"name": 1e400}', b'{"n\\u0000": 1}'],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_a_body_that_is_not_the_json_asked_for_is_refused(
    server: Server, verb: Verb, body: bytes
) -> None:
    answer = server.send("POST", path_of(verb), content=body)

    require_clean(answer)
    assert 400 == answer.status_code


@pytest.mark.parametrize("name", ["project.create", "data.commit", "model.register", "run.start"])
def test_a_name_of_ten_megabytes_is_refused_by_its_size(server: Server, name: str) -> None:
    verb = declared_verbs()[name]
    body = b'{"name": "' + b"a" * 10_000_000 + b'"}'

    answer = server.send("POST", path_of(verb), content=body)

    require_clean(answer)
    assert 413 == answer.status_code


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: repr(trick[:12]))
def test_tricks_in_the_project_of_an_address_are_refused(server: Server, trick: str) -> None:
    for verb in ("model.list", "run.search"):
        answer = server.send("GET", f"/api/v1/projects/{quote(trick, safe='')}/{verb}")
        require_clean(answer)
        assert answer.is_error


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: repr(trick[:12]))
def test_tricks_in_the_digest_of_an_address_are_refused(server: Server, trick: str) -> None:
    quoted = quote(trick, safe="")
    for method in ("GET", "PUT"):
        answer = server.send(method, f"/api/v1/projects/{PROJECT}/blobs/{quoted}")
        require_clean(answer)
        assert answer.is_error


def test_an_unknown_field_is_refused_by_its_name(server: Server) -> None:
    answer = server.send("POST", "/api/v1/project.create", json={"name": "x", "nmae": "y"})

    assert 400 == answer.status_code
    assert "nmae" in answer.json()["error"]["message"]


def test_a_parameter_that_stands_twice_is_refused(server: Server) -> None:
    answer = server.send("GET", f"/api/v1/projects/{PROJECT}/model.list?limit=1&limit=2")

    assert 400 == answer.status_code


def test_nothing_of_all_this_was_unexpected(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="everloop.http"):
        server.send("GET", "/api/v1/nowhere")

    assert [] == caplog.records
