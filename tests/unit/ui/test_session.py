"""Sessions: who one is, what one may open, and forms that only the session's own pages can send."""

from __future__ import annotations

import pytest

from everloop.core.errors import Denied, NotAuthenticated
from everloop.core.ids import ActorId, ProjectId
from everloop.core.ports import where
from everloop.kernel.admin import ActorList, ListActors
from everloop.kernel.authz import NOBODY, Caller, Project, Role, TokenKind
from everloop.kernel.perform import Call
from everloop.kernel.performer import LocalPerformer
from everloop.kernel.tokens import ClosedSession, CloseSession, SessionView, ShowSession
from everloop.ui.session import Session, require_own_form
from tests.kit import World, world
from tests.unit.ui.filled import session_of


def caller_of(here: World, secret: str) -> Caller:
    return here.kernel.authenticate(secret, (TokenKind.SESSION,))


def test_a_form_passes_with_the_token_of_its_own_session_alone() -> None:
    mine, other = Session("evl_a", NOBODY), Session("evl_b", NOBODY)

    require_own_form(mine, mine.csrf)
    for token in (None, "", other.csrf, "é"):
        with pytest.raises(Denied):
            require_own_form(mine, token)
    assert mine.secret not in mine.csrf


def test_the_bearer_of_a_session_learns_their_name_and_projects() -> None:
    here = world()
    here.project("other")
    anna = here.person("anna", Role.VIEWER)

    seen = anna.perform("login.show", ShowSession(), SessionView)

    assert ("anna", ("demo",)) == (seen.actor, seen.projects)
    assert ("demo", "other") == here.owner.perform(
        "login.show", ShowSession(), SessionView
    ).projects


def test_a_session_limited_to_a_project_opens_that_one_alone() -> None:
    here = world()
    here.project("other")
    here.person("anna", Role.VIEWER)
    here.person("anna", Role.VIEWER, project="other")
    with here.kernel.store.read() as tx:
        only = ProjectId(tx.select(Project, *where(name="other"))[0].id)
    limited = Caller(actor=here.people["anna"].actor, project=only)

    seen = LocalPerformer(here.kernel, limited, "other").perform(
        "login.show", ShowSession(), SessionView
    )

    assert ("other",) == seen.projects


@pytest.mark.parametrize("name", ["nobody", "owner"])
def test_nobody_is_told_nothing(name: str) -> None:
    here = world()
    stranger = LocalPerformer(here.kernel, Caller(actor=ActorId(name)), "demo")

    with pytest.raises(NotAuthenticated):
        stranger.perform("login.show", ShowSession(), SessionView)
    with pytest.raises(NotAuthenticated):
        stranger.perform("login.close", CloseSession(), ClosedSession)


def test_a_closed_session_is_over_at_once_and_closing_twice_changes_nothing() -> None:
    here = world()
    secret = session_of(here)
    mine = caller_of(here, secret)

    for _ in range(2):
        here.kernel.perform(Call(verb="login.close", caller=mine, ask=CloseSession()))

    with pytest.raises(NotAuthenticated):
        caller_of(here, secret)


def test_the_actors_of_a_project_are_those_with_a_role_in_it() -> None:
    here = world()
    here.project("other")
    here.person("anna", Role.VIEWER)
    here.person("ben", Role.VIEWER, project="other")

    seen = here.owner.perform("actor.list", ListActors(), ActorList)

    names = [actor.name for actor in seen.items]
    assert "anna" in names
    assert "owner" in names
    assert "ben" not in names
