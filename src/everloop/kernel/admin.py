"""Verbs over the kernel's own records: projects, actors, roles, tokens, logins, configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec

from everloop.core.clock import Instant
from everloop.core.errors import Conflict, NotFound
from everloop.core.ids import ActorId, Id, ProjectId, check_name
from everloop.core.ports import where
from everloop.kernel.authz import (
    EVERYWHERE,
    Actor,
    ActorKind,
    Project,
    Role,
    RoleGrant,
)
from everloop.kernel.unit_of_work import ProjectSettings, View, Work
from everloop.kernel.verbs import Scope, query, verb

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class CreateProject(_Ask, frozen=True, kw_only=True):
    """Ask for a new project."""

    name: Name


class ProjectView(msgspec.Struct, frozen=True, kw_only=True):
    """A project as callers see it."""

    id: Id
    name: str
    created_at: Instant


class ListProjects(_Ask, frozen=True, kw_only=True):
    """Ask for the projects one may see."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class ProjectList(msgspec.Struct, frozen=True, kw_only=True):
    """Projects, by name."""

    items: tuple[ProjectView, ...]


@verb("project.create", permission="project:admin", scope=Scope.INSTANCE)
def create_project(ask: CreateProject, work: Work) -> ProjectView:
    """Make a new, empty project.

    Raises:
        InvalidInput: ``name.invalid``.
        Conflict: ``project.exists``.
    """
    check_name(ask.name, "Project")
    if work.tx.select(Project, *where(name=ask.name), limit=1):
        raise Conflict(
            "project.exists",
            f"There is a project {ask.name!r} already.",
            hint="Choose another name, or use the one that is there.",
        )
    project = work.insert(Project(id=work.new_id(), name=ask.name, created_at=work.now))
    work.touch(f"project:{project.id}")
    return ProjectView(id=project.id, name=project.name, created_at=project.created_at)


@query("project.list", permission="project:read", scope=Scope.INSTANCE)
def list_projects(ask: ListProjects, view: View) -> ProjectList:
    """List the projects of this instance."""
    rows = view.tx.select(Project, order="name", limit=ask.limit)
    return ProjectList(
        items=tuple(ProjectView(id=p.id, name=p.name, created_at=p.created_at) for p in rows)
    )


class CreateActor(_Ask, frozen=True, kw_only=True):
    """Ask for a new actor."""

    name: Name
    kind: ActorKind = ActorKind.PERSON


class ActorView(msgspec.Struct, frozen=True, kw_only=True):
    """An actor as callers see it."""

    id: Id
    name: str
    kind: ActorKind
    disabled: bool


@verb("actor.create", permission="actor:admin", scope=Scope.INSTANCE)
def create_actor(ask: CreateActor, work: Work) -> ActorView:
    """Add a person or a service that may be given roles and tokens.

    Raises:
        InvalidInput: ``name.invalid``.
        Conflict: ``actor.exists``.
    """
    check_name(ask.name, "Actor")
    if work.tx.select(Actor, *where(name=ask.name), limit=1):
        raise Conflict(
            "actor.exists",
            f"There is an actor {ask.name!r} already.",
            hint="Choose another name, or grant a role to the one that is there.",
        )
    actor = work.insert(Actor(id=work.new_id(), name=ask.name, kind=ask.kind, created_at=work.now))
    work.touch(f"actor:{actor.id}")
    return _actor_view(actor)


class DisableActor(_Ask, frozen=True, kw_only=True):
    """Ask to shut an actor out."""

    actor: Name


@verb("actor.disable", permission="actor:admin", scope=Scope.INSTANCE)
def disable_actor(ask: DisableActor, work: Work) -> ActorView:
    """Refuse everything that an actor's tokens ask from now on.

    Raises:
        NotFound: ``actor.not_found``.
        Conflict: ``actor.last_admin`` when nobody could administer the instance afterwards.
    """
    actor = get_actor(work, ask.actor)
    _require_other_admin(work, ActorId(actor.id))
    changed = work.replace(msgspec.structs.replace(actor, disabled=True))
    work.touch(f"actor:{actor.id}")
    return _actor_view(changed)


class GrantRole(_Ask, frozen=True, kw_only=True):
    """Ask for a role; ``project`` ``*`` means the whole instance."""

    actor: Name
    role: Role
    project: Name = "*"


class RoleView(msgspec.Struct, frozen=True, kw_only=True):
    """A role of an actor in a project."""

    actor: str
    role: Role
    project: str


@verb("role.grant", permission="role:admin", scope=Scope.INSTANCE)
def grant_role(ask: GrantRole, work: Work) -> RoleView:
    """Give an actor a role in a project or on the whole instance; repeating changes nothing.

    Raises:
        NotFound: ``actor.not_found`` or ``project.not_found``.
    """
    actor = get_actor(work, ask.actor)
    project = get_project_id(work, ask.project)
    held = work.tx.select(
        RoleGrant, *where(actor=actor.id, project=project, role=ask.role.value), limit=1
    )
    if not held:
        work.insert(
            RoleGrant(
                id=work.new_id(),
                actor=ActorId(actor.id),
                project=project,
                role=ask.role,
                granted_by=work.caller.actor,
                granted_at=work.now,
            )
        )
        work.touch(f"actor:{actor.id}", f"project:{project}")
    return RoleView(actor=actor.name, role=ask.role, project=ask.project)


class RevokeRole(GrantRole, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask to take a role away."""


@verb("role.revoke", permission="role:admin", scope=Scope.INSTANCE)
def revoke_role(ask: RevokeRole, work: Work) -> RoleView:
    """Take a role from an actor; it holds from the next call on.

    Raises:
        NotFound: ``actor.not_found``, ``project.not_found`` or ``role.not_held``.
        Conflict: ``actor.last_admin``.
    """
    actor = get_actor(work, ask.actor)
    project = get_project_id(work, ask.project)
    held = work.tx.select(
        RoleGrant, *where(actor=actor.id, project=project, role=ask.role.value), limit=1
    )
    if not held:
        raise NotFound(
            "role.not_held",
            f"{actor.name} is not {ask.role.value} there.",
            hint="Look at the roles with `everloop token list`.",
        )
    if ask.role is Role.ADMIN and project == EVERYWHERE:
        _require_other_admin(work, ActorId(actor.id))
    work.delete(held[0])
    work.touch(f"actor:{actor.id}", f"project:{project}")
    return RoleView(actor=actor.name, role=ask.role, project=ask.project)


class ListActors(_Ask, frozen=True, kw_only=True):
    """Ask who may act in the project."""


class ActorList(msgspec.Struct, frozen=True, kw_only=True):
    """Actors with a role in the project or on the whole instance, by name."""

    items: tuple[ActorView, ...]


@query("actor.list", permission="actor:read")
def list_actors(ask: ListActors, view: View) -> ActorList:
    """List who has a role in the project."""
    places = (EVERYWHERE, view.project)
    held = {
        grant.actor
        for place in places
        for grant in view.tx.select(RoleGrant, *where(project=place))
    }
    actors = (view.tx.find(Actor, Id(key)) for key in held)
    named = sorted((actor for actor in actors if actor is not None), key=lambda row: row.name)
    return ActorList(items=tuple(_actor_view(actor) for actor in named))


class Configure(_Ask, frozen=True, kw_only=True):
    """Ask to put a checked configuration document in force."""

    document: dict[str, object]


class ConfigurationView(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration in force."""

    number: int
    document: dict[str, object]


@verb("project.configure", permission="project:admin")
def configure(ask: Configure, work: Work) -> ConfigurationView:
    """Put a project's configuration in force; the same document again changes nothing."""
    latest = work.select(ProjectSettings, order="number", descending=True, limit=1)
    if latest and latest[0].document == ask.document:
        return ConfigurationView(number=latest[0].number, document=latest[0].document)
    number = latest[0].number + 1 if latest else 1
    row = work.insert(
        ProjectSettings(
            id=work.new_id(),
            project=work.project,
            number=number,
            document=ask.document,
            at=work.now,
        )
    )
    work.touch(f"project:{work.project}", f"project_settings:{row.id}")
    return ConfigurationView(number=number, document=ask.document)


class ShowConfiguration(_Ask, frozen=True, kw_only=True):
    """Ask for the configuration in force."""


@query("project.settings", permission="project:read")
def show_configuration(ask: ShowConfiguration, view: View) -> ConfigurationView:
    """Show the project's configuration in force; number 0 before the first."""
    latest = view.select(ProjectSettings, order="number", descending=True, limit=1)
    if not latest:
        return ConfigurationView(number=0, document={})
    return ConfigurationView(number=latest[0].number, document=latest[0].document)


def _actor_view(actor: Actor) -> ActorView:
    return ActorView(id=actor.id, name=actor.name, kind=actor.kind, disabled=actor.disabled)


def get_actor(view: View, name: str) -> Actor:
    """Return the actor of that name.

    Raises:
        NotFound: ``actor.not_found``.
    """
    found = view.tx.select(Actor, *where(name=name), limit=1)
    if not found:
        raise missing("actor", name)
    return found[0]


def get_project_id(view: View, name: str) -> ProjectId:
    """Return the id of the project of that name; ``*`` stands for itself.

    Raises:
        NotFound: ``project.not_found``.
    """
    if name == EVERYWHERE:
        return EVERYWHERE
    found = view.tx.select(Project, *where(name=name), limit=1)
    if not found:
        raise missing("project", name)
    return ProjectId(found[0].id)


def missing(kind: str, name: str) -> NotFound:
    """Return the error for a name that nothing has."""
    return NotFound(
        f"{kind}.not_found",
        f"There is no {kind} {name[:60]!r}.",
        hint=f"Check the name, or list them with `everloop {kind} list`.",
    )


def _require_other_admin(work: Work, leaving: ActorId) -> None:
    admins = work.tx.select(RoleGrant, *where(project=EVERYWHERE, role=Role.ADMIN.value))
    for grant in admins:
        actor = work.tx.find(Actor, Id(grant.actor))
        if grant.actor == leaving or actor is None or actor.disabled:
            continue
        if (
            actor.kind is ActorKind.PERSON
        ):  # the loop and the server are admins, and ask for nothing
            return
    raise Conflict(
        "actor.last_admin",
        "No person could administer the instance afterwards.",
        hint="Make another person admin first.",
    )
