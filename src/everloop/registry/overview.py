"""Models and versions with all that is known about them, many in one question.

For faces that show lists with everything, such as MLflow's interface.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.errors import NotFound
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.kernel.authz import Actor
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.registry.lookup import current_aliases, get_model
from everloop.registry.model import Model, ModelVersion, VersionNotes

MOST = 1_000
Name = Annotated[str, Meta(max_length=300)]


class ShowVersions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Versions by their ids, or by the name of their model and their numbers.

    Attributes:
        ids: Ids of versions; those that are not there are left out.
        model: Name of a model whose versions to show, by number.
        numbers: Their numbers.
    """

    ids: Annotated[tuple[Id, ...], Meta(max_length=MOST)] = ()
    model: Name | None = None
    numbers: Annotated[tuple[int, ...], Meta(max_length=MOST)] = ()


class ShowModels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of models in use."""

    names: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MOST)]


class WholeVersion(Struct, frozen=True, kw_only=True):
    """A version in use, its notes, and the aliases that point at it now."""

    version: ModelVersion
    notes: VersionNotes
    aliases: tuple[str, ...]
    created_by: str


class WholeVersions(Struct, frozen=True, kw_only=True):
    """Versions in the order in which they were asked for."""

    items: tuple[WholeVersion, ...]


class WholeModel(Struct, frozen=True, kw_only=True):
    """A model in use.

    Attributes:
        aliases: The number of the version at which each alias points now.
        latest: The newest version of each stage, newest stage first.
    """

    model: Model
    aliases: dict[str, int]
    latest: tuple[WholeVersion, ...]


class WholeModels(Struct, frozen=True, kw_only=True):
    """Models in the order in which they were asked for."""

    items: tuple[WholeModel, ...]


@query("version.whole", permission="model:read")
def show_versions(ask: ShowVersions, view: View) -> WholeVersions:
    """Show versions in use with their notes and aliases.

    Raises:
        NotFound: ``model.not_found``, or ``model_version.not_found`` for a number that is not in
            use.
    """
    wanted = list(ask.ids)
    if ask.model is not None:
        wanted += _by_number(view, get_model(view, ask.model), ask.numbers)
    return WholeVersions(items=_whole(view, wanted))


@query("model.whole", permission="model:read")
def show_models(ask: ShowModels, view: View) -> WholeModels:
    """Show models in use with their aliases and the newest version of each stage.

    Raises:
        NotFound: ``model.not_found``.
    """
    return WholeModels(items=tuple(_model(view, get_model(view, name)) for name in ask.names))


def _by_number(view: View, model: Model, numbers: tuple[int, ...]) -> list[Id]:
    found = {
        notes.number: notes.version
        for notes in view.select(
            VersionNotes,
            *where(model=model.id, deleted_at=None),
            Condition("number", Compare.IN, numbers),
        )
    }
    for number in numbers:
        if number not in found:
            raise NotFound(
                "model_version.not_found",
                f"Model {model.name!r} has no version {number} in use.",
                hint=f"List them with `everloop models versions {model.name}`.",
            )
    return [found[number] for number in numbers]


def _model(view: View, model: Model) -> WholeModel:
    newest: dict[str, VersionNotes] = {}
    for notes in view.select(
        VersionNotes, *where(model=model.id, deleted_at=None), order="number", descending=True
    ):
        newest.setdefault(notes.stage, notes)
    pointed = current_aliases(view, model.id)
    numbers = (
        {
            notes.version: notes.number
            for notes in view.select(
                VersionNotes, Condition("version", Compare.IN, tuple(set(pointed.values())))
            )
        }
        if pointed
        else {}
    )
    return WholeModel(
        model=model,
        aliases={alias: numbers[target] for alias, target in pointed.items() if target in numbers},
        latest=_whole(view, [notes.version for notes in newest.values()]),
    )


def _whole(view: View, keys: list[Id]) -> tuple[WholeVersion, ...]:
    if not keys:
        return ()
    wanted = tuple(keys)
    versions = {
        row.id: row for row in view.select(ModelVersion, Condition("id", Compare.IN, wanted))
    }
    notes = {
        row.version: row
        for row in view.select(VersionNotes, Condition("version", Compare.IN, wanted))
    }
    aliases: dict[Id, list[str]] = {}
    for model in {row.model for row in versions.values()}:
        for alias, target in current_aliases(view, model).items():
            aliases.setdefault(target, []).append(alias)
    names = {
        actor: known.name if (known := view.tx.find(Actor, Id(actor))) else actor
        for actor in {row.created_by for row in versions.values()}
    }
    return tuple(
        WholeVersion(
            version=versions[key],
            notes=notes[key],
            aliases=tuple(sorted(aliases.get(key, ()))),
            created_by=names[versions[key].created_by],
        )
        for key in keys
        if key in versions and key in notes
    )
