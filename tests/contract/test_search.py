"""Search means the same in every store: what a plain reading of the tree says."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime
from itertools import count
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everloop.core.errors import InvalidInput, LimitExceeded
from everloop.core.ids import Id
from everloop.core.ports import Condition, MetadataStore
from everloop.core.search import All, Any, Compare, Filter, Has, Link, Not, Order
from everloop.core.search import Test as Holds
from everloop.storage import planning
from everloop.storage.memory import MemoryMetadataStore
from tests.contract.kinds import HEAD_CHARS, KINDS, Colour, Leaf, Reading

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
batches = count()

letters = ["", "a", "A", "ab", "aB", "ä", "Ä", "a*b", "a?", "[a]", "a\\b", "%", "_", "\x00", "😀"]
texts = st.sampled_from(letters)
patterns = st.lists(
    st.sampled_from(["a", "B", "%", "_", "*", "?", "[", "\\", "ä", "😀"]), max_size=4
)
numbers = st.sampled_from([-(2**63), -1, 0, 7])
values = st.sampled_from([-1e300, -0.0, 0.0, 5e-324, 1.5])
instants = st.sampled_from([datetime(year, 1, 1, tzinfo=UTC) for year in (2, 2026)])
readings = st.fixed_dictionaries(
    {
        "text": texts,
        "note": st.none() | texts,
        "number": st.none() | numbers,
        "value": st.none() | values,
        "at": st.none() | instants,
        "colour": st.none() | st.sampled_from(Colour),
    }
)
# Owner (a reading's number), key, text and number of what belongs to readings; one of each key.
leaves = st.dictionaries(
    st.tuples(st.integers(0, 7), st.sampled_from(["k", "l"])),
    st.tuples(st.none() | texts, st.none() | values, st.booleans()),
    max_size=10,
)
ORDERED = [Compare.EQ, Compare.NE, Compare.LT, Compare.LE, Compare.GT, Compare.GE]


def comparing(field: str, held: st.SearchStrategy[object]) -> st.SearchStrategy[Filter]:
    ordered = st.builds(Holds, st.just(field), st.sampled_from(ORDERED), st.none() | held)
    among = st.builds(
        Holds,
        st.just(field),
        st.just(Compare.IN),
        st.lists(st.none() | held, max_size=3).map(tuple),
    )
    return ordered | among


def patterns_of(field: str) -> st.SearchStrategy[Filter]:
    like = st.builds(
        Holds,
        st.just(field),
        st.sampled_from([Compare.LIKE, Compare.ILIKE]),
        patterns.map("".join),
    )
    return like | st.builds(Holds, st.just(field), st.just(Compare.PREFIX), texts)


def combined(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(inner, max_size=3).map(tuple)
    return st.builds(All, several) | st.builds(Any, several) | st.builds(Not, inner)


def has(kind: str, inner: Filter, batch: str) -> Filter:
    own = All((Holds("batch", Compare.EQ, batch), inner))
    if kind == "owner":
        return Has(Leaf, Link("owner"), own)
    if kind == "node":
        return Has(Leaf, Link("node", prefix="reading:"), own)
    return Has(Leaf, Link("node", "text", prefix="text:", strip="a"), own)


leaf_tests = st.recursive(
    comparing("text", texts)
    | comparing("value", values)
    | patterns_of("text")
    | st.builds(Holds, st.just("key"), st.just(Compare.EQ), st.sampled_from(["k", "l"])),
    combined,
    max_leaves=4,
)
own_tests = (
    comparing("text", texts)
    | comparing("note", texts)
    | comparing("number", numbers)
    | comparing("value", values)
    | comparing("at", instants)
    | comparing("colour", st.sampled_from(Colour))
    | patterns_of("note")
)
filters = st.recursive(
    own_tests
    | st.builds(has, st.sampled_from(["owner", "node", "text"]), leaf_tests, st.just("BATCH")),
    combined,
    max_leaves=6,
)


def via(key: str, batch: str) -> Has:
    return Has(
        Leaf,
        Link("owner"),
        All((Holds("batch", Compare.EQ, batch), Holds("key", Compare.EQ, key))),
    )


orders = st.lists(
    st.builds(
        Order,
        st.sampled_from(["id", "text", "note", "number", "value", "at", "colour"]),
        st.booleans(),
    )
    | st.builds(
        Order,
        st.sampled_from(["text", "value", "flag"]),
        st.booleans(),
        st.sampled_from(["k", "l"]).map(lambda key: via(key, "BATCH")),
    ),
    max_size=3,
)


def placed(part: Filter, batch: str) -> Filter:
    """Put the batch at hand into a filter that was made before there was one."""
    match part:
        case Holds(field="batch"):
            return Holds("batch", Compare.EQ, batch)
        case Has(kind, link, inner):
            return Has(kind, link, placed(inner, batch))
        case All(parts):
            return All(tuple(placed(each, batch) for each in parts))
        case Any(parts):
            return Any(tuple(placed(each, batch) for each in parts))
        case Not(inner):
            return Not(placed(inner, batch))
    return part


def placed_order(order: Order, batch: str) -> Order:
    if order.via is None:
        return order
    found = placed(order.via, batch)
    assert isinstance(found, Has)
    return Order(order.field, order.descending, found)


def fill(
    stores: list[MetadataStore],
    rows: list[dict[str, object]],
    belonging: dict[tuple[int, str], tuple[str | None, float | None, bool]],
) -> str:
    batch = f"batch {next(batches)}"
    made: list[Reading | Leaf] = [
        Reading(id=Id(f"{batch}/{number}"), batch=batch, **row)  # type: ignore[arg-type]
        for number, row in enumerate(rows)
    ]
    owned = dict(enumerate(made))
    for number, ((owner, key), (text, value, flag)) in enumerate(belonging.items()):
        node = f"reading:{batch}/{owner}" if flag else f"text:{(text or '')[1:]}"
        made.append(
            Leaf(
                id=Id(f"{batch}/{number}"),
                batch=batch,
                owner=Id(f"{batch}/{owner}"),
                node=node,
                key=key,
                text=text,
                value=value,
                flag=flag,
                head=None if text is None else text[:HEAD_CHARS],
                at=owned[owner].at if owner in owned else None,
            )
        )
    for store in stores:
        with store.write() as tx:
            for row in random.Random(7).sample(made, len(made)):
                tx.insert(row)
    return batch


def find_all(
    store: MetadataStore, part: Filter, order: list[Order], *, size: int = 100
) -> list[list[Id]]:
    """Return the ids on every page."""
    pages: list[list[Id]] = []
    after: str | None = None
    with store.read() as tx:
        while True:
            page = tx.search(Reading, part, order=order, limit=size, after=after)
            pages.append([row.id for row in page.rows])
            after = page.next
            if after is None:
                return pages


@pytest.fixture
def model() -> MemoryMetadataStore:
    """Evaluates every search plainly."""
    return MemoryMetadataStore(KINDS)


class Case(NamedTuple):
    """Rows, what belongs to them, and a search among them."""

    rows: list[dict[str, object]]
    belonging: dict[tuple[int, str], tuple[str | None, float | None, bool]]
    part: Filter
    order: list[Order]
    size: int


@pytest.fixture(params=["usual", "tiny"])
def bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few rows count as many, so that every way of answering is gone."""
    if request.param == "tiny":
        for name, rows in [("FEW", 1), ("STRETCH", 2), ("GROWTH", 1), ("MANY", 7)]:
            monkeypatch.setattr(planning, name, rows)


@pytest.mark.usefixtures("bounds")
@EXAMPLES
@given(
    case=st.builds(Case, st.lists(readings, max_size=8), leaves, filters, orders, st.integers(1, 4))
)
def test_every_store_finds_what_a_plain_evaluation_finds(
    store: MetadataStore, model: MemoryMetadataStore, case: Case
) -> None:
    batch = fill([store, model], case.rows, case.belonging)
    within = All((Holds("batch", Compare.EQ, batch), placed(case.part, batch)))
    keys = [placed_order(each, batch) for each in case.order]

    (whole,) = find_all(store, within, keys)
    pages = find_all(store, within, keys, size=case.size)

    assert find_all(model, within, keys) == [whole]
    assert whole == [key for page in pages for key in page]


def owned(*inner: Filter) -> Has:
    """Return the filter for readings with a leaf under the key ``k``."""
    tests = (Holds("batch", Compare.EQ, "BATCH"), Holds("key", Compare.EQ, "k"), *inner)
    return Has(Leaf, Link("owner"), All(tests))


level_tests: list[Filter] = [
    owned(),
    owned(Holds("head", Compare.EQ, "ab")),
    owned(Holds("head", Compare.EQ, "a")),
    owned(Holds("value", Compare.EQ, 0.5), Holds("head", Compare.EQ, "a")),
    owned(Holds("value", Compare.GE, 0.5)),
    Not(owned(Holds("text", Compare.EQ, "abc"))),
    Any((owned(Holds("value", Compare.EQ, 1.5)), Holds("note", Compare.EQ, "n"))),
    Holds("note", Compare.EQ, "o"),
    Holds("at", Compare.GE, datetime(2026, 2, 1, tzinfo=UTC)),
    Has(Leaf, Link("node", prefix="reading:"), Holds("flag", Compare.EQ, value=True)),
]


def level_order(dice: random.Random) -> list[Order]:
    fields = [field for field in ("value", "text") if dice.random() < 0.6]
    keys = [Order(field, dice.random() < 0.5, owned()) for field in fields]
    return [*keys, Order("at", dice.random() < 0.5)]


@pytest.mark.usefixtures("bounds")
@pytest.mark.parametrize("seed", range(2))
def test_rows_that_stand_level_are_walked_by_what_sorts_them_next(
    store: MetadataStore, model: MemoryMetadataStore, seed: int
) -> None:
    dice = random.Random(seed)
    pick = dice.choice
    # Few values, so that many rows stand level by one key and the next ones decide.
    times = [None, *(datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 9))]
    rows: list[dict[str, object]] = [
        {"text": "", "note": pick(["n", "o"]), "number": None, "value": None, "at": pick(times),
         "colour": None}
        for _ in range(40)
    ]  # fmt: skip
    belonging = {
        (number, key): (pick([None, "", "a", "ab", "abc", "abd"]), pick([None, 0.5, 1.5]), True)
        for number in range(42)
        for key in "kl"
        if dice.random() < 0.85
    }
    batch = fill([store, model], rows, belonging)
    own = Holds("batch", Compare.EQ, batch)

    for _ in range(60):
        tests = dice.sample(level_tests, dice.randrange(4))
        within = All((own, *(placed(part, batch) for part in tests)))
        keys = [placed_order(each, batch) for each in level_order(dice)]
        (whole,) = find_all(store, within, keys)
        pages = find_all(store, within, keys, size=dice.randint(1, 7))

        assert find_all(model, within, keys) == [whole], (tests, keys)
        assert whole == [key for page in pages for key in page], (tests, keys)


def reading(key: str, **fields: object) -> Reading:
    plain: dict[str, object] = {
        "batch": "b",
        "text": "",
        "note": None,
        "number": None,
        "value": None,
        "at": None,
        "colour": None,
    }
    return Reading(id=Id(key), **(plain | fields))  # type: ignore[arg-type]


def leaf(key: str, owner: str, **fields: object) -> Leaf:
    plain: dict[str, object] = {
        "batch": "b",
        "node": "",
        "key": "k",
        "text": None,
        "value": None,
        "flag": False,
    }
    return Leaf(id=Id(key), owner=Id(owner), **(plain | fields))  # type: ignore[arg-type]


def keep(store: MetadataStore, *rows: Reading | Leaf) -> None:
    with store.write() as tx:
        for row in rows:
            tx.insert(row)


def found(store: MetadataStore, part: Filter, *order: Order) -> list[str]:
    (page,) = find_all(store, part, list(order))
    return list(page)


@pytest.mark.parametrize("descending", [False, True])
def test_values_come_first_then_nulls_then_rows_that_have_none(
    store: MetadataStore, *, descending: bool
) -> None:
    keep(store, *[reading(key) for key in "dcba"])
    keep(store, leaf("1", "c", value=1.0), leaf("2", "b", value=2.0), leaf("3", "d"))
    has_leaf = Has(Leaf, Link("owner"), Holds("key", Compare.EQ, "k"))

    answer = found(store, All(), Order("value", descending, has_leaf))

    assert (["b", "c", "d", "a"] if descending else ["c", "b", "d", "a"]) == answer


def test_not_of_a_test_holds_where_the_field_is_null(store: MetadataStore) -> None:
    keep(store, reading("a", number=1), reading("b"), reading("c", number=2))

    assert ["b", "c"] == found(store, Not(Holds("number", Compare.EQ, 1)))
    assert ["c"] == found(store, Holds("number", Compare.NE, 1))


def test_like_minds_case_and_ilike_only_of_ascii(store: MetadataStore) -> None:
    words = {"a": "Ärger", "b": "ärger", "c": "Zug", "d": "zug", "e": "z"}
    keep(store, *[reading(key, text=word) for key, word in words.items()])

    assert ["d"] == found(store, Holds("text", Compare.LIKE, "z_g"))
    assert ["c", "d"] == found(store, Holds("text", Compare.ILIKE, "Z_G"))
    assert ["c", "d", "e"] == found(store, Holds("text", Compare.ILIKE, "z%"))
    assert ["b"] == found(store, Holds("text", Compare.ILIKE, "ä%"))


def test_no_character_escapes_another_in_a_pattern(store: MetadataStore) -> None:
    words = {"a": "50%", "b": "50\\%", "c": "[a]", "d": "a", "e": "*"}
    keep(store, *[reading(key, text=word) for key, word in words.items()])

    assert ["b"] == found(store, Holds("text", Compare.LIKE, "50\\%"))
    assert ["c"] == found(store, Holds("text", Compare.LIKE, "[a]"))
    assert ["e"] == found(store, Holds("text", Compare.LIKE, "*"))


def test_conditions_take_patterns_too(store: MetadataStore) -> None:
    keep(store, reading("a", note="Zug"), reading("b", note="zug"), reading("c"))

    with store.read() as tx:
        like = tx.select(Reading, Condition("note", Compare.LIKE, "z%"))
        ilike = tx.count(Reading, Condition("note", Compare.ILIKE, "Z%"))

    assert ["b"] == [row.id for row in like]
    assert 2 == ilike


def test_a_page_stays_in_its_place_while_rows_come_and_go(store: MetadataStore) -> None:
    keep(store, *[reading(key, number=number) for number, key in enumerate("abcdef")])
    order = [Order("number", descending=True)]
    with store.read() as tx:
        first = tx.search(Reading, All(), order=order, limit=2)
    keep(store, reading("new", number=9))
    with store.write() as tx:
        tx.delete(reading("e", number=4))

    with store.read() as tx:
        second = tx.search(Reading, All(), order=order, limit=2, after=first.next)

    assert ["f", "e"] == [row.id for row in first.rows]
    assert ["d", "c"] == [row.id for row in second.rows]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "....", "W10", "é", "a" * 70_000, "W10=", "WyIiLFtdXQ"],
)
def test_what_is_no_cursor_is_refused(store: MetadataStore, cursor: str) -> None:
    with store.read() as tx, pytest.raises(InvalidInput) as refused:
        tx.search(Reading, All(), limit=1, after=cursor)

    assert "query.cursor_invalid" == refused.value.code


def test_a_cursor_of_another_order_is_refused(store: MetadataStore) -> None:
    keep(store, reading("a"), reading("b"))
    with store.read() as tx:
        page = tx.search(Reading, All(), order=[Order("text")], limit=1)

    with store.read() as tx, pytest.raises(InvalidInput):
        tx.search(Reading, All(), order=[Order("note")], limit=1, after=page.next)


def test_a_forged_cursor_with_other_types_is_refused(store: MetadataStore) -> None:
    keep(store, reading("a", number=1), reading("b", number=2))
    order = [Order("number")]
    with store.read() as tx:
        cursor = tx.search(Reading, All(), order=order, limit=1).next
    assert cursor is not None
    name, places = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=="))

    for rank, value in [(0, "x"), (0, 2**64), (0, None), (1, 3), (2, None), (7, 1), (0, True)]:
        forged = msgspec.json.encode([name, [[rank, value], places[1]]])
        text = base64.urlsafe_b64encode(forged).decode().rstrip("=")
        with store.read() as tx, pytest.raises(InvalidInput):
            tx.search(Reading, All(), order=order, limit=1, after=text)


@pytest.mark.parametrize(
    "part",
    [
        All((Holds("number", Compare.EQ, 1),) * 501),
        Holds("text", Compare.LIKE, "%" * 1_001),
    ],
)
def test_what_is_too_much_for_one_question_is_refused(store: MetadataStore, part: Filter) -> None:
    with store.read() as tx, pytest.raises(LimitExceeded) as refused:
        tx.search(Reading, part, limit=1)

    assert "query.too_complex" == refused.value.code


def test_more_values_than_a_database_binds_are_refused_as_too_many(store: MetadataStore) -> None:
    keep(store, reading("a", number=1))
    many = Holds("number", Compare.IN, tuple(range(16_000)))

    assert ["a"] == found(store, many)
    if isinstance(store, MemoryMetadataStore):
        return
    with store.read() as tx, pytest.raises(LimitExceeded) as refused:
        tx.search(Reading, All((many,) * 20), limit=1)
    assert "query.too_many_values" == refused.value.code


def test_deep_trees_are_answered_up_to_the_bound_and_refused_beyond(store: MetadataStore) -> None:
    keep(store, reading("a", number=1))
    part: Filter = Holds("number", Compare.EQ, 1)
    for _ in range(48):
        part = Not(part)

    assert ["a"] == found(store, part)
    with store.read() as tx, pytest.raises(LimitExceeded):
        tx.search(Reading, Not(Not(part)), limit=1)


def test_as_many_tests_as_are_allowed_are_answered(store: MetadataStore) -> None:
    keep(store, reading("a", number=1))
    each = tuple(Holds("number", Compare.EQ, number) for number in range(1, 499))

    assert ["a"] == found(store, Any(each))


@pytest.mark.parametrize(
    "part",
    [
        Holds("missing", Compare.EQ, 1),
        Holds("number", Compare.EQ, "x"),
        Holds("number", Compare.LIKE, 1),
        Holds("text", Compare.IN, "ab"),
        Has(Leaf, Link("missing"), All()),
        Has(Leaf, Link("owner", "number"), All()),
    ],
)
def test_a_field_that_does_not_fit_is_a_type_error(store: MetadataStore, part: Filter) -> None:
    with store.read() as tx, pytest.raises(TypeError):
        tx.search(Reading, part, limit=1)
