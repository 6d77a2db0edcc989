"""Verbs over secrets: tokens for programs, one-time login links and sessions for people."""

from __future__ import annotations

from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated

import msgspec

from everloop.core.clock import Instant
from everloop.core.errors import InvalidInput, NotAuthenticated
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.ports import where
from everloop.kernel.admin import Name, get_actor, get_project_id, missing
from everloop.kernel.authz import (
    EVERYWHERE,
    Actor,
    Project,
    RoleGrant,
    Token,
    TokenKind,
    hash_secret,
    new_secret,
)
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import Payload, Scope, declared_verbs, query, verb

SECRET_BYTES = 32
MAX_TOKEN_DAYS = 366
SESSION_HOURS = 12
LOGIN_LINK_MINUTES = 15
# The one permission that serving processes ask for; no verb does.
PREDICT = "prediction:predict"
Pattern = Annotated[str, msgspec.Meta(pattern=r"^[a-z_*]+(:[a-z*]+)?$", max_length=60)]


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class CreateToken(_Ask, frozen=True, kw_only=True):
    """Ask for a token.

    Attributes:
        actor: Name of the actor it acts for; the caller when left out.
        scope: Permission patterns, such as ``*:read`` or ``feedback:write``.
        project: Name of the one project it works in; ``*`` for all.
        days: Lifetime.
    """

    name: Name
    actor: Name | None = None
    scope: Annotated[tuple[Pattern, ...], msgspec.Meta(min_length=1, max_length=20)] = ("*",)
    project: Name = "*"
    days: Annotated[float, msgspec.Meta(gt=0, le=MAX_TOKEN_DAYS)] = 90.0


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh token; the secret is shown this once and never again."""

    id: Id
    secret: str
    expires_at: Instant


@verb("token.create", permission="token:admin", scope=Scope.INSTANCE, payload=Payload.SECRET)
def create_token(ask: CreateToken, work: Work) -> NewToken:
    """Make a token of 256 random bits; only its SHA-256 is stored.

    A caller whose own token is narrower can't make a wider one, and what is made by a token ends
    with it: it expires no later, and is revoked together with it. Make tokens that are to live
    longer on the server's own machine.

    Raises:
        NotFound: ``actor.not_found`` or ``project.not_found``.
        InvalidInput: ``token.too_wide``, or ``token.scope_unknown`` for a pattern of nothing.
    """
    _check_scope(ask.scope)
    if work.caller.scope != ("*",) or work.caller.project != EVERYWHERE:
        raise InvalidInput(
            "token.too_wide",
            "A limited token can't make tokens.",
            hint="Use an unlimited token of an admin.",
        )
    actor = work.caller.actor if ask.actor is None else ActorId(get_actor(work, ask.actor).id)
    return issue_token(
        work,
        actor,
        name=ask.name,
        kind=TokenKind.API,
        lifetime=timedelta(days=ask.days),
        scope=ask.scope,
        project=get_project_id(work, ask.project),
        parent=_own_token(work),
    )


def _check_scope(scope: tuple[str, ...]) -> None:
    """Refuse a pattern that no permission fits: its token would be good for nothing."""
    known = {verb.permission for verb in declared_verbs().values()} | {PREDICT}
    for pattern in scope:
        if not any(fnmatchcase(permission, pattern) for permission in known):
            raise InvalidInput(
                "token.scope_unknown",
                f"No permission is like {pattern!r}.",
                hint="Write patterns such as *:read, run:* or prediction:predict.",
            )


def issue_token(
    work: Work,
    actor: ActorId,
    *,
    name: str,
    kind: TokenKind,
    lifetime: timedelta,
    scope: tuple[str, ...] = ("*",),
    project: ProjectId = EVERYWHERE,
    parent: Token | None = None,
) -> NewToken:
    """Store a new token, which ends with its parent, and return its secret."""
    secret = new_secret(work.services.random_bytes(SECRET_BYTES))
    latest = work.now + lifetime
    token = work.insert(
        Token(
            id=work.new_id(),
            actor=actor,
            name=name,
            kind=kind,
            secret_hash=hash_secret(secret),
            scope=scope,
            project=project,
            created_at=work.now,
            expires_at=latest if parent is None else min(latest, parent.expires_at),
            parent=None if parent is None else parent.id,
        )
    )
    work.touch(f"token:{token.id}", f"actor:{actor}")
    return NewToken(id=token.id, secret=secret, expires_at=token.expires_at)


def _own_token(work: Work) -> Token | None:
    """Return the token that the call came with; None for the owner on the machine itself."""
    return work.tx.find(Token, work.caller.token) if work.caller.token else None


class RevokeToken(_Ask, frozen=True, kw_only=True):
    """Ask to end a token."""

    id: Name


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A token as callers see it; never its secret."""

    id: Id
    name: str
    actor: str
    kind: TokenKind
    scope: tuple[str, ...]
    project: str
    expires_at: Instant
    revoked_at: Instant | None


@verb("token.revoke", permission="token:admin", scope=Scope.INSTANCE)
def revoke_token(ask: RevokeToken, work: Work) -> TokenView:
    """End a token or a session at once, with all that was made by it; repeating changes nothing.

    Raises:
        NotFound: ``token.not_found``.
    """
    token = work.tx.find(Token, Id(ask.id))
    if token is None:
        raise missing("token", ask.id)
    return _token_view(work, _revoke(work, token))


def _revoke(work: Work, token: Token) -> Token:
    """End a token and all below it, also below those that had ended before."""
    for child in work.tx.select(Token, *where(parent=token.id)):
        _revoke(work, child)
    if token.revoked_at is not None:
        return token
    work.touch(f"token:{token.id}")
    return work.replace(msgspec.structs.replace(token, revoked_at=work.now))


class ListTokens(_Ask, frozen=True, kw_only=True):
    """Ask for the tokens."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    after: str | None = None


class TokenList(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, oldest first."""

    items: tuple[TokenView, ...]
    next: str | None = None


@query("token.list", permission="token:admin", scope=Scope.INSTANCE)
def list_tokens(ask: ListTokens, view: View) -> TokenList:
    """List tokens and sessions, without their secrets."""
    after = view.tx.find(Token, Id(ask.after)) if ask.after else None
    rows = view.tx.select(Token, limit=ask.limit, after=after)
    return TokenList(
        items=tuple(_token_view(view, row) for row in rows),
        next=rows[-1].id if len(rows) == ask.limit else None,
    )


class CreateLoginLink(_Ask, frozen=True, kw_only=True):
    """Ask for a one-time login link for the caller, who needs a role in the project at hand."""


@verb("login.create", permission="login:read", payload=Payload.SECRET)
def create_login_link(ask: CreateLoginLink, work: Work) -> NewToken:
    """Make a secret that opens one browser session for the caller, within 15 minutes.

    It ends the link that the same token made before, if nobody has used that. The session ends
    with the token that made its link, so that none renews itself.
    """
    parent = _own_token(work)
    if parent is not None:
        links = work.tx.select(Token, *where(parent=parent.id, kind=TokenKind.LOGIN_LINK))
        for link in links:
            if link.revoked_at is None:
                _revoke(work, link)
    return issue_token(
        work,
        work.caller.actor,
        name="login link",
        kind=TokenKind.LOGIN_LINK,
        lifetime=timedelta(minutes=LOGIN_LINK_MINUTES),
        scope=work.caller.scope,
        project=work.caller.project,
        parent=parent,
    )


class OpenSession(_Ask, frozen=True, kw_only=True):
    """Trade a login secret for a session."""

    secret: Annotated[str, msgspec.Meta(max_length=200)]


@verb(
    "login.open",
    permission="login:read",
    scope=Scope.INSTANCE,
    payload=Payload.SECRET,
    open_to_all=True,
)
def open_session(ask: OpenSession, work: Work) -> NewToken:
    """Trade a one-time login secret for a session of 12 hours.

    Raises:
        NotAuthenticated: ``login.invalid`` when it is unknown, used or too old.
    """
    found = work.tx.select(Token, *where(secret_hash=hash_secret(ask.secret)), limit=1)
    link = found[0] if found else None
    usable = (
        link is not None
        and link.kind is TokenKind.LOGIN_LINK
        and link.revoked_at is None
        and link.expires_at > work.now
    )
    if link is None or not usable:
        raise NotAuthenticated(
            "login.invalid",
            "This login link is unknown, used or too old.",
            hint="Print a fresh one with `everloop token login`.",
        )
    work.replace(msgspec.structs.replace(link, revoked_at=work.now))
    return issue_token(
        work,
        link.actor,
        name="browser session",
        kind=TokenKind.SESSION,
        lifetime=timedelta(hours=SESSION_HOURS),
        scope=link.scope,
        project=link.project,
        parent=None if link.parent is None else work.tx.find(Token, link.parent),
    )


class ShowSession(_Ask, frozen=True, kw_only=True):
    """Ask who one is."""


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """The bearer of a token, and the names of the projects in which they have a role."""

    actor: str
    projects: tuple[str, ...]


@query("login.show", permission="login:read", scope=Scope.INSTANCE, open_to_all=True)
def show_session(ask: ShowSession, view: View) -> SessionView:
    """Tell the bearer of a token who they are and which projects they may open.

    Raises:
        NotAuthenticated: ``login.missing`` for a caller who is nobody.
    """
    actor = view.tx.find(Actor, Id(view.caller.actor))
    if actor is None:
        raise _nobody()
    places = {grant.project for grant in view.tx.select(RoleGrant, *where(actor=actor.id))}
    projects = view.tx.select(Project, order="name")
    return SessionView(
        actor=actor.name,
        projects=tuple(
            project.name
            for project in projects
            if {EVERYWHERE, project.id} & places and view.caller.project in {EVERYWHERE, project.id}
        ),
    )


class CloseSession(_Ask, frozen=True, kw_only=True):
    """Ask to end the session that the call comes with."""


class ClosedSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is over."""

    id: Id


@verb("login.close", permission="login:read", scope=Scope.INSTANCE, open_to_all=True)
def close_session(ask: CloseSession, work: Work) -> ClosedSession:
    """End the caller's own browser session at once.

    Raises:
        NotAuthenticated: ``login.missing`` when the call comes without a session.
    """
    token = work.tx.find(Token, work.caller.token) if work.caller.token else None
    if token is None or token.kind is not TokenKind.SESSION:
        raise _nobody()
    if token.revoked_at is None:
        _revoke(work, token)
        work.touch(f"actor:{token.actor}")
    return ClosedSession(id=token.id)


def _nobody() -> NotAuthenticated:
    return NotAuthenticated(
        "login.missing",
        "This call comes without a session.",
        hint="Print a login link with `everloop token login`.",
    )


def _token_view(view: View, token: Token) -> TokenView:
    actor = view.tx.find(Actor, Id(token.actor))
    return TokenView(
        id=token.id,
        name=token.name,
        actor=actor.name if actor else token.actor,
        kind=token.kind,
        scope=token.scope,
        project=token.project,
        expires_at=token.expires_at,
        revoked_at=token.revoked_at,
    )
