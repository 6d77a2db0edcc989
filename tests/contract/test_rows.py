"""Rows are exact: what is read back has the digest of what was written, or it was refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, MetadataStore
from everloop.core.records import digest_of
from tests.contract.kinds import Colour, Level, Part, Thing

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

texts = st.text(st.characters(codec="utf-8"), max_size=20)
integers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
instants = st.datetimes(timezones=st.just(UTC))
zoned = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 -- hypothesis adds the zone
    timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))),
)
documents = st.recursive(
    st.none() | st.booleans() | integers | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
parts = st.builds(
    Part,
    name=texts,
    weight=st.none() | floats,
    tags=st.lists(texts, max_size=2).map(tuple),
    at=st.none() | instants | zoned,
)
things = st.builds(
    Thing,
    id=st.uuids().map(lambda value: Id(str(value))),
    revision=st.integers(0, 2**62),
    text=texts,
    note=st.none() | texts,
    number=integers,
    rank=st.none() | integers,
    size=floats,
    score=st.none() | floats,
    flag=st.booleans(),
    answer=st.none() | st.booleans(),
    at=instants,
    ended=st.none() | instants,
    colour=st.sampled_from(Colour),
    level=st.none() | st.sampled_from(Level),
    data=st.binary(max_size=20),
    blob=st.none() | st.binary(max_size=20),
    part=st.none() | parts,
    parts=st.lists(parts, max_size=2).map(tuple),
    words=st.dictionaries(texts, texts, max_size=3),
    document=st.dictionaries(texts, documents, max_size=3),
    either=st.one_of(integers, texts),
)

PLAIN = Thing(
    id=Id("1"),
    text="x",
    note=None,
    number=1,
    rank=None,
    size=1.0,
    score=None,
    flag=True,
    answer=None,
    at=datetime(2026, 1, 1, tzinfo=UTC),
    ended=None,
    colour=Colour.RED,
    level=None,
    data=b"",
    blob=None,
    part=None,
    parts=(),
    words={},
    document={},
    either=1,
)

# What databases are known to change: minus zero, NUL, the ends of ranges, the first years.
EDGES = msgspec.structs.replace(
    PLAIN,
    text="\x00\x01\x02",
    note="",
    number=-(2**63),
    rank=2**63 - 1,
    size=-0.0,
    score=5e-324,
    answer=False,
    at=datetime(1, 1, 1, tzinfo=UTC),
    level=Level.HIGH,
    data=b"\x00",
    blob=b"",
    part=Part(name="", weight=-0.0),
    document={"\x00": [-0.0, 1.0, 2**63 - 1, None, {}]},
    either="1",
)


@EXAMPLES
@given(thing=things)
@example(thing=EDGES)
def test_a_record_keeps_its_digest(store: MetadataStore, thing: Thing) -> None:
    with store.write() as tx:
        earlier = tx.find(Thing, thing.id)
        if earlier is not None:
            tx.delete(earlier)
        tx.insert(thing)

    with store.read() as view:
        found = view.find(Thing, thing.id)

    assert found is not None
    assert digest_of(thing) == digest_of(found)
    assert type(found.level) is type(thing.level)
    assert type(found.flag) is bool


def test_fields_that_are_read_alone_are_those_of_the_record(store: MetadataStore) -> None:
    other = msgspec.structs.replace(PLAIN, id=Id("2"), text="other")
    edges = msgspec.structs.replace(EDGES, id=Id("3"))
    with store.write() as tx:
        for thing in (PLAIN, other, edges):
            tx.insert(thing)
    fields = [name for name in Thing.__struct_fields__ if name != "text"]

    with store.read() as view:
        found = view.values(Thing, fields, Condition("text", Compare.NE, "other"))
        nothing = view.values(Thing, ("id", "text"), Condition("id", Compare.EQ, "none"))

    expected = [tuple(getattr(thing, name) for name in fields) for thing in (PLAIN, edges)]
    assert expected == sorted(found, key=lambda row: str(row[0]))
    assert [] == nothing
    assert [type(value) for value in expected[1]] == [type(value) for value in found[-1]]


def test_a_field_that_does_not_exist_is_not_read(store: MetadataStore) -> None:
    with store.read() as view, pytest.raises(TypeError):
        view.values(Thing, ("id", "nothing"))


@EXAMPLES
@given(thing=things)
def test_a_replaced_record_keeps_its_digest(store: MetadataStore, thing: Thing) -> None:
    with store.write() as tx:
        earlier = tx.find(Thing, PLAIN.id)
        if earlier is None:
            tx.insert(PLAIN)
        revision = 0 if earlier is None else earlier.revision
        fresh = tx.replace(msgspec.structs.replace(thing, id=PLAIN.id, revision=revision))

    with store.read() as view:
        found = view.find(Thing, PLAIN.id)

    assert found is not None
    assert digest_of(fresh) == digest_of(found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 1),
        ("size", float("nan")),
        ("score", float("inf")),
        ("number", 1.0),
        ("number", True),
        ("number", 2**63),
        ("flag", 1),
        ("text", None),
        ("text", b"x"),
        ("at", datetime(2026, 1, 1)),  # noqa: DTZ001 -- that is the point
        ("at", datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        ("at", "2026-01-01T00:00:00Z"),
        ("part", Part(name="x", weight=1)),
        ("words", {"a": 1}),
    ],
)
def test_what_would_not_read_back_as_it_is_is_refused(
    store: MetadataStore, field: str, value: object
) -> None:
    wrong = msgspec.structs.replace(PLAIN, **{field: value})

    with (
        pytest.raises(InvalidInput, match=rf"Field {field} of a thing") as refused,
        store.write() as tx,
    ):
        tx.insert(wrong)

    assert "record.inexact" == refused.value.code

    with store.read() as view:
        assert 0 == view.count(Thing)


def test_not_a_number_inside_a_document_is_refused(store: MetadataStore) -> None:
    wrong = msgspec.structs.replace(PLAIN, document={"a": [float("nan")]})

    with pytest.raises(InvalidInput, match=r"canonical\.not_finite"), store.write() as tx:
        tx.insert(wrong)
