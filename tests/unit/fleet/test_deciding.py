"""A staged release goes back on evidence, on when nothing speaks against it; it says why not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from msgspec.structs import replace

from everloop.core.ids import ActorId, Id, ProjectId
from everloop.fleet.deciding import (
    Adoption,
    BadDevice,
    begin,
    is_worse,
    share_of,
    take_in,
    why_not_yet,
)
from everloop.fleet.model import FleetConfig, FleetRelease, Guardrail, State

NOW = datetime(2026, 1, 1, tzinfo=UTC)


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
        answers=0,
        evidence_bad=1.0,
        started_at=NOW,
        started_by=ActorId("a"),
        ended_at=None,
        why="",
        evidence="waiver:w",
    )
    return replace(made, **changes)


def bad(share: float, *, mine: bool = True, guardrail: Guardrail = Guardrail.ERROR) -> BadDevice:
    return BadDevice(guardrail, mine, share)


def test_devices_of_the_candidate_that_all_fail_take_it_back() -> None:
    found = release()
    needed = 0
    while not is_worse(found):
        needed += 1
        found = take_in(found, [bad(0.1)])

    assert 3 <= needed <= 5


def test_faults_spread_like_the_devices_are_no_evidence() -> None:
    found = release()

    for number in range(200):
        found = take_in(found, [bad(0.1, mine=number % 10 == 0)])

    assert found.evidence_bad < 1.0


CAMPAIGNS = 400
MOST_TAKEN_BACK = CAMPAIGNS * 0.01 + 3 * (CAMPAIGNS * 0.01 * 0.99) ** 0.5


def test_identical_versions_are_rarely_taken_back() -> None:
    random = np.random.default_rng(3)
    taken_back = 0
    for _ in range(CAMPAIGNS):
        found = release()
        for number in range(60):
            kind = list(Guardrail)[number % 2]
            event = bad(0.2, mine=bool(random.random() < 0.2), guardrail=kind)
            found = take_in(found, [event])
            if is_worse(found):
                taken_back += 1
                break

    assert taken_back <= MOST_TAKEN_BACK


def test_flaky_devices_do_not_take_back_an_identical_version() -> None:
    """Each device errs one day, whichever version it runs, and counts once.

    The canaries come one after the other, when the others have mostly counted: those could not have
    done it again.
    """
    random = np.random.default_rng(11)
    taken_back = 0
    for _ in range(CAMPAIGNS):
        found = release()
        runs_it = np.arange(40) < 20
        comes = np.where(runs_it, random.exponential(2.0, 40), 0.0)
        errs = comes + random.exponential(1.0, 40)
        for who in np.argsort(errs):
            is_at_risk = (comes <= errs[who]) & (errs >= errs[who])
            share = share_of(int((is_at_risk & runs_it).sum()), int((is_at_risk & ~runs_it).sum()))
            found = take_in(found, [bad(share, mine=bool(runs_it[who]))])
            if is_worse(found):
                taken_back += 1
                break

    assert taken_back <= MOST_TAKEN_BACK


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_where_only_one_side_could_have_done_it_nothing_is_learned(share: float) -> None:
    found = take_in(release(), [bad(share, mine=share == 1.0)])

    assert 1.0 == pytest.approx(found.evidence_bad)
    assert 1 == found.guardrails["error"].events


def test_without_devices_the_candidate_has_no_share() -> None:
    assert [0.0, 0.25] == [share_of(0, 0), share_of(1, 3)]


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


def test_a_bundle_that_many_devices_leave_waits_for_a_person() -> None:
    now = NOW + timedelta(hours=2)

    told = [
        why_not_yet(release(answers=500), Adoption(40, 37, left), now, FleetConfig())
        for left in (2, 3)
    ]

    assert [None, "3 of 40 devices tried it and left it, so a person decides"] == told
