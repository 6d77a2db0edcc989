"""The lines of charts: thinned out, cut to a part, and continued."""

from __future__ import annotations

import math

import pytest

from everloop.core.ids import Id
from everloop.kernel.bootstrap import OWNER
from everloop.track import columns
from everloop.track.plots import Axis, Known, Plot, PlotLine, PlotLines
from everloop.track.verbs import LogRun, MetricSeries, RunLogged, RunStarted, StartRun
from tests.kit import World, world


@pytest.fixture
def fresh() -> World:
    return world()


def start(fresh: World, name: str = "one") -> Id:
    run = fresh.kernel.services.ids.new()
    fresh.owner.perform("run.start", StartRun(run=run, name=name), RunStarted)
    return run


def log(fresh: World, run: Id, values: dict[int, float], key: str = "loss") -> None:
    began = int(fresh.clock.now().timestamp() * 1e6)
    points = columns.to_columns(
        list(values), [began + step * 2_000_000 for step in values], list(values.values())
    )
    series = (MetricSeries(key=key, data=columns.encode(points)),)
    fresh.owner.perform("run.log", LogRun(run=run, metrics=series), RunLogged)


def lines(fresh: World, ask: Plot) -> tuple[PlotLine, ...]:
    return fresh.owner.perform("run.plot", ask, PlotLines).lines


def test_lines_of_many_runs_come_in_one_answer(fresh: World) -> None:
    first, second = start(fresh, "a"), start(fresh, "b")
    for run in (first, second):
        log(fresh, run, {0: 1.0, 1: 0.5})
        log(fresh, run, {0: 1.0, 1: 0.5}, key="auc")
        log(fresh, run, {0: 1.0}, key="once")

    found = fresh.owner.perform(
        "run.plot", Plot(runs=(second, first), keys=("loss", "auc")), PlotLines
    )

    assert ["b", "a"] == [run.name for run in found.runs]
    assert ("auc", "loss") == found.keys
    assert [(second, "loss"), (first, "loss"), (second, "auc"), (first, "auc")] == [
        (line.run, line.key) for line in found.lines
    ]


def test_extremes_stay_and_what_is_no_number_is_told(fresh: World) -> None:
    run = start(fresh)
    values = {step: math.sin(step / 50) for step in range(3_000)}
    values |= {1_234: 99.0, 2_000: -99.0, 2_500: math.nan, 2_600: math.inf}
    log(fresh, run, values)

    line = lines(fresh, Plot(runs=(run,), keys=("loss",), points=100))[0]

    assert len(line.x) <= 100
    assert 3_000 == line.count
    at = dict(zip(line.x, line.y, strict=True))
    assert (99.0, -99.0, "NaN", "Infinity") == (at[1_234], at[2_000], at[2_500], at[2_600])


def test_a_part_is_drawn_finer_and_reaches_its_edges(fresh: World) -> None:
    run = start(fresh)
    log(fresh, run, {step: float(step % 7) for step in range(5_000)})

    line = lines(fresh, Plot(runs=(run,), keys=("loss",), points=100, first=100.5, last=149.5))[0]

    assert tuple(range(100, 151)) == line.x


def test_a_part_without_points_is_empty(fresh: World) -> None:
    run = start(fresh)
    log(fresh, run, {0: 1.0, 1: 2.0})

    assert () == lines(fresh, Plot(runs=(run,), keys=("loss",), first=10, last=20))[0].x


@pytest.mark.parametrize(("axis", "expected"), [(Axis.RELATIVE, 4.0), (Axis.STEP, 2)])
def test_the_axis_counts_steps_or_seconds_since_the_start(
    fresh: World, axis: Axis, expected: float
) -> None:
    run = start(fresh)
    log(fresh, run, {0: 1.0, 2: 2.0})

    assert (0, expected) == lines(fresh, Plot(runs=(run,), keys=("loss",), axis=axis))[0].x


def test_a_later_step_with_an_earlier_time_stands_where_its_time_is(fresh: World) -> None:
    run = start(fresh)
    began = int(fresh.clock.now().timestamp() * 1e6)
    points = columns.to_columns([0, 1], [began + 9_000_000, began + 1_000_000], [1.0, 2.0])
    series = (MetricSeries(key="loss", data=columns.encode(points)),)
    fresh.owner.perform("run.log", LogRun(run=run, metrics=series), RunLogged)

    line = lines(fresh, Plot(runs=(run,), keys=("loss",), axis=Axis.RELATIVE))[0]

    assert ((1.0, 9.0), (2.0, 1.0)) == (line.x, line.y)


def test_only_newer_points_come_to_somebody_who_has_the_others(fresh: World) -> None:
    run = start(fresh)
    log(fresh, run, {0: 1.0, 1: 2.0})
    known = Known(run=run, key="loss", step=1, count=2)
    ask = Plot(runs=(run,), keys=("loss",), known=(known,))
    assert () == lines(fresh, ask)

    log(fresh, run, {2: 3.0})
    line = lines(fresh, ask)[0]

    assert ((2,), (3.0,), 3, False) == (line.x, line.y, line.count, line.is_whole)


def test_a_line_with_points_among_the_older_ones_comes_whole(fresh: World) -> None:
    run = start(fresh)
    log(fresh, run, {0: 1.0, 5: 2.0})
    known = Known(run=run, key="loss", step=5, count=2)

    log(fresh, run, {3: 9.0, 6: 4.0})
    line = lines(fresh, Plot(runs=(run,), keys=("loss",), known=(known,)))[0]

    assert ((0, 3, 5, 6), True) == (line.x, line.is_whole)


def test_runs_of_another_project_and_runs_that_are_gone_are_left_out(fresh: World) -> None:
    fresh.project("other")
    run = start(fresh)
    log(fresh, run, {0: 1.0, 1: 2.0})
    ask = Plot(runs=(run, "gone"), keys=("loss", "none"))

    foreign = fresh.service(OWNER, "other")

    assert 1 == len(lines(fresh, ask))
    assert PlotLines(runs=(), keys=(), lines=()) == foreign.perform("run.plot", ask, PlotLines)
