"""Which inputs are never logged: a name that no version has would mask nothing, and say nothing."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from msgspec import Struct

from everloop.core.errors import InvalidInput
from everloop.core.ports import where
from everloop.kernel.unit_of_work import View
from everloop.registry.model import ModelVersion


class Masking(Struct, frozen=True, kw_only=True):
    """What of ``models.<name>.log`` says which inputs are masked."""

    masked: tuple[str, ...] = ()


def require_known_masks(view: View, model: str) -> None:
    """Let a model pass if all that its settings mask are inputs of a version of it.

    A version without one of them is no fault: another one, which may answer still, has it.

    Raises:
        InvalidInput: ``log.mask_unknown``.
    """
    masked = view.model_settings(model, "log", Masking).masked
    if masked:
        versions = view.select(ModelVersion, *where(name=model), order="number", descending=True)
        problem = find_unknown_mask(model, masked, versions)
        if problem is not None:
            raise problem


def find_unknown_mask(
    model: str, masked: Iterable[str], versions: Iterable[ModelVersion]
) -> InvalidInput | None:
    """Return the refusal of the first masked name that no version takes; None if there is none."""
    left, known = set(masked), set[str]()
    for version in versions:
        names = {field.name for field in version.signature.inputs}
        left -= names
        known |= names
        if not left:
            return None
    unknown = sorted(left)
    close = get_close_matches(unknown[0], known, n=1)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return InvalidInput(
        "log.mask_unknown",
        f"models.{model}.log.masked: {unknown[0][:60]!r} is no input of {model}, so that nothing "
        "would be masked.",
        hint=f"{meant}Its inputs are {', '.join(sorted(known))[:300]}.",
    )
