"""Models for Python programs: what is kept about them, where aliases point and pointed, the trash.

::

    from everloop.app import registry

    registry.set_alias("bike", "candidate", "1.4.0", why="Better at night.")
    registry.alias_at("bike", "production", as_of="2026-03-01").why

Without a ``client`` each function works on the project at hand, as the other functions do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from everloop.app.sdk import current_client
from everloop.core.clock import to_text

if TYPE_CHECKING:
    from everloop.app.client import Client
    from everloop.registry.model import AliasMove, Model, VersionNotes
    from everloop.registry.queries import AliasMoveView, AliasStanding, ModelView


def create(
    name: str,
    *,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    owner: str = "",
    licence: str = "",
    intended_use: str = "",
    client: Client | None = None,
) -> Model:
    """Make a model that has no versions yet.

    Raises:
        Conflict: ``model.exists``.
    """
    from everloop.registry.lifecycle import CreateModel
    from everloop.registry.model import Model

    ask = CreateModel(
        name=name,
        description=description,
        tags=dict(tags or {}),
        owner=owner,
        licence=licence,
        intended_use=intended_use,
    )
    return (client or current_client()).perform("model.create", ask, Model)


def show(ref: str, *, client: Client | None = None) -> ModelView:
    """Return a version with its model, its notes and the aliases that point at it.

    Raises:
        NotFound: there is no such version.
    """
    from everloop.registry.queries import ModelView, ShowModel

    return (client or current_client()).perform("model.show", ShowModel(ref=ref), ModelView)


def describe(
    ref: str,
    description: str | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    untag: Iterable[str] = (),
    client: Client | None = None,
) -> VersionNotes:
    """Change the notes and tags of a version, such as ``bike@3``.

    Raises:
        NotFound: the version does not exist or was deleted.
    """
    from everloop.registry.lifecycle import UpdateVersion
    from everloop.registry.model import VersionNotes

    ask = UpdateVersion(
        version=ref, description=description, tags=dict(tags or {}), untag=tuple(untag)
    )
    return (client or current_client()).perform("version.update", ask, VersionNotes)


def set_alias(
    name: str, alias: str, version: str | None, *, why: str, client: Client | None = None
) -> AliasMove:
    """Point an alias at a version, or take it away with None, and say why.

    Raises:
        Denied: ``alias.reserved`` for ``production``, or the alias is protected.
        NotFound: the model or the version does not exist.
    """
    from everloop.registry.model import AliasMove
    from everloop.registry.verbs import MoveAlias

    ask = MoveAlias(model=name, alias=alias, version=version, why=why)
    return (client or current_client()).perform("model.alias", ask, AliasMove)


def alias_at(
    name: str,
    alias: str,
    *,
    as_of: datetime | str | None = None,
    client: Client | None = None,
) -> AliasStanding:
    """Return where an alias pointed at a time, who moved it there, why, and what was before.

    Raises:
        NotFound: ``alias.not_found`` when it had not been set by then.
    """
    from everloop.registry.queries import AliasesAt, AliasStandings

    when = to_text(as_of) if isinstance(as_of, datetime) else as_of
    ask = AliasesAt(name=name, alias=alias, as_of=when)
    at = client or current_client()
    return at.perform("model.aliases_at", ask, AliasStandings).items[0]


def alias_history(
    name: str, alias: str | None = None, *, limit: int = 100, client: Client | None = None
) -> tuple[AliasMoveView, ...]:
    """Return the newest moves of a model's aliases, or of one of them.

    Raises:
        NotFound: ``model.not_found``.
    """
    from everloop.registry.queries import AliasHistory, AliasMoveList

    ask = AliasHistory(name=name, alias=alias, limit=limit)
    at = client or current_client()
    return at.perform("model.alias_history", ask, AliasMoveList).items


def delete(ref: str, *, reason: str | None = None, client: Client | None = None) -> None:
    """Put a model (``bike``) or a version (``bike@3``) into the trash.

    Raises:
        Conflict: ``model_version.in_use`` when something answers, or may, with it.
    """
    _move(ref, "delete", reason, client)


def restore(ref: str, *, reason: str | None = None, client: Client | None = None) -> None:
    """Take a model (``bike``) or a version (``bike@3``) out of the trash.

    Raises:
        NotFound: there is no such thing.
    """
    _move(ref, "restore", reason, client)


def _move(ref: str, how: str, reason: str | None, client: Client | None) -> None:
    from everloop.registry.lifecycle import NameModel, NameVersion
    from everloop.registry.model import Model, VersionNotes

    at = client or current_client()
    if "@" in ref:
        at.perform(f"version.{how}", NameVersion(version=ref), VersionNotes, reason=reason)
    else:
        at.perform(f"model.{how}", NameModel(name=ref), Model, reason=reason)
