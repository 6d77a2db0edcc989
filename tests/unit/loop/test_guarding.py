"""What a release is told: only what came after it began, in bounded bites, once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from everloop.core.ids import Id, IdSource
from everloop.core.wire import Applied, Arm, PredictionRow, RefusedBundle, Status
from everloop.loop.guarding import USUAL, Around, Bite, guard
from everloop.monitor.segments import encode_rows
from everloop.monitor.verbs import SealedSegment, SealSegment
from everloop.release.model import Guardrail, Release, State, Tally
from tests.unit.release.released import Released


@dataclass
class Guarded:
    """A canary that a person began, and the answers that are sealed for it."""

    demo: Released = field(default_factory=Released)
    offset: int = 0

    def __post_init__(self) -> None:
        self.ids = IdSource(lambda: int(self.demo.now.timestamp() * 1000), os.urandom)
        self.first, self.second = self.demo.version(1), self.demo.version(2)
        self.demo.champion(self.first)

    def seal(self, count: int, *, epoch: int, version: Id, latency_us: int = 10) -> int:
        is_canary = version == self.second.id
        row = PredictionRow(
            id=Id(""),
            at=self.demo.now,
            logged_at=self.demo.now,
            version=version,
            arm=Arm.CANARY if is_canary else Arm.CHAMPION,
            share=0.2,
            status=Status.ERROR if is_canary else Status.OK,
            latency_us=latency_us,
            inputs={},
            output=1.0,
            epoch=epoch,
        )
        rows = [replace(row, id=self.ids.new()) for _ in range(count)]
        ask = SealSegment(
            deployment=self.demo.deployment().deployment.id,
            file="w-1.jsonl",
            offset_start=self.offset,
            offset_end=self.offset + count,
            blob=self.demo.world.blobs.put(encode_rows(rows)),
        )
        self.offset += count
        return self.demo.world.server.perform("prediction.seal", ask, SealedSegment).seq

    def guard(self, release: Release, bite: Bite = USUAL) -> Release:
        return guard(self.demo.world.loop, release, self.demo.now, bite)


def test_a_canary_without_cursors_is_guarded_at_once_however_long_the_history() -> None:
    made = Guarded()
    for _ in range(10):
        made.seal(2, epoch=1, version=made.first.id)
    release = made.demo.start(made.second, strategy="canary").release
    last = made.seal(2, epoch=release.epoch, version=made.second.id)

    seen = made.guard(release, Bite(pieces=3))

    assert last == seen.cursor_segment
    assert 2 == seen.standing.guardrails[Guardrail.ERROR].events


def test_a_bite_is_bounded_and_the_next_one_goes_on_from_it() -> None:
    made = Guarded()
    release = made.demo.start(made.second, strategy="canary").release
    for _ in range(3):
        made.seal(2, epoch=release.epoch, version=made.second.id)

    first = made.guard(release, Bite(rows=4))
    second = made.guard(first)

    assert [2, 3] == [first.cursor_segment, second.cursor_segment]
    assert [4, 6] == [
        found.standing.guardrails[Guardrail.ERROR].events for found in (first, second)
    ]


def test_the_latency_limit_is_learned_where_nobody_told_it() -> None:
    made = Guarded()
    made.seal(150, epoch=1, version=made.first.id, latency_us=70)
    release = made.demo.start(made.second, strategy="canary").release
    made.seal(1, epoch=release.epoch, version=made.first.id)

    assert 70.0 == made.guard(release).limits.latency_us


def test_a_promoted_version_is_watched_against_the_answers_of_the_champion_before() -> None:
    made = Guarded()
    made.seal(400, epoch=1, version=made.first.id)
    release = made.demo.start(made.second, strategy="all_at_once").release
    made.seal(60, epoch=release.epoch + 1, version=made.second.id)

    undone = made.guard(release)

    assert undone.record is not None
    assert Tally(answers=400) == undone.record["error"]
    assert State.ROLLED_BACK == undone.state
    assert made.first.id == made.demo.deployment().deployment.champion


def test_a_rollback_waits_for_no_record_of_what_was_answered() -> None:
    made = Guarded()
    made.demo.champion(made.second)
    for _ in range(5):
        made.seal(50, epoch=9, version=made.second.id)

    back = made.demo.rollback()

    assert made.first.id == back.deployment.champion


@pytest.mark.parametrize(
    ("seen_epoch", "epoch", "refused", "state"),
    [
        (0, 0, False, State.STANDBY),
        (99, 0, False, State.STANDBY),
        (99, 99, False, State.PROMOTED),
        (99, 99, True, State.REFUSED),
    ],
)
def test_the_servers_report_decides_a_blue_green_release(
    seen_epoch: int, epoch: int, refused: bool, state: State
) -> None:
    made = Guarded()
    release = made.demo.start(made.second, strategy="blue_green").release
    refusal = RefusedBundle(
        role="shadow", version_id=made.second.id, code="bundle.golden", message="other answers"
    )
    applied = Applied(
        epoch=epoch,
        seen_epoch=seen_epoch,
        at=made.demo.now,
        pid=1,
        refused=(refusal,) if refused else (),
    )

    seen = guard(made.demo.world.loop, release, made.demo.now, USUAL, Around(applied=applied))

    assert state == seen.state
