"""Lays a lineage graph out in columns: origins on the left, what was made of them to the right.

Each node stands one column right of the last of its origins (longest path), and within a column
near the mean of its neighbours (Sugiyama, Tagawa and Toda 1981, the barycentre method).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

NODE_WIDTH: Final = 212
NODE_HEIGHT: Final = 46
GAP_X: Final = 56
GAP_Y: Final = 16
MARGIN: Final = 12
_SWEEPS: Final = 4

Link = tuple[str, str, str]
"""What was made, the relation, what it was made from."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands."""

    key: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Curve:
    """A line from an origin to what was made of it."""

    path: str
    relation: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The picture, in CSS pixels."""

    width: int
    height: int
    places: tuple[Place, ...]
    curves: tuple[Curve, ...]


def lay_out(nodes: Sequence[str], links: Iterable[Link]) -> Layout:
    """Return the places of all nodes; links to unknown nodes and links of a cycle are left out."""
    known = dict.fromkeys(nodes)
    real = [link for link in links if link[0] in known and link[2] in known and link[0] != link[2]]
    origins: dict[str, list[str]] = {node: [] for node in known}
    for made, _, origin in real:
        origins[made].append(origin)
    depth = _depths(origins)
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in known:
        columns[depth[node]].append(node)
    _order(columns, real)
    tallest = max((len(column) for column in columns), default=0)
    places: dict[str, Place] = {}
    for number, column in enumerate(columns):
        top = MARGIN + (tallest - len(column)) * (NODE_HEIGHT + GAP_Y) // 2
        for row, node in enumerate(column):
            x = MARGIN + number * (NODE_WIDTH + GAP_X)
            places[node] = Place(node, x, top + row * (NODE_HEIGHT + GAP_Y))
    forward = [link for link in real if depth[link[2]] < depth[link[0]]]
    return Layout(
        width=2 * MARGIN + max(len(columns) * (NODE_WIDTH + GAP_X) - GAP_X, 0),
        height=2 * MARGIN + max(tallest * (NODE_HEIGHT + GAP_Y) - GAP_Y, 0),
        places=tuple(places.values()),
        curves=tuple(_curve(places[link[2]], places[link[0]], link[1]) for link in forward),
    )


def _depths(origins: dict[str, list[str]]) -> dict[str, int]:
    """Return the length of the longest path to each node, without recursion."""
    depth: dict[str, int] = {}
    under_way: set[str] = set()
    for start in origins:
        stack = [start]
        while stack:
            node = stack[-1]
            if node in depth:
                stack.pop()
                continue
            under_way.add(node)
            waiting = [o for o in origins[node] if o not in depth and o not in under_way]
            if waiting:
                stack.extend(waiting)
                continue
            depth[node] = 1 + max((depth[o] for o in origins[node] if o in depth), default=-1)
            under_way.discard(node)
            stack.pop()
    return depth


def _order(columns: list[list[str]], links: Sequence[Link]) -> None:
    near: dict[str, list[str]] = {}
    for made, _, origin in links:
        near.setdefault(made, []).append(origin)
        near.setdefault(origin, []).append(made)
    for sweep in range(_SWEEPS):
        rank = {node: row / max(len(c), 1) for c in columns for row, node in enumerate(c)}
        for column in columns if sweep % 2 == 0 else reversed(columns):
            means = {
                node: sum(rank[n] for n in near[node]) / len(near[node])
                if near.get(node)
                else rank[node]
                for node in column
            }
            column.sort(key=lambda node: means[node])
            rank |= {node: row / len(column) for row, node in enumerate(column)}


def _curve(origin: Place, made: Place, relation: str) -> Curve:
    x1, y1 = origin.x + NODE_WIDTH, origin.y + NODE_HEIGHT // 2
    x2, y2 = made.x, made.y + NODE_HEIGHT // 2
    bend = max((x2 - x1) // 2, 24)
    return Curve(f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2 - 5} {y2}", relation)
