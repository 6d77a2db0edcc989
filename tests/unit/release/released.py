"""A small project with a registered model and a deployment, for tests of releases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import everloop.gate.verbs  # noqa: F401 -- declares gate.waive
from everloop.core.ids import Id
from everloop.core.wire import Arm
from everloop.gate.verbs import WaiveGate
from everloop.kernel.authz import Role
from everloop.kernel.bootstrap import OWNER, local_caller
from everloop.kernel.performer import LocalPerformer
from everloop.kernel.unit_of_work import View
from everloop.registry.client import upload_files
from everloop.registry.evidence import Waiver
from everloop.registry.model import ModelVersion
from everloop.registry.signature import Field, Signature
from everloop.registry.verbs import RegisterModel
from everloop.release.model import Assigned, BadEvent, Guardrail, Limits, News, Pair
from everloop.release.observing import ObserveRelease
from everloop.release.queries import (
    DeploymentView,
    ReleaseView,
    ShowDeployment,
)
from everloop.release.verbs import CreateDeployment, Rollback, StartRelease
from tests.kit import World, world
from tests.unit.serve.served import shifted_model

SIGNATURE = Signature(
    inputs=(
        Field(name="hour", dtype="int64"),
        Field(name="temperature", dtype="float64", nullable=True),
        Field(name="working_day", dtype="bool"),
        Field(name="weather", dtype="string", categories=("clear", "mist", "rain", "snow")),
    ),
    output=Field(name="rentals", dtype="float64"),
    task="regression",
)
DOCUMENT: dict[str, object] = {
    "models": {
        "demand": {
            "release": {
                "min_pairs": 40,
                "shares": [0.2, 0.5],
                "min_stage_requests": 50,
                "min_canary_requests": 20,
                "deadline_days": 10,
            }
        }
    }
}


@dataclass
class Released:
    """A world with the model ``demand`` and the deployment ``bikes``."""

    world: World = field(default_factory=world)

    def __post_init__(self) -> None:
        self.world.configure(DOCUMENT)
        self.version(0, waived=False)
        self.owner.perform(
            "deployment.create", CreateDeployment(name="bikes", model="demand"), DeploymentView
        )

    @property
    def owner(self) -> LocalPerformer:
        return self.world.owner

    @property
    def now(self) -> datetime:
        return self.world.clock.now()

    def version(
        self,
        shift: float,
        *,
        waived: bool = True,
        dataset: Id | None = None,
        signature: Signature = SIGNATURE,
    ) -> ModelVersion:
        """Register a model that answers ``shift`` more, and let it past its gate."""
        ask = RegisterModel(
            name="demand",
            files=upload_files(self.world.blobs, {"model.txt": shifted_model(shift)}),
            format="lightgbm",
            signature=signature,
            dataset=dataset,
        )
        made = self.owner.perform("model.register", ask, ModelVersion)
        if waived:
            approver = self.world.person("paula", Role.APPROVER)
            approver.perform(
                "gate.waive", WaiveGate(version=made.id, why="a test of releases"), Waiver
            )
        return made

    def start(self, version: ModelVersion, **options: object) -> ReleaseView:
        ask = StartRelease(deployment="bikes", version=version.id, **options)  # type: ignore[arg-type]
        return self.owner.perform("release.start", ask, ReleaseView)

    def observe(
        self, seen: ReleaseView, news: News, *, at: datetime | None = None, segment: int = 1
    ) -> ReleaseView:
        """Tell news that came since ``seen``."""
        before = seen.release
        ask = ObserveRelease(
            release=before.id,
            after_segment=before.cursor_segment,
            after_feedback=before.cursor_feedback,
            cursor_segment=before.cursor_segment + segment,
            cursor_feedback=before.cursor_feedback,
            news=news,
            limits=Limits(loss=100.0),
            at=at,
        )
        return self.world.loop.perform("release.observe", ask, ReleaseView)

    def rollback(self, why: str = "it is wrong") -> DeploymentView:
        return self.owner.perform(
            "release.rollback", Rollback(deployment="bikes", why=why), DeploymentView
        )

    def deployment(self) -> DeploymentView:
        return self.owner.perform(
            "deployment.show", ShowDeployment(deployment="bikes"), DeploymentView
        )

    @contextmanager
    def look(self) -> Iterator[View]:
        """Read the records themselves."""
        kernel = self.world.kernel
        project = self.deployment().deployment.project
        with kernel.store.read() as tx:
            yield View(tx, local_caller(kernel, OWNER), project, kernel.services)

    def champion(self, version: ModelVersion) -> ReleaseView:
        """Make a version the champion."""
        return self.start(version, strategy="all_at_once")


def pairs(count: int, *, champion: float = 0.4, candidate: float = 0.4) -> News:
    """Paired answers with these losses."""
    return News(pairs=(Pair(champion=champion, candidate=candidate),) * count)


def traffic(champion: int, canary: int, *, share: float | None = None) -> News:
    """Requests without a fault, split as intended unless the share says otherwise."""
    intended = canary / (champion + canary) if share is None else share
    counts = {Arm.CHAMPION: champion, Arm.CANARY: canary}
    return News(
        assigned=tuple(
            Assigned(arm=arm, share=intended, count=count) for arm, count in counts.items()
        )
    )


def faults(guardrail: Guardrail, *, champion: int, canary: int, share: float) -> News:
    """Bad events of both arms."""
    return News(
        events=(BadEvent(guardrail=guardrail, arm=Arm.CANARY, share=share),) * canary
        + (BadEvent(guardrail=guardrail, arm=Arm.CHAMPION, share=share),) * champion
    )
