"""What keeps a version from the trash: whatever answers with it, or may have to at any moment.

Deployments and releases belong to packages above this one, so their records are found by the
names of their kinds.
"""

from __future__ import annotations

from everloop.core.errors import Conflict
from everloop.core.ports import Scalar, where
from everloop.core.records import declared_kinds
from everloop.kernel.unit_of_work import View
from everloop.registry.lookup import current_aliases
from everloop.registry.model import Model, ModelVersion
from everloop.registry.protection import is_protected


def require_free(view: View, model: Model, versions: tuple[ModelVersion, ...]) -> None:
    """Let versions pass to the trash if nothing goes by them.

    Raises:
        Conflict: ``model_version.in_use``, with everything that holds them in the context.
    """
    holds = [hold for version in versions for hold in find_holds(view, model, version)]
    if holds:
        raise Conflict(
            "model_version.in_use",
            f"{holds[0]}" + (f" (and {len(holds) - 1} more)." if len(holds) > 1 else "."),
            hint="Move its traffic and its protected aliases to another version first.",
            context={"holds": list(holds)},
        )


def find_holds(view: View, model: Model, version: ModelVersion) -> tuple[str, ...]:
    """Return, in words, everything that holds a version."""
    name = f"{model.name}@{version.version}"
    holds = [
        f"The protected alias {alias!r} points at {name}"
        for alias, target in sorted(current_aliases(view, model.id).items())
        if target == version.id and is_protected(view, alias)
    ]
    for field, words in (("champion", "answers with"), ("previous", "would roll back to")):
        holds += [
            f"The deployment {row!r} {words} {name}"
            for row in _names(view, "deployment", **{field: version.id})
        ]
    if _names(view, "release", candidate=version.id, live="live"):
        holds.append(f"A release of {name} is under way")
    return tuple(holds)


def _names(view: View, kind: str, **equal: Scalar) -> list[str]:
    declared = declared_kinds().get(kind)
    if declared is None:
        return []
    return [
        str(getattr(row, "name", row.id)) for row in view.select(declared.type, *where(**equal))
    ]
