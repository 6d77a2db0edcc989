"""Filters, order and paging agree with a plain model, for every store."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import count

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everloop.core.canonical import canonical_json
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, MetadataStore, where
from everloop.storage import sql
from tests.contract.kinds import Colour, Part, Reading, Thing

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ORDERS = ("id", "text", "note", "number", "value", "at", "colour")
batches = count()

# Few different values, so that ties and nulls are common; letters that languages sort otherwise.
texts = st.sampled_from(
    ["", "a", "B", "b", "ä", "z", "Z", "a b", "a-b", "\x00", "\x01", "ß", "\uffff", "😀"]
)
instants = st.sampled_from(
    [datetime(year, 1, 1, microsecond=micro, tzinfo=UTC) for year in (2, 2026) for micro in (0, 7)]
)
fields = st.fixed_dictionaries(
    {
        "text": texts,
        "note": st.none() | texts,
        "number": st.none() | st.sampled_from([-(2**63), -1, 0, 7, 2**63 - 1]),
        "value": st.none() | st.sampled_from([-1e300, -0.0, 0.0, 5e-324, 1.5]),
        "at": st.none() | instants,
        "colour": st.none() | st.sampled_from(Colour),
    }
)
Rows = list[Reading]


def fill(store: MetadataStore, found: list[dict[str, object]]) -> tuple[str, Rows]:
    """Store the rows in an order that is not that of their ids; return their batch."""
    batch = f"batch {next(batches)}"
    rows = [
        Reading(id=Id(f"{batch}/{number:03d}"), batch=batch, **values)  # type: ignore[arg-type]
        for number, values in enumerate(found)
    ]
    with store.write() as tx:
        for row in random.Random(7).sample(rows, len(rows)):
            tx.insert(row)
    return batch, rows


def model_key(row: Reading, order: str) -> tuple[bool, object, str]:
    value = getattr(row, order)
    return (value is not None, "" if value is None else value, row.id)


@EXAMPLES
@given(
    found=st.lists(fields, max_size=9),
    order=st.sampled_from(ORDERS),
    descending=st.booleans(),
    limit=st.none() | st.integers(0, 10),
)
def test_rows_come_nulls_first_by_code_point_then_by_id(
    store: MetadataStore,
    found: list[dict[str, object]],
    order: str,
    descending: bool,
    limit: int | None,
) -> None:
    batch, rows = fill(store, found)

    with store.read() as tx:
        answer = tx.select(
            Reading, *where(batch=batch), order=order, descending=descending, limit=limit
        )

    expected = sorted(rows, key=lambda row: model_key(row, order), reverse=descending)
    assert expected[:limit] == answer


@EXAMPLES
@given(
    found=st.lists(fields, min_size=1, max_size=9),
    order=st.sampled_from(ORDERS),
    descending=st.booleans(),
    size=st.integers(1, 4),
)
def test_pages_put_together_are_the_whole(
    store: MetadataStore,
    found: list[dict[str, object]],
    order: str,
    descending: bool,
    size: int,
) -> None:
    batch, rows = fill(store, found)

    pages: Rows = []
    with store.read() as tx:
        last: Reading | None = None
        for _ in range(len(rows) + 1):
            page = tx.select(
                Reading,
                *where(batch=batch),
                order=order,
                descending=descending,
                limit=size,
                after=last,
            )
            if not page:
                break
            pages += page
            last = page[-1]

    assert sorted(rows, key=lambda row: model_key(row, order), reverse=descending) == pages


def meets(row: Reading, field: str, compare: Compare, value: object) -> bool:
    held = getattr(row, field)
    if compare is Compare.EQ:
        return bool(held == value)
    if compare is Compare.NE:
        return bool(held != value)
    if held is None or value is None:
        return False
    answers = {
        Compare.LT: held < value,
        Compare.LE: held <= value,
        Compare.GT: held > value,
        Compare.GE: held >= value,
    }
    return bool(answers[compare])


@EXAMPLES
@given(found=st.lists(fields, min_size=1, max_size=9), data=st.data())
def test_comparisons_agree_with_python(
    store: MetadataStore, found: list[dict[str, object]], data: st.DataObject
) -> None:
    batch, rows = fill(store, found)
    field = data.draw(st.sampled_from(ORDERS[1:]))
    compare = data.draw(
        st.sampled_from([c for c in Compare if c not in {"in", "prefix", "like", "ilike"}])
    )
    value = getattr(data.draw(st.sampled_from(rows)), field)

    with store.read() as tx:
        answer = tx.select(Reading, *where(batch=batch), Condition(field, compare, value))
        number = tx.count(Reading, *where(batch=batch), Condition(field, compare, value))

    assert [row for row in rows if meets(row, field, compare, value)] == answer
    assert len(answer) == number


@pytest.mark.parametrize("descending", [False, True])
def test_a_page_may_start_after_a_row_that_is_gone(store: MetadataStore, descending: bool) -> None:
    _, rows = fill(store, [dict.fromkeys(ORDERS[2:]) | {"text": t} for t in "abc"])
    with store.write() as tx:
        tx.delete(rows[1])

    with store.read() as view:
        rest = view.select(Reading, order="text", descending=descending, after=rows[1])

    assert [rows[0] if descending else rows[2]] == rest


@EXAMPLES
@given(
    found=st.lists(fields, max_size=9),
    field=st.sampled_from(["text", "note"]),
    least=st.none() | texts,
    limit=st.integers(0, 10),
)
def test_different_texts_come_once_by_code_point(
    store: MetadataStore,
    found: list[dict[str, object]],
    field: str,
    least: str | None,
    limit: int,
) -> None:
    batch, rows = fill(store, found)
    beyond = () if least is None else (Condition(field, Compare.GE, least),)

    with store.read() as tx:
        answer = tx.distinct(Reading, field, *where(batch=batch), *beyond, limit=limit)

    values = {getattr(row, field) for row in rows} - {None}
    assert sorted(value for value in values if least is None or value >= least)[:limit] == answer


def test_only_texts_are_told_apart(store: MetadataStore) -> None:
    with store.read() as tx, pytest.raises(TypeError, match="no field 'number' of text"):
        tx.distinct(Reading, "number", limit=1)


def test_what_mentions_a_text_is_found_in_texts_and_structures(store: MetadataStore) -> None:
    word = "blake3:ab"
    rows = [
        msgspec.structs.replace(a_thing("1"), text=f"\x00 {word}\x01", note=None),
        msgspec.structs.replace(a_thing("2"), parts=(Part(name="x", tags=("y", word)),)),
        msgspec.structs.replace(a_thing("3"), text="BLAKE3:AB", note="blake3 ab"),
        msgspec.structs.replace(a_thing("4"), words={word: "v"}, note=word),
    ]
    with store.write() as tx:
        for row in rows:
            tx.insert(row)

    with store.read() as tx:
        found = list(tx.mentions(Thing, word))

    assert [
        ("1", "text", f"\x00 {word}\x01"),
        ("2", "parts", canonical_json(rows[1].parts).decode()),
        ("4", "note", word),
        ("4", "words", f'{{"{word}":"v"}}'),
    ] == found


def test_mentions_on_many_pages_are_all_found(
    store: MetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "MENTIONS_A_PAGE", 2)
    with store.write() as tx:
        for number in range(5):
            tx.insert(msgspec.structs.replace(a_thing(str(number)), text="here", note=None))

    with store.read() as tx:
        assert [str(n) for n in range(5)] == [key for key, _, _ in tx.mentions(Thing, "here")]


def a_thing(key: str) -> Thing:
    return Thing(
        id=Id(key), text="", note=None, number=1, rank=None, size=0.0, score=None, flag=True,
        answer=None, at=datetime(2026, 1, 1, tzinfo=UTC), ended=None, colour=Colour.RED,
        level=None, data=b"", blob=None, part=None, parts=(), words={}, document={}, either=1,
    )  # fmt: skip
