"""Histories come back whole, bit by bit, and plots of them keep their extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import NotFound
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.track import columns, history, series
from everloop.track.columns import Columns
from everloop.track.history import history_of
from everloop.track.model import MetricChunk, MetricSummary
from everloop.track.queries import ReadHistory, RunHistory
from everloop.track.verbs import LogRun, MetricSeries, RunLogged, RunStarted, StartRun
from tests.kit import World, world


def start(w: World) -> Id:
    return w.owner.perform("run.start", StartRun(run=w.kernel.services.ids.new()), RunStarted).run


def log(w: World, run: Id, points: Columns, key: str = "loss") -> None:
    ask = LogRun(run=run, metrics=(MetricSeries(key=key, data=columns.encode(points)),))
    w.owner.perform("run.log", ask, RunLogged)


def made(count: int, *, first: int = 0, seed: int = 7) -> Columns:
    steps = np.arange(first, first + count, dtype=np.int64)
    return Columns(steps, steps * 1_000, np.random.default_rng(seed).normal(size=count))


def same(one: Columns, other: Columns) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("sizes", [(1,), (5, 5), (1_000, 100, 3), (5_000, 1, 5_000), (4_000, 30)])
def test_all_points_come_back_bit_by_bit(sizes: tuple[int, ...]) -> None:
    w = world()
    run = start(w)
    parts, first = [], 0
    for size in sizes:
        parts.append(made(size, first=first))
        first += size
        log(w, run, parts[-1])

    assert same(columns.join(parts), history_of(w.owner, run, "loss"))


def test_a_long_history_comes_in_several_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_ANSWER_BYTES", 20_000)
    monkeypatch.setattr(history, "CHUNKS_A_QUERY", 2)
    w = world()
    run = start(w)
    parts = [made(2_000, first=2_000 * number) for number in range(9)]
    for part in parts:
        log(w, run, part)

    assert same(columns.join(parts), history_of(w.owner, run, "loss"))


def test_a_history_that_is_not_there_is_not_found() -> None:
    w = world()
    run = start(w)

    with pytest.raises(NotFound):
        history_of(w.owner, run, "loss")


def test_a_chunk_takes_points_until_it_is_full_and_then_has_an_outline() -> None:
    w = world()
    run = start(w)
    for number in range(5):
        log(w, run, made(400, first=400 * number))
        log(w, run, made(3, first=3 * number), "other")

    with w.kernel.store.read() as tx:
        chunks = tx.select(MetricChunk, *where(run=run, key="loss"), order="seq")
        (summary,) = tx.select(MetricSummary, *where(run=run, key="loss"))

    assert [(1_200, True), (800, False)] == [(c.count, c.outline is not None) for c in chunks]
    assert (2, 800, 2_000) == (summary.chunks, summary.growing, summary.count)
    assert 15 == len(history_of(w.owner, run, "other").steps)


def test_a_plot_of_very_many_points_keeps_the_extremes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "WHOLE_POINTS", 10_000)
    w = world()
    run = start(w)
    points = made(30_000)
    points.values[[12_345, 23_456]] = [99.0, -99.0]
    points.values[4_321] = math.nan
    for begin in range(0, 30_000, 6_000):
        part = slice(begin, begin + 6_000)
        log(w, run, Columns(points.steps[part], points.times_us[part], points.values[part]))

    ask = ReadHistory(run=run, key="loss", max_points=300)
    shown = w.owner.perform("run.history", ask, RunHistory)

    assert (30_000, True) == (shown.count, shown.sampled)
    assert 0 < len(shown.steps) <= 300
    by_step = dict(zip(shown.steps, shown.values, strict=True))
    assert (99.0, -99.0, "NaN") == (by_step[12_345], by_step[23_456], by_step[4_321])
    assert {0, 29_999} <= set(shown.steps)


numbers = st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf]) | st.floats()


@given(values=st.lists(numbers, min_size=1, max_size=400), most=st.integers(5, 60))
def test_thinning_keeps_ends_extremes_and_order(values: list[float], most: int) -> None:
    steps = range(len(values))
    points = columns.to_columns(steps, steps, values)

    shown = columns.downsample(points, most)

    assert len(shown.steps) <= max(most, 1) or len(values) <= most
    assert shown.steps.tolist() == sorted(set(shown.steps.tolist()))
    assert all(
        np.array(values[step]).tobytes() == np.array(value).tobytes()
        for step, value in zip(shown.steps.tolist(), shown.values.tolist(), strict=True)
    )
    assert shown.steps[0] == 0


@given(values=st.lists(numbers, min_size=1, max_size=700))
def test_an_outline_keeps_the_extremes_of_every_bucket(values: list[float]) -> None:
    steps = range(len(values))
    points = columns.to_columns(steps, steps, values)

    shown = columns.read_outlines([columns.outline(points)])

    assert shown.steps[[0, -1]].tolist() == [0, len(values) - 1]
    for begin in range(0, len(values), columns.OUTLINED_POINTS):
        end = begin + columns.OUTLINED_POINTS
        bucket = np.array(values[begin:end])
        kept = shown.values[(shown.steps >= begin) & (shown.steps < end)]
        assert np.isnan(kept).any() == np.isnan(bucket).any()
        if not np.isnan(bucket).all():
            assert (np.nanmin(kept), np.nanmax(kept)) == (np.nanmin(bucket), np.nanmax(bucket))
