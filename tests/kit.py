"""A small world for tests: a real kernel over the in-memory ports, a clock to push, and people."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from everloop.core.errors import Conflict
from everloop.core.ids import ActorId, IdSource
from everloop.core.ports import BlobStore, MetadataStore
from everloop.core.records import declared_kinds
from everloop.kernel import admin
from everloop.kernel.authz import Caller, Role
from everloop.kernel.bootstrap import LOOP, OWNER, SERVER, local_caller
from everloop.kernel.perform import Call, Kernel
from everloop.kernel.performer import LocalPerformer
from everloop.kernel.safe_load import LoadPolicy
from everloop.kernel.signing import Ed25519Signer
from everloop.kernel.unit_of_work import Services
from everloop.storage.memory import MemoryMetadataStore
from everloop.storage.memory_blobs import MemoryBlobStore

START = datetime(2026, 1, 1, tzinfo=UTC)
PROJECT = "demo"


class PushedClock:
    """A clock that stands still until a test pushes it."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def push(self, **delta: float) -> None:
        self._now += timedelta(**delta)


@dataclass
class World:
    """A kernel with one project, its owner and people made on demand."""

    kernel: Kernel
    clock: PushedClock
    people: dict[str, Caller] = field(default_factory=dict)

    @property
    def blobs(self) -> BlobStore:
        """Bytes as the project sees them."""
        return self.owner.blobs

    @property
    def whole(self) -> BlobStore:
        """Bytes of all projects."""
        return self.kernel.services.blobs

    @property
    def owner(self) -> LocalPerformer:
        return self.service(OWNER)

    @property
    def server(self) -> LocalPerformer:
        return self.service(SERVER)

    @property
    def loop(self) -> LocalPerformer:
        return self.service(LOOP)

    def service(self, name: str, project: str = PROJECT) -> LocalPerformer:
        return LocalPerformer(self.kernel, local_caller(self.kernel, name), project)

    def person(
        self, name: str, role: Role, *, project: str = PROJECT, scope: tuple[str, ...] = ("*",)
    ) -> LocalPerformer:
        """A performer of a person with one role, made on first use."""
        if name not in self.people:
            made = self.instance(admin.CreateActor(name=name), "actor.create")
            assert isinstance(made, admin.ActorView)
            self.people[name] = Caller(actor=ActorId(made.id), scope=scope)
        self.instance(admin.GrantRole(actor=name, role=role, project=project), "role.grant")
        return LocalPerformer(self.kernel, self.people[name], project)

    def instance(self, ask: msgspec.Struct, verb: str) -> msgspec.Struct:
        """Perform an instance verb as the owner."""
        caller = local_caller(self.kernel, OWNER)
        return self.kernel.perform(Call(verb=verb, caller=caller, ask=ask))

    def project(self, name: str) -> None:
        """Make one more project."""
        self.instance(admin.CreateProject(name=name), "project.create")

    def configure(self, document: dict[str, object], project: str = PROJECT) -> None:
        """Put a configuration in force."""
        self.service(OWNER, project).perform(
            "project.configure", admin.Configure(document=document), admin.ConfigurationView
        )


def world(
    store: MetadataStore | None = None,
    blobs: BlobStore | None = None,
    policy: LoadPolicy | None = None,
) -> World:
    """Return a fresh world; in memory unless a store is given."""
    clock = PushedClock()
    services = Services(
        clock=clock,
        ids=IdSource(lambda: int(clock.now().timestamp() * 1000), os.urandom),
        blobs=blobs or MemoryBlobStore(),
        signers={
            name: Ed25519Signer(name, bytes([seed]) * 32)
            for seed, name in enumerate(("ledger", "evaluator"))
        },
        policy=policy or LoadPolicy(),
        random_bytes=os.urandom,
    )
    kernel = Kernel(
        store or MemoryMetadataStore(declared_kinds()), services, origin="everloop.test/ledger"
    )
    made = World(kernel, clock)
    made.service(OWNER)
    with suppress(Conflict):
        made.project(PROJECT)
    return made
