"""Parameters and tags are found by search exactly as the run holds them."""

from __future__ import annotations

import pytest

from everloop.core.errors import Conflict
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.core.search import Compare, Filter
from everloop.core.search import Test as Holds
from everloop.track.fields import PARAM, TAG, begins, equals, field_filter, number_in
from everloop.track.lifecycle import RunShown, UntagRun, UpdateRun
from everloop.track.model import Run, RunField
from everloop.track.verbs import LogRun, RunLogged, RunStarted, StartRun
from tests.kit import World, world


def start(w: World, params: dict[str, str] | None = None, tags: dict[str, str] | None = None) -> Id:
    ask = StartRun(run=w.kernel.services.ids.new(), params=params or {}, tags=tags or {})
    return w.owner.perform("run.start", ask, RunStarted).run


def rows(w: World, run: Id) -> dict[tuple[str, str], str]:
    with w.kernel.store.read() as tx:
        found = tx.select(RunField, *where(run=run))
    return {(row.space, row.key): row.value for row in found}


def found(w: World, part: Filter) -> list[Id]:
    with w.kernel.store.read() as tx:
        return [run.id for run in tx.search(Run, part, limit=10).rows]


def test_what_a_run_starts_with_logs_and_changes_is_indexed() -> None:
    w = world()
    run = start(w, {"lr": "0.1"}, {"team": "a", "kept": "x"})

    log = LogRun(run=run, params={"depth": "3"}, tags={"team": "b"})
    w.owner.perform("run.log", log, RunLogged)
    w.owner.perform("run.update", UpdateRun(run=run, tags={"team": "c", "new": "1"}), RunShown)
    w.owner.perform("run.untag", UntagRun(run=run, key="kept"), RunShown)

    expected = {
        (PARAM, "lr"): "0.1",
        (PARAM, "depth"): "3",
        (TAG, "team"): "c",
        (TAG, "new"): "1",
    }
    assert expected == rows(w, run)


def test_a_refused_batch_leaves_the_index_as_it_was() -> None:
    w = world()
    run = start(w, {"lr": "0.1"})

    with pytest.raises(Conflict):
        w.owner.perform("run.log", LogRun(run=run, params={"a": "1", "lr": "0.2"}), RunLogged)

    assert {(PARAM, "lr"): "0.1"} == rows(w, run)


@pytest.mark.parametrize("length", [99, 100, 101, 300])
def test_values_that_differ_behind_their_head_are_told_apart(length: int) -> None:
    w = world()
    value = "x" * length
    run = start(w, {"p": value})
    start(w, {"p": value + "y"})
    start(w, {"p": value[:-1] + "z"})

    assert [run] == found(w, field_filter(PARAM, "p", equals(value)))


def test_prefixes_longer_than_the_head_are_compared_whole() -> None:
    w = world()
    run = start(w, tags={"t": "x" * 150 + "yes"})
    start(w, tags={"t": "x" * 150 + "no"})

    assert [run] == found(w, field_filter(TAG, "t", begins("x" * 150 + "y")))


def test_numbers_are_compared_as_numbers() -> None:
    w = world()
    start(w, {"depth": "9"})
    run = start(w, {"depth": "10"})
    start(w, {"depth": "ten"})

    part = field_filter(PARAM, "depth", Holds("number", Compare.GT, 9.5))

    assert [run] == found(w, part)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1.0), ("-2.5e3", -2500.0), ("nan", None), ("inf", None), ("1_0", None), (" 1", None),
     ("١", None), ("", None), ("0x10", None), ("1e999", None), ("True", None)],
)  # fmt: skip
def test_only_what_spells_a_finite_number_is_one(text: str, number: float | None) -> None:
    assert number == number_in(text)
