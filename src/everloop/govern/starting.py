"""From a ref as people write it to the node of the lineage that it names."""

from __future__ import annotations

from msgspec import Struct

from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import Id, is_id
from everloop.core.ports import where
from everloop.core.records import Record, declared_kinds, kind_of
from everloop.data.queries import resolve_dataset
from everloop.kernel.lineage import Edge
from everloop.kernel.unit_of_work import View
from everloop.monitor.queries import PredictionView, ShowPrediction, show_prediction
from everloop.registry.lookup import resolve_model
from everloop.release.queries import get_deployment

LEAVES = frozenset({"blob", "source", "commit"})
"""Kinds of nodes without a record: bytes, where data came from, and code."""


class Start(Struct, frozen=True, kw_only=True):
    """The node at which a walk begins; for a prediction also its row and proof."""

    node: str
    prediction: PredictionView | None = None


def find_start(view: View, ref: str) -> Start:
    """Return the node that a ref names.

    Raises:
        InvalidInput: ``ref.invalid``.
        NotFound: there is no such thing in this project.
    """
    kind, colon, name = ref.partition(":")
    if not colon or not name:
        raise _invalid(ref)
    if kind == "prediction":
        found = show_prediction(ShowPrediction(id=Id(name[:40])), view)
        return Start(node=f"prediction:{found.row.id}", prediction=found)
    if kind in LEAVES:
        return Start(node=_known_leaf(view, ref))
    return Start(node=node_of(_find_row(view, kind, name)))


def node_of(row: Record) -> str:
    """Return a record's name in the lineage."""
    return f"{kind_of(row).name}:{row.id}"


def get_row(view: View, node: str) -> Record | None:
    """Return the record behind a node, or None.

    Raises:
        InvalidInput: ``ref.invalid`` for a kind that lineage does not know.
    """
    kind, _, key = node.partition(":")
    declared = declared_kinds().get(kind)
    if declared is None or not declared.covered or "project" not in declared.type.__struct_fields__:
        raise _invalid(node)
    return view.find(declared.type, Id(key))


def _find_row(view: View, kind: str, name: str) -> Record:
    if kind == "model":
        return resolve_model(view, name)
    if kind == "dataset":
        return resolve_dataset(view, name)
    if kind == "deployment" and not is_id(name):
        return get_deployment(view, name)
    found = get_row(view, f"{kind}:{name}") if is_id(name) else None
    if found is None:
        if kind not in declared_kinds():
            raise _invalid(f"{kind}:{name}")
        raise NotFound(
            f"{kind}.not_found",
            f"There is no {kind.replace('_', ' ')} {name[:60]!r} in this project.",
            hint="List what exists, or check the ref for typing errors.",
        )
    return found


def _known_leaf(view: View, ref: str) -> str:
    if not view.select(Edge, *where(target=ref), limit=1):
        raise NotFound(
            "lineage.unknown",
            f"Nothing in this project came from {ref[:120]!r}.",
            hint="Begin at a prediction, a model, a dataset or a run and walk from there.",
        )
    return ref


def _invalid(ref: str) -> InvalidInput:
    return InvalidInput(
        "ref.invalid",
        f"{ref[:80]!r} does not name anything that has a lineage.",
        hint="Write prediction:<id>, model:name@version, dataset:name@number, run:<id>, "
        "deployment:name, release:<id> or loop_run:<id>.",
    )
