"""Filters as a way in: to other tables, other projects, and things that a token may not read."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from everloop.app.verbs import load_verbs
from everloop.core.errors import Denied, EverloopError
from everloop.core.records import declared_kinds
from everloop.kernel.authz import Role
from everloop.kernel.performer import LocalPerformer
from everloop.monitor.search import FoundPredictions, SearchPredictions
from everloop.storage.sqlite import SqliteMetadataStore
from everloop.track.lifecycle import RunNamed, RunShown
from everloop.track.model import Run
from everloop.track.search import FoundRuns, SearchRuns
from everloop.track.verbs import RunStarted, StartRun
from tests.kit import World, world
from tests.unit.track.test_runs import log, series, start

load_verbs()
INJECTIONS = [
    "' OR 1=1 --",
    "'; DROP TABLE run; --",
    "x' UNION SELECT secret_hash FROM token --",
    '" OR ""="',
    "%' OR '%'='",
    "\x00",
    "\\' OR 1=1 --",
]


@pytest.fixture(scope="module")
def w(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A project with one run, on SQLite."""
    store = SqliteMetadataStore(tmp_path_factory.mktemp("store") / "store.db", declared_kinds())
    made = world(store)
    log(made, start(made, name="mine"), series("auc", 0.5))
    yield made
    store.close()


def names(who: LocalPerformer, filter: str, order: str = "") -> list[str]:
    found = who.perform("run.search", SearchRuns(filter=filter, order=order), FoundRuns)
    return [run.name for run in found.items]


def found(who: LocalPerformer, filter: str, order: str = "") -> list[str] | str:
    """Return what was found, or the code of the refusal."""
    try:
        return names(who, filter, order)
    except EverloopError as refused:
        return refused.code


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize(
    "place",
    [
        "name = {text}",
        "params.{key} = 'x'",
        "metrics.{key} > 0",
        "tags.{key} LIKE {text}",
        "dataset = {text}",
        "model.alias = {text}",
        "experiment.tags.{key} IN ({text})",
    ],
)
def test_values_and_keys_are_bound_and_never_sql(w: World, text: str, place: str) -> None:
    quoted = {"text": "'" + text.replace("'", "''") + "'", "key": "`" + text + "`"}

    answer = found(w.owner, place.format(**quoted), f"metrics.{quoted['key']}")

    assert answer in ([], "filter.invalid", "order.invalid")
    assert ["mine"] == names(w.owner, "")


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_filter_that_is_sql_is_no_filter(w: World, text: str) -> None:
    for filter in (text, f"name = '{text}'", f"name = 'x' AND {text}"):
        assert found(w.owner, filter) in ([], "filter.invalid")


def test_links_do_not_lead_into_other_projects(w: World) -> None:
    w.project("other")
    other = w.service("owner", "other")
    key = w.kernel.services.ids.new()
    other.perform("run.start", StartRun(run=key, name="theirs"), RunStarted)
    (mine,) = w.owner.perform("run.search", SearchRuns(), FoundRuns).items
    child = start(w, name="child", parent=mine.id)
    with w.kernel.store.write() as tx:
        foreign = tx.find(Run, key)
        assert foreign is not None
        tx.replace(msgspec.structs.replace(foreign, parent=mine.id))

    assert ["child"] == names(w.owner, "parent.metrics.auc > 0")
    assert [] == names(other, "parent.metrics.auc > 0 OR parent.name = 'mine'")
    w.owner.perform("run.delete", RunNamed(run=child), RunShown)


@pytest.mark.parametrize(
    "filter",
    [
        "model.alias = 'production'",
        "model IS NULL",
        "dataset = 'credit@3'",
        "NOT dataset.name = 'x'",
        "name = 'x' AND deployment.name = 'shop'",
    ],
)
def test_a_token_for_runs_asks_nothing_of_models_and_data_by_a_filter(
    w: World, filter: str
) -> None:
    narrow = w.person("narrow", Role.VIEWER, scope=("run:*",))
    wide = w.person("wide", Role.VIEWER)

    assert ["mine"] == names(narrow, "metrics.auc > 0 AND experiment.name != ''")
    assert isinstance(names(wide, filter), list)
    with pytest.raises(Denied):
        names(narrow, filter)


def test_a_token_for_predictions_asks_nothing_of_models_by_a_filter(w: World) -> None:
    narrow = w.person("seer", Role.VIEWER, scope=("prediction:*",))

    narrow.perform("prediction.search", SearchPredictions(filter="output > 1"), FoundPredictions)
    for filter in ("version.alias = 'production'", "deployment = 'shop'"):
        ask = SearchPredictions(filter=filter)
        with pytest.raises(Denied):
            narrow.perform("prediction.search", ask, FoundPredictions)
