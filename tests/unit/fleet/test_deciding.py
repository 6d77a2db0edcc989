"""A staged release goes back on evidence, on when nothing speaks against it; it says why not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from msgspec.structs import replace

from everloop.core.digest import Digest
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.fleet.deciding import (
    Adoption,
    BadDevice,
    adoption_of,
    begin,
    is_worse,
    share_of_candidate,
    take_in,
    why_not_yet,
)
from everloop.fleet.model import (
    Device,
    FleetConfig,
    FleetRelease,
    Guardrail,
    Refusal,
    State,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW, OLD = Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)


def release(**changes: object) -> FleetRelease:
    made = FleetRelease(
        id=Id("r"),
        project=ProjectId("p"),
        fleet=Id("f"),
        candidate=Id("c"),
        before=Id("b"),
        state=State.ROLLING,
        live="live",
        stage=0,
        stage_at=NOW,
        config=FleetConfig(),
        guardrails=begin(),
        counted={},
        answers=0,
        evidence_bad=1.0,
        started_at=NOW,
        started_by=ActorId("a"),
        ended_at=None,
        why="",
        evidence="waiver:w",
    )
    return replace(made, **changes)


def device(number: int, running: Digest | None, group: str = "canary", **more: object) -> Device:
    made = Device(
        id=Id(f"d{number}"),
        project=ProjectId("p"),
        fleet=Id("f"),
        name=f"d{number}",
        group=group,
        actor=ActorId("x"),
        token=Id(f"t{number}"),
        enrolled_at=NOW,
        enrolled_by=ActorId("a"),
        running=running,
    )
    return replace(made, **more)


def bad(number: int, guardrail: Guardrail = Guardrail.ERROR, *, mine: bool = True) -> BadDevice:
    return BadDevice(Id(f"d{number}"), guardrail, by_candidate=mine)


def test_devices_of_the_candidate_that_all_fail_take_it_back() -> None:
    found = release()
    needed = 0
    while not is_worse(found):
        needed += 1
        found = take_in(found, [bad(needed)], 0.1)

    assert 3 <= needed <= 5


def test_a_device_counts_once_however_often_it_fails() -> None:
    found = release()

    for _ in range(1_000):
        found = take_in(found, [bad(1)], 0.1)

    assert not is_worse(found)
    assert 1 == found.guardrails["error"].events


def test_faults_spread_like_the_devices_are_no_evidence() -> None:
    found = release()

    for number in range(200):
        found = take_in(found, [bad(number, mine=number % 10 == 0)], 0.1)

    assert found.evidence_bad < 1.0


def test_identical_versions_are_rarely_taken_back() -> None:
    random = np.random.default_rng(3)
    taken_back = 0
    for _ in range(400):
        found = release()
        for number in range(60):
            kind = list(Guardrail)[number % 3]
            found = take_in(found, [bad(number, kind, mine=bool(random.random() < 0.2))], 0.2)
            if is_worse(found):
                taken_back += 1
                break

    assert taken_back <= 400 * 0.01 + 3 * (400 * 0.01 * 0.99) ** 0.5


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_where_only_one_side_could_have_done_it_nothing_is_learned(share: float) -> None:
    found = take_in(release(), [bad(1, mine=share == 1.0)], share)

    assert 1.0 == pytest.approx(found.evidence_bad)
    assert (Id("d1"),) == found.counted["error"]


def test_the_share_counts_devices_that_run_or_left_the_candidate() -> None:
    left = Refusal(digest=NEW, reason="edge.golden")
    devices = [
        device(1, NEW),
        device(2, OLD, refused=(left,)),
        device(3, OLD),
        device(4, OLD),
        device(5, None),
        device(6, NEW, revoked_at=NOW),
    ]

    assert 0.5 == share_of_candidate(devices, NEW, OLD)
    assert 0.0 == share_of_candidate([device(5, None)], NEW, OLD)


def test_adoption_counts_the_groups_that_were_reached() -> None:
    devices = [device(1, NEW), device(2, OLD), device(3, OLD, group="rest")]

    assert Adoption(2, 1) == adoption_of(devices, ["canary"], NEW)


@pytest.mark.parametrize(
    ("changes", "adopted", "hours", "lacking"),
    [
        ({"answers": 500}, 9, 2, None),
        ({"answers": 500, "evidence_bad": 3.5}, 9, 2, "the evidence against it is 3.5"),
        ({"answers": 500}, 7, 2, "7 of 10 devices run it"),
        ({"answers": 99}, 9, 2, "it has answered 99 of 100 requests"),
        ({"answers": 500}, 9, 0.5, "it has not run for 1 hours yet"),
    ],
)
def test_a_step_waits_for_what_is_lacking(
    changes: dict[str, object], adopted: int, hours: float, lacking: str | None
) -> None:
    now = NOW + timedelta(hours=hours)

    assert lacking == why_not_yet(release(**changes), Adoption(10, adopted), now, FleetConfig())
