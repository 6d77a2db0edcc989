"""Times in filters: every value is a stretch, as long as what was left out of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import InvalidInput
from everloop.core.filter.parser import parse_filter
from everloop.core.filter.scene import Scene
from everloop.core.filter.times import EPOCH, meets_spans, span_of
from everloop.core.filter.tree import Comparison, Number, Text

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class _Nothing:
    """No rows: times need none."""

    def select(self, *given: object, **more: object) -> NoReturn:
        raise AssertionError

    search = select


SCENE = Scene("", NOW, _Nothing(), lambda noun: None)


@pytest.mark.parametrize(
    ("text", "start", "length"),
    [
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC), timedelta(days=1)),
        ("2026-11-21T09:30", datetime(2026, 11, 21, 9, 30, tzinfo=UTC), timedelta(minutes=1)),
        (
            "2026-11-21 09:30:15Z",
            datetime(2026, 11, 21, 9, 30, 15, tzinfo=UTC),
            timedelta(seconds=1),
        ),
        (
            "2026-11-21T09:30:15.25+02:00",
            datetime(2026, 11, 21, 7, 30, 15, 250_000, tzinfo=UTC),
            timedelta(milliseconds=10),
        ),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC), timedelta(days=1)),
    ],
)
def test_a_text_is_the_stretch_that_it_names(text: str, start: datetime, length: timedelta) -> None:
    assert (start, start + length) == span_of(Text(text), SCENE)[:2]


@pytest.mark.parametrize(
    "text",
    ["", "noon", "2026", "2026-02-30", "2026-11-21T25:00", "2026-11-21T09", "2026-11-21T09:30.5",
     "9999-12-31", "0001-01-01T00:00+14:00", "２０２６-11-21"],
)  # fmt: skip
def test_a_text_that_is_no_time_is_told(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        span_of(Text(text, 7), SCENE)

    assert 8 == refused.value.context["position"]


@pytest.mark.parametrize("how", ["=", "!=", "<", "<=", ">", ">="])
@given(
    st.integers(-5, 5),
    st.integers(-5_000, 5_000),
    st.sampled_from([0.0, 0.25]),
)
def test_a_number_compares_as_the_milliseconds_of_a_time_cut_off(
    how: str, milliseconds: int, microseconds: int, part: float
) -> None:
    test = parse_filter(f"at {how} 0")
    assert isinstance(test, Comparison)
    at = EPOCH + timedelta(microseconds=microseconds)
    value = milliseconds + part

    floor = microseconds // 1_000
    expected = {
        "=": floor == value,
        "!=": floor != value,
        "<": floor < value,
        "<=": floor <= value,
        ">": floor > value,
        ">=": floor >= value,
    }[how]

    assert expected is meets_spans(at, test, [span_of(Number(value), SCENE)])


@pytest.mark.parametrize("value", [10**30, -(10**30), float("inf"), float("-inf"), 1e300])
def test_a_number_beyond_all_times_is_before_or_after_them(value: float) -> None:
    is_after = value > 0

    for how, expected in (("<", is_after), (">", not is_after), ("=", False), ("!=", True)):
        test = parse_filter(f"at {how} 0")
        assert isinstance(test, Comparison)
        assert expected is meets_spans(NOW, test, [span_of(Number(value), SCENE)])
