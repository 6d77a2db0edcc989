"""The download link gives a project's records to who may read them, and to nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everloop.app.server import build_app
from everloop.kernel.authz import Role
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.track.verbs import RunStarted, StartRun
from tests.kit import World, world
from tests.unit.http.calling import HOST, LoopbackClient

PLACE = "/api/v1/projects/demo/export/"


@pytest.fixture
def place() -> World:
    return world()


@pytest.fixture
def client(place: World) -> Iterator[LoopbackClient]:
    with LoopbackClient(build_app(place.kernel, hosts=frozenset({HOST}))) as opened:
        yield opened


def token(place: World, name: str, *, project: str = "demo") -> dict[str, str]:
    place.person(name, Role.VIEWER, project=project)
    made = place.instance(CreateToken(name=name, actor=name), "token.create")
    assert isinstance(made, NewToken)
    return {"Authorization": f"Bearer {made.secret}"}


def test_a_reader_gets_the_runs_that_a_filter_finds(place: World, client: LoopbackClient) -> None:
    for name in ("a", "b"):
        run = place.kernel.services.ids.new()
        place.owner.perform("run.start", StartRun(run=run, name=name), RunStarted)

    answer = client.get(
        PLACE + "runs.csv", headers=token(place, "ann"), params={"filter": "name = 'b'"}
    )

    assert 200 == answer.status_code
    assert 'attachment; filename="runs.csv"' == answer.headers["content-disposition"]
    assert "sandbox" in answer.headers["content-security-policy"]
    lines = answer.text.splitlines()
    assert 2 == len(lines)
    assert ",b," in lines[1]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("runs.csv?filter=metrics.", 400),
        ("runs.csv?limit=x", 400),
        ("runs.csv?nonsense=1", 400),
        ("runs.xlsx", 400),
        ("secrets.csv", 400),
        ("../../demo/runs.csv", 404),
    ],
)
def test_bad_input_is_refused_in_words(
    place: World, client: LoopbackClient, path: str, status: int
) -> None:
    answer = client.get(PLACE + path, headers=token(place, "ann"))

    assert status == answer.status_code
    assert answer.headers["content-type"].startswith("application/json")


def test_nobody_and_strangers_get_nothing(place: World, client: LoopbackClient) -> None:
    place.project("other")
    stranger = token(place, "bob", project="other")

    assert 401 == client.get(PLACE + "runs.csv").status_code
    assert 403 == client.get(PLACE + "runs.csv", headers=stranger).status_code
