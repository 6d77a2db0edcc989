"""What lists show of runs is held against what was logged, and made anew where it differs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from everloop.core.errors import Denied
from everloop.core.ports import where
from everloop.kernel.authz import Role
from everloop.track.columns import Columns, encode
from everloop.track.deriving import CheckRuns, RebuildRuns, RunsChecked, RunsRebuilt
from everloop.track.model import MetricSummary, RunField
from everloop.track.verbs import Ending, LogRun, MetricSeries, RunLogged, RunStarted, StartRun
from tests.kit import World, world

SIZES = (1, 3, 700, 9_000)


@pytest.fixture
def place() -> World:
    return world()


def log(place: World, run: str, size: int, *, ends: bool = False) -> None:
    draw = np.random.default_rng(size)
    values = draw.normal(size=size)
    values[draw.random(size) < 0.2] = draw.choice([np.nan, np.inf, -np.inf])
    points = Columns(
        draw.integers(-3, 50, size), np.arange(size, dtype=np.int64), values.astype(np.float64)
    )
    series = tuple(MetricSeries(key=key, data=encode(points)) for key in ("a", f"of {size}"))
    ask = LogRun(run=run, metrics=series, ending=Ending() if ends else None, amend=True)
    place.owner.perform("run.log", ask, RunLogged)


def make(place: World, *, ends: bool = True) -> str:
    run = place.kernel.services.ids.new()
    start = StartRun(run=run, params={"lr": "0.1"}, tags={"team": "risk"})
    place.owner.perform("run.start", start, RunStarted)
    for size in SIZES:
        log(place, run, size)
    log(place, run, 2, ends=ends)
    return run


def check(place: World, *runs: str) -> RunsChecked:
    return place.owner.perform("run.check", CheckRuns(runs=runs), RunsChecked)


@pytest.mark.parametrize("ends", [True, False])
def test_what_was_logged_in_any_way_agrees(place: World, *, ends: bool) -> None:
    make(place, ends=ends)

    found = check(place)

    assert ((), 1, 8) == (found.findings, found.runs, found.rows)


def better(place: World, run: str) -> None:
    with place.kernel.store.write() as tx:
        (row,) = tx.select(MetricSummary, *where(run=run, key="a"))
        tx.replace(msgspec.structs.replace(row, last=0.99, last_text="0.99"))


def gone(place: World, run: str) -> None:
    with place.kernel.store.write() as tx:
        (row,) = tx.select(RunField, *where(run=run, key="lr"))
        tx.delete(row)


def invented(place: World, run: str) -> None:
    with place.kernel.store.write() as tx:
        (row,) = tx.select(MetricSummary, *where(run=run, key="a"))
        fresh = place.kernel.services.ids.new()
        tx.insert(msgspec.structs.replace(row, id=fresh, revision=0, key="auc"))


@pytest.mark.parametrize(
    ("change", "what", "why"),
    [
        (better, "metric a", "last is 0.99"),
        (gone, "param lr", "no list"),
        (invented, "metric auc", "never logged"),
    ],
)
def test_a_row_changed_in_the_database_is_found_and_made_anew(
    place: World, change: Callable[[World, str], None], what: str, why: str
) -> None:
    run, other = make(place), make(place)
    change(place, run)

    found = check(place)
    done = place.owner.perform("run.rebuild", RebuildRuns(runs=(run, other)), RunsRebuilt)

    assert [(run, what)] == [(each.run, each.what) for each in found.findings]
    assert why in found.findings[0].why
    assert (run,) == found.bad_runs
    assert 1 == done.rows
    assert () == check(place).findings
    log(place, run, 5, ends=True)  # and it goes on from there
    assert () == check(place).findings


def test_only_an_admin_makes_rows_anew(place: World) -> None:
    run = make(place)

    with pytest.raises(Denied):
        place.person("ann", Role.CONTRIBUTOR).perform(
            "run.rebuild", RebuildRuns(runs=(run,)), RunsRebuilt
        )
