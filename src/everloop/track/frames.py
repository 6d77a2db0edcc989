"""What stands in a spool: typed frames, each behind its length and a CRC-32.

The bytes of a frame are ``length (u32) | crc32 (u32) | payload``; the checksum covers length and
payload, so that a torn or overwritten tail is seen whatever it looks like. Payloads are
MessagePack, which keeps 64-bit floats bit by bit.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from everloop.core.clock import Instant
from everloop.track.model import RunStatus

MAGIC: Final = b"everloop-spool-2\n"
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
_HEAD: Final = struct.Struct("<II")


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """The first frame: what the run is; ``environment`` is canonical JSON, or empty."""

    project: str
    run: str
    experiment: str
    name: str
    parent: str | None
    pipeline: str | None
    params: dict[str, str]
    tags: dict[str, str]
    started_at: Instant
    environment: bytes
    code_commit: str | None


class Resumed(msgspec.Struct, frozen=True, kw_only=True, tag="resume"):
    """The first frame of a further spool: which run it takes up again; ``spool`` is its own id."""

    project: str
    run: str
    spool: str


class Surroundings(msgspec.Struct, frozen=True, kw_only=True, tag="environment"):
    """The environment, captured while the run was under way; canonical JSON."""

    environment: bytes
    code_commit: str | None


class Named(msgspec.Struct, frozen=True, kw_only=True, tag="metric"):
    """The name of a metric, before its first point stands in the ring beside the spool."""

    place: int
    key: str


class Points(msgspec.Struct, frozen=True, kw_only=True, tag="points"):
    """Points in the order in which they were logged.

    Attributes:
        keys: Names of their metrics, by the numbers that the records use.
        data: The records, in the format of ``everloop.track.ring``.
        upto: How many points of the process's ring stand in the spool with these; None for points
            that were never in it.
    """

    keys: dict[int, str]
    data: bytes
    upto: int | None


class Described(msgspec.Struct, frozen=True, kw_only=True, tag="texts"):
    """Parameters and tags."""

    params: dict[str, str]
    tags: dict[str, str]


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """An artifact; a large one's bytes wait in the spool folder under their digest."""

    path: str
    digest: str
    size_bytes: int
    data: bytes | None = None


class Read(msgspec.Struct, frozen=True, kw_only=True, tag="read"):
    """A dataset version that the run read."""

    dataset_version: str


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """The last frame; ``ended_at`` None means when the server hears of it."""

    status: RunStatus
    error: str | None
    ended_at: Instant | None


Frame: TypeAlias = (
    Started | Resumed | Surroundings | Named | Points | Described | Kept | Read | Ended
)

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    """Return the frame as it stands in the file."""
    payload = _ENCODER.encode(frame)
    size = len(payload)
    checksum = zlib.crc32(payload, zlib.crc32(size.to_bytes(4, "little")))
    return _HEAD.pack(size, checksum) + payload


def decode_frames(data: bytes) -> Iterator[tuple[Frame, int]]:
    """Yield each whole and sound frame with the offset behind it; stop before the first other."""
    offset = 0
    while offset + _HEAD.size <= len(data):
        size, checksum = _HEAD.unpack_from(data, offset)
        start, end = offset + _HEAD.size, offset + _HEAD.size + size
        if size > MAX_FRAME_BYTES or end > len(data):
            return
        payload = data[start:end]
        if zlib.crc32(payload, zlib.crc32(size.to_bytes(4, "little"))) != checksum:
            return
        try:
            frame = _DECODER.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        offset = end
        yield frame, offset
