"""Checks that a lineage node which a client names really exists in the project.

Records of sibling packages are found by their kind's name, so that nothing here imports them.
"""

from __future__ import annotations

from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import Id, is_id
from everloop.core.records import declared_kinds
from everloop.core.refs import parse_ref
from everloop.kernel.unit_of_work import View


def require_node(view: View, kind: str, key: str) -> str:
    """Return the node ``kind:key`` if a record of that kind and id exists in the project.

    Raises:
        InvalidInput: ``lineage.node_invalid`` when the key is no id.
        NotFound: ``<kind>.not_found``.
    """
    if not is_id(key):
        raise InvalidInput(
            "lineage.node_invalid",
            f"{key[:60]!r} is not the id of a {kind.replace('_', ' ')}.",
            hint="Pass the id that the system gave, not a name.",
        )
    declared = declared_kinds().get(kind)
    if declared is None or view.find(declared.type, Id(key)) is None:
        raise NotFound(
            f"{kind}.not_found",
            f"There is no {kind.replace('_', ' ')} {key!r}.",
            hint="List what exists, or check the id for typing errors.",
        )
    return f"{kind}:{key}"


def require_ref(view: View, ref: str) -> str:
    """Return a node given as ``kind:id`` if a record of that kind and id exists in the project.

    Raises:
        InvalidInput: ``ref.invalid`` or ``lineage.node_invalid``.
        NotFound: ``<kind>.not_found``.
    """
    parsed = parse_ref(ref)
    return require_node(view, parsed.kind, parsed.name)
