"""The layout of lineage graphs."""

from __future__ import annotations

from everloop.ui.graph import NODE_HEIGHT, NODE_WIDTH, Layout, lay_out


def columns(layout: Layout) -> dict[str, int]:
    return {place.key: place.x for place in layout.places}


def test_what_was_made_stands_right_of_all_its_origins() -> None:
    links = [
        ("model", "trained_by", "run"),
        ("run", "read", "data"),
        ("model", "trained_on", "data"),
        ("data", "snapshot_of", "source"),
    ]

    x = columns(lay_out(["model", "run", "data", "source"], links))

    assert x["source"] < x["data"] < x["run"] < x["model"]


def test_no_two_nodes_overlap() -> None:
    nodes = [f"n{number}" for number in range(30)]
    links = [(f"n{number}", "from", f"n{number // 3}") for number in range(1, 30)]

    places = lay_out(nodes, links).places

    for one in places:
        for other in places:
            if one.key < other.key:
                apart = abs(one.x - other.x) >= NODE_WIDTH or abs(one.y - other.y) >= NODE_HEIGHT
                assert apart, (one, other)


def test_every_node_lies_inside_the_picture() -> None:
    layout = lay_out(["a", "b", "c"], [("b", "from", "a"), ("c", "from", "a")])

    assert all(0 <= place.x <= layout.width - NODE_WIDTH for place in layout.places)
    assert all(0 <= place.y <= layout.height - NODE_HEIGHT for place in layout.places)


def test_a_cycle_is_drawn_without_hanging() -> None:
    links = [("a", "from", "b"), ("b", "from", "c"), ("c", "from", "a"), ("a", "from", "a")]

    layout = lay_out(["a", "b", "c"], links)

    assert 3 == len(layout.places)
    assert 2 == len(layout.curves)


def test_links_to_nodes_that_are_not_shown_are_left_out() -> None:
    assert () == lay_out(["a"], [("a", "from", "hidden")]).curves


def test_a_chain_of_thousands_needs_no_recursion() -> None:
    nodes = [str(number) for number in range(5_000)]
    links = [(str(number + 1), "from", str(number)) for number in range(4_999)]

    x = columns(lay_out(nodes, links))

    assert x["4999"] == max(x.values())


def test_an_empty_graph_has_no_places() -> None:
    assert () == lay_out([], []).places


def test_neighbours_are_drawn_near_each_other() -> None:
    nodes = ["a", "b", "c", "of c", "of b", "of a"]
    links = [("of a", "from", "a"), ("of b", "from", "b"), ("of c", "from", "c")]

    y = {place.key: place.y for place in lay_out(nodes, links).places}

    assert (y["a"], y["b"], y["c"]) == (y["of a"], y["of b"], y["of c"])
