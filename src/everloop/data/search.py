"""Searching datasets: what their names mean in a filter, and the query."""

from __future__ import annotations

from typing import Annotated

import msgspec

from everloop.core.filter.fields import InstantField, NumberField, TextField
from everloop.core.filter.joins import Hop, Route, one_of
from everloop.core.filter.scene import Scene
from everloop.core.filter.tree import Text
from everloop.core.filter.vocabulary import Linked, Vocabulary, declare
from everloop.core.ids import is_id
from everloop.core.ports import Compare, where
from everloop.core.refs import parse_ref
from everloop.core.search import All, Filter, Link, Order, Test
from everloop.data.model import Dataset, DatasetVersion
from everloop.data.queries import DatasetList, get_dataset, summarise
from everloop.kernel.searching import Search, search_rows
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query

_HIGHEST_DIGITS = 18


def _refer(scene: Scene, value: Text) -> Filter:
    """Return what ``credit``, ``credit@3`` or ``credit@latest`` asks of a version."""
    bare = value.value.removeprefix("dataset_version:")
    if is_id(bare):
        return Test("id", Compare.EQ, bare)
    try:
        ref = parse_ref(bare, kind="dataset")
    except ValueError as error:
        raise scene.fault(
            value.at, "This is no ref of a dataset", "Write it like 'credit@3' or 'credit'."
        ) from error
    named = Test("name", Compare.EQ, ref.name)
    if ref.selector is None:
        return named
    if ref.selector == "latest":
        newest = scene.reader.select(
            DatasetVersion, *where(name=ref.name), order="number", descending=True, limit=1
        )
        return one_of("id", [row.id for row in newest])
    if not (ref.selector.isascii() and ref.selector.isdigit()):
        raise scene.fault(
            value.at,
            "A version of a dataset is a number",
            f"Write it like '{ref.name}@3' or '{ref.name}@latest'.",
        )
    number = int(ref.selector) if len(ref.selector) <= _HIGHEST_DIGITS else 0
    return All((named, Test("number", Compare.EQ, number)))


def _by_edge(relation: str, *, source: str, kind: str) -> Route:
    """Return the way from a dataset version to what states that it came from it."""
    return Route(
        (
            Hop(
                "edge",
                Link("target", prefix="dataset_version:"),
                (Test("relation", Compare.EQ, relation),),
            ),
            Hop(kind, Link("id", "source", strip=f"{source}:")),
        )
    )


DATASETS = declare(
    Vocabulary(
        noun="dataset",
        kind="dataset_version",
        fields={
            "id": TextField("id", "its id"),
            "name": TextField("name", "the name of the dataset"),
            "number": NumberField("number", "counts the versions of the dataset from 1"),
            "digest": TextField("root", "the digest over its files"),
            "format": TextField("format", "parquet, csv or files"),
            "rows": NumberField("rows", "how many rows it has", nullable=True),
            "size_bytes": NumberField("size_bytes", "all its files together"),
            "message": TextField("message", "what the committer said"),
            "created_at": InstantField("created_at", "when it was committed"),
            "created_by": TextField("created_by", "the id of the actor who committed it"),
        },
        synonyms={"version": "number", "root": "digest", "bytes": "size_bytes"},
        links={
            "run": Linked(
                "run", (_by_edge("read", source="run", kind="run"),), "a run that read it"
            ),
            "model": Linked(
                "version",
                (_by_edge("trained_on", source="model_version", kind="model_version"),),
                "a model version that was trained on it",
            ),
        },
        refer=_refer,
        order=(Order("created_at", descending=True), Order("id", descending=True)),
    )
)


NAMES = declare(
    Vocabulary(
        noun="data",
        kind="dataset",
        fields={
            "id": TextField("id", "its id"),
            "name": TextField("name", "its name"),
            "created_at": InstantField("created_at", "when its first version was committed"),
        },
        links={
            "version": Linked(
                "dataset",
                (Route((Hop("dataset_version", Link("dataset")),)),),
                "one of its versions",
            )
        },
        order=(Order("created_at"), Order("id")),
    )
)


class SearchData(Search, frozen=True, kw_only=True):
    """What ``data.search`` takes; the oldest datasets come first when nothing else is asked."""


class SearchDatasets(Search, frozen=True, kw_only=True):
    """What ``dataset.search`` takes; the newest versions come first when nothing else is asked.

    Attributes:
        name: The dataset whose versions to look at; those of all datasets when left out.
    """

    name: Annotated[str, msgspec.Meta(max_length=300)] | None = None


class FoundDatasets(msgspec.Struct, frozen=True, kw_only=True):
    """One page of dataset versions; ``next`` is the cursor of the page after it."""

    items: tuple[DatasetVersion, ...]
    next: str | None


@query("data.search", permission="data:read")
def find_data(ask: SearchData, view: View) -> DatasetList:
    """Find datasets by filter and order, a page at a time; their versions by ``dataset.search``.

    Raises:
        InvalidInput: ``filter.invalid`` or ``order.invalid``, with the position.
    """
    page = search_rows(view, Dataset, NAMES, ask)
    return DatasetList(items=tuple(summarise(view, row) for row in page.rows), next=page.next)


@query("dataset.search", permission="data:read")
def find_datasets(ask: SearchDatasets, view: View) -> FoundDatasets:
    """Find dataset versions by filter and order, a page at a time.

    Raises:
        NotFound: ``dataset.not_found``.
        InvalidInput: ``filter.invalid`` or ``order.invalid``, with the position.
    """
    also: list[Filter] = []
    if ask.name is not None:
        dataset: Dataset = get_dataset(view, parse_ref(ask.name, kind="dataset").name)
        also.append(Test("dataset", Compare.EQ, dataset.id))
    page = search_rows(view, DatasetVersion, DATASETS, ask, *also)
    return FoundDatasets(items=tuple(page.rows), next=page.next)
