"""Aliases: names such as ``production`` that point at a version and remember every move."""

from __future__ import annotations

import re
from typing import Final

from everloop.core.errors import InvalidInput
from everloop.core.ids import Id, check_name, is_id
from everloop.kernel.unit_of_work import Work
from everloop.registry.lookup import last_move
from everloop.registry.model import AliasMove, Model, ModelVersion

_LOOKS_LIKE_A_VERSION: Final = re.compile(r"v?\d+(?:\.\d+)*", re.IGNORECASE)
_TAKEN: Final = frozenset({"latest"})


def move_alias(
    work: Work, model: Model, alias: str, version: ModelVersion | None, why: str
) -> AliasMove:
    """Point an alias at a version, or take it away, and record who, when, why and what was before.

    Moving it to where it points already records nothing and returns the last move.

    Raises:
        InvalidInput: ``alias.invalid``, or ``alias.other_model`` for a version of another model.
    """
    check_alias(alias)
    if version is not None and version.model != model.id:
        raise InvalidInput(
            "alias.other_model",
            f"{version.name}@{version.version} is no version of model {model.name!r}.",
            hint="Name a version of the model whose alias is moved.",
        )
    last = last_move(work, model.id, alias)
    target: Id | None = version.id if version else None
    if last is not None and last.version == target:
        return last
    return work.insert(
        AliasMove(
            id=work.new_id(),
            project=work.project,
            model=model.id,
            alias=alias,
            number=last.number + 1 if last else 1,
            version=target,
            before=last.version if last else None,
            who=work.caller.actor,
            when=work.now,
            why=why,
        )
    )


def check_alias(alias: str) -> str:
    """Return an alias unchanged if it cannot be taken for a version.

    Raises:
        InvalidInput: ``name.invalid`` or ``alias.invalid``.
    """
    check_name(alias, "Alias")
    if _LOOKS_LIKE_A_VERSION.fullmatch(alias) or is_id(alias) or alias.lower() in _TAKEN:
        raise InvalidInput(
            "alias.invalid",
            f"The alias {alias!r} would be taken for a version.",
            hint="Choose a word, such as production or candidate.",
        )
    return alias
