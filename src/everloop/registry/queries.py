"""Questions about models, and the one way to turn a ref into a version."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from everloop.core.clock import Instant, from_text
from everloop.core.digest import Digest
from everloop.core.errors import NotFound
from everloop.core.ids import ActorId, Id, is_id
from everloop.core.ports import Compare, Condition, where
from everloop.core.refs import parse_ref
from everloop.kernel.authz import Actor
from everloop.kernel.safe_load import LoadPolicy
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.registry import logged, protection  # noqa: F401 -- declares its records
from everloop.registry.lookup import (
    current_aliases,
    find_alias,
    find_notes,
    get_model,
    last_move,
    latest_version,
    resolve_model,
)
from everloop.registry.model import AliasMove, Model, ModelVersion, VersionNotes
from everloop.registry.proof import require_proven

PRODUCTION: Final = protection.PRODUCTION
RefText = Annotated[str, Meta(min_length=1, max_length=300)]
Limit = Annotated[int, Meta(ge=1, le=1_000)]
Cursor = Annotated[str, Meta(max_length=100)]
Which = Literal["active", "deleted", "all"]


class ListModels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of the models to list.

    Attributes:
        deleted: Those in use (``active``), in the trash (``deleted``), or ``all``.
    """

    limit: Limit = 100
    after: Cursor | None = None
    deleted: Which = "active"


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
    """The model whose versions to list, newest first.

    Attributes:
        deleted: Those in use (``active``), in the trash (``deleted``), or ``all``.
    """

    name: RefText
    limit: Limit = 100
    after: Cursor | None = None
    deleted: Which = "active"


class ModelVersionList(Struct, frozen=True, kw_only=True):
    """One page of versions; ``next`` is the cursor of the page after it."""

    items: tuple[ModelVersion, ...]
    next: str | None = None


class ShowModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version by ref: ``bike@1.4.0``, ``bike@3``, ``bike@production``, ``bike`` or its id."""

    ref: RefText


class ModelView(Struct, frozen=True, kw_only=True):
    """A version, its model, the aliases that point at it now, and what may change about it."""

    model: Model
    version: ModelVersion
    aliases: tuple[str, ...]
    notes: VersionNotes | None = None


class ResolveModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ref, and optionally the time at which its alias is asked for (RFC 3339)."""

    ref: RefText
    as_of: Annotated[str, Meta(max_length=60)] | None = None


class AskPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy by which this server loads models."""


class AliasHistory(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model, and the one alias whose moves to list; without it all of them."""

    name: RefText
    alias: Annotated[str, Meta(max_length=100)] | None = None
    limit: Limit = 100
    after: Cursor | None = None


class AliasesAt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model, one alias or all of them, and the time that is asked about.

    Attributes:
        alias: The one alias; all of them when left out.
        as_of: The time (RFC 3339; a date is its midnight in UTC); now when left out.
    """

    name: RefText
    alias: Annotated[str, Meta(max_length=100)] | None = None
    as_of: Annotated[str, Meta(max_length=60)] | None = None


class AliasMoveView(Struct, frozen=True, kw_only=True):
    """One move with the semantic versions and the name of who made it beside the ids."""

    move: AliasMove
    version: str | None
    before: str | None
    who: str | None = None


class AliasStanding(Struct, frozen=True, kw_only=True):
    """Where an alias pointed at a time.

    Attributes:
        version: The semantic version; None when it pointed nowhere.
        number: The number of that version.
        artifact: Digest of exactly what that version is.
        since: When it was pointed there.
        who: Name of who moved it.
        why: Their reason.
        before: The semantic version at which it pointed before.
        until: When it was moved on; None when it still points there.
    """

    alias: str
    version: str | None
    number: int | None
    artifact: Digest | None
    since: Instant
    who: str
    why: str
    before: str | None
    until: Instant | None


class AliasStandings(Struct, frozen=True, kw_only=True):
    """Where aliases of a model pointed at a time, by their names."""

    model: str
    as_of: Instant | None
    items: tuple[AliasStanding, ...]


class AliasMoveList(Struct, frozen=True, kw_only=True):
    """Moves of aliases, newest first; ``next`` is the cursor of the page after it."""

    items: tuple[AliasMoveView, ...]
    next: str | None = None


@query("model.list", permission="model:read")
def list_models(ask: ListModels, view: View) -> ModelList:
    """List the models of the project, oldest first."""
    page, more = view.page(Model, *_which(ask.deleted), limit=ask.limit, after=ask.after)
    return ModelList(items=tuple(summarise(view, row) for row in page), next=more)


@query("model.versions", permission="model:read")
def list_versions(ask: ListModelVersions, view: View) -> ModelVersionList:
    """List the versions of a model, newest first."""
    model = get_model(view, parse_ref(ask.name, kind="model").name, trashed=ask.deleted != "active")
    page, more = view.page(
        VersionNotes,
        *where(model=model.id),
        *_which(ask.deleted),
        order="number",
        descending=True,
        limit=ask.limit,
        after=ask.after,
    )
    wanted = Condition("id", Compare.IN, tuple(notes.version for notes in page))
    found = view.select(ModelVersion, wanted, order="number", descending=True) if page else []
    return ModelVersionList(items=tuple(found), next=more)


@query("model.show", permission="model:read")
def show_model(ask: ShowModel, view: View) -> ModelView:
    """Show one version of a model, the newest when the ref names none; also one in the trash."""
    version = resolve_model(view, ask.ref, trashed=True)
    model = view.get(Model, version.model)
    pointing = [
        alias for alias, target in current_aliases(view, model.id).items() if target == version.id
    ]
    return ModelView(
        model=model,
        version=version,
        aliases=tuple(sorted(pointing)),
        notes=find_notes(view, version),
    )


@query("model.resolve", permission="model:read")
def resolve(ask: ResolveModel, view: View) -> ModelVersion:
    """Return the version that a ref names, or that its alias named at a time, once it is proven.

    Raises:
        NotFound: no such model or version.
        IntegrityError: ``model_version.changed``: the ledger knows it otherwise.
    """
    as_of = from_text(ask.as_of) if ask.as_of else None
    version = resolve_model(view, ask.ref, as_of=as_of)
    require_proven(view, version, _move_to(view, version, ask.ref, as_of))
    return version


def _move_to(
    view: View, version: ModelVersion, text: str, as_of: Instant | None
) -> AliasMove | None:
    """Return the move by which a ref's alias came to name the version; None without an alias."""
    if is_id(text.removeprefix("model_version:").removeprefix("model:")):
        return None
    selector = parse_ref(text, kind="model").selector
    move = last_move(view, version.model, selector, as_of=as_of) if selector else None
    return move if move is not None and move.version == version.id else None


@query("model.policy", permission="model:read")
def show_policy(ask: AskPolicy, view: View) -> LoadPolicy:
    """Say which formats this server loads, and which types inside them it trusts."""
    del ask
    return view.services.policy


@query("model.alias_history", permission="model:read")
def alias_history(ask: AliasHistory, view: View) -> AliasMoveList:
    """List the moves of a model's aliases: who, when, why, and what was there before."""
    model = get_model(view, parse_ref(ask.name, kind="model").name, trashed=True)
    conditions = where(model=model.id, alias=ask.alias) if ask.alias else where(model=model.id)
    page, more = view.page(
        AliasMove, *conditions, descending=True, limit=ask.limit, after=ask.after
    )
    items = tuple(
        AliasMoveView(
            move=move,
            version=_text_of(view, move.version),
            before=_text_of(view, move.before),
            who=_actor_name(view, move.who),
        )
        for move in page
    )
    return AliasMoveList(items=items, next=more)


@query("model.aliases_at", permission="model:read")
def aliases_at(ask: AliasesAt, view: View) -> AliasStandings:
    """Tell where the aliases of a model pointed at a time: what was in production, and why.

    Aliases that had not been set by then are left out; one that was taken away says so.

    Raises:
        NotFound: ``model.not_found``, or ``alias.not_found`` when that alias was not set by then.
        InvalidInput: ``time.invalid``.
    """
    model = get_model(view, parse_ref(ask.name, kind="model").name, trashed=True)
    as_of = from_text(ask.as_of) if ask.as_of else None
    moves = view.select(
        AliasMove,
        *(where(model=model.id, alias=ask.alias) if ask.alias else where(model=model.id)),
        order="number",
    )
    held: dict[str, AliasMove] = {}
    until: dict[str, Instant] = {}
    for move in moves:
        if as_of is None or move.when <= as_of:
            held[move.alias] = move
        else:
            until.setdefault(move.alias, move.when)
    if ask.alias and not held:
        raise NotFound(
            "alias.not_found",
            f"Model {model.name!r} had no alias {ask.alias[:60]!r} "
            f"{'by then' if as_of else 'yet'}.",
            hint=f"Its moves are listed by `everloop models history {model.name}`.",
        )
    items = (_standing(view, move, until.get(alias)) for alias, move in sorted(held.items()))
    return AliasStandings(model=model.name, as_of=as_of, items=tuple(items))


def summarise(view: View, model: Model) -> ModelSummary:
    """Return a model in short."""
    latest = latest_version(view, model.id)
    production = find_alias(view, model.id, PRODUCTION)
    return ModelSummary(
        id=model.id,
        name=model.name,
        description=model.description,
        created_at=model.created_at,
        versions=view.count(VersionNotes, *where(model=model.id, deleted_at=None)),
        latest=latest.version if latest else None,
        production=production.version if production else None,
    )


def _which(deleted: Which) -> tuple[Condition, ...]:
    if deleted == "all":
        return ()
    return (Condition("deleted_at", Compare.EQ if deleted == "active" else Compare.NE, None),)


def _standing(view: View, move: AliasMove, until: Instant | None) -> AliasStanding:
    version = view.find(ModelVersion, move.version) if move.version else None
    return AliasStanding(
        alias=move.alias,
        version=version.version if version else None,
        number=version.number if version else None,
        artifact=version.artifact if version else None,
        since=move.when,
        who=_actor_name(view, move.who),
        why=move.why,
        before=_text_of(view, move.before),
        until=until,
    )


def _actor_name(view: View, actor: ActorId) -> str:
    found = view.tx.find(Actor, Id(actor))
    return found.name if found else actor


def _text_of(view: View, version: Id | None) -> str | None:
    found = view.find(ModelVersion, version) if version else None
    return found.version if found else None
