"""A stolen token is good for as long as it lives, and no longer by what it makes."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from everloop.core.errors import NotAuthenticated
from everloop.kernel.authz import Caller, Role, TokenKind
from everloop.kernel.performer import LocalPerformer
from everloop.kernel.tokens import (
    ClosedSession,
    CloseSession,
    CreateLoginLink,
    CreateToken,
    NewToken,
    OpenSession,
    RevokeToken,
    SessionView,
    ShowSession,
    TokenView,
)
from tests.kit import PROJECT, World, world

KINDS = tuple(TokenKind)


@pytest.fixture
def w() -> World:
    made = world()
    made.person("root", Role.ADMIN, project="*")
    return made


def by(w: World, token: NewToken) -> LocalPerformer:
    """Act by a token, as the server does for who bears it."""
    return LocalPerformer(w.kernel, w.kernel.authenticate(token.secret, KINDS), PROJECT)


def make(w: World, performer: LocalPerformer, **fields: object) -> NewToken:
    ask = msgspec.structs.replace(CreateToken(name="t"), **fields)
    return performer.perform("token.create", ask, NewToken)


def log_in(w: World, performer: LocalPerformer) -> NewToken:
    link = performer.perform("login.create", CreateLoginLink(), NewToken)
    return open_link(w, link)


def open_link(w: World, link: NewToken) -> NewToken:
    return w.owner.perform("login.open", OpenSession(secret=link.secret), NewToken)


def is_good(w: World, token: NewToken) -> bool:
    try:
        caller: Caller = w.kernel.authenticate(token.secret, KINDS)
    except NotAuthenticated:
        return False
    return caller.token == token.id


def test_a_session_that_renews_itself_by_links_ends_when_the_first_would_have(w: World) -> None:
    session = first = log_in(w, w.owner)
    for _ in range(6):
        w.clock.push(hours=1)
        session = log_in(w, by(w, session))
        assert session.expires_at <= first.expires_at

    w.clock.push(hours=6)

    assert not is_good(w, first)
    assert not is_good(w, session)


def test_a_token_made_by_a_token_does_not_outlive_it(w: World) -> None:
    short = make(w, w.owner, actor="root", days=1)

    long = make(w, by(w, short), days=300)
    longer = make(w, by(w, long), days=366)

    assert short.expires_at == long.expires_at == longer.expires_at
    w.clock.push(days=1)
    assert not is_good(w, longer)


def test_what_was_made_by_a_token_is_revoked_with_it(w: World) -> None:
    stolen = make(w, w.owner, actor="root")
    token = make(w, by(w, stolen))
    grandchild = make(w, by(w, token))
    session = log_in(w, by(w, grandchild))
    link = by(w, stolen).perform("login.create", CreateLoginLink(), NewToken)
    bystander = make(w, w.owner, actor="root")

    w.owner.perform("token.revoke", RevokeToken(id=stolen.id), TokenView)

    assert [False] * 4 == [is_good(w, it) for it in (stolen, token, grandchild, session)]
    assert is_good(w, bystander)
    with pytest.raises(NotAuthenticated):
        open_link(w, link)


def test_closing_a_session_also_ends_what_it_made(w: World) -> None:
    session = log_in(w, LocalPerformer(w.kernel, w.people["root"], PROJECT))
    token = make(w, by(w, session))

    by(w, session).perform("login.close", CloseSession(), ClosedSession)

    assert not is_good(w, token)


def test_a_token_has_one_open_login_link_at_a_time(w: World) -> None:
    token = make(w, w.owner, actor="root")
    links = [by(w, token).perform("login.create", CreateLoginLink(), NewToken) for _ in range(5)]

    for link in links[:-1]:
        with pytest.raises(NotAuthenticated):
            open_link(w, link)
    session = open_link(w, links[-1])
    assert "root" == by(w, session).perform("login.show", ShowSession(), SessionView).actor


def test_revoking_a_token_that_was_revoked_still_ends_what_is_below_it(w: World) -> None:
    token = make(w, w.owner, actor="root")
    child = make(w, by(w, token))
    w.owner.perform("token.revoke", RevokeToken(id=token.id), TokenView)
    w.owner.perform("token.revoke", RevokeToken(id=token.id), TokenView)

    assert not is_good(w, child)


def test_a_token_made_on_the_machine_itself_lives_as_long_as_it_says(w: World) -> None:
    made = make(w, w.owner, days=300)

    assert w.clock.now() + timedelta(days=300) == made.expires_at
