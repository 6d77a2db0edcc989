"""What holds the loop's run, what lets it go on, and what ends it: people, and lasting refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from everloop.core.ids import Id
from everloop.data.snapshot import commit_table
from everloop.gate.verbs import ApproveArtifact, WaiveGate
from everloop.kernel.authz import Role
from everloop.loop.controller import Controller
from everloop.loop.model import LoopRun, LoopState
from everloop.loop.ports import TrainingJob, TrainingResult
from everloop.loop.verbs import Pause, Resume, SwitchView
from everloop.registry.evidence import Approval, Waiver
from everloop.registry.model import ModelVersion
from everloop.release.halting import HaltDeployment, ResumeDeployment
from everloop.release.queries import DeploymentView, ReleaseView
from everloop.release.verbs import Rollback, StartRelease
from tests.kit import World
from tests.story.test_loop_closes import SETTINGS, Scene, TrainHere, fit, rows, scene, store

__all__ = ["scene", "store"]  # the fixtures


@dataclass
class Interrupted(TrainHere):
    """Trains at once, and then somebody does something."""

    then: Callable[[str], None] = field(default=lambda key: None)

    def start(self, job: TrainingJob) -> None:
        super().start(job)
        self.then(job.key)


def live_until_trained(scene: Scene, then: Callable[[str], None]) -> LoopRun:
    """Let the world change until the loop has trained and something has come in between."""
    trainer = Interrupted(scene.world, then=then)
    scene.controller = Controller(
        scene.world.loop,
        trainer=trainer,
        source=scene.stream,
        clock=scene.world.clock,
        owner="test",
    )
    for day in range(40, 100, 2):
        scene.live_days(rows(day, 2, slope=-2.0, seed=day))
        if trainer.done:
            return run_of(scene)
    raise AssertionError("the loop never trained")


def run_of(scene: Scene) -> LoopRun:
    return scene.runs().items[0]


def version_of_somebody(world: World) -> ModelVersion:
    """Register a version of the same model by hand, and let it past its gate."""
    table = rows(0, 20, slope=1.0, seed=9)
    made = fit(world, *(commit_table(world.owner, name, table) for name in ("mine", "held")))
    approver = world.person("paula", Role.APPROVER)
    approver.perform("gate.waive", WaiveGate(version=made.id, why="to wait for"), Waiver)
    return made


def test_a_pause_holds_a_run_before_its_gate_until_the_loop_is_resumed(scene: Scene) -> None:
    deployment = scene.view().deployment.id
    owner = scene.world.owner

    def pause(key: str) -> None:
        del key
        owner.perform("loop.pause", Pause(deployment=deployment), SwitchView)

    held = live_until_trained(scene, pause)
    owner.perform("loop.resume", Resume(deployment=deployment), SwitchView)
    scene.settle()

    assert (LoopState.TRAINING, None) == (held.state, held.version)
    assert None is not run_of(scene).report


def test_a_run_waits_for_a_release_that_somebody_else_began(scene: Scene) -> None:
    world = scene.world

    def begin(key: str) -> None:
        del key
        other = version_of_somebody(world)
        ask = StartRelease(deployment="m", version=other.id, strategy="canary")
        world.owner.perform("release.start", ask, ReleaseView)

    held = live_until_trained(scene, begin)
    world.owner.perform("release.rollback", Rollback(deployment="m", why="mine"), DeploymentView)
    scene.settle()

    assert (LoopState.GATING, None) == (held.state, held.report)
    assert None is not run_of(scene).report


def test_a_run_that_cannot_go_on_is_given_up_and_says_why(scene: Scene) -> None:
    def lose(key: str) -> None:
        trainer.done[key] = TrainingResult(version=Id("nowhere"), error=None)

    trainer = Interrupted(scene.world, then=lose)
    scene.controller = Controller(
        scene.world.loop,
        trainer=trainer,
        source=scene.stream,
        clock=scene.world.clock,
        owner="test",
    )
    for day in range(40, 100, 2):
        scene.live_days(rows(day, 2, slope=-2.0, seed=day))
        if trainer.done:
            break

    assert LoopState.ABANDONED is run_of(scene).state
    assert "can't go on from gating: There is no" in run_of(scene).why


def live_until_held(scene: Scene) -> LoopRun:
    """Let the world change until a run has passed its gate and waits to begin its release."""
    scene.live_days(rows(40, 45, slope=-2.0, seed=3))
    held = run_of(scene)
    assert held.state is LoopState.GATING, held.why
    return held


def test_a_run_waits_while_its_deployment_is_halted(scene: Scene) -> None:
    owner = scene.world.owner
    owner.perform("deployment.halt", HaltDeployment(deployment="m"), DeploymentView)

    held = live_until_held(scene)
    owner.perform("deployment.resume", ResumeDeployment(deployment="m"), DeploymentView)
    scene.settle()

    assert None is held.release
    assert None is not run_of(scene).release


def test_a_run_waits_for_the_consent_that_its_tier_needs(scene: Scene) -> None:
    models = cast("dict[str, dict[str, dict[str, object]]]", SETTINGS["models"])
    model = models["m"] | {"release": models["m"]["release"] | {"tier": "limited"}}
    scene.world.configure({"models": {"m": model}})

    held = live_until_held(scene)
    assert held.version is not None
    approver = scene.world.person("paula", Role.APPROVER)
    approver.perform("gate.approve", ApproveArtifact(version=held.version), Approval)
    scene.settle()

    assert None is held.release
    assert None is not run_of(scene).release
