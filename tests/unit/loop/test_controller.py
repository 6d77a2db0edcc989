"""How long the controller lets answers be gathered before they are sealed."""

from __future__ import annotations

from everloop.core.errors import NotFound
from everloop.core.ids import Id
from everloop.core.wire import Applied
from everloop.loop.controller import Controller
from everloop.loop.ports import TrainingJob, TrainingResult
from everloop.loop.settings import read_settings
from tests.unit.release.released import DOCUMENT, Released


class Pauses:
    """A source without answers that keeps for how long it was told to wait."""

    def __init__(self) -> None:
        self.told: list[float] = []

    def seal(self, deployment: Id, name: str, champion: Id | None, *, pause_s: float = 0.0) -> int:
        del deployment, name, champion
        self.told.append(pause_s)
        return 0

    def applied(self, deployment: Id, name: str) -> Applied | None:
        del deployment, name
        return None


class NoTrainer:
    """Trains nothing."""

    def start(self, job: TrainingJob) -> None:
        del job

    def poll(self, key: str) -> TrainingResult | None:
        raise NotFound("training.unknown", key, hint="")


def controller_of(released: Released, source: Pauses) -> Controller:
    world = released.world
    return Controller(
        world.loop, trainer=NoTrainer(), source=source, clock=world.clock, owner="test"
    )


def test_answers_are_gathered_until_a_release_waits_for_evidence() -> None:
    released = Released()
    released.champion(released.version(1.0))
    released.world.clock.push(days=60)  # nothing is watched any more
    pauses = Pauses()
    controller = controller_of(released, pauses)

    controller.step("bikes")
    released.start(released.version(2.0), strategy="canary")
    controller.step("bikes")

    assert [10.0, 0.0] == pauses.told


def test_a_replay_of_event_time_is_sealed_at_once() -> None:
    released = Released()
    demand: dict[str, object] = DOCUMENT["models"]["demand"]  # type: ignore[index]
    released.world.configure({"models": {"demand": {**demand, "loop": {"time": "event"}}}})
    pauses = Pauses()
    controller = controller_of(released, pauses)

    controller.step("bikes")

    assert [0.0] == pauses.told


def test_a_model_whose_settings_name_no_target_is_looked_after() -> None:
    released = Released()
    released.world.configure({"models": {"demand": {"target": None, "log": {"sample": 0.5}}}})

    settings = read_settings(released.owner, "demand")

    assert ("", 0.5) == (settings.target, settings.log.sample)
