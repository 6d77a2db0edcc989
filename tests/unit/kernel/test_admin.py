"""Projects, actors, roles, tokens and configuration."""

from __future__ import annotations

import pytest

from everloop.core.errors import Conflict, Denied, InvalidInput, NotAuthenticated, NotFound
from everloop.core.ids import ActorId
from everloop.kernel import admin, tokens
from everloop.kernel.authz import Caller, Role, TokenKind
from everloop.kernel.bootstrap import InitialiseInstance
from everloop.kernel.ledger import log
from everloop.kernel.perform import Call
from everloop.kernel.performer import LocalPerformer
from tests.kit import PROJECT, World, world

NOBODY = Caller(actor=ActorId("nobody"))


@pytest.fixture
def place() -> World:
    return world()


def size(place: World) -> int:
    with place.kernel.store.read() as tx:
        return log.size(tx)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "-a", "a.", "x" * 101])
def test_a_project_or_actor_needs_a_usable_name(place: World, name: str) -> None:
    with pytest.raises(InvalidInput):
        place.instance(admin.CreateProject(name=name), "project.create")
    with pytest.raises(InvalidInput):
        place.instance(admin.CreateActor(name=name), "actor.create")


def test_a_name_is_taken_once(place: World) -> None:
    place.instance(admin.CreateActor(name="pat"), "actor.create")

    with pytest.raises(Conflict):
        place.instance(admin.CreateProject(name=PROJECT), "project.create")
    with pytest.raises(Conflict):
        place.instance(admin.CreateActor(name="pat"), "actor.create")


def test_projects_are_listed_by_name(place: World) -> None:
    place.project("another")

    found = place.instance(admin.ListProjects(), "project.list")

    assert isinstance(found, admin.ProjectList)
    assert ["another", PROJECT] == [project.name for project in found.items]


def test_an_instance_is_initialised_once(place: World) -> None:
    with pytest.raises(Conflict) as refused:
        place.kernel.perform(
            Call(
                verb="instance.initialise",
                caller=NOBODY,
                ask=InitialiseInstance(),
            )
        )

    assert "instance.exists" == refused.value.code


def test_granting_a_role_again_changes_nothing(place: World) -> None:
    place.person("pat", Role.VIEWER)
    before = size(place)

    place.person("pat", Role.VIEWER)

    assert before == size(place)


def test_a_revoked_role_is_gone_at_once(place: World) -> None:
    pat = place.person("pat", Role.VIEWER)
    pat.perform("project.settings", admin.ShowConfiguration(), admin.ConfigurationView)
    place.instance(admin.RevokeRole(actor="pat", role=Role.VIEWER, project=PROJECT), "role.revoke")

    with pytest.raises(Denied):
        pat.perform("project.settings", admin.ShowConfiguration(), admin.ConfigurationView)


def test_a_role_that_is_not_held_cannot_be_revoked(place: World) -> None:
    place.person("pat", Role.VIEWER)

    with pytest.raises(NotFound) as refused:
        place.instance(
            admin.RevokeRole(actor="pat", role=Role.ADMIN, project=PROJECT), "role.revoke"
        )

    assert "role.not_held" == refused.value.code


@pytest.mark.parametrize(("actor", "project"), [("nobody", PROJECT), ("owner", "nowhere")])
def test_a_role_needs_an_actor_and_a_project(place: World, actor: str, project: str) -> None:
    with pytest.raises(NotFound):
        place.instance(
            admin.GrantRole(actor=actor, role=Role.VIEWER, project=project), "role.grant"
        )


def test_the_last_person_who_is_admin_stays_though_services_are_admins(place: World) -> None:
    with pytest.raises(Conflict) as disabling:
        place.instance(admin.DisableActor(actor="owner"), "actor.disable")
    with pytest.raises(Conflict) as revoking:
        place.instance(admin.RevokeRole(actor="owner", role=Role.ADMIN), "role.revoke")

    assert {"actor.last_admin"} == {disabling.value.code, revoking.value.code}
    place.person("ann", Role.ADMIN, project="*")
    place.instance(admin.DisableActor(actor="owner"), "actor.disable")


def test_a_limited_token_makes_no_tokens(place: World) -> None:
    pat = place.person("pat", Role.ADMIN, project="*", scope=("token:*",))

    with pytest.raises(InvalidInput) as refused:
        pat.perform("token.create", tokens.CreateToken(name="wide"), tokens.NewToken)

    assert "token.too_wide" == refused.value.code


def test_tokens_are_listed_in_pages_without_secrets(place: World) -> None:
    made = [place.instance(tokens.CreateToken(name=f"t{n}"), "token.create") for n in range(3)]
    first = place.instance(tokens.ListTokens(limit=2), "token.list")
    assert isinstance(first, tokens.TokenList)
    second = place.instance(tokens.ListTokens(limit=2, after=first.next), "token.list")
    assert isinstance(second, tokens.TokenList)

    assert ["t0", "t1", "t2"] == [token.name for token in first.items + second.items]
    for token in made:
        assert isinstance(token, tokens.NewToken)
        assert token.secret not in repr(first) + repr(second)


def test_the_secret_of_a_token_is_nowhere_in_the_ledger(place: World) -> None:
    made = place.instance(tokens.CreateToken(name="t"), "token.create")

    assert isinstance(made, tokens.NewToken)
    with place.kernel.store.read() as tx:
        texts = [row.text or "" for row in tx.select(log.LedgerPayload)]
        bodies = [row.body for row in tx.select(log.LedgerEntry)]
    assert not [text for text in texts + bodies if made.secret in text]


def test_revoking_a_token_again_changes_nothing(place: World) -> None:
    made = place.instance(tokens.CreateToken(name="t"), "token.create")
    assert isinstance(made, tokens.NewToken)
    place.instance(tokens.RevokeToken(id=made.id), "token.revoke")
    before = size(place)

    place.instance(tokens.RevokeToken(id=made.id), "token.revoke")

    assert before == size(place)


def test_an_unknown_token_cannot_be_revoked(place: World) -> None:
    with pytest.raises(NotFound):
        place.instance(tokens.RevokeToken(id="none"), "token.revoke")


def test_the_bearer_learns_who_they_are_and_where_they_may_go(place: World) -> None:
    place.project("other")
    pat = place.person("pat", Role.VIEWER)

    found = pat.perform("login.show", tokens.ShowSession(), tokens.SessionView)

    assert ("pat", (PROJECT,)) == (found.actor, found.projects)


def test_nobody_is_told_nothing(place: World) -> None:
    stranger = LocalPerformer(place.kernel, NOBODY, PROJECT)

    with pytest.raises(NotAuthenticated):
        stranger.perform("login.show", tokens.ShowSession(), tokens.SessionView)
    with pytest.raises(NotAuthenticated):
        stranger.perform("login.close", tokens.CloseSession(), tokens.ClosedSession)


def test_an_api_token_is_no_session_to_close(place: World) -> None:
    made = place.instance(tokens.CreateToken(name="t"), "token.create")
    assert isinstance(made, tokens.NewToken)
    caller = place.kernel.authenticate(made.secret, [TokenKind.API])

    with pytest.raises(NotAuthenticated):
        place.kernel.perform(Call(verb="login.close", caller=caller, ask=tokens.CloseSession()))


def test_actors_with_a_role_here_are_listed_by_name(place: World) -> None:
    place.project("other")
    place.person("zoe", Role.VIEWER)
    place.person("eve", Role.VIEWER, project="other")

    found = place.owner.perform("actor.list", admin.ListActors(), admin.ActorList)

    names = [actor.name for actor in found.items]
    assert sorted(names) == names
    assert "zoe" in names
    assert "eve" not in names


def test_the_same_configuration_again_changes_nothing(place: World) -> None:
    place.configure({"models": {}})
    before = size(place)

    place.configure({"models": {}})
    assert before == size(place)
    place.configure({"models": {"m": {}}})

    shown = place.owner.perform(
        "project.settings", admin.ShowConfiguration(), admin.ConfigurationView
    )
    assert (2, {"models": {"m": {}}}) == (shown.number, shown.document)


def test_a_fresh_project_has_configuration_number_zero(place: World) -> None:
    shown = place.owner.perform(
        "project.settings", admin.ShowConfiguration(), admin.ConfigurationView
    )

    assert (0, {}) == (shown.number, shown.document)
