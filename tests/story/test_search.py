"""Searches over every store: along lineage, and random filters against their plain meaning."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from everloop.app.verbs import load_verbs
from everloop.core.digest import Digest
from everloop.core.filter.parser import parse_filter
from everloop.core.filter.printer import print_filter
from everloop.core.filter.tree import (
    Both,
    Comparison,
    Either,
    How,
    Name,
    Negated,
    Node,
    Number,
    Text,
)
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.ports import MetadataStore, where
from everloop.core.records import declared_kinds
from everloop.data.model import Dataset, DatasetVersion, SourceInfo
from everloop.data.queries import DatasetList
from everloop.data.search import FoundDatasets, SearchData, SearchDatasets
from everloop.kernel.authz import Project
from everloop.kernel.lineage import Edge
from everloop.registry.model import AliasMove, Model, ModelVersion, VersionNotes
from everloop.registry.queries import ModelList
from everloop.registry.search import FoundVersions, SearchModels, SearchVersions
from everloop.registry.signature import Field, Signature
from everloop.release.model import Deployment
from everloop.release.queries import DeploymentList
from everloop.release.search import SearchDeployments
from everloop.storage.memory import MemoryMetadataStore
from everloop.storage.postgres import PostgresMetadataStore
from everloop.storage.sqlite import SqliteMetadataStore
from everloop.track.search import FoundRuns, SearchRuns
from tests.kit import PROJECT, START, World, world
from tests.unit.track.test_runs import log, series, start

load_verbs()
DIGEST = Digest("blake3:" + "0" * 64)
ANN = ActorId("ann")


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.needs_postgres)],
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MetadataStore]:
    kinds = declared_kinds()
    made: MetadataStore
    if request.param == "postgres":
        made = PostgresMetadataStore(request.getfixturevalue("postgres_url"), kinds)
    elif request.param == "sqlite":
        made = SqliteMetadataStore(tmp_path / "everloop.db", kinds)
    else:
        made = MemoryMetadataStore(kinds)
    yield made
    made.close()


@dataclass
class Lineage:
    """Runs, data and models as the store holds them, made without training anything."""

    world: World

    def __post_init__(self) -> None:
        with self.world.kernel.store.read() as tx:
            (found,) = tx.select(Project, *where(name=PROJECT))
        self.project = ProjectId(found.id)

    def id(self) -> Id:
        self.world.clock.push(seconds=1)
        return self.world.kernel.services.ids.new()

    def add(self, *rows: msgspec.Struct) -> None:
        with self.world.kernel.store.write() as tx:
            for row in rows:
                tx.insert(row)  # type: ignore[arg-type]  # each is a record

    def dataset(self, name: str, versions: int) -> list[Id]:
        owner = Dataset(id=self.id(), project=self.project, name=name, created_at=START)
        made = [
            DatasetVersion(
                id=self.id(), project=self.project, dataset=owner.id, name=name, number=number,
                root=DIGEST, manifest=DIGEST, format="parquet", rows=number * 100,
                size_bytes=1, schema=None, profile=None, reference=None, source=SourceInfo(),
                message="", created_at=self.world.clock.now(), created_by=ANN,
            )
            for number in range(1, versions + 1)
        ]  # fmt: skip
        self.add(owner, *made)
        return [version.id for version in made]

    def run(self, name: str, auc: float, *reads: Id) -> Id:
        run = start(self.world, name=name)
        log(self.world, run, series("auc", auc))
        for version in reads:
            self.link(f"run:{run}", "read", f"dataset_version:{version}")
        self.world.clock.push(hours=1)
        return run

    def link(self, source: str, relation: str, target: str) -> None:
        self.add(
            Edge(
                id=self.id(), project=self.project, source=source, relation=relation,
                target=target, at=START,
            )
        )  # fmt: skip

    def model(self, name: str) -> Id:
        row = Model(
            id=self.id(), project=self.project, name=name, description="", created_at=START,
            tags={"team": "red"} if name == "credit" else {},
        )  # fmt: skip
        self.add(row)
        return row.id

    def version(self, model: Id, number: int, run: Id, data: Id, tags: dict[str, str]) -> Id:
        out = Field(name="y", dtype="float64")
        now = self.world.clock.now()
        row = ModelVersion(
            id=self.id(), project=self.project, model=model, name="credit", number=number,
            version=f"1.{number}.0", artifact=Digest(f"blake3:{number:064}"), files=(),
            format="lightgbm", signature=Signature(inputs=(), output=out, task="regression"),
            target="y", run=run, dataset_version=data, holdout=None, reference=None,
            examples=None, params={}, bump="minor", bump_reason="", created_at=now,
            created_by=ANN,
        )  # fmt: skip
        notes = VersionNotes(
            id=self.id(), project=self.project, model=model, version=row.id, number=number,
            tags=tags, updated_at=now, updated_by=ANN,
        )  # fmt: skip
        self.add(row, notes)
        self.link(f"model_version:{row.id}", "trained_by", f"run:{run}")
        self.link(f"model_version:{row.id}", "trained_on", f"dataset_version:{data}")
        return row.id

    def move(self, model: Id, alias: str, number: int, version: Id | None) -> None:
        self.add(
            AliasMove(
                id=self.id(), project=self.project, model=model, alias=alias, number=number,
                version=version, before=None, who=ANN, when=START, why="",
            )
        )  # fmt: skip

    def runs(self, filter: str) -> list[str]:
        ask = SearchRuns(filter=filter, order="name")
        found = self.world.owner.perform("run.search", ask, FoundRuns)
        return [run.name for run in found.items]

    def versions(self, filter: str, order: str = "number") -> list[int]:
        ask = SearchVersions(filter=filter, order=order)
        found = self.world.owner.perform("version.search", ask, FoundVersions)
        return [item.version.number for item in found.items]

    def datasets(self, filter: str) -> list[str]:
        ask = SearchDatasets(filter=filter, order="name, number")
        found = self.world.owner.perform("dataset.search", ask, FoundDatasets)
        return [f"{row.name}@{row.number}" for row in found.items]


def test_searches_follow_lineage_from_data_to_what_is_in_production(store: MetadataStore) -> None:
    it = Lineage(world(store))
    credit, other = it.dataset("credit", 3), it.dataset("other", 1)
    runs = [
        it.run("first", 0.5, credit[1]),
        it.run("second", 0.7, credit[2]),
        it.run("third", 0.9, credit[2], other[0]),
        it.run("fourth", 0.95, credit[2]),
    ]
    model, spare = it.model("credit"), it.model("spare")
    one = it.version(model, 1, runs[1], credit[2], {"ok": "yes"})
    two = it.version(model, 2, runs[2], credit[2], {})
    it.move(model, "production", 1, one)
    it.move(model, "production", 2, two)
    it.move(model, "staging", 1, one)
    it.move(model, "staging", 2, None)
    it.move(spare, "production", 1, None)
    it.add(
        Deployment(
            id=it.id(), project=it.project, name="shop", model=model, champion=two, previous=one,
            epoch=2, created_at=START, created_by=ANN,
        )
    )  # fmt: skip

    assert ["third"] == it.runs("dataset = 'credit@3' and model.alias = 'production'")
    assert ["fourth", "second", "third"] == it.runs("dataset = 'credit@latest'")
    assert ["third"] == it.runs("dataset.name = 'other' and dataset = 'dataset:credit@3'")
    assert ["first"] == it.runs("dataset != 'credit@3' and not dataset.name = 'other'")
    assert [] == it.runs("model.alias = 'staging'")
    assert ["third"] == it.runs("model = 'credit@production'")
    assert ["second"] == it.runs("model in ('credit@1', 'nothing@2')")
    assert ["second"] == it.runs("model = 'credit@1.1.0' or deployment.name = 'x'")
    assert ["second"] == it.runs("model.tags.ok = 'yes'")
    assert ["third"] == it.runs("deployment = 'shop'")
    assert ["first", "fourth"] == it.runs("model is null")
    assert [2] == it.versions("run.metrics.auc > 0.8")
    assert [1, 2] == it.versions("dataset = 'credit@3' and alias not in ('x') or number = 1")
    assert [1] == it.versions("alias is null and tags.ok is not null")
    assert [2, 1] == it.versions("model.tags.team = 'red'", "run.started_at DESC")
    assert [2, 1] == it.versions("", "updated_at DESC")
    assert [1, 2] == it.versions("tags.`mlflow.prompt.is_prompt` != 'true'")
    assert [2] == it.versions("deployment.name like 's%'")
    assert ["credit@3"] == it.datasets("model.alias = 'production' and run.metrics.auc >= 0.9")
    assert ["credit@1", "other@1"] == it.datasets("run is null or rows = '100'")
    assert ["credit"] == _names(it, "alias = 'production'")
    assert ["spare"] == _names(it, "version is null and tags.team is null")
    assert ["shop"] == _deployments(it, "champion.alias = 'production' and model = 'credit'")
    assert [] == _deployments(it, "champion.run.metrics.auc < 0.8")
    assert ["shop"] == _deployments(it, "previous.run.metrics.auc < 0.8")
    found = it.world.owner.perform("data.search", SearchData(filter="name like 'c%'"), DatasetList)
    assert [("credit", 3)] == [(row.name, row.versions) for row in found.items]


def _names(it: Lineage, filter: str) -> list[str]:
    found = it.world.owner.perform("model.search", SearchModels(filter=filter), ModelList)
    return [row.name for row in found.items]


def _deployments(it: Lineage, filter: str) -> list[str]:
    ask = SearchDeployments(filter=filter)
    found = it.world.owner.perform("deployment.search", ask, DeploymentList)
    return [row.deployment.name for row in found.items]


@dataclass(frozen=True)
class Plain:
    """A run as the test knows it."""

    name: str
    pipeline: str | None
    metrics: dict[str, float]
    params: dict[str, str]


METRICS = (0.0, 0.5, 1.0, -2.5, 1e300, math.nan, math.inf, -math.inf)
PARAMS = ("0.5", "1", "1.0", "1e0", "x", "X", "xy", "", "nan", "größe", "a%b", "it's")
SEEDS = range(3)
FILTERS = 150


def _population(w: World, dice: random.Random) -> list[Plain]:
    made = []
    for number in range(14):
        plain = Plain(
            name=f"run{number}",
            pipeline=dice.choice([None, "train", "Train"]),
            metrics={key: dice.choice(METRICS) for key in "mn" if dice.random() < 0.7},
            params={key: dice.choice(PARAMS) for key in "pq" if dice.random() < 0.7},
        )
        run = start(w, name=plain.name, pipeline=plain.pipeline)
        points = tuple(series(key, value) for key, value in plain.metrics.items())
        log(w, run, *points, params=plain.params)
        made.append(plain)
    return made


def _tree(dice: random.Random, depth: int) -> Node:
    if depth and dice.random() < 0.6:
        parts = tuple(_tree(dice, depth - 1) for _ in range(dice.randint(2, 3)))
        grown: list[Node] = [Both(parts), Either(parts), Negated(parts[0])]
        return dice.choice(grown)
    kind, key = dice.choice([("metrics", "m"), ("metrics", "n"), ("params", "p"), ("params", "q"),
                             ("pipeline", ""), ("name", "")])  # fmt: skip
    if kind == "metrics":
        return _of_numbers(dice, Name((kind, key)), is_metric=True)
    if kind == "params" and dice.random() < 0.5:
        return _of_numbers(dice, Name((kind, key)), is_metric=False)
    return _of_texts(dice, Name((kind, key) if key else (kind,)))


def _of_numbers(dice: random.Random, name: Name, *, is_metric: bool) -> Comparison:
    known = [value for value in METRICS if not math.isnan(value)]
    values = [Number(dice.choice(known)) for _ in range(3)]
    how = dice.choice([*list(How)[:6], How.IN, How.BETWEEN, How.NULL] + [How.NAN] * is_metric)
    negated = dice.random() < 0.5
    counts = {How.NULL: 0, How.NAN: 0, How.IN: 3, How.BETWEEN: 2}
    given = tuple(values[: counts.get(how, 1)])
    return Comparison(name, how, given, negated if how in list(How)[8:] else False)


def _of_texts(dice: random.Random, name: Name) -> Comparison:
    values = [Text(dice.choice([*PARAMS, "train", "run1"])) for _ in range(2)]
    how = dice.choice([How.EQ, How.NE, How.IN, How.LIKE, How.ILIKE, How.NULL])
    negated = dice.random() < 0.5 and how not in {How.EQ, How.NE}
    if how is How.NULL:
        return Comparison(name, how, (), negated)
    if how in {How.LIKE, How.ILIKE}:
        pattern = dice.choice(["%", "x%", "%y", "_", "_%", "r%1", "TR%", "%n%", "a%b", "it's", ""])
        return Comparison(name, how, (Text(pattern),), negated)
    return Comparison(name, how, tuple(values) if how is How.IN else (values[0],), negated)


def _holds(run: Plain, node: Node) -> bool:
    match node:
        case Both(parts):
            return all(_holds(run, part) for part in parts)
        case Either(parts):
            return any(_holds(run, part) for part in parts)
        case Negated(part):
            return not _holds(run, part)
    space, *key = node.name.parts
    if space == "metrics":
        return _number_holds(run.metrics.get(key[0]), node)
    text = run.params.get(key[0]) if key else (run.name if space == "name" else run.pipeline)
    if node.how is How.NULL or isinstance(node.values[0], Text):
        return _text_holds(text, node)
    return text is not None and _number_holds(_spelled(text), node)


def _spelled(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _number_holds(value: float | None, test: Comparison) -> bool:
    if test.how is How.NULL:
        return (value is None) != test.negated
    if value is None:
        return False
    if test.how is How.NAN:
        return math.isnan(value) != test.negated
    given = [each.value for each in test.values if isinstance(each, Number)]
    return {
        How.EQ: value == given[0],
        How.NE: value != given[0],
        How.LT: value < given[0],
        How.LE: value <= given[0],
        How.GT: value > given[0],
        How.GE: value >= given[0],
        How.IN: (value in given) != test.negated,
        How.BETWEEN: (given[0] <= value <= given[-1 if len(given) == 2 else 0]) != test.negated,
    }[test.how]


def _text_holds(value: str | None, test: Comparison) -> bool:
    if test.how is How.NULL:
        return (value is None) != test.negated
    if value is None:
        return False
    given = [each.value for each in test.values if isinstance(each, Text)]
    fold = str.lower if test.how is How.ILIKE else str
    return {
        How.EQ: value == given[0],
        How.NE: value != given[0],
        How.IN: (value in given) != test.negated,
        How.LIKE: _like(value, given[0]) != test.negated,
        How.ILIKE: _like(fold(value), fold(given[0])) != test.negated,
    }[test.how]


def _like(value: str, pattern: str) -> bool:
    if not pattern:
        return not value
    if pattern[0] == "%":
        return any(_like(value[at:], pattern[1:]) for at in range(len(value) + 1))
    return bool(value) and pattern[0] in {"_", value[0]} and _like(value[1:], pattern[1:])


@pytest.mark.parametrize("seed", SEEDS)
def test_random_filters_find_what_their_plain_meaning_says(store: MetadataStore, seed: int) -> None:
    dice = random.Random(seed)
    w = world(store)
    runs = _population(w, dice)

    for _ in range(FILTERS):
        text = print_filter(_tree(dice, 3))
        found = w.owner.perform("run.search", SearchRuns(filter=text, limit=100), FoundRuns)
        expected = {run.name for run in runs if _holds(run, parse_filter(text))}
        assert expected == {run.name for run in found.items}, text
