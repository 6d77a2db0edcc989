"""Who may do what: actors, roles per project, tokens and login links.

Roles hold actions, not lists of verbs: a permission is ``noun:action`` and the action decides.
A token narrows its actor, never widens it. Secrets are 256 random bits and stored only as SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from everloop.core.clock import Instant
from everloop.core.errors import Denied, NotAuthenticated
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.ports import Transaction, where
from everloop.core.records import Record, record

TOKEN_PREFIX = "evl_"  # noqa: S105 -- a public prefix, so that leaked tokens can be found by scanners
EVERYWHERE = ProjectId("*")


class Role(StrEnum):
    """What an actor may do in a project."""

    VIEWER = "viewer"
    CONTRIBUTOR = "contributor"
    RELEASER = "releaser"
    APPROVER = "approver"
    ADMIN = "admin"


ACTIONS: dict[Role, frozenset[str]] = {
    Role.VIEWER: frozenset({"read"}),
    Role.CONTRIBUTOR: frozenset({"read", "write", "predict"}),
    Role.RELEASER: frozenset({"read", "write", "predict", "release"}),
    Role.APPROVER: frozenset({"read", "approve"}),
    Role.ADMIN: frozenset({"read", "write", "predict", "release", "approve", "admin"}),
}


class ActorKind(StrEnum):
    """Whether a person or a program acts."""

    PERSON = "person"
    SERVICE = "service"


@record("project", unique=(("name",),))
class Project(Record, frozen=True, kw_only=True):
    """A name space and access boundary."""

    name: str
    created_at: Instant


@record("actor", unique=(("name",),))
class Actor(Record, frozen=True, kw_only=True):
    """Somebody or something that acts."""

    name: str
    kind: ActorKind
    created_at: Instant
    disabled: bool = False


@record("role_grant", unique=(("actor", "project", "role"),), index=(("project",),))
class RoleGrant(Record, frozen=True, kw_only=True):
    """A role of an actor in a project; project ``*`` means the whole instance."""

    actor: ActorId
    project: ProjectId
    role: Role
    granted_by: ActorId
    granted_at: Instant


class TokenKind(StrEnum):
    """How a token is used."""

    API = "api"
    SESSION = "session"
    LOGIN_LINK = "login_link"


@record("token", unique=(("secret_hash",),), index=(("actor",), ("parent",)))
class Token(Record, frozen=True, kw_only=True):
    """A hashed secret that lets its bearer act within a scope until it expires.

    Attributes:
        scope: Permission patterns such as ``*``, ``run:*`` or ``*:read``.
        project: The one project it works in, or ``*``.
        parent: The token by which it was made, which it never outlives; None when it was made on
            the server's own machine.
    """

    actor: ActorId
    name: str
    kind: TokenKind
    secret_hash: str
    scope: tuple[str, ...]
    project: ProjectId
    created_at: Instant
    expires_at: Instant
    revoked_at: Instant | None = None
    parent: Id | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The authenticated origin of a call.

    Attributes:
        actor: Who acts.
        scope: Permission patterns the credential is limited to.
        project: The one project the credential works in, or ``*``.
        token: Id of the token used, None for the local owner of an embedded store.
        on_behalf_of: The actor for whom a service acts.
    """

    actor: ActorId
    scope: tuple[str, ...] = ("*",)
    project: ProjectId = EVERYWHERE
    token: Id | None = None
    on_behalf_of: ActorId | None = None


NOBODY = Caller(actor=ActorId("nobody"), scope=())
"""Whoever calls without a token: good for nothing but the verbs that are open to all."""


def new_secret(random_bytes: bytes) -> str:
    """Return the printable secret for 32 random bytes."""
    return TOKEN_PREFIX + random_bytes.hex()


def hash_secret(secret: str) -> str:
    """Return the stored form of a secret; plain SHA-256, since the secret has 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def authenticate(tx: Transaction, secret: str, now: Instant, kinds: Iterable[TokenKind]) -> Caller:
    """Return the caller behind a secret.

    Raises:
        NotAuthenticated: ``token.invalid``, the same for unknown, expired, revoked and disabled.
    """
    digest = hash_secret(secret)
    found = tx.select(Token, *where(secret_hash=digest), limit=1)
    token = found[0] if found else None
    if (
        token is None
        or not hmac.compare_digest(token.secret_hash, digest)
        or token.kind not in set(kinds)
        or token.revoked_at is not None
        or token.expires_at <= now
    ):
        raise _not_authenticated()
    actor = tx.find(Actor, Id(token.actor))
    if actor is None or actor.disabled:
        raise _not_authenticated()
    return Caller(actor=token.actor, scope=token.scope, project=token.project, token=token.id)


def _not_authenticated() -> NotAuthenticated:
    return NotAuthenticated(
        "token.invalid",
        "The token is unknown, expired or revoked.",
        hint="Make a new one with `everloop token create`.",
    )


def authorise(tx: Transaction, caller: Caller, permission: str, project: ProjectId | None) -> None:
    """Let the call pass or refuse it.

    ``project`` is None for verbs that act on the whole instance, which need an instance role.

    Raises:
        Denied: ``access.denied``.
    """
    action = permission.partition(":")[2]
    in_scope = any(fnmatchcase(permission, pattern) for pattern in caller.scope)
    in_project = caller.project in {EVERYWHERE, project}
    places = {EVERYWHERE} if project is None else {EVERYWHERE, project}
    held = {
        grant.role
        for grant in tx.select(RoleGrant, *where(actor=caller.actor))
        if grant.project in places
    }
    if in_scope and in_project and any(action in ACTIONS[role] for role in held):
        return
    raise access_denied(permission, on_instance=project is None)


def access_denied(permission: str, *, on_instance: bool = False) -> Denied:
    """Return the one refusal used for a missing role and for a project one may not see."""
    action = permission.partition(":")[2]
    roles = ", ".join(role for role in Role if action in ACTIONS[role])
    return Denied(
        "access.denied",
        f"This needs the permission {permission}.",
        hint=f"Ask an admin for one of these roles on the whole instance: {roles}."
        if on_instance
        else f"Ask an admin of the project for one of these roles: {roles}.",
        context={"permission": permission},
    )
