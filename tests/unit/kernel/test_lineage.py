"""Walks along edges: up, down, around in circles and no further than allowed."""

from __future__ import annotations

import pytest

from everloop.core.ids import Id, ProjectId
from everloop.core.records import declared_kinds
from everloop.kernel.lineage import Direction, Edge, Graph, walk
from everloop.storage.memory import MemoryMetadataStore
from tests.kit import START

HERE, THERE = ProjectId("here"), ProjectId("there")


def store(*edges: str, project: ProjectId = HERE) -> MemoryMetadataStore:
    """Edges as ``source relation target``."""
    made = MemoryMetadataStore(declared_kinds())
    with made.write() as tx:
        for number, text in enumerate(edges):
            source, relation, target = text.split()
            tx.insert(
                Edge(
                    id=Id(f"{number:04d}"),
                    project=project,
                    source=source,
                    relation=relation,
                    target=target,
                    at=START,
                )
            )
    return made


def go(
    made: MemoryMetadataStore,
    start: str,
    direction: Direction = Direction.UP,
    *,
    limit: int = 100,
    depth: int | None = None,
    against: frozenset[str] = frozenset(),
) -> Graph:
    with made.read() as tx:
        return walk(tx, [start], direction, project=HERE, limit=limit, depth=depth, against=against)


LIFE = ("p by m", "m by r", "r read d", "d of s", "g judged m", "g read h")


def test_up_leads_to_the_origins_level_by_level() -> None:
    found = go(store(*LIFE), "p")

    assert ("p", "m", "r", "d", "s") == found.nodes
    assert ["by", "by", "read", "of"] == [edge.relation for edge in found.edges]
    assert not found.truncated


def test_down_leads_to_everything_that_came_of_it() -> None:
    assert {"d", "r", "m", "p", "g"} == set(go(store(*LIFE), "d", Direction.DOWN).nodes)


def test_what_was_said_about_a_thing_is_found_against_the_direction() -> None:
    found = go(store(*LIFE), "p", against=frozenset({"judged"}))

    assert {"p", "m", "r", "d", "s", "g", "h"} == set(found.nodes)


@pytest.mark.parametrize("direction", Direction)
def test_a_circle_is_walked_once(direction: Direction) -> None:
    found = go(store("a x b", "b x c", "c x a"), "a", direction)

    assert {"a", "b", "c"} == set(found.nodes)
    assert 3 == len(found.edges)


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_the_limit_of_nodes_is_kept_and_told(limit: int) -> None:
    found = go(store(*LIFE), "p", limit=limit)

    assert limit == len(found.nodes)
    assert found.truncated
    assert {end for edge in found.edges for end in (edge.source, edge.target)} <= set(found.nodes)


def test_the_limit_that_suffices_is_no_cut() -> None:
    assert not go(store(*LIFE), "p", limit=5).truncated


def test_the_limit_of_depth_is_kept_and_told() -> None:
    found = go(store(*LIFE), "p", depth=2)

    assert ("p", "m", "r") == found.nodes
    assert found.truncated


def test_another_projects_edges_are_not_followed() -> None:
    assert ("p",) == go(store(*LIFE, project=THERE), "p").nodes


def test_a_node_without_edges_is_found_alone() -> None:
    assert Graph(nodes=("x",), edges=()) == go(store(*LIFE), "x")


def test_more_nodes_than_one_query_takes_are_all_found() -> None:
    many = [f"a x n{number}" for number in range(1_200)]

    found = go(store(*many, "n1199 x end"), "a", limit=2_000)

    assert 1_202 == len(found.nodes)
    assert "end" == found.nodes[-1]
