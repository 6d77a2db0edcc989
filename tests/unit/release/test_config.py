from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec import convert

from everloop.release.config import FreezeWindow, ReleaseConfig

WEEKEND = {"days": ["sat", "sun"], "zone": "Europe/Berlin"}
NIGHT = {"begin": "22:00", "zone": "America/New_York"}
ONCE = {"start": "2026-12-20T00:00:00Z", "end": "2027-01-07T00:00:00Z"}
BOTH = {**ONCE, "days": ["fri"], "begin": "12:00", "until": "13:00"}


@pytest.mark.parametrize(
    ("window", "at", "holds"),
    [
        (WEEKEND, "2026-05-01T21:59:59Z", False),  # Friday, a second to midnight in Berlin
        (WEEKEND, "2026-05-01T22:00:00Z", True),
        (WEEKEND, "2026-05-03T21:59:00Z", True),
        (WEEKEND, "2026-05-03T22:00:00Z", False),
        (NIGHT, "2026-05-02T01:59:00Z", False),
        (NIGHT, "2026-05-02T02:00:00Z", True),
        (NIGHT, "2026-05-02T04:00:00Z", False),
        (ONCE, "2026-12-19T23:59:59Z", False),
        (ONCE, "2026-12-20T00:00:00Z", True),
        (ONCE, "2027-01-07T00:00:00Z", False),
        (BOTH, "2026-12-25T12:30:00Z", True),
        (BOTH, "2026-12-24T12:30:00Z", False),
        (BOTH, "2026-12-25T13:00:00Z", False),
        ({}, "2026-12-25T13:00:00Z", True),
    ],
)
def test_a_freeze_window_holds_by_the_clock_of_its_zone(
    window: dict[str, object], at: str, *, holds: bool
) -> None:
    assert holds == convert(window, FreezeWindow).holds(datetime.fromisoformat(at))


def test_the_first_window_that_holds_is_named() -> None:
    windows = [{"why": "never", "end": "2000-01-01T00:00:00Z"}, {"why": "always"}]
    config = convert({"freeze": windows}, ReleaseConfig)

    found = config.frozen_by(datetime(2026, 1, 1, tzinfo=UTC))

    assert found is not None
    assert "always" == found.why


@pytest.mark.parametrize(
    ("told", "needed"),
    [({}, 0), ({"tier": "high"}, 2), ({"tier": "high", "approvals": {"high": 3}}, 3)],
)
def test_each_tier_needs_its_approvals(told: dict[str, object], needed: int) -> None:
    assert needed == convert(told, ReleaseConfig).needed_approvals()


def test_a_weight_that_is_not_told_stays() -> None:
    weights = convert({"weights": {"latency": 0}}, ReleaseConfig).all_weights()

    assert (0.0, 3.0) == (weights["latency"], weights["error"])
