"""Columnar chunks keep every bit, refuse what they did not write, and thin out fairly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from everloop.core.errors import InvalidInput
from everloop.track import columns
from everloop.track.columns import RAW, ZLIB, ZSTD, to_columns

WILD = [0.1, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308]


@pytest.mark.parametrize("compression", [RAW, ZLIB, ZSTD])
def test_points_come_back_bit_by_bit(compression: int) -> None:
    points = to_columns([-(2**63), 2**63 - 1, 0, 1, 2, 3, 3], [2**62, 0, -5, 1, 2, 3, 4], WILD)

    back = columns.decode(columns.encode(points, compression))

    assert [column.tobytes() for column in points] == [column.tobytes() for column in back]


def test_a_steady_series_takes_less_than_half_of_its_raw_size() -> None:
    count = 1_000
    points = to_columns(
        range(count), range(0, count * 1_000, 1_000), np.linspace(1, 0, count).tolist()
    )

    assert len(columns.encode(points)) < count * 24 / 2


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x01", b"\x09\x00\x00\x00\x00\x00", b"\x01\x07\x00\x00\x00\x00",
        b"\x01\x00\x02\x00\x00\x00abc", b"\x01\x01\x02\x00\x00\x00abc",
        b"\x01\x02\x02\x00\x00\x00abc", b"\x01\x00\xff\xff\xff\xff",
    ],
)  # fmt: skip
def test_what_is_no_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        columns.decode(data)


def test_a_chunk_that_lies_about_its_count_does_not_fill_the_memory() -> None:
    bomb = columns.encode(to_columns([0] * 100_000, [0] * 100_000, [0.0] * 100_000), ZLIB)
    lying = bomb[:2] + (1).to_bytes(4, "little") + bomb[6:]

    with pytest.raises(InvalidInput, match="instead of 24"):
        columns.decode(lying)


def test_the_last_value_is_that_of_the_greatest_step_and_the_latest_of_equals() -> None:
    summary = columns.summarise(to_columns([5, 9, 9, 1], [0, 1, 2, 3], [1.0, 2.0, 3.0, math.nan]))

    assert (9, 3.0, 1.0, 3.0, 1) == (
        summary.last_step, summary.last, summary.minimum, summary.maximum, summary.not_finite,
    )  # fmt: skip


@pytest.mark.parametrize("most", [1, 2, 5, 50, 1_000])
def test_thinning_keeps_extremes_ends_and_nan_within_the_limit(most: int) -> None:
    values = np.sin(np.arange(10_000) / 50)
    values[1_234], values[5_678], values[777] = 99.0, -99.0, math.nan
    points = columns.Columns(np.arange(10_000), np.arange(10_000), values)

    shown = columns.downsample(points, most)

    assert len(shown.steps) <= most
    assert list(shown.steps) == sorted(shown.steps)
    assert 0 == shown.steps[0]
    if most >= 5:
        assert 9_999 == shown.steps[-1]
        assert {99.0, -99.0} <= set(shown.values)
        assert np.isnan(shown.values).any()


def test_few_points_are_returned_in_step_order_and_whole() -> None:
    shown = columns.downsample(to_columns([3, 1, 2], [0, 1, 2], [3.0, 1.0, 2.0]), 10)

    assert [1, 2, 3] == shown.steps.tolist()
    assert [1.0, 2.0, 3.0] == shown.values.tolist()
