"""The first change of an instance: its owner, its service actors and their roles.

It runs once, as a verb of its own that only works while there is no actor at all, so that even the
first rows are in the ledger.
"""

from __future__ import annotations

import msgspec

from everloop.core.errors import Conflict
from everloop.core.ids import ActorId, Id
from everloop.core.ports import where
from everloop.kernel.authz import EVERYWHERE, Actor, ActorKind, Caller, Role, RoleGrant
from everloop.kernel.perform import Call, Kernel
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import Scope, verb

OWNER = "owner"
LOOP = "everloop-loop"
SERVER = "everloop-server"
_NOBODY = ActorId("bootstrap")


class InitialiseInstance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the first actors."""


class FirstActors(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of the first actors, by name."""

    actors: dict[str, Id]


@verb("instance.initialise", permission="instance:admin", scope=Scope.INSTANCE, open_to_all=True)
def initialise(ask: InitialiseInstance, work: Work) -> FirstActors:
    """Make the owner and the service actors of an empty instance.

    Raises:
        Conflict: ``instance.exists`` once there is any actor.
    """
    if work.tx.count(Actor):
        raise Conflict(
            "instance.exists",
            "This instance has its actors already.",
            hint="Log in, or print a login link with `everloop token login`.",
        )
    made = {
        name: _actor(work, name, kind, role)
        for name, kind, role in (
            (OWNER, ActorKind.PERSON, Role.ADMIN),
            (LOOP, ActorKind.SERVICE, Role.ADMIN),
            (SERVER, ActorKind.SERVICE, Role.ADMIN),
        )
    }
    return FirstActors(actors=made)


def _actor(work: Work, name: str, kind: ActorKind, role: Role) -> Id:
    actor = work.insert(Actor(id=work.new_id(), name=name, kind=kind, created_at=work.now))
    work.insert(
        RoleGrant(
            id=work.new_id(),
            actor=ActorId(actor.id),
            project=EVERYWHERE,
            role=role,
            granted_by=_NOBODY,
            granted_at=work.now,
        )
    )
    work.touch(f"actor:{actor.id}")
    return actor.id


def local_caller(kernel: Kernel, name: str) -> Caller:
    """Return a first actor of this instance, for the process that owns the home folder.

    Initialises the instance when it is empty. Only the composition root may call this: whoever
    can read the home folder's keys is the owner.
    """
    with kernel.store.read() as tx:
        found = tx.select(Actor, *where(name=name), limit=1)
    if found:
        return Caller(actor=ActorId(found[0].id))
    answer = kernel.perform(
        Call(
            verb="instance.initialise",
            caller=Caller(actor=_NOBODY),
            ask=InitialiseInstance(),
        )
    )
    assert isinstance(answer, FirstActors)
    return Caller(actor=ActorId(answer.actors[name]))
