"""Every registered route refuses every caller who may not use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from msgspec import inspect

from everloop.app.verbs import load_verbs
from everloop.http.application import create_app
from everloop.http.parameters import to_parameters
from everloop.http.routes import LOCAL_ONLY, verb_path
from everloop.kernel.authz import ACTIONS, Role
from everloop.kernel.tokens import CreateToken, NewToken, RevokeToken
from everloop.kernel.verbs import Scope, Verb, declared_verbs
from tests.kit import PROJECT, World, world
from tests.unit.http.asking import smallest
from tests.unit.http.calling import HOST, LoopbackClient

load_verbs()
ROUTED = [verb for verb in declared_verbs().values() if verb.name not in LOCAL_ONLY]
GUARDED = [verb for verb in ROUTED if not verb.open_to_all]
OPEN = {"login.open", "login.show", "login.close"}  # each takes a secret of its own


class Doors(NamedTuple):
    """A server and tokens of callers, none of whom may use a route."""

    client: LoopbackClient
    secrets: dict[str, str]


def issue(made: World, **fields: object) -> NewToken:
    answer = made.instance(CreateToken(**fields), "token.create")  # type: ignore[arg-type]
    assert isinstance(answer, NewToken)
    return answer


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    made = world()
    made.project("other")
    for role in Role:
        made.person(f"a-{role.value}", role)
        made.person(f"far-{role.value}", role, project="other")
    secrets = {
        f"role {role.value}": issue(made, name="t", actor=f"a-{role.value}").secret for role in Role
    }
    secrets["expired"] = issue(made, name="old", days=1).secret
    made.clock.push(days=2)
    secrets["narrow"] = issue(made, name="narrow", scope=("prediction:predict",)).secret
    secrets["of another project"] = issue(made, name="far", project="other").secret
    secrets["member of another project"] = issue(made, name="far", actor="far-admin").secret
    revoked = issue(made, name="revoked")
    made.instance(RevokeToken(id=revoked.id), "token.revoke")
    secrets["revoked"] = revoked.secret
    secrets["invented"] = "evl_" + "0" * 64
    secrets["empty"] = ""
    app = create_app(made.kernel, version="0", hosts=frozenset({HOST}))
    with LoopbackClient(app) as client:
        yield Doors(client, secrets)


def call(doors: Doors, verb: Verb, secret: str | None, project: str = PROJECT) -> httpx.Response:
    path = verb_path(verb).replace("{project}", project)
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    ask = smallest(inspect.type_info(verb.ask))
    if verb.is_query:
        params = httpx.QueryParams(tuple(to_parameters(ask)))
        return doors.client.request("GET", path, headers=headers, params=params)
    return doors.client.request("POST", path, headers=headers, json=ask)


@pytest.mark.parametrize("verb", GUARDED, ids=lambda verb: verb.name)
def test_no_token_or_a_bad_one_is_not_authenticated(doors: Doors, verb: Verb) -> None:
    bad = [None, *(doors.secrets[name] for name in ("expired", "revoked", "invented", "empty"))]

    answers = [call(doors, verb, secret) for secret in bad]

    assert [401] * len(bad) == [answer.status_code for answer in answers]
    assert {"token.missing", "token.invalid"} == {a.json()["error"]["code"] for a in answers}


@pytest.mark.parametrize("verb", GUARDED, ids=lambda verb: verb.name)
def test_a_role_or_scope_without_the_permission_is_refused(doors: Doors, verb: Verb) -> None:
    action = verb.permission.partition(":")[2]
    lacking = [f"role {role.value}" for role in Role if action not in ACTIONS[role]]
    if verb.scope is Scope.INSTANCE:  # a role in one project is none on the instance
        lacking = [f"role {role.value}" for role in Role]

    answers = {
        name: refused(call(doors, verb, doors.secrets[name])) for name in [*lacking, "narrow"]
    }

    assert {"access.denied"} == set(answers.values()), answers


@pytest.mark.parametrize("verb", GUARDED, ids=lambda verb: verb.name)
def test_a_token_or_role_of_another_project_is_refused_here(doors: Doors, verb: Verb) -> None:
    names = ("of another project", "member of another project")

    answers = [refused(call(doors, verb, doors.secrets[name])) for name in names]

    assert ["access.denied"] * 2 == answers


@pytest.mark.parametrize(
    "verb", [v for v in GUARDED if v.scope is Scope.PROJECT], ids=lambda verb: verb.name
)
def test_a_project_that_does_not_exist_looks_like_one_that_is_not_ones_own(
    doors: Doors, verb: Verb
) -> None:
    secret = doors.secrets["role admin"]

    answers = [refused(call(doors, verb, secret, project)) for project in ("other", "nowhere")]

    assert ["access.denied"] * 2 == answers


def test_only_the_login_is_open_to_all() -> None:
    assert {verb.name for verb in ROUTED if verb.open_to_all} == OPEN


@pytest.mark.parametrize("name", sorted(OPEN))
def test_what_is_open_to_all_gives_nothing_for_an_invented_secret(doors: Doors, name: str) -> None:
    verb = declared_verbs()[name]
    headers = {"Authorization": f"Bearer {doors.secrets['invented']}"}
    ask = {"secret": doors.secrets["invented"]} if name == "login.open" else {}

    method = "GET" if verb.is_query else "POST"
    answer = doors.client.request(method, verb_path(verb), headers=headers, json=ask or None)

    assert 401 == answer.status_code, answer.text


def test_the_first_actors_cannot_be_made_over_the_network(doors: Doors) -> None:
    answer = doors.client.post("/api/v1/instance.initialise", json={})

    assert 404 == answer.status_code


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_bytes_are_guarded_like_verbs(doors: Doors, method: str) -> None:
    path = f"/api/v1/projects/{PROJECT}/blobs/blake3:{'0' * 64}"
    names = ("expired", "revoked", "narrow", "of another project", "member of another project")

    answers = {
        name: doors.client.request(
            method, path, headers={"Authorization": f"Bearer {doors.secrets[name]}"}
        ).status_code
        for name in names
    }

    assert dict(zip(names, (401, 401, 403, 403, 403), strict=True)) == answers
    assert 401 == doors.client.request(method, path).status_code


def refused(answer: httpx.Response) -> str:
    """Return the code of a refusal."""
    assert 403 == answer.status_code, answer.text
    return str(answer.json()["error"]["code"])
