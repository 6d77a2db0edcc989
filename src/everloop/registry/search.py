"""Searching models and their versions: what their names mean in a filter, and the queries.

Aliases move and keep their history, so where one points now is the last of its moves; a filter
that names aliases reads the moves of the project and asks for the versions they lead to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from everloop.core.filter.fields import InstantField, NumberField, TextField
from everloop.core.filter.joins import Hop, Looked, Route, Through, one_of
from everloop.core.filter.keyed import LookedTexts
from everloop.core.filter.scene import Reader, Scene
from everloop.core.filter.tree import Text
from everloop.core.filter.vocabulary import Linked, Vocabulary, declare
from everloop.core.ids import Id, is_id
from everloop.core.ports import Compare, where
from everloop.core.refs import parse_ref
from everloop.core.search import All, Any, Filter, Link, Not, Order, Test
from everloop.kernel.searching import (
    Search,
    scene_of,
    search_rows,
)
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.registry.lookup import get_model
from everloop.registry.model import AliasMove, Model, ModelVersion, VersionNotes
from everloop.registry.queries import ModelList, Which, summarise

_HIGHEST_DIGITS = 18
# MLflow's clients ask in every search for what is no prompt, and mark prompts only.
_NO_PROMPT = {"mlflow.prompt.is_prompt": "false"}


def pointed(reader: Reader) -> list[AliasMove]:
    """Return the last move of each alias of the project that points at a version now."""
    last: dict[tuple[Id, str], AliasMove] = {}
    for move in reader.select(AliasMove):
        known = last.get((move.model, move.alias))
        if known is None or known.number < move.number:
            last[move.model, move.alias] = move
    return [move for move in last.values() if move.version is not None]


def _aliases_of_versions(scene: Scene) -> Mapping[str, Iterable[str]]:
    found: dict[str, list[str]] = {}
    for move in pointed(scene.reader):
        assert move.version is not None
        found.setdefault(move.version, []).append(move.alias)
    return found


def _aliases_of_models(scene: Scene) -> Mapping[str, Iterable[str]]:
    found: dict[str, list[str]] = {}
    for move in pointed(scene.reader):
        found.setdefault(move.model, []).append(move.alias)
    return found


def _tags_of_models(scene: Scene) -> Mapping[str, Mapping[str, str]]:
    return {row.id: row.tags for row in scene.reader.select(Model) if row.tags}


def _tags_of_versions(scene: Scene) -> Mapping[str, Mapping[str, str]]:
    return {row.version: row.tags for row in scene.reader.select(VersionNotes) if row.tags}


def _refer_model(scene: Scene, value: Text) -> Filter:
    del scene
    key = value.value.removeprefix("model:")
    return Any((Test("id", Compare.EQ, key), Test("name", Compare.EQ, key)))


def _refer_version(scene: Scene, value: Text) -> Filter:
    """Return what ``credit``, ``credit@3``, ``credit@1.4.0`` or ``credit@production`` asks."""
    bare = value.value.removeprefix("model_version:")
    if is_id(bare):
        return Test("id", Compare.EQ, bare)
    try:
        ref = parse_ref(bare, kind="model")
    except ValueError as error:
        raise scene.fault(
            value.at,
            "This is no ref of a model",
            "Write it like 'credit@3' or 'credit@production'.",
        ) from error
    of_model = Test("name", Compare.EQ, ref.name)
    selector = ref.selector
    if selector is None:
        return of_model
    if selector.isascii() and selector.isdigit():
        number = int(selector) if len(selector) <= _HIGHEST_DIGITS else 0
        return All((of_model, Test("number", Compare.EQ, number)))
    if selector == "latest":
        newest = scene.reader.select(
            ModelVersion, *where(name=ref.name), order="number", descending=True, limit=1
        )
        return one_of("id", [row.id for row in newest])
    at_alias = [move.version for move in pointed(scene.reader) if move.alias == selector]
    named = one_of("id", [version for version in at_alias if version is not None])
    return All((of_model, Any((Test("version", Compare.EQ, selector), named))))


_NOTES = Route((Hop("version_notes", Link("version")),))
_OWN_MODEL = Route((Hop("model", Link("id", "model")),))
VERSIONS = declare(
    Vocabulary(
        noun="version",
        kind="model_version",
        fields={
            "id": TextField("id", "its id"),
            "name": TextField("name", "the name of its model"),
            "number": NumberField("number", "counts the versions of the model from 1"),
            "version": TextField("version", "its semantic version"),
            "alias": Looked(_aliases_of_versions, "an alias that points at it now"),
            "format": TextField("format", "its format"),
            "target": TextField("target", "the column that it predicts"),
            "artifact": TextField("artifact", "the digest of what it is"),
            "bump": TextField("bump", "first, major, minor or patch"),
            "created_at": InstantField("created_at", "when it was registered"),
            "created_by": TextField("created_by", "the id of the actor who registered it"),
            "run": TextField("run", "the id of the run that trained it", nullable=True),
            "source": TextField("source", "where another system says that it came from"),
            "stage": Through((_NOTES,), TextField("stage", "MLflow's stage of it"), is_single=True),
            "description": Through((_NOTES,), TextField("description", "what is said of it")),
            "updated_at": Through(
                (_NOTES,), InstantField("updated_at", "when it last changed"), is_single=True
            ),
        },
        synonyms={
            "version_number": "number",
            "run_id": "run",
            "source_path": "source",
            "creation_timestamp": "created_at",
            "last_updated_timestamp": "updated_at",
            "aliases": "alias",
            "current_stage": "stage",
            "tag": "tags",
        },
        spaces={"tags": LookedTexts(_tags_of_versions, "a tag", absent=_NO_PROMPT)},
        links={
            "run": Linked(
                "run",
                (Route((Hop("run", Link("id", "run")),)),),
                "the run that trained it",
                is_single=True,
            ),
            "dataset": Linked(
                "dataset",
                (Route((Hop("dataset_version", Link("id", "dataset_version")),)),),
                "the data that it was trained on",
                is_single=True,
            ),
            "holdout": Linked(
                "dataset",
                (Route((Hop("dataset_version", Link("id", "holdout")),)),),
                "the data that was kept from its training",
                is_single=True,
            ),
            "model": Linked(
                "model", (_OWN_MODEL,), "the model that it is a version of", is_single=True
            ),
            "deployment": Linked(
                "deployment",
                (Route((Hop("deployment", Link("champion")),)),),
                "a deployment that it answers in",
            ),
        },
        refer=_refer_version,
        order=(Order("created_at", descending=True), Order("id", descending=True)),
    )
)

MODELS = declare(
    Vocabulary(
        noun="model",
        kind="model",
        fields={
            "id": TextField("id", "its id"),
            "name": TextField("name", "its name"),
            "alias": Looked(_aliases_of_models, "an alias that points at one of its versions now"),
            "description": TextField("description", "what is said of it"),
            "owner": TextField("owner", "who answers for it"),
            "licence": TextField("licence", "its licence"),
            "intended_use": TextField("intended_use", "what it is for"),
            "versions": NumberField("last_number", "the highest number of its versions"),
            "created_at": InstantField("created_at", "when it was made"),
            "updated_at": InstantField("updated_at", "when it or a version last changed"),
            "deleted_at": InstantField("deleted_at", "when it went to the trash"),
        },
        synonyms={
            "creation_timestamp": "created_at",
            "last_updated_timestamp": "updated_at",
            "timestamp": "updated_at",
            "aliases": "alias",
            "tag": "tags",
        },
        spaces={"tags": LookedTexts(_tags_of_models, "a tag", absent=_NO_PROMPT)},
        links={
            "version": Linked(
                "version", (Route((Hop("model_version", Link("model")),)),), "one of its versions"
            ),
            "deployment": Linked(
                "deployment",
                (Route((Hop("deployment", Link("model")),)),),
                "a deployment of it",
            ),
        },
        refer=_refer_model,
        order=(Order("created_at"), Order("id")),
    )
)


class SearchModels(Search, frozen=True, kw_only=True):
    """What ``model.search`` takes; the oldest models come first when nothing else is asked.

    Attributes:
        deleted: Those in use (``active``), in the trash (``deleted``), or ``all``.
    """

    deleted: Which = "active"


class SearchVersions(Search, frozen=True, kw_only=True):
    """What ``version.search`` takes; the newest versions come first when nothing else is asked.

    Attributes:
        name: The model whose versions to look at; those of all models when left out.
        deleted: Those in use (``active``), in the trash (``deleted``), or ``all``.
    """

    name: Annotated[str, msgspec.Meta(max_length=300)] | None = None
    deleted: Which = "active"


class FoundVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version that a search found, and the aliases that point at it now."""

    version: ModelVersion
    aliases: tuple[str, ...]


class FoundVersions(msgspec.Struct, frozen=True, kw_only=True):
    """One page of versions; ``next`` is the cursor of the page after it."""

    items: tuple[FoundVersion, ...]
    next: str | None


@query("model.search", permission="model:read")
def find_models(ask: SearchModels, view: View) -> ModelList:
    """Find models by filter and order, a page at a time.

    Raises:
        InvalidInput: ``filter.invalid`` or ``order.invalid``, with the position.
    """
    page = search_rows(view, Model, MODELS, ask, *_state(ask.deleted))
    return ModelList(items=tuple(summarise(view, row) for row in page.rows), next=page.next)


@query("version.search", permission="model:read")
def find_versions(ask: SearchVersions, view: View) -> FoundVersions:
    """Find model versions by filter and order, a page at a time.

    Raises:
        NotFound: ``model.not_found``.
        InvalidInput: ``filter.invalid`` or ``order.invalid``, with the position.
    """
    also = list(_versions_in(ask.deleted))
    if ask.name is not None:
        name = parse_ref(ask.name, kind="model").name
        model = get_model(view, name, trashed=ask.deleted != "active")
        also.append(Test("model", Compare.EQ, model.id))
    page = search_rows(view, ModelVersion, VERSIONS, ask, *also)
    aliases = _aliases_of_versions(scene_of(view)) if page.rows else {}
    return FoundVersions(
        items=tuple(
            FoundVersion(version=row, aliases=tuple(sorted(aliases.get(row.id, ()))))
            for row in page.rows
        ),
        next=page.next,
    )


def _state(deleted: Which) -> tuple[Filter, ...]:
    if deleted == "all":
        return ()
    return (Test("deleted_at", Compare.EQ if deleted == "active" else Compare.NE, None),)


def _versions_in(deleted: Which) -> tuple[Filter, ...]:
    """Return which versions count: one is in the trash with its notes or with its model."""
    if deleted == "all":
        return ()
    gone = Test("deleted_at", Compare.NE, None)
    in_trash = Any((_NOTES.wrap(gone), _OWN_MODEL.wrap(gone)))
    return (Not(in_trash) if deleted == "active" else in_trash,)
