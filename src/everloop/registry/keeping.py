"""How models and versions are written down, so that a name and a number never mean other bytes.

A model that was deleted and made again is the same row, a name that was given up is remembered,
and both go on counting where they stopped.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from everloop.core.digest import Digest
from everloop.core.errors import Conflict
from everloop.core.ids import check_name
from everloop.core.ports import where
from everloop.kernel.unit_of_work import View, Work
from everloop.registry.aliases import move_alias
from everloop.registry.lookup import current_aliases, find_any_model, find_notes
from everloop.registry.model import Model, ModelVersion, RetiredName, VersionNotes


class Standing(NamedTuple):
    """How far the versions under a name have counted, whatever became of them.

    Attributes:
        model: The model of that name, also one in the trash; None when there is none.
        number: The highest number ever given, 0 before the first.
        version: The semantic version of that number, None before the first.
    """

    model: Model | None
    number: int
    version: str | None


def standing_of(view: View, name: str) -> Standing:
    """Return how far a name has counted; also one that no model bears any more."""
    model = find_any_model(view, name)
    if model is not None:
        return Standing(model, model.last_number, model.last_version or None)
    retired = view.first(RetiredName, *where(name=name))
    if retired is None:
        return Standing(None, 0, None)
    return Standing(None, retired.last_number, retired.last_version or None)


def open_model(work: Work, name: str) -> Model:
    """Return the model of that name, made or taken out of the trash if needed.

    One that comes out of the trash comes empty: its versions stay there, and its aliases end.

    Raises:
        InvalidInput: ``name.invalid``.
    """
    check_name(name, "Model")
    found = standing_of(work, name)
    if found.model is None:
        return work.insert(
            Model(
                id=work.new_id(),
                project=work.project,
                name=name,
                description="",
                created_at=work.now,
                last_number=found.number,
                last_version=found.version or "",
            )
        )
    if found.model.deleted_at is None:
        return found.model
    return _empty(work, found.model)


def _empty(work: Work, model: Model) -> Model:
    for notes in work.select(VersionNotes, *where(model=model.id, deleted_at=None)):
        change_notes(work, notes, deleted_at=model.deleted_at)
    for alias in current_aliases(work, model.id):
        move_alias(work, model, alias, None, "The model was deleted and made again.")
    return work.replace(
        msgspec.structs.replace(
            model,
            deleted_at=None,
            updated_at=work.now,
            description="",
            tags={},
            owner="",
            licence="",
            intended_use="",
        )
    )


def add_version(
    work: Work,
    model: Model,
    version: ModelVersion,
    *,
    description: str = "",
    tags: dict[str, str] | None = None,
) -> ModelVersion:
    """Write down a version with its notes, and count it.

    Raises:
        Conflict: ``model.version_raced`` when its number is not the next one.
    """
    if version.number != model.last_number + 1:
        raise raced(model.name)
    work.touch(f"model_version:{version.id}", f"model:{model.id}")
    work.insert(version)
    work.insert(
        VersionNotes(
            id=work.new_id(),
            project=work.project,
            model=model.id,
            version=version.id,
            number=version.number,
            description=description,
            tags=tags or {},
            updated_at=work.now,
            updated_by=work.caller.actor,
        )
    )
    work.replace(
        msgspec.structs.replace(
            model,
            last_number=version.number,
            last_version=version.version,
            updated_at=work.now,
        )
    )
    return version


def reuse_version(work: Work, model: Model, artifact: Digest) -> ModelVersion | None:
    """Return the version of a model that is exactly this artifact, taken out of the trash."""
    known = work.first(ModelVersion, *where(model=model.id, artifact=artifact))
    notes = find_notes(work, known) if known is not None else None
    if notes is not None and notes.deleted_at is not None:
        work.touch(f"model_version:{notes.version}", f"model:{model.id}")
        change_notes(work, notes, deleted_at=None)
    return known


def change_notes(work: Work, notes: VersionNotes, **changed: object) -> VersionNotes:
    """Write down what changed about a version, when and by whom; nothing new changes nothing."""
    if all(getattr(notes, name) == value for name, value in changed.items()):
        return notes
    changed |= {"updated_at": work.now, "updated_by": work.caller.actor}
    return work.replace(msgspec.structs.replace(notes, **changed))


def retire_name(work: Work, model: Model) -> None:
    """Remember how far a name counted that its model gives up."""
    if model.last_number == 0:
        return
    known = work.first(RetiredName, *where(name=model.name))
    told = RetiredName(
        id=known.id if known else work.new_id(),
        revision=known.revision if known else 0,
        project=work.project,
        name=model.name,
        model=model.id,
        last_number=model.last_number,
        last_version=model.last_version,
        at=work.now,
    )
    if known is None:
        work.insert(told)
    else:
        work.replace(told)


def touch_model(work: Work, model: Model) -> Model:
    """Write down a model, changed or not, and that something of it changed just now."""
    work.touch(f"model:{model.id}")
    return work.replace(msgspec.structs.replace(model, updated_at=work.now))


def raced(name: str) -> Conflict:
    """Return the refusal of a version that was prepared beside another one."""
    return Conflict(
        "model.version_raced",
        f"Another version of {name!r} was registered at the same time.",
        hint="Register again; the version number depends on the one before.",
    )
