"""The printed form of a filter is read as the filter that was printed."""

from __future__ import annotations

import math
from typing import cast

from hypothesis import example, given
from hypothesis import strategies as st

from everloop.core.errors import InvalidInput
from everloop.core.filter.parser import parse_filter, parse_order
from everloop.core.filter.printer import print_filter, print_order
from everloop.core.filter.tree import (
    Both,
    Comparison,
    Either,
    How,
    Literal,
    Moment,
    Name,
    Negated,
    Node,
    Number,
    SortKey,
    Text,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.lists(
    texts.filter(bool) | st.sampled_from(["a", "AND", "not", "7", "a-b", "a/b", "`", "."]),
    min_size=1,
    max_size=3,
).map(lambda parts: Name(tuple(parts)))
numbers = (
    st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.sampled_from([math.inf])
).map(Number)
spans = st.integers(-(10**6), 10**6).map(Moment)
literals = cast("st.SearchStrategy[Literal]", texts.map(Text) | numbers | spans)
pairs = st.tuples(literals, literals)
flags = st.booleans()
tests = (
    st.builds(Comparison, names, st.sampled_from(list(How)[:6]), st.tuples(literals))
    | st.builds(
        Comparison, names, st.sampled_from([How.LIKE, How.ILIKE]), st.tuples(texts.map(Text)), flags
    )
    | st.builds(
        Comparison,
        names,
        st.just(How.IN),
        st.lists(literals, min_size=1, max_size=4).map(tuple),
        flags,
    )
    | st.builds(Comparison, names, st.just(How.BETWEEN), pairs, flags)
    | st.builds(Comparison, names, st.sampled_from([How.NULL, How.NAN]), st.just(()), flags)
)


def _grown(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return cast(
        "st.SearchStrategy[Node]",
        st.builds(Both, several) | st.builds(Either, several) | st.builds(Negated, inner),
    )


nodes = st.recursive(cast("st.SearchStrategy[Node]", tests), _grown, max_leaves=12)


@given(nodes)
@example(Both(()))
@example(Negated(Negated(Comparison(Name(("a",)), How.EQ, (Number(-0.0),)))))
def test_a_printed_filter_is_read_as_the_same_tree(node: Node) -> None:
    assert node == parse_filter(print_filter(node))


@given(st.lists(st.builds(SortKey, names, flags), max_size=6).map(tuple))
def test_a_printed_order_is_read_as_the_same_keys(keys: tuple[SortKey, ...]) -> None:
    assert keys == parse_order(print_order(keys))


@given(st.text(max_size=60) | st.text("()'\"`.,=<>!-+ andorti%_19e", max_size=60))
@example("\ud800 = 1")
@example("'" * 99)
@example("`" * 99)
@example("(" * 60)
@example("not " * 60)
def test_whatever_is_read_is_a_filter_or_a_mistake_with_a_position(text: str) -> None:
    try:
        node = parse_filter(text)
    except InvalidInput as error:
        position = error.context["position"]
        assert isinstance(position, int)
        assert 1 <= position <= len(text) + 1
    else:
        assert node == parse_filter(print_filter(node))
