"""A controller that dies after each of its writes, while answers go on: the loop still closes."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

import msgspec

from everloop.core.ids import Id
from everloop.core.ports import BlobStore
from everloop.core.wire import Label
from everloop.kernel.ledger import log
from everloop.kernel.performer import Performer
from everloop.loop.controller import Controller
from everloop.loop.model import FINAL, LoopRun, LoopState, LoopTransition
from everloop.monitor.feedback import AddFeedback, FeedbackReceipt
from everloop.registry.model import ModelVersion
from everloop.release.model import Release
from tests.kit import START, World
from tests.story.test_loop_closes import Scene, TrainHere, rows, scene, store

__all__ = ["scene", "store"]  # the fixtures
MOST_NEW_LABELS = 4
LOOKS = frozenset({"monitor.observe", "release.observe"})
A = TypeVar("A", bound=msgspec.Struct)


class Died(BaseException):
    """The process is gone: nobody may catch this and carry on."""


class MortalPerformer:
    """Performs verbs, and dies after each one that changed something."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._inner: Performer = world.loop
        self.deaths: Counter[str] = Counter()

    @property
    def project(self) -> str:
        return self._inner.project

    @property
    def blobs(self) -> BlobStore:
        return self._inner.blobs

    def perform(
        self,
        verb: str,
        ask: msgspec.Struct,
        answer: type[A],
        *,
        request: str | None = None,
        reason: str | None = None,
    ) -> A:
        before = self._entries()
        made = self._inner.perform(verb, ask, answer, request=request, reason=reason)
        if self._entries() > before:
            self.deaths[verb] += 1
            raise Died(verb)
        return made

    def _entries(self) -> int:
        with self._world.kernel.store.read() as tx:
            return log.size(tx)


class MortalController(Controller):
    """Begins anew after each death; what it knew is lost, and answers came in between."""

    def __init__(self, scene: Scene, performer: MortalPerformer) -> None:
        self._scene = scene
        self._mortal = performer
        self._late: list[tuple[Id, float]] = []
        self._begin()

    def _begin(self) -> None:
        world = self._scene.world
        super().__init__(
            self._mortal,
            trainer=TrainHere(world),
            source=self._scene.stream,
            clock=world.clock,
            owner="test",
        )

    def step(self, name: str) -> bool:
        while True:
            try:
                return super().step(name)
            except Died as death:
                self._begin()
                if str(death) not in LOOKS:  # else each look would have something new to see
                    self._answer_one_more()

    def _answer_one_more(self) -> None:
        today = (self._scene.world.clock.now() - START).days
        some = rows(40 + today, 1, slope=-2.0, seed=self._mortal.deaths.total())
        fresh = self._scene.stream.answer(some.slice(23), self._scene.view())
        labels = tuple(Label(prediction=key, value=truth) for key, truth in self._late)
        # Of an answer that was sealed by now: another row to train on, but not for ever.
        if labels and self._mortal.deaths["data.commit"] < MOST_NEW_LABELS:
            owner = self._scene.world.owner
            owner.perform("feedback.add", AddFeedback(labels=labels), FeedbackReceipt)
        self._late = fresh


def test_a_loop_whose_controller_dies_after_each_write_ends_as_it_should(scene: Scene) -> None:
    mortal = MortalPerformer(scene.world)
    scene.controller = MortalController(scene, mortal)

    scene.live_days(rows(40, 45, slope=-2.0, seed=3))

    with scene.world.kernel.store.read() as tx:
        runs = tx.select(LoopRun, order="started_at")
        steps = tx.select(LoopTransition, order="seq")
        releases = tx.select(Release)
        versions = tx.select(ModelVersion)
    must_die = {"loop.start", "loop.advance", "gate.evaluate", "release.start", "release.observe"}
    assert must_die | {"data.commit", "monitor.observe"} <= set(mortal.deaths)
    assert LoopState.PROMOTED in {run.state for run in runs}
    for run in runs:
        mine = [step for step in steps if step.run == run.id]
        assert list(range(1, run.transitions + 1)) == [step.seq for step in mine]
        begun = [release.id for release in releases if release.candidate == run.version]
        if run.state in FINAL and run.state is not LoopState.REFUSED:
            assert [run.release] == begun
    assert 1 + len([run for run in runs if run.version]) == len(versions)
    assert sum(release.live is not None for release in releases) <= 1
