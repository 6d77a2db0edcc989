"""When the loop retrains: a table over alarms, past runs and the envelope."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from everloop.core.ids import Id, ProjectId
from everloop.loop.model import LoopConfig, LoopRun, LoopState
from everloop.loop.policy import cool_down, decide
from everloop.monitor.model import Alert, AlertKind, AlertState

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CONFIG = LoopConfig(enabled=True, min_gap_days=14, max_retrains=2, max_retrains_days=90)
ALARM = Alert(
    id=Id("alert"),
    project=ProjectId("p"),
    deployment=Id("d"),
    version=Id("v"),
    kind=AlertKind.LOSS,
    at=NOW,
    raised_at=NOW,
    subject="loss_point:1",
    summary="Losses rose.",
    columns=(),
    state=AlertState.OPEN,
)


def run(days_ago: float, state: LoopState = LoopState.PROMOTED) -> LoopRun:
    at = NOW - timedelta(days=days_ago)
    return LoopRun(
        id=Id(f"run-{days_ago}"),
        project=ProjectId("p"),
        deployment=Id("d"),
        model="m",
        live=None,
        state=state,
        cause="alert:a",
        caused_at=at,
        started_at=at,
        updated_at=at,
        ended_at=at,
        attempt=1,
        transitions=5,
        training=None,
        holdout=None,
        version=None,
        report=None,
        release=None,
        why="",
    )


@pytest.mark.parametrize("state", [AlertState.OPEN, AlertState.ACKNOWLEDGED])
def test_a_loss_alarm_that_is_not_resolved_starts_a_retrain(state: AlertState) -> None:
    alarm = replace(ALARM, state=state)

    answer = decide([alarm], [], CONFIG, NOW)

    assert (alarm, "Losses rose.") == (answer.alert, answer.why)


@pytest.mark.parametrize(
    ("alerts", "config"),
    [
        ([], CONFIG),
        ([replace(ALARM, kind=AlertKind.DRIFT)], CONFIG),
        ([replace(ALARM, state=AlertState.RESOLVED)], CONFIG),
        ([ALARM], replace(CONFIG, enabled=False)),
    ],
    ids=["no alarm", "drift only", "resolved", "switched off"],
)
def test_nothing_else_does(alerts: list[Alert], config: LoopConfig) -> None:
    assert decide(alerts, [], config, NOW).alert is None


def test_the_gap_between_retrains_is_kept() -> None:
    assert decide([ALARM], [run(13.9)], CONFIG, NOW).alert is None
    assert decide([ALARM], [run(14)], CONFIG, NOW).alert == ALARM


def test_the_number_of_retrains_in_a_period_is_limited() -> None:
    assert decide([ALARM], [run(20), run(89)], CONFIG, NOW).alert is None
    assert decide([ALARM], [run(20), run(91)], CONFIG, NOW).alert == ALARM


def test_a_refusal_says_which_limit_it_was() -> None:
    assert "less than 14 days" in decide([ALARM], [run(1)], CONFIG, NOW).why


@pytest.mark.parametrize(
    ("states", "days"),
    [
        ([], 0),
        ([LoopState.PROMOTED, LoopState.REFUSED], 0),
        ([LoopState.REFUSED], 7),
        ([LoopState.ROLLED_BACK, LoopState.FAILED], 14),
        ([LoopState.REFUSED] * 3, 28),
        ([LoopState.REFUSED, LoopState.PROMOTED, LoopState.REFUSED], 7),
        ([LoopState.ABANDONED, LoopState.REFUSED], 0),
    ],
)
def test_failures_in_a_row_double_the_rest(states: list[LoopState], days: int) -> None:
    runs = [run(30 + index, state) for index, state in enumerate(states)]

    assert timedelta(days=days) == cool_down(runs, CONFIG)
