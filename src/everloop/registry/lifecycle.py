"""What may change about models and versions, and their way to the trash and back.

Bytes, numbers and history stay as they are: a version in the trash keeps its number for ever, and
nothing that answers, or may have to, goes there.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from everloop.core.errors import Conflict, InvalidInput
from everloop.core.ids import check_name
from everloop.core.ports import where
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import verb
from everloop.registry.aliases import move_alias
from everloop.registry.holding import require_free
from everloop.registry.keeping import change_notes, open_model, retire_name, touch_model
from everloop.registry.lookup import (
    current_aliases,
    find_any_model,
    find_model,
    find_notes,
    get_model,
    resolve_model,
)
from everloop.registry.model import Model, ModelVersion, RetiredName, VersionNotes
from everloop.registry.queries import RefText

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Text = Annotated[str, Meta(max_length=100_000)]
Line = Annotated[str, Meta(max_length=2_000)]
TagKey = Annotated[str, Meta(min_length=1, max_length=250)]
Tags = Annotated[dict[TagKey, Annotated[str, Meta(max_length=100_000)]], Meta(max_length=1_000)]
Stage = Literal["None", "Staging", "Production", "Archived"]
_IN_USE = frozenset({"Staging", "Production"})


class CreateModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name under which versions will be kept, and what is known about the model.

    Attributes:
        description: What it is, as text or Markdown.
        owner: Who answers for it.
        licence: Under which licence it may be used, best as an SPDX expression.
        intended_use: What it is for, and what it is not for.
    """

    name: Name
    description: Text = ""
    tags: Tags = {}
    owner: Line = ""
    licence: Line = ""
    intended_use: Text = ""


class UpdateModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change about a model; what is left out stays.

    Attributes:
        description: What it is, as text or Markdown.
        owner: Who answers for it.
        licence: Under which licence it may be used, best as an SPDX expression.
        intended_use: What it is for, and what it is not for.
        tags: Tags to set.
        untag: Keys of tags to take away.
    """

    name: Name
    description: Text | None = None
    owner: Line | None = None
    licence: Line | None = None
    intended_use: Text | None = None
    tags: Tags = {}
    untag: tuple[TagKey, ...] = ()


class RenameModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model and the name that it shall have."""

    name: Name
    to: Name


class NameModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model by its name."""

    name: Name


class NameVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version by ref or id."""

    version: RefText


class UpdateVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change about a version; what is left out stays.

    Attributes:
        version: Ref or id of the version.
        description: Notes about it, as text or Markdown.
        tags: Tags to set.
        untag: Keys of tags to take away.
    """

    version: RefText
    description: Text | None = None
    tags: Tags = {}
    untag: tuple[TagKey, ...] = ()


class StageVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stage that a version shall have.

    Attributes:
        version: Ref or id of the version.
        stage: ``None``, ``Staging``, ``Production`` or ``Archived``.
        archive_others: Whether other versions of that stage become archived.
    """

    version: RefText
    stage: Stage
    archive_others: bool = False


@verb("model.create", permission="model:write")
def create_model(ask: CreateModel, work: Work) -> Model:
    """Make a model that has no versions yet.

    A name that was deleted goes on counting: none of its numbers is given twice.

    Raises:
        InvalidInput: ``name.invalid``.
        Conflict: ``model.exists``.
    """
    check_name(ask.name, "Model")
    if find_model(work, ask.name) is not None:
        raise _exists(ask.name)
    model = open_model(work, ask.name)
    work.touch(f"model:{model.id}")
    told = structs.replace(
        model,
        description=ask.description,
        tags=ask.tags,
        owner=ask.owner,
        licence=ask.licence,
        intended_use=ask.intended_use,
    )
    return work.replace(told) if told != model else model


@verb("model.update", permission="model:write")
def update_model(ask: UpdateModel, work: Work) -> Model:
    """Change what is said about a model; its name and its versions stay.

    Raises:
        NotFound: ``model.not_found``.
    """
    model = get_model(work, ask.name)
    told = {
        name: value
        for name in ("description", "owner", "licence", "intended_use")
        if (value := getattr(ask, name)) is not None
    }
    changed = structs.replace(model, **told, tags=_tags(model.tags, ask.tags, ask.untag))
    if changed == model:
        return model
    return touch_model(work, changed)


@verb("model.rename", permission="model:release")
def rename_model(ask: RenameModel, work: Work) -> Model:
    """Give a model and its versions another name; nobody else's versions ever get the old one.

    Raises:
        NotFound: ``model.not_found``.
        InvalidInput: ``name.invalid``.
        Conflict: ``model.exists``, or ``model.name_retired`` for a name that another model had.
    """
    model = get_model(work, ask.name)
    check_name(ask.to, "Model")
    if ask.to == model.name:
        return model
    if find_any_model(work, ask.to) is not None:
        raise _exists(ask.to)
    known = work.first(RetiredName, *where(name=ask.to))
    if known is not None:
        if known.model != model.id:
            raise Conflict(
                "model.name_retired",
                f"Another model was called {ask.to!r}; its versions are known by that name.",
                hint="Choose a name that no model ever had.",
            )
        work.delete(known)
    retire_name(work, model)
    for version in work.select(ModelVersion, *where(model=model.id)):
        work.replace(structs.replace(version, name=ask.to))
    return touch_model(work, structs.replace(model, name=ask.to))


@verb("model.delete", permission="model:release")
def delete_model(ask: NameModel, work: Work) -> Model:
    """Put a model with all its versions into the trash; one that is there stays there.

    Raises:
        NotFound: ``model.not_found``.
        Conflict: ``model_version.in_use`` when something answers, or may, with a version of it.
    """
    model = get_model(work, ask.name, trashed=True)
    if model.deleted_at is not None:
        return model
    versions = work.select(ModelVersion, *where(model=model.id))
    require_free(work, model, tuple(versions))
    return touch_model(work, structs.replace(model, deleted_at=work.now))


@verb("model.restore", permission="model:write")
def restore_model(ask: NameModel, work: Work) -> Model:
    """Take a model out of the trash, with the versions that were in use and its aliases.

    Raises:
        NotFound: ``model.not_found``.
    """
    model = get_model(work, ask.name, trashed=True)
    if model.deleted_at is None:
        return model
    return touch_model(work, structs.replace(model, deleted_at=None))


@verb("version.update", permission="model:write")
def update_version(ask: UpdateVersion, work: Work) -> VersionNotes:
    """Change the notes and tags of a version; what it is never changes.

    Raises:
        NotFound: the version does not exist or was deleted.
    """
    version, model, notes = _find(work, ask.version)
    changed: dict[str, object] = {"tags": _tags(notes.tags, ask.tags, ask.untag)}
    if ask.description is not None:
        changed["description"] = ask.description
    return _change(work, version, model, notes, **changed)


@verb("version.stage", permission="model:release")
def stage_version(ask: StageVersion, work: Work) -> VersionNotes:
    """Give a version one of MLflow's stages; traffic moves by releases, not by stages.

    Raises:
        NotFound: the version does not exist or was deleted.
        InvalidInput: ``stage.archives_nothing`` when others were to be archived under a stage that
            holds nothing in use.
    """
    version, model, notes = _find(work, ask.version)
    if ask.archive_others:
        if ask.stage not in _IN_USE:
            raise InvalidInput(
                "stage.archives_nothing",
                f"Other versions can't be archived when one moves to {ask.stage!r}.",
                hint="Leave it out, or choose Staging or Production.",
            )
        for other in work.select(VersionNotes, *where(model=model.id, stage=ask.stage)):
            if other.id != notes.id and other.deleted_at is None:
                work.touch(f"model_version:{other.version}")
                change_notes(work, other, stage="Archived")
    return _change(work, version, model, notes, stage=ask.stage)


@verb("version.delete", permission="model:release")
def delete_version(ask: NameVersion, work: Work) -> VersionNotes:
    """Put a version into the trash and end the aliases that point at it.

    Its number and its semantic version are never given again. One that is there stays there.

    Raises:
        NotFound: the version does not exist.
        Conflict: ``model_version.in_use`` when something answers, or may, with it.
    """
    version, model, notes = _find(work, ask.version, trashed=True)
    if notes.deleted_at is not None:
        return notes
    require_free(work, model, (version,))
    for alias, target in current_aliases(work, model.id).items():
        if target == version.id:
            move_alias(work, model, alias, None, f"Version {version.version} was deleted.")
    return _change(work, version, model, notes, deleted_at=work.now)


@verb("version.restore", permission="model:write")
def restore_version(ask: NameVersion, work: Work) -> VersionNotes:
    """Take a version out of the trash; aliases do not come back.

    Raises:
        NotFound: the version does not exist, or ``model.not_found`` while its model is in the
            trash itself.
    """
    version, model, notes = _find(work, ask.version, trashed=True)
    get_model(work, model.name)
    return _change(work, version, model, notes, deleted_at=None)


def _find(
    work: Work, ref: str, *, trashed: bool = False
) -> tuple[ModelVersion, Model, VersionNotes]:
    version = resolve_model(work, ref, trashed=trashed)
    notes = find_notes(work, version)
    if notes is None:
        notes = work.insert(
            VersionNotes(
                id=work.new_id(),
                project=work.project,
                model=version.model,
                version=version.id,
                number=version.number,
                updated_at=work.now,
                updated_by=work.caller.actor,
            )
        )
    return version, work.get(Model, version.model), notes


def _change(
    work: Work, version: ModelVersion, model: Model, notes: VersionNotes, **changed: object
) -> VersionNotes:
    work.touch(f"model_version:{version.id}")
    fresh = change_notes(work, notes, **changed)
    if fresh is not notes:
        touch_model(work, model)
    return fresh


def _tags(known: dict[str, str], given: dict[str, str], untag: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in (known | given).items() if name not in untag}


def _exists(name: str) -> Conflict:
    return Conflict(
        "model.exists",
        f"There is a model {name!r} already.",
        hint="Register versions of it, or choose another name.",
    )
