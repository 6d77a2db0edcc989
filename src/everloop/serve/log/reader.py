"""Reads the prediction log, while it is written and after."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from everloop.core.clock import Instant
from everloop.core.errors import IntegrityError
from everloop.core.ids import Id
from everloop.core.wire import PredictionRow, Scalar, Status
from everloop.serve.log.block import STATUS_CODES
from everloop.serve.log.file import Frame, read_frame, read_frames
from everloop.serve.log.frames import (
    BLOCK,
    GAP,
    SHADOW,
    SOURCE,
    WrittenBlock,
    WrittenFeedback,
    WrittenGap,
    WrittenShadow,
    WrittenSource,
)

READ_BYTES: Final = 8 * 1024 * 1024
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STATUSES: Final = {code: status for status, code in STATUS_CODES.items()}
_DOUBLE: Final = "<f8"
_FLOATS: Final = frozenset(["float64"])
_SOURCE: Final = msgspec.msgpack.Decoder(WrittenSource)
_BLOCK: Final = msgspec.msgpack.Decoder(WrittenBlock)
_SHADOW: Final = msgspec.msgpack.Decoder(WrittenShadow)
_FEEDBACK: Final = msgspec.msgpack.Decoder(WrittenFeedback)
_GAP: Final = msgspec.msgpack.Decoder(WrittenGap)


class ReadBlock(NamedTuple):
    """A block as it was written, with its source and what its shadow answered."""

    source: WrittenSource
    block: WrittenBlock
    shadow: WrittenShadow | None


class Blocks(NamedTuple):
    """Blocks read from one file, and where to go on.

    Attributes:
        next_offset: Where the next read of this file begins.
        is_finished: Whether the file will never have more and all of it was read.
        dropped: Rows that the writer had no space for, told between these blocks.
        lost_bytes: Bytes at the end of the file that a power cut took.
    """

    items: list[ReadBlock]
    next_offset: int
    is_finished: bool
    dropped: int
    lost_bytes: int


class FeedbackChunk(NamedTuple):
    """Labels read from one file, and where to go on; ``is_finished`` as in ``Blocks``."""

    items: list[WrittenFeedback]
    next_offset: int
    is_finished: bool


def read_feedback(
    path: Path, offset: int = 0, *, until: int | None = None, limit_bytes: int = READ_BYTES
) -> FeedbackChunk:
    """Read the labels of whole requests from ``offset`` on, no further than to ``until``.

    Raises:
        IntegrityError: ``prediction_log.corrupt``.
        OSError: the file cannot be read.
    """
    stretch = read_frames(path, offset, limit_bytes=limit_bytes)
    frames = [frame for frame in stretch.frames if until is None or frame.end <= until]
    try:
        items = [_FEEDBACK.decode(frame.payload) for frame in frames]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    end = frames[-1].end if frames else offset
    is_all = len(frames) == len(stretch.frames) and stretch.is_whole
    return FeedbackChunk(items, end, is_all and stretch.is_final)


class Chunk(NamedTuple):
    """Rows read from one file; the rest as in ``Blocks``."""

    rows: list[PredictionRow]
    next_offset: int
    is_finished: bool
    dropped: int = 0
    lost_bytes: int = 0


def read_rows(folder: Path, name: str, offset: int = 0, *, limit_bytes: int = READ_BYTES) -> Chunk:
    """Read rows from ``offset`` on, joined with what their shadows answered.

    Raises:
        IntegrityError: ``prediction_log.corrupt``.
        OSError: the file cannot be read.
    """
    found = read_blocks(folder / name, offset, limit_bytes=limit_bytes)
    rows = [row for item in found.items for row in rows_of_block(item)]
    return Chunk(rows, found.next_offset, found.is_finished, found.dropped, found.lost_bytes)


def read_blocks(path: Path, offset: int = 0, *, limit_bytes: int = READ_BYTES) -> Blocks:
    """Read whole blocks from ``offset`` on, joined with what their shadows answered.

    A block whose shadow has not answered yet is held back, with all after it, as long as the
    answer can still come: until a later block's shadow has answered, or the writer has gone. So
    each block is read once and its shadow is not missed.

    Raises:
        IntegrityError: ``prediction_log.corrupt``.
        OSError: the file cannot be read.
    """
    while True:
        stretch = read_frames(path, offset, limit_bytes=limit_bytes)
        is_all = stretch.is_whole and stretch.is_final
        parsed = _parse(path, stretch.frames)
        kept = len(parsed.blocks) if is_all else _settled(parsed)
        if kept or stretch.is_whole or not parsed.blocks:
            break
        limit_bytes *= 2  # what the first block waits for lies further on
    items = [
        ReadBlock(parsed.sources[block.source], block, parsed.shadows.get(block.first))
        for block, _ in parsed.blocks[:kept]
    ]
    next_offset = _behind(stretch.frames, parsed, kept, offset)
    is_finished = is_all and kept == len(parsed.blocks)
    dropped = sum(gap for gap, end in parsed.gaps if end <= next_offset)
    return Blocks(
        items, next_offset, is_finished, dropped, stretch.lost_bytes if is_finished else 0
    )


def rows_of_block(item: ReadBlock) -> Iterator[PredictionRow]:
    """Yield the rows of a block."""
    source, block, shadow = item
    first = int.from_bytes(block.first, "big")
    at = logged_at = _instant(block.at_us)
    if block.logged_us != block.at_us:
        logged_at = _instant(block.logged_us)
    answers = _answers(block.outputs, block.rows)
    inputs = inputs_of_block(source, block)
    for place in range(block.rows):
        row = PredictionRow(
            id=id_of(first + place),
            at=at,
            logged_at=logged_at,
            version=source.version,
            arm=source.arm,
            share=source.share,
            status=Status.OK,
            latency_us=block.latency_us,
            inputs={} if inputs is None else dict(zip(source.names, inputs[place], strict=True)),
            output=answers.one(place),
            outputs=answers.many(place),
            epoch=source.epoch,
            unit=block.unit,
            key=block.keys[place] if place < len(block.keys) else None,
            request=block.request,
            shadow_version=source.shadow_version if block.has_shadow else None,
        )
        if block.statuses is not None or shadow is not None or block.fallback is not None:
            row = _completed(row, item, place)
        yield row


def _completed(row: PredictionRow, item: ReadBlock, place: int) -> PredictionRow:
    """Return a row with its own status, who answered instead, and what the shadow answered."""
    source, block, shadow = item
    changes: dict[str, object] = {"status": _status(block.statuses, place)}
    is_constant = source.fallback_version is None  # a kill switch's: no version was asked at all
    if block.fallback is not None and (is_constant or changes["status"] is not Status.OK):
        spare = _answers(block.fallback, block.rows)
        changes["fallback_version"] = source.fallback_version
        changes["fallback_output"] = spare.one(place)
        changes["fallback_outputs"] = spare.many(place)
    if shadow is not None and shadow.outputs:
        seen = _answers(shadow.outputs, block.rows)
        changes["shadow_status"] = _status(shadow.statuses, place)
        changes["shadow_output"] = seen.one(place)
        changes["shadow_outputs"] = seen.many(place)
    return msgspec.structs.replace(row, **changes)


def id_of(number: int) -> Id:
    """Return the text of an id."""
    text = f"{number:032x}"
    return Id(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


class _Answers(NamedTuple):
    """Numbers that were answered, so many a row; what is not finite is None."""

    flat: Sequence[float | None]
    width: int

    def one(self, place: int) -> float | None:
        return self.flat[place] if self.width == 1 else None

    def many(self, place: int) -> tuple[float | None, ...] | None:
        if self.width == 1:
            return None
        return tuple(self.flat[place * self.width : (place + 1) * self.width])


def _answers(data: Sequence[float | None] | bytes, rows: int) -> _Answers:
    flat = array("d", data).tolist() if isinstance(data, bytes) else data
    clean = [one if one is not None and math.isfinite(one) else None for one in flat]
    return _Answers(clean, len(clean) // rows)


def inputs_of_block(
    source: WrittenSource, block: WrittenBlock
) -> Sequence[Sequence[Scalar]] | None:
    """Return the inputs row by row as the signature types them; None when they were not kept."""
    values = block.values
    if values is None or not isinstance(values, bytes):
        return values
    if not values:
        return [()] * block.rows
    if block.dtype == _DOUBLE and _FLOATS.issuperset(source.dtypes):
        # Nearly all requests; without numpy, whose calls cost more than so few numbers.
        numbers = array("d", values).tolist()
        if math.isfinite(sum(numbers)):
            width = len(numbers) // block.rows
            return [numbers[at : at + width] for at in range(0, len(numbers), width)]
    flat = np.frombuffer(values, np.dtype(block.dtype))
    matrix = flat.reshape(block.rows, -1)
    is_plain = flat.dtype.kind != "f" or (
        _FLOATS.issuperset(source.dtypes) and math.isfinite(flat.sum())
    )
    if is_plain:
        return matrix.tolist()
    kinds = source.dtypes or ("float64",) * matrix.shape[1]
    columns = [_column(column, kind) for column, kind in zip(matrix.T, kinds, strict=True)]
    return list(zip(*columns, strict=True))


def _column(column: np.ndarray[tuple[int], np.dtype[np.generic]], kind: str) -> list[Scalar]:
    found: list[float] = column.astype(np.float64).tolist()
    if kind == "int64":
        return [int(one) if math.isfinite(one) else None for one in found]
    if kind == "bool":
        return [bool(one) if math.isfinite(one) else None for one in found]
    return [one if math.isfinite(one) else None for one in found]


class _Parsed(NamedTuple):
    sources: dict[int, WrittenSource]
    blocks: list[tuple[WrittenBlock, int]]
    shadows: dict[bytes, WrittenShadow]
    gaps: list[tuple[int, int]]


def _parse(path: Path, frames: Sequence[Frame]) -> _Parsed:
    parsed = _Parsed({}, [], {}, [])
    try:
        for kind, payload, start, end in frames:
            if kind == BLOCK:
                block = _BLOCK.decode(payload)
                if block.source not in parsed.sources:
                    definition = read_frame(path, block.source)
                    parsed.sources[block.source] = _SOURCE.decode(definition.payload)
                parsed.blocks.append((block, end))
            elif kind == SHADOW:
                shadow = _SHADOW.decode(payload)
                parsed.shadows[shadow.first] = shadow
            elif kind == SOURCE:
                parsed.sources[start] = _SOURCE.decode(payload)
            elif kind == GAP:
                parsed.gaps.append((_GAP.decode(payload).dropped, end))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    return parsed


def _unreadable(path: Path, error: Exception) -> IntegrityError:
    return IntegrityError(
        "prediction_log.corrupt",
        f"A frame of {path.name} cannot be read: {error}.",
        hint="Keep the file for inspection; somebody or something else wrote into it.",
    )


def _settled(parsed: _Parsed) -> int:
    """Return how many blocks from the start have all they will ever have."""
    # Shadows answer in the order of the blocks: one answer settles all blocks before it.
    places = (at for at, (block, _) in enumerate(parsed.blocks) if block.first in parsed.shadows)
    answered = max(places, default=-1)
    for place, (block, _) in enumerate(parsed.blocks):
        if place > answered and block.has_shadow:
            return place
    return len(parsed.blocks)


def _behind(frames: Sequence[Frame], parsed: _Parsed, kept: int, offset: int) -> int:
    if kept == len(parsed.blocks):
        return frames[-1].end if frames else offset
    return parsed.blocks[kept - 1][1] if kept else offset


def _instant(microseconds: int) -> Instant:
    return _EPOCH + timedelta(microseconds=microseconds)


def _status(codes: bytes | None, place: int) -> Status:
    return Status.OK if codes is None else _STATUSES[codes[place]]
