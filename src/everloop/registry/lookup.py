"""Finds models, versions and aliases by what people call them."""

from __future__ import annotations

from everloop.core.clock import Instant
from everloop.core.errors import NotFound
from everloop.core.ids import Id, is_id
from everloop.core.ports import Compare, Condition, where
from everloop.core.refs import Ref, parse_ref
from everloop.kernel.unit_of_work import View
from everloop.registry.model import AliasMove, Model, ModelVersion, RetiredName, VersionNotes

_HIGHEST_DIGITS = 9


def find_any_model(view: View, name: str) -> Model | None:
    """Return the model of that name, in use or in the trash, or None."""
    return view.first(Model, *where(name=name))


def find_model(view: View, name: str) -> Model | None:
    """Return the model in use of that name, or None."""
    return view.first(Model, *where(name=name, deleted_at=None))


def get_model(view: View, name: str, *, trashed: bool = False) -> Model:
    """Return the model of that name, with ``trashed`` also one in the trash.

    Raises:
        NotFound: ``model.not_found``, with what became of it where that is known.
    """
    found = find_any_model(view, name)
    if found is not None and (trashed or found.deleted_at is None):
        return found
    hint = "List them with `everloop models list`."
    retired = view.first(RetiredName, *where(name=name)) if found is None else None
    if found is not None:
        hint = f"It is in the trash; `everloop models restore {name}` takes it out."
    elif retired is not None and (now := view.find(Model, retired.model)) is not None:
        hint = f"It is called {now.name!r} now."
    raise NotFound("model.not_found", f"There is no model {name[:60]!r}.", hint=hint)


def latest_version(view: View, model: Id) -> ModelVersion | None:
    """Return the newest version in use of a model, or None before the first."""
    found = view.select(
        VersionNotes,
        *where(model=model, deleted_at=None),
        order="number",
        descending=True,
        limit=1,
    )
    return view.find(ModelVersion, found[0].version) if found else None


def newest_version(view: View, model: Id) -> ModelVersion | None:
    """Return the newest version of a model that is kept, in use or in the trash, or None."""
    found = view.select(ModelVersion, *where(model=model), order="number", descending=True, limit=1)
    return found[0] if found else None


def find_notes(view: View, version: ModelVersion) -> VersionNotes | None:
    """Return what may change about a version."""
    return view.first(VersionNotes, *where(version=version.id))


def is_trashed(view: View, version: ModelVersion) -> bool:
    """Tell whether a version or its model is in the trash."""
    notes = find_notes(view, version)
    if notes is not None and notes.deleted_at is not None:
        return True
    model = view.find(Model, version.model)
    return model is not None and model.deleted_at is not None


def last_move(
    view: View, model: Id, alias: str, *, as_of: Instant | None = None
) -> AliasMove | None:
    """Return the newest move of an alias, or the newest that was made by a time."""
    by_then = () if as_of is None else (Condition("when", Compare.LE, as_of),)
    found = view.select(
        AliasMove,
        *where(model=model, alias=alias),
        *by_then,
        order="number",
        descending=True,
        limit=1,
    )
    return found[0] if found else None


def find_alias(view: View, model: Id, alias: str) -> ModelVersion | None:
    """Return the version at which an alias points now, or None."""
    move = last_move(view, model, alias)
    return view.find(ModelVersion, move.version) if move and move.version else None


def current_aliases(view: View, model: Id) -> dict[str, Id]:
    """Return where each alias of a model points now."""
    latest: dict[str, AliasMove] = {}
    for move in view.select(AliasMove, *where(model=model)):
        known = latest.get(move.alias)
        if known is None or known.number < move.number:
            latest[move.alias] = move
    return {alias: move.version for alias, move in latest.items() if move.version is not None}


def resolve_model(
    view: View, text: str, *, as_of: Instant | None = None, trashed: bool = False
) -> ModelVersion:
    """Return the version that a ref or an id names; without a selector, the newest.

    What is in the trash is found only with ``trashed``, or when the past is asked about.

    Raises:
        InvalidInput: ``ref.invalid``.
        NotFound: ``model.not_found``, ``model_version.not_found`` or ``model_version.deleted``.
    """
    trashed = trashed or as_of is not None
    bare = text.removeprefix("model_version:").removeprefix("model:")
    if is_id(bare):
        found: ModelVersion | None = view.get(ModelVersion, Id(bare))
        name = bare
    else:
        ref = parse_ref(text, kind="model")
        model = get_model(view, ref.name, trashed=trashed)
        found, name = _select(view, model, ref, as_of), ref.name
        if found is None:
            raise NotFound(
                "model_version.not_found",
                f"Model {ref.name!r} has no version {ref.selector or 'yet'!r}.",
                hint=f"List its versions with `everloop models versions {ref.name}`.",
            )
    assert found is not None
    if not trashed and is_trashed(view, found):
        raise NotFound(
            "model_version.deleted",
            f"{found.name}@{found.version} (number {found.number}) was deleted.",
            hint=f"It is in the trash; `everloop models restore {found.name}@{found.number}` "
            "takes it out.",
            context={"version": found.id, "asked": name[:100]},
        )
    return found


def _select(view: View, model: Model, ref: Ref, as_of: Instant | None) -> ModelVersion | None:
    selector = ref.selector
    if selector is None or selector == "latest":
        return latest_version(view, model.id)
    if selector.isascii() and selector.isdigit():
        if len(selector) > _HIGHEST_DIGITS:
            return None
        return view.first(ModelVersion, *where(model=model.id, number=int(selector)))
    by_version = view.first(ModelVersion, *where(model=model.id, version=selector))
    if by_version is not None:
        return by_version
    move = last_move(view, model.id, selector, as_of=as_of)
    return view.find(ModelVersion, move.version) if move and move.version else None
