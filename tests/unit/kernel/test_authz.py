"""Who may do what: roles, scopes, projects, tokens and login links."""

from __future__ import annotations

import re
from datetime import timedelta

import msgspec
import pytest

from everloop.core.errors import Denied, InvalidInput, NotAuthenticated
from everloop.core.ids import ActorId, ProjectId
from everloop.kernel import admin, tokens
from everloop.kernel.authz import ACTIONS, Caller, Project, Role, Token, TokenKind, hash_secret
from everloop.kernel.bootstrap import OWNER, local_caller
from everloop.kernel.perform import Call
from everloop.kernel.performer import LocalPerformer
from tests.kit import PROJECT, World
from tests.unit.kernel.noted import ACTIONS as ALL_ACTIONS
from tests.unit.kernel.noted import Note, Noted

EXPECTED = {
    Role.VIEWER: {"read"},
    Role.CONTRIBUTOR: {"read", "write", "predict"},
    Role.RELEASER: {"read", "write", "predict", "release"},
    Role.APPROVER: {"read", "approve"},
    Role.ADMIN: {"read", "write", "predict", "release", "approve", "admin"},
}


def everywhere(place: World, role: Role, scope: tuple[str, ...] = ("*",)) -> LocalPerformer:
    """Somebody with a role on the instance, at work in the project."""
    place.person("pat", role, project="*", scope=scope)
    return LocalPerformer(place.kernel, place.people["pat"], PROJECT)


def may(who: LocalPerformer, verb: str) -> bool:
    try:
        who.perform(verb, Note(name="n"), Noted)
    except Denied:
        return False
    return True


@pytest.mark.parametrize("action", ALL_ACTIONS)
@pytest.mark.parametrize("role", Role)
def test_a_role_holds_its_actions_and_no_others(place: World, role: Role, action: str) -> None:
    person = place.person("pat", role)

    assert (action in EXPECTED[role]) == may(person, f"probe.{action}")
    assert EXPECTED[role] == ACTIONS[role]


@pytest.mark.parametrize("role", Role)
def test_a_role_in_a_project_holds_nothing_on_the_instance(place: World, role: Role) -> None:
    person = place.person("pat", role)

    assert not any(may(person, f"whole.{action}") for action in ALL_ACTIONS)


@pytest.mark.parametrize("role", Role)
def test_a_role_on_the_instance_holds_in_every_project(place: World, role: Role) -> None:
    person = everywhere(place, role)

    for action in ALL_ACTIONS:
        assert (action in EXPECTED[role]) == may(person, f"probe.{action}")
        assert (action in EXPECTED[role]) == may(person, f"whole.{action}")


def test_a_role_in_one_project_holds_nothing_in_another(place: World) -> None:
    place.project("other")
    place.person("pat", Role.ADMIN)
    caller = place.people["pat"]

    assert not may(LocalPerformer(place.kernel, caller, "other"), "probe.read")


def test_nobody_holds_anything(place: World) -> None:
    nobody = LocalPerformer(place.kernel, Caller(actor=ActorId("nobody")), PROJECT)

    assert not any(may(nobody, f"probe.{action}") for action in ALL_ACTIONS)


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (("*",), {"probe.read", "probe.write", "whole.read"}),
        (("*:read",), {"probe.read", "whole.read"}),
        (("probe:*",), {"probe.read", "probe.write"}),
        (("probe:read",), {"probe.read"}),
        (("probe:read", "probe:write"), {"probe.read", "probe.write"}),
        (("prob",), set()),
        ((), set()),
    ],
)
def test_a_scope_narrows_its_actor(place: World, scope: tuple[str, ...], allowed: set[str]) -> None:
    person = everywhere(place, Role.ADMIN, scope)

    verbs = ("probe.read", "probe.write", "whole.read")
    assert allowed == {verb for verb in verbs if may(person, verb)}


def test_a_wide_scope_widens_nothing(place: World) -> None:
    assert not may(place.person("pat", Role.VIEWER, scope=("*",)), "probe.write")


def test_a_credential_of_one_project_works_in_no_other_and_not_on_the_instance(
    place: World,
) -> None:
    place.project("other")
    everywhere(place, Role.ADMIN)
    actor = place.people["pat"]
    with place.kernel.store.read() as tx:
        (demo,) = [row for row in tx.select(Project) if row.name == PROJECT]
    narrow = msgspec.structs.replace(actor, project=ProjectId(demo.id))

    assert may(LocalPerformer(place.kernel, narrow, PROJECT), "probe.admin")
    assert not may(LocalPerformer(place.kernel, narrow, "other"), "probe.read")
    assert not may(LocalPerformer(place.kernel, narrow, PROJECT), "whole.read")


def new_token(place: World, **given: object) -> tokens.NewToken:
    made = place.instance(
        msgspec.convert({"name": "t", **given}, tokens.CreateToken), "token.create"
    )
    assert isinstance(made, tokens.NewToken)
    return made


def test_a_token_lets_its_bearer_act_within_its_scope(place: World) -> None:
    place.person("pat", Role.CONTRIBUTOR)
    secret = new_token(place, actor="pat", scope=("*:read",)).secret

    caller = place.kernel.authenticate(secret, [TokenKind.API])

    assert place.people["pat"].actor == caller.actor
    assert ("*:read",) == caller.scope


@pytest.mark.parametrize("pattern", ["nonsense", "feedback:wrte", "predictions:*"])
def test_a_token_for_nothing_is_not_made(pattern: str, place: World) -> None:
    with pytest.raises(InvalidInput, match=re.escape(f"No permission is like '{pattern}'")):
        new_token(place, scope=("*:read", pattern))


def test_a_refusal_on_the_whole_instance_does_not_ask_for_a_role_in_the_project(
    place: World,
) -> None:
    member = place.person("pat", Role.ADMIN)

    with pytest.raises(Denied) as refusal:
        member.perform("token.list", tokens.ListTokens(), tokens.TokenList)

    assert "on the whole instance: admin" in refusal.value.hint


def test_only_the_hash_of_a_secret_is_stored(place: World) -> None:
    made = new_token(place)

    with place.kernel.store.read() as tx:
        token = tx.find(Token, made.id)
    assert token is not None
    assert hash_secret(made.secret) == token.secret_hash
    assert made.secret not in repr(token)


def refused(place: World, secret: str, *kinds: TokenKind) -> bool:
    try:
        place.kernel.authenticate(secret, kinds or (TokenKind.API,))
    except NotAuthenticated:
        return True
    return False


def test_an_expired_token_is_refused_from_its_last_instant_on(place: World) -> None:
    made = new_token(place, days=1.0)
    place.clock.push(hours=24, microseconds=-1)
    assert not refused(place, made.secret)

    place.clock.push(microseconds=1)

    assert refused(place, made.secret)
    assert made.expires_at == place.clock.now()


def test_a_revoked_token_is_refused(place: World) -> None:
    made = new_token(place)
    place.instance(tokens.RevokeToken(id=made.id), "token.revoke")

    assert refused(place, made.secret)


def test_a_disabled_actors_token_is_refused(place: World) -> None:
    place.person("pat", Role.CONTRIBUTOR)
    made = new_token(place, actor="pat")
    place.instance(admin.DisableActor(actor="pat"), "actor.disable")

    assert refused(place, made.secret)


def test_a_token_is_refused_where_another_kind_is_wanted(place: World) -> None:
    made = new_token(place)

    assert refused(place, made.secret, TokenKind.SESSION, TokenKind.LOGIN_LINK)


@pytest.mark.parametrize("secret", ["", "evl_", "evl_" + "0" * 64, "\ud800", "x" * 10_000])
def test_an_unknown_secret_is_refused(place: World, secret: str) -> None:
    assert refused(place, secret)


def open_link(place: World, secret: str) -> tokens.NewToken:
    caller = Caller(actor=ActorId("anonymous"))
    made = place.kernel.perform(
        Call(verb="login.open", caller=caller, ask=tokens.OpenSession(secret=secret))
    )
    assert isinstance(made, tokens.NewToken)
    return made


def new_link(place: World) -> tokens.NewToken:
    return place.owner.perform("login.create", tokens.CreateLoginLink(), tokens.NewToken)


def test_a_login_link_opens_one_session_and_no_second(place: World) -> None:
    link = new_link(place)
    session = open_link(place, link.secret)

    caller = place.kernel.authenticate(session.secret, [TokenKind.SESSION])
    assert caller.actor == local_caller(place.kernel, OWNER).actor
    with pytest.raises(NotAuthenticated):
        open_link(place, link.secret)


def test_a_login_link_is_no_token_and_no_session(place: World) -> None:
    link = new_link(place)

    assert refused(place, link.secret, TokenKind.API, TokenKind.SESSION)


def test_an_old_login_link_opens_nothing(place: World) -> None:
    link = new_link(place)
    place.clock.push(minutes=15)

    with pytest.raises(NotAuthenticated):
        open_link(place, link.secret)


def test_an_api_token_opens_no_session(place: World) -> None:
    made = new_token(place)

    with pytest.raises(NotAuthenticated):
        open_link(place, made.secret)


def test_a_session_ends_after_its_hours(place: World) -> None:
    session = open_link(place, new_link(place).secret)
    place.clock.push(hours=tokens.SESSION_HOURS)

    assert refused(place, session.secret, TokenKind.SESSION)
    assert session.expires_at - timedelta(hours=tokens.SESSION_HOURS) < place.clock.now()


def test_a_closed_session_is_refused(place: World) -> None:
    session = open_link(place, new_link(place).secret)
    caller = place.kernel.authenticate(session.secret, [TokenKind.SESSION])

    place.kernel.perform(Call(verb="login.close", caller=caller, ask=tokens.CloseSession()))

    assert refused(place, session.secret, TokenKind.SESSION)
