"""Lineage: edges from what was made to what it was made from, and walks along them.

``source`` came from ``target``: a model version *trained_by* a run, a run *read* a dataset version.
Upward follows edges to the origins; downward finds everything that depends on a thing.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from everloop.core.clock import Instant
from everloop.core.ids import ProjectId
from everloop.core.ports import Compare, Condition, Transaction, where
from everloop.core.records import Record, record

DEFAULT_NODE_LIMIT = 1_000
NODES_A_QUERY = 500


class Direction(StrEnum):
    """Which way to walk: to the origins, or to the dependants."""

    UP = "up"
    DOWN = "down"


@record(
    "edge",
    unique=(("source", "relation", "target"),),
    index=(("target",),),
)
class Edge(Record, frozen=True, kw_only=True):
    """One statement of origin. ``source`` and ``target`` are ``kind:id``."""

    project: ProjectId
    source: str
    relation: str
    target: str
    at: Instant


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the lineage reached by a walk.

    Attributes:
        nodes: ``kind:id`` in the order of discovery (breadth first), the start included.
        edges: The edges between them.
        truncated: Whether the limit of nodes or of depth cut the walk.
    """

    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    truncated: bool = False


def walk(
    tx: Transaction,
    start: Iterable[str],
    direction: Direction,
    *,
    project: ProjectId,
    limit: int = DEFAULT_NODE_LIMIT,
    depth: int | None = None,
    against: frozenset[str] = frozenset(),
) -> Graph:
    """Follow lineage from the start nodes, breadth first, inside one project.

    Relations in ``against`` are followed in the other direction too: a gate report *judged* a
    version, so it comes later, and yet whoever asks where a version came from wants to see it.
    Cycles are harmless: each node is visited once. Costs one or two queries a level.
    """
    near, far = ("source", "target") if direction is Direction.UP else ("target", "source")
    seen = dict.fromkeys(start)
    frontier = list(seen)
    edges: dict[str, Edge] = {}
    level = 0
    while frontier and (depth is None or level < depth):
        level += 1
        found = _edges(tx, frontier, near, project)
        if against:
            wanted = Condition("relation", Compare.IN, tuple(sorted(against)))
            found += _edges(tx, frontier, far, project, wanted)
        frontier = []
        for edge in found:
            for node in (edge.source, edge.target):
                if node not in seen:
                    if len(seen) >= limit:
                        return Graph(nodes=tuple(seen), edges=_between(seen, edges), truncated=True)
                    seen[node] = None
                    frontier.append(node)
            edges[edge.id] = edge
    return Graph(nodes=tuple(seen), edges=_between(seen, edges), truncated=bool(frontier))


def _edges(
    tx: Transaction, nodes: list[str], end: str, project: ProjectId, *also: Condition
) -> list[Edge]:
    found: list[Edge] = []
    for first in range(0, len(nodes), NODES_A_QUERY):
        group = Condition(end, Compare.IN, tuple(nodes[first : first + NODES_A_QUERY]))
        found += tx.select(Edge, *where(project=project), group, *also)
    return found


def _between(nodes: Iterable[str], edges: dict[str, Edge]) -> tuple[Edge, ...]:
    known = set(nodes)
    return tuple(edge for edge in edges.values() if {edge.source, edge.target} <= known)
