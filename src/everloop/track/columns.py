"""Metric points as compressed columns: the chunk format, summaries and down-sampling.

A chunk describes itself: one version byte, one compression byte, the count, then the steps and
times as differences and the values as raw IEEE 754 bits, so that NaN and infinities come back
exactly. Columns are stored byte-plane by byte-plane, which compresses far better than row order.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from everloop.core.errors import InvalidInput
from everloop.track.limits import MAX_POINTS_A_BATCH

VERSION: Final = 1
RAW: Final = 0
ZLIB: Final = 1
ZSTD: Final = 2
_HEAD: Final = struct.Struct("<BBI")
_BYTES_A_POINT: Final = 24
_OUTLINE_HEAD: Final = struct.Struct("<I")
OUTLINED_POINTS: Final = 128

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Columns(NamedTuple):
    """Points of one metric in the order in which they were logged.

    Attributes:
        steps: Step numbers.
        times_us: Microseconds since 1970 in UTC.
        values: Values, NaN and infinities included.
    """

    steps: Ints
    times_us: Ints
    values: Floats


class Summary(NamedTuple):
    """What a chunk adds to the summary of its metric."""

    points: int
    last_step: int
    last: float
    last_time_us: int
    minimum: float | None
    maximum: float | None
    not_finite: int


def to_columns(steps: Sequence[int], times_us: Sequence[int], values: Sequence[float]) -> Columns:
    """Build columns from Python numbers."""
    return Columns(
        np.array(steps, dtype=np.int64),
        np.array(times_us, dtype=np.int64),
        np.array(values, dtype=np.float64),
    )


def join(parts: Sequence[Columns]) -> Columns:
    """Append columns to each other."""
    if not parts:
        return to_columns((), (), ())
    if len(parts) == 1:
        return parts[0]
    return Columns(
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.times_us for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def encode(columns: Columns, compression: int = ZSTD) -> bytes:
    """Return the chunk; falls back to no compression where that is smaller."""
    body = b"".join(
        _planes(column)
        for column in (
            _differences(columns.steps),
            _differences(columns.times_us),
            columns.values.view(np.int64),
        )
    )
    packed = _compress(body, compression)
    if len(packed) >= len(body):
        compression, packed = RAW, body
    return _HEAD.pack(VERSION, compression, len(columns.steps)) + packed


def decode(data: bytes, *, most: int = MAX_POINTS_A_BATCH) -> Columns:
    """Read a chunk.

    Raises:
        InvalidInput: ``metric.chunk_invalid`` when it is no chunk or holds more than ``most``.
    """
    if len(data) < _HEAD.size:
        raise _invalid("it is shorter than its head")
    version, compression, count = _HEAD.unpack_from(data)
    if version != VERSION or compression not in {RAW, ZLIB, ZSTD}:
        raise _invalid(f"version {version} with compression {compression} is unknown")
    if count > most:
        raise _invalid(f"{count} points are more than {most}")
    body = _decompress(data[_HEAD.size :], compression, count * _BYTES_A_POINT)
    planes = np.frombuffer(body, dtype=np.uint8).reshape(3, 8, count)
    steps, times, values = (
        np.ascontiguousarray(plane.T).view(np.int64).reshape(count) for plane in planes
    )
    return Columns(np.cumsum(steps), np.cumsum(times), values.view(np.float64))


def summarise(columns: Columns) -> Summary:
    """Return count, last value, extremes of the finite values and how many are not.

    Last is the point of the greatest step; of several, that of the latest time; then the last one.
    """
    at_end = np.flatnonzero(columns.steps == columns.steps.max())
    times = columns.times_us[at_end]
    last = int(at_end[len(times) - 1 - int(np.argmax(times[::-1]))])
    finite = columns.values[np.isfinite(columns.values)]
    return Summary(
        points=len(columns.steps),
        last_step=int(columns.steps[last]),
        last=float(columns.values[last]),
        last_time_us=int(columns.times_us[last]),
        minimum=float(finite.min()) if finite.size else None,
        maximum=float(finite.max()) if finite.size else None,
        not_finite=len(columns.values) - int(finite.size),
    )


def downsample(columns: Columns, max_points: int) -> Columns:
    """Return at most ``max_points`` of the points, in step order, keeping what a plot must show.

    Each bucket of neighbours keeps its least and its greatest value and its first NaN; the first
    and the last point always stay (M4 without its corner points: Jugel et al., VLDB 2014).
    """
    columns = in_step_order(columns)
    count = len(columns.steps)
    if count <= max_points:
        return columns
    buckets = max((max_points - 2) // 3, 1)
    starts = np.linspace(0, count, buckets + 1).astype(np.int64)[:-1]
    chosen = _salient(columns.values, np.unique(starts))[: max(max_points, 1)]
    return Columns(columns.steps[chosen], columns.times_us[chosen], columns.values[chosen])


def in_step_order(columns: Columns) -> Columns:
    """Return the points by step; those of one step as they were logged."""
    if bool((columns.steps[1:] >= columns.steps[:-1]).all()):
        return columns
    order = np.argsort(columns.steps, kind="stable")
    return Columns(columns.steps[order], columns.times_us[order], columns.values[order])


def outline(columns: Columns) -> bytes:
    """Return what a plot of very many points shows of these: see ``read_outlines``."""
    starts = np.arange(0, len(columns.steps), OUTLINED_POINTS)
    chosen = _salient(columns.values, starts)
    times = columns.times_us[chosen].astype("<i8").tobytes()
    values = columns.values[chosen].astype("<f8").tobytes()
    parts = (columns.steps[chosen].astype("<i8").tobytes(), times, values)
    return b"".join((_OUTLINE_HEAD.pack(len(chosen)), *parts))


def read_outlines(outlines: Sequence[bytes]) -> Columns:
    """Return the points of outlines: of each ``OUTLINED_POINTS`` neighbours the extremes."""
    parts = []
    for data in outlines:
        (count,) = _OUTLINE_HEAD.unpack_from(data)
        found = np.frombuffer(data, dtype="<i8", count=3 * count, offset=_OUTLINE_HEAD.size)
        steps, times, values = found.reshape(3, count)
        parts.append(Columns(steps, times, values.view(np.float64)))
    return join(parts)


def _salient(values: Floats, starts: Ints) -> Ints:
    """Return where each bucket has its least, greatest and first NaN, and both ends of all."""
    count = len(values)
    nan = np.isnan(values)
    sizes = np.diff(starts, append=count)
    kept = [np.array([0, count - 1], dtype=np.int64)]
    with_gaps = bool(nan.any())
    for reduce, filler in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        filled = np.where(nan, filler, values) if with_gaps else values
        level = np.repeat(reduce.reduceat(filled, starts), sizes)
        kept.append(_first_of_each((filled == level) & ~nan, starts))
    if with_gaps:
        kept.append(_first_of_each(nan, starts))
    found: Ints = np.unique(np.concatenate(kept))
    return found


def _first_of_each(marked: npt.NDArray[np.bool_], starts: Ints) -> Ints:
    """Return the first marked place of each bucket that has one."""
    places = np.flatnonzero(marked)
    buckets = np.searchsorted(starts, places, side="right")
    return places[np.flatnonzero(np.diff(buckets, prepend=0))]


def _differences(column: Ints) -> Ints:
    # Wraps around for extreme steps; the cumulative sum wraps back to the same numbers.
    return np.concatenate([column[:1], column[1:] - column[:-1]])


def _planes(column: Ints) -> bytes:
    count = len(column)
    return np.ascontiguousarray(column).view(np.uint8).reshape(count, 8).T.tobytes()


def _compress(body: bytes, compression: int) -> bytes:
    if compression == ZLIB:
        return zlib.compress(body, 1)
    if compression == ZSTD:
        import pyarrow as pa

        packed: bytes = pa.Codec("zstd").compress(body, asbytes=True)
        return packed
    return body


def _decompress(packed: bytes, compression: int, size: int) -> bytes:
    try:
        body = _unpack(packed, compression, size)
    except (zlib.error, OSError, ValueError) as error:
        raise _invalid(f"it cannot be decompressed: {error}") from error
    if len(body) != size:
        raise _invalid(f"it has {len(body)} bytes instead of {size}")
    return body


def _unpack(packed: bytes, compression: int, size: int) -> bytes:
    if compression == ZLIB:
        # One byte more than announced is enough to see that a chunk lies about its size.
        return zlib.decompressobj().decompress(packed, size + 1)
    if compression == ZSTD and size:
        import pyarrow as pa

        body: bytes = pa.Codec("zstd").decompress(packed, decompressed_size=size, asbytes=True)
        return body
    return packed


def _invalid(reason: str) -> InvalidInput:
    return InvalidInput(
        "metric.chunk_invalid",
        f"A metric chunk cannot be read: {reason}.",
        hint="Log through everloop's client, which writes chunks of the current format.",
    )
