"""Points of many metrics in one piece come apart as they were put together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import InvalidInput
from everloop.track import columns
from everloop.track.columns import Columns
from everloop.track.mixed import (
    MixedPoints,
    decode_mixed,
    encode_mixed,
    mix,
    pick,
    sort_out,
    summarise_mixed,
)

NUMBERS = st.integers(-(2**40), 2**40)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS, st.floats(width=64)), min_size=1, max_size=5)
Series = dict[str, list[tuple[int, int, float]]]
SERIES = st.dictionaries(st.sampled_from("abcdef"), POINTS, max_size=4)


def to_columns(points: list[tuple[int, int, float]]) -> Columns:
    steps, times, values = zip(*points, strict=True)
    return columns.to_columns(steps, times, values)


def bits(points: Columns) -> tuple[list[int], list[int], bytes]:
    return points.steps.tolist(), points.times_us.tolist(), points.values.tobytes()


@given(SERIES)
def test_what_is_mixed_comes_apart_bit_for_bit(
    series: Series,
) -> None:
    given_points = {key: to_columns(points) for key, points in series.items()}

    mixed = decode_mixed(encode_mixed(mix(given_points.items())))

    assert {k: bits(p) for k, p in given_points.items()} == {
        key: bits(pick(mixed, key)) for key in series
    }
    assert {k: bits(p) for k, p in given_points.items()} == {
        key: bits(points) for key, points in sort_out([mixed])
    }


@given(SERIES, SERIES)
def test_pieces_are_sorted_out_in_their_order(first: Series, second: Series) -> None:
    pieces = [mix((k, to_columns(p)) for k, p in part.items()) for part in (first, second)]

    found = {key: bits(points) for key, points in sort_out(pieces)}

    wanted = {
        key: bits(to_columns(first.get(key, []) + second.get(key, []))) for key in first | second
    }
    assert wanted == found


@given(SERIES)
def test_summaries_are_those_of_each_metric_alone(
    series: Series,
) -> None:
    given_points = {key: to_columns(points) for key, points in series.items()}

    found = summarise_mixed(mix(given_points.items()))

    wanted = {key: columns.summarise(points) for key, points in given_points.items()}
    assert repr(dict(sorted(wanted.items()))) == repr(dict(sorted(found.items())))


@pytest.mark.parametrize(
    ("keys", "places"),
    [
        (("a",), b"\x00"),
        (("a",), b"\x01\x00"),
        ((), b"\x00\x00"),
        (("a", "a"), b"\x00\x00"),
        (("",), b"\x00\x00"),
        (("a\n",), b"\x00\x00"),
    ],
)
def test_pieces_that_contradict_themselves_are_refused(
    keys: tuple[str, ...], places: bytes
) -> None:
    data = columns.encode(columns.to_columns([1], [1], [1.0]), columns.RAW)

    with pytest.raises(InvalidInput):
        decode_mixed(MixedPoints(keys=keys, places=places, data=data))


def test_no_points_are_mixed_and_sorted_out_too() -> None:
    assert [] == sort_out([mix([])])
    assert 0 == len(np.asarray(mix([]).places))
