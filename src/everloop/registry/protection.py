"""Protected aliases: which ones a project does not let everybody move."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from everloop.core.errors import Denied, InvalidInput
from everloop.kernel.authz import authorise
from everloop.kernel.unit_of_work import View, Work

PRODUCTION: Final = "production"
PERMISSION: Final = "model:release"
LEAST_REASON_CHARS: Final = 3


class RegistryConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How models are kept (``registry``).

    Attributes:
        protected_aliases: Aliases that only somebody with the permission ``model:release`` moves,
            and only with a reason; a version under one can't be deleted. ``production`` needs no
            mention: releases alone move it.
    """

    protected_aliases: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...], Meta(max_length=100)
    ] = ()


def registry_settings(view: View) -> RegistryConfig:
    """Return how the project keeps its models.

    Raises:
        InvalidInput: ``settings.invalid`` when what is stored does not fit.
    """
    try:
        return msgspec.convert(view.settings().get("registry") or {}, RegistryConfig)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "settings.invalid",
            f"registry in the project's configuration: {error}.",
            hint="Correct everloop.yaml and run `everloop up` or `everloop configure` again.",
        ) from error


def is_protected(view: View, alias: str) -> bool:
    """Tell whether an alias is one that not everybody may move; case does not matter."""
    protected = {name.lower() for name in registry_settings(view).protected_aliases}
    return alias.lower() in protected | {PRODUCTION}


def require_mover(work: Work, alias: str, why: str) -> None:
    """Let a move of an alias pass if its mover may make it, with a reason where one is needed.

    Raises:
        Denied: ``alias.reserved`` for ``production``, which only releases move; ``access.denied``
            for a protected alias.
        InvalidInput: ``alias.reason_missing`` for a protected alias.
    """
    if alias.lower() == PRODUCTION:
        raise Denied(
            "alias.reserved",
            "The alias 'production' moves only with a release that passed its gate.",
            hint="Start a release, or roll one back; choose another alias for your own marks.",
        )
    if not is_protected(work, alias):
        return
    authorise(work.tx, work.caller, PERMISSION, work.project)
    if len(why.strip()) < LEAST_REASON_CHARS:
        raise InvalidInput(
            "alias.reason_missing",
            f"The alias {alias!r} is protected: whoever moves it says why, in words.",
            hint=f"Give a reason of {LEAST_REASON_CHARS} characters or more, as with --reason.",
        )
