"""Questions about models, and the one way to turn a ref into a version."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from everloop.core.clock import Instant, from_text
from everloop.core.errors import NotFound
from everloop.core.ids import Id, is_id
from everloop.core.ports import Compare, Condition, where
from everloop.core.refs import Ref, parse_ref
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.registry.model import AliasMove, Model, ModelVersion

RefText = Annotated[str, Meta(min_length=1, max_length=300)]
Limit = Annotated[int, Meta(ge=1, le=1_000)]
Cursor = Annotated[str, Meta(max_length=100)]
PRODUCTION: Final = "production"
_HIGHEST_DIGITS = 9


class ListModels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of the models to list."""

    limit: Limit = 100
    after: Cursor | None = None


class ModelSummary(Struct, frozen=True, kw_only=True):
    """A model in short; versions as semantic versions, None where there is none yet."""

    id: Id
    name: str
    description: str
    created_at: Instant
    versions: int
    latest: str | None
    production: str | None


class ModelList(Struct, frozen=True, kw_only=True):
    """One page of models; ``next`` is the cursor of the page after it."""

    items: tuple[ModelSummary, ...]
    next: str | None = None


class ListModelVersions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model whose versions to list, newest first."""

    name: RefText
    limit: Limit = 100
    after: Cursor | None = None


class ModelVersionList(Struct, frozen=True, kw_only=True):
    """One page of versions; ``next`` is the cursor of the page after it."""

    items: tuple[ModelVersion, ...]
    next: str | None = None


class ShowModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version by ref: ``bike@1.4.0``, ``bike@3``, ``bike@production``, ``bike`` or its id."""

    ref: RefText


class ModelView(Struct, frozen=True, kw_only=True):
    """A version, its model and the aliases that point at it now."""

    model: Model
    version: ModelVersion
    aliases: tuple[str, ...]


class ResolveModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ref, and optionally the time at which its alias is asked for (RFC 3339)."""

    ref: RefText
    as_of: Annotated[str, Meta(max_length=60)] | None = None


class AliasHistory(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model, and the one alias whose moves to list; without it all of them."""

    name: RefText
    alias: Annotated[str, Meta(max_length=100)] | None = None
    limit: Limit = 100
    after: Cursor | None = None


class AliasMoveView(Struct, frozen=True, kw_only=True):
    """One move with the semantic versions beside the ids."""

    move: AliasMove
    version: str | None
    before: str | None


class AliasMoveList(Struct, frozen=True, kw_only=True):
    """Moves of aliases, newest first; ``next`` is the cursor of the page after it."""

    items: tuple[AliasMoveView, ...]
    next: str | None = None


@query("model.list", permission="model:read")
def list_models(ask: ListModels, view: View) -> ModelList:
    """List the models of the project, oldest first."""
    page, more = view.page(Model, limit=ask.limit, after=ask.after)
    return ModelList(items=tuple(_summary(view, row) for row in page), next=more)


@query("model.versions", permission="model:read")
def list_versions(ask: ListModelVersions, view: View) -> ModelVersionList:
    """List the versions of a model, newest first."""
    model = get_model(view, parse_ref(ask.name, kind="model").name)
    page, more = view.page(
        ModelVersion,
        *where(model=model.id),
        order="number",
        descending=True,
        limit=ask.limit,
        after=ask.after,
    )
    return ModelVersionList(items=tuple(page), next=more)


@query("model.show", permission="model:read")
def show_model(ask: ShowModel, view: View) -> ModelView:
    """Show one version of a model, the newest when the ref names none."""
    version = resolve_model(view, ask.ref)
    model = view.get(Model, version.model)
    pointing = [
        alias for alias, target in current_aliases(view, model.id).items() if target == version.id
    ]
    return ModelView(model=model, version=version, aliases=tuple(sorted(pointing)))


@query("model.resolve", permission="model:read")
def resolve(ask: ResolveModel, view: View) -> ModelVersion:
    """Return the version that a ref names, or that its alias named at a time."""
    return resolve_model(view, ask.ref, as_of=from_text(ask.as_of) if ask.as_of else None)


@query("model.alias_history", permission="model:read")
def alias_history(ask: AliasHistory, view: View) -> AliasMoveList:
    """List the moves of a model's aliases: who, when, why, and what was there before."""
    model = get_model(view, parse_ref(ask.name, kind="model").name)
    conditions = where(model=model.id, alias=ask.alias) if ask.alias else where(model=model.id)
    page, more = view.page(
        AliasMove, *conditions, descending=True, limit=ask.limit, after=ask.after
    )
    items = tuple(
        AliasMoveView(
            move=move, version=_text_of(view, move.version), before=_text_of(view, move.before)
        )
        for move in page
    )
    return AliasMoveList(items=items, next=more)


def find_model(view: View, name: str) -> Model | None:
    """Return the model of that name, or None."""
    return view.first(Model, *where(name=name))


def get_model(view: View, name: str) -> Model:
    """Return the model of that name.

    Raises:
        NotFound: ``model.not_found``.
    """
    found = find_model(view, name)
    if found is None:
        raise NotFound(
            "model.not_found",
            f"There is no model {name[:60]!r}.",
            hint="List them with `everloop models list`.",
        )
    return found


def latest_version(view: View, model: Id) -> ModelVersion | None:
    """Return the newest version of a model, or None before the first."""
    found = view.select(ModelVersion, *where(model=model), order="number", descending=True, limit=1)
    return found[0] if found else None


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


def resolve_model(view: View, text: str, *, as_of: Instant | None = None) -> ModelVersion:
    """Return the version that a ref or an id names; without a selector, the newest.

    Raises:
        InvalidInput: ``ref.invalid``.
        NotFound: ``model.not_found`` or ``model_version.not_found``.
    """
    bare = text.removeprefix("model_version:").removeprefix("model:")
    if is_id(bare):
        return view.get(ModelVersion, Id(bare))
    ref = parse_ref(text, kind="model")
    model = get_model(view, ref.name)
    found = _select(view, model, ref, as_of)
    if found is None:
        raise NotFound(
            "model_version.not_found",
            f"Model {ref.name!r} has no version {ref.selector or 'yet'!r}.",
            hint=f"List its versions with `everloop models versions {ref.name}`.",
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


def _summary(view: View, model: Model) -> ModelSummary:
    latest = latest_version(view, model.id)
    production = find_alias(view, model.id, PRODUCTION)
    return ModelSummary(
        id=model.id,
        name=model.name,
        description=model.description,
        created_at=model.created_at,
        versions=latest.number if latest else 0,
        latest=latest.version if latest else None,
        production=production.version if production else None,
    )


def _text_of(view: View, version: Id | None) -> str | None:
    found = view.find(ModelVersion, version) if version else None
    return found.version if found else None
