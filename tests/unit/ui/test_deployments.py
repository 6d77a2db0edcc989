"""The pictures of a deployment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from everloop.core.ids import Id, ProjectId
from everloop.monitor.drift import ColumnDrift, ColumnTest, DriftReport
from everloop.monitor.model import LossPoint, Window
from everloop.release.history import FIGURES, History
from everloop.ui.deployments import evidence_series, heat_rows, loss_series

START = datetime(2026, 1, 1, tzinfo=UTC)


def point(number: int, version: str) -> LossPoint:
    return LossPoint(
        id=Id(str(number)),
        project=ProjectId("p"),
        deployment=Id("d"),
        number=number,
        version=Id(version),
        at=START + timedelta(days=number),
        mean_loss=float(number),
        bad_share=0.0,
        evidence=0.0,
        alarmed=False,
    )


def drift(name: str, effect: float, *, alarm: bool = False) -> ColumnDrift:
    test = ColumnTest(name="ks", statistic=effect, p_value=0.5, effects={"ks": effect}, large=alarm)
    return ColumnDrift(
        column=name, kind="numeric", p_value=0.5, adjusted_p=0.5, alarm=alarm, tests=(test,)
    )


def window(*columns: ColumnDrift) -> Window:
    report = DriftReport(
        reference_rows=100, window_rows=100, alpha=0.05, columns=columns, findings=()
    )
    return Window(
        id=Id("w"),
        project=ProjectId("p"),
        deployment=Id("d"),
        start=START,
        end=START + timedelta(days=7),
        rows=100,
        version=None,
        profile=None,
        report=report if columns else None,
        untested=None,
        drifted=(),
    )


def test_each_change_of_champion_is_marked_once_with_its_version() -> None:
    points = [point(1, "a"), point(2, "a"), point(3, "b"), point(4, "b"), point(5, "a")]

    series = loss_series(points, {"a": "1.0.0", "b": "1.1.0"})

    assert ["1.0.0", "1.1.0", "1.0.0"] == [mark.label for mark in series.marks]
    assert [points[0], points[2], points[4]] == [
        next(p for p in points if p.at.timestamp() == mark.x) for mark in series.marks
    ]


def test_no_points_are_no_marks() -> None:
    assert () == loss_series([], {}).marks


def test_columns_with_an_alarm_come_first() -> None:
    rows = heat_rows([window(drift("calm", 0.01), drift("moved", 0.5, alarm=True))])

    assert ["moved", "calm"] == [row.column for row in rows]
    assert [5, 0] == [row.cells[0].level for row in rows]


def test_a_column_that_a_window_did_not_test_has_an_empty_cell() -> None:
    rows = heat_rows([window(drift("x", 0.1)), window()])

    assert [0.1, None] == [cell.effect for cell in rows[0].cells]


def test_a_guardrail_has_one_colour_in_both_charts() -> None:
    seen = {"at": 1.0, "share": 0.2, "champion": 9.0, "canary": 3.0, "evidence_bad": 1.2}
    logs = {"bad:latency": 0.1, "bad:error": 0.2, "good:latency": 0.3, "good:paired_loss": 0.4}
    point = tuple((seen | logs).get(name) for name in FIGURES)
    found = History(figures=FIGURES, points=(point,), rollback_at=100.0, promote_at=20.0)

    against, proof = (
        {line.label: line.colour for line in evidence_series(found, part).lines}
        for part in get_args(Literal["bad", "good"])
    )

    assert against["latency"] == proof["latency"]
    told = [colour for colour in (against | proof).values() if colour is not None]
    assert 3 == len(told) == len(set(told))
