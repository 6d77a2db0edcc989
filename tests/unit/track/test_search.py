"""Searching runs: what filters mean, what MLflow's clients get, and what mistakes are told."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import pytest

from everloop.app.verbs import load_verbs
from everloop.core.errors import InvalidInput, LimitExceeded
from everloop.core.ids import Id
from everloop.track.lifecycle import RunNamed, RunShown
from everloop.track.model import Experiment
from everloop.track.search import Deleted, FoundRuns, SearchRuns
from everloop.track.verbs import FinishRun, RunFinished
from everloop.track.wholes import FetchRuns, WholeRuns
from tests.kit import World, world
from tests.unit.track.test_runs import log, series, start

load_verbs()
DAY_MS = 86_400_000
FIRST_MS = 1_767_225_600_000
NONE: Mapping[str, str] = {}


class Population:
    """Runs a day apart, the first on 2026-01-01, by their names."""

    def __init__(self) -> None:
        self.world: World = world()
        self.ids: dict[str, Id] = {}

    def add(
        self,
        name: str,
        *,
        params: Mapping[str, str] = NONE,
        tags: Mapping[str, str] = NONE,
        **metrics: float,
    ) -> Id:
        run = start(self.world, name=name, experiment="one")
        self.ids[name] = run
        points = tuple(series(key, value) for key, value in metrics.items())
        log(self.world, run, *points, params=dict(params), tags=dict(tags))
        self.world.clock.push(days=1)
        return run

    def find(self, filter: str = "", order: str = "started_at", **more: object) -> list[str]:
        ask = msgspec.structs.replace(SearchRuns(filter=filter, order=order), **more)
        found = self.world.owner.perform("run.search", ask, FoundRuns)
        return [run.name for run in found.items]

    def fetch(self, filter: str = "", *order: str) -> list[str]:
        """Find as MLflow's clients do."""
        with self.world.kernel.store.read() as tx:
            experiments = tuple(row.id for row in tx.select(Experiment))
        ask = FetchRuns(experiments=experiments, filter=filter, order=order)
        found = self.world.owner.perform("run.fetch", ask, WholeRuns)
        return [whole.run.name for whole in found.items]


def populated() -> Population:
    made = Population()
    made.add("a", params={"model": "xgb", "lr": "0.1"}, tags={"team": "red"}, auc=0.9)
    made.add("b", params={"model": "XGB", "lr": "1e-2"}, tags={"mlflow.user": "ann"}, auc=0.5)
    made.add("c", params={"model": "", "lr": "auto", "only": "c"}, auc=math.nan)
    made.add("d", auc=math.inf)
    made.add("e", loss=1.0)
    made.world.owner.perform("run.finish", FinishRun(run=made.ids["a"]), RunFinished)
    return made


@pytest.fixture(scope="module")
def runs() -> Population:
    """The same runs for all tests that only read."""
    return populated()


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        ("", "abcde"),
        ("metrics.auc > 0.6", "ad"),
        ("metrics.auc >= 0.5 and metrics.auc < inf", "ab"),
        ("metrics.auc = inf", "d"),
        ("metrics.auc != 0.5", "acd"),
        ("metrics.auc is nan", "c"),
        ("metrics.auc is not nan", "abd"),
        ("metrics.auc is null", "e"),
        ("not metrics.auc > 0.6", "bce"),
        ("metrics.auc between 0.5 and 0.9", "ab"),
        ("metrics.auc not between 0.5 and 0.9", "cd"),
        ("metrics.auc in (0.5, 0.9)", "ab"),
        ("metrics.auc not in (0.5, 0.9)", "cd"),
        ("params.model = 'xgb'", "a"),
        ("params.model != 'xgb'", "bc"),
        ("params.model = ''", "c"),
        ("params.model ilike 'X%'", "ab"),
        ("params.model like 'X%'", "b"),
        ("params.model not like 'X%'", "ac"),
        ("params.model is null", "de"),
        ("params.model in ('xgb', '')", "ac"),
        ("params.lr > 0.05", "a"),
        ("params.lr = 0.01", "b"),
        ("params.lr = '0.01'", ""),
        ("params.lr != 0.1", "bc"),
        ("params.lr in (0.1, 'auto')", "ac"),
        ("params.lr not in (0.1, 'auto')", "b"),
        ("tags.team is not null or metrics.loss > 0", "ae"),
        ("user_id = 'ann'", "b"),
        ("status = 'finished'", "a"),
        ("attributes.status != 'FINISHED'", "bcde"),
        ("run.status like 'fin%'", "a"),
        ("attr.`Run name` in ('a', 'b')", "ab"),
        ("started_at >= '2026-01-03'", "cde"),
        ("started_at > '2026-01-03'", "de"),
        ("started_at <= '2026-01-03'", "abc"),
        ("started_at = 2026-01-03", "c"),
        ("started_at != '2026-01-03T00:00'", "abde"),
        ("started_at between '2026-01-02' and '2026-01-03'", "bc"),
        ("started_at in ('2026-01-02', '2026-01-05')", "be"),
        ("started > now - 2d", "e"),
        (f"start_time = {FIRST_MS + DAY_MS}", "b"),
        (f"created > {FIRST_MS + 2 * DAY_MS}", "de"),
        (f"created > {FIRST_MS + 2 * DAY_MS}.5", "de"),
        (f"start_time = {FIRST_MS}.5", ""),
        ("start_time > 99999999999999999999", ""),
        ("start_time > -99999999999999999999", "abcde"),
        ("end_time is null", "bcde"),
        ("end_time > 0", "a"),
        ("end_time != 5", "a"),
        ("experiment = 'one'", "abcde"),
        ("experiment.name = 'two'", ""),
        ("dataset is null and model is null and parent is null", "abcde"),
        ("not not not status = 'finished'", "bcde"),
    ],
)
def test_a_filter_finds_the_runs_that_it_describes(
    runs: Population, filter: str, names: str
) -> None:
    assert list(names) == runs.find(filter)


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("", "edcba"),
        ("name", "abcde"),
        ("metrics.auc", "badce"),
        ("metrics.auc DESC", "dabce"),
        ("params.lr", "bacde"),
        ("params.lr desc", "abcde"),
        ("params.model", "cbade"),
        ("experiment.name, name desc", "edcba"),
        ("name, name desc", "abcde"),
    ],
)
def test_an_order_puts_nan_and_then_what_is_missing_last_both_ways(
    runs: Population, order: str, names: str
) -> None:
    ties = ", name" if order else ""

    assert list(names) == runs.find("", order + ties)


def test_for_mlflow_parameters_sort_as_texts_and_unknown_words_find_nothing(
    runs: Population,
) -> None:
    assert ["a", "b", "c"] == runs.fetch("params.lr is not null", "params.lr ASC")
    assert ["a"] == runs.fetch("attributes.status = 'FINISHED'")
    assert [] == runs.fetch("attributes.status = 'finished' or status like 'fin%'")
    assert [] == runs.fetch("attributes.status = 'NEVER'")
    assert ["e", "d", "c", "b", "a"] == runs.fetch("status != 'NEVER'")
    assert [] == runs.fetch("status = 'SCHEDULED'")


def test_ties_go_to_the_later_start(runs: Population) -> None:
    assert ["e", "d", "c", "b", "a"] == runs.fetch("", "metrics.nothing DESC")


def test_pages_put_together_are_the_whole(runs: Population) -> None:
    ask = SearchRuns(order="metrics.auc DESC", limit=2)
    pages: list[FoundRuns] = []
    for _ in range(3):
        pages.append(runs.world.owner.perform("run.search", ask, FoundRuns))
        ask = msgspec.structs.replace(ask, after=pages[-1].next)

    assert ["d", "a", "b", "c", "e"] == [run.name for page in pages for run in page.items]
    assert pages[-1].next is None


def test_runs_in_the_trash_are_found_only_when_asked_for() -> None:
    runs = populated()
    runs.world.owner.perform("run.delete", RunNamed(run=runs.ids["a"]), RunShown)

    assert ["b", "c", "d", "e"] == runs.find()
    assert ["a"] == runs.find(deleted=Deleted.DELETED)
    assert ["a", "b", "c", "d", "e"] == runs.find(deleted=Deleted.ALL)


def test_metrics_come_only_when_they_are_asked_for(runs: Population) -> None:
    def metrics(*fields: str) -> list[dict[str, str]]:
        ask = SearchRuns(filter="name in ('d', 'e')", order="name", fields=fields)
        found = runs.world.owner.perform("run.search", ask, FoundRuns)
        return [run.metrics for run in found.items]

    assert [{}, {}] == metrics()
    assert [{"auc": "inf"}, {"loss": "1.0"}] == metrics("metrics")
    assert [{}, {"loss": "1.0"}] == metrics("metrics.loss")


@pytest.mark.parametrize(
    ("filter", "position", "told"),
    [
        ("name = 'x' and statsu = 'x'", 16, "Did you mean 'status'?"),
        ("metric = 1", 1, "Did you mean 'metrics.<name>'?"),
        ("Status = 'x'", 1, "Did you mean 'status'?"),
        ("attributes.nmae = 'x'", 1, "Did you mean 'name'?"),
        ("zzzzzz.a = 1", 1, "A run has: id, name"),
        ("status = 'finshed'", 10, "Did you mean 'finished'?"),
        ("metrics.auc > '0.5'", 15, "without quotes"),
        ("metrics.auc like '1%'", 1, "It compares with"),
        ("name > 'a'", 1, "It compares with"),
        ("name = 5", 8, "in quotes"),
        ("name is nan", 1, "It compares with"),
        ("params.lr > 'a'", 13, "without quotes"),
        ("params.lr is nan", 1, "It compares with"),
        ("started_at > 'tomorrow'", 14, "now - 7d"),
        ("started_at > '2026-13-01'", 14, "now - 7d"),
        ("started_at like '2026%'", 1, "It compares with"),
        ("dataset = 'a@b'", 11, "a@3"),
        ("dataset = 'a@b@c'", 11, "credit@3"),
        ("dataset like 'a%'", 1, "It compares with"),
        ("model = 5", 9, "in quotes"),
        ("model.run.model.run.model.run.name = 'x'", 1, "at most"),
    ],
)
def test_a_filter_that_means_nothing_is_told_where_and_why(
    runs: Population, filter: str, position: int, told: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        runs.find(filter)

    assert ("filter.invalid", position) == (refused.value.code, refused.value.context["position"])
    assert told in refused.value.hint


@pytest.mark.parametrize("order", ["dataset", "model.name", "nothing", "metrics"])
def test_an_order_by_what_can_not_sort_is_told(runs: Population, order: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        runs.find("", f"name, {order}")

    assert ("order.invalid", 7) == (refused.value.code, refused.value.context["position"])


def test_a_filter_too_large_for_the_store_is_refused(runs: Population) -> None:
    with pytest.raises(LimitExceeded):
        runs.find(" or ".join(["dataset.name = 'a'"] * 150))


def test_runs_of_other_projects_are_never_found(runs: Population) -> None:
    runs.world.project("other")
    ask = SearchRuns(filter="metrics.auc > 0 or name != ''")

    found = runs.world.service("owner", "other").perform("run.search", ask, FoundRuns)

    assert () == found.items
