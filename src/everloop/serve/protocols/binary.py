"""The binary tensor data extension: tensors as bytes behind the JSON, little-endian, row-major.

Both ways without copies: an input is a view of the body that came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

import numpy as np

from everloop.core.errors import InvalidInput
from everloop.core.wire import Scalar
from everloop.serve.exchange import JSON, Headers, Reply
from everloop.serve.protocols.datatypes import BYTES, HINT, NUMBERS
from everloop.serve.protocols.tensors import Tensor, require_size, size_of

LENGTH_HEADER: Final = b"inference-header-content-length"
OCTETS: Final = b"application/octet-stream"


def split(headers: Headers, body: bytes) -> tuple[bytes | memoryview, memoryview]:
    """Return the JSON of a body, and the bytes behind it.

    Raises:
        InvalidInput: ``request.invalid`` for a length that the body does not have.
    """
    told = headers.get(LENGTH_HEADER)
    whole = memoryview(body)
    if told is None:
        return body, whole[:0]
    text = told.strip()
    if not text.isdigit() or len(text) > 12 or int(text) > len(body):
        _wrong(
            f"Inference-Header-Content-Length is {text[:30].decode('latin-1')!r}; "
            f"the body has {len(body)} bytes"
        )
    return whole[: int(text)], whole[int(text) :]


def to_tensor(name: str, datatype: str, shape: Sequence[int], raw: memoryview | bytes) -> Tensor:
    """Return a tensor over its bytes.

    Raises:
        InvalidInput: ``request.invalid`` for another number of bytes than the shape has.
    """
    if datatype == BYTES:
        texts = _to_texts(name, memoryview(raw), size_of(shape))
        return Tensor(name, datatype, tuple(shape), texts)
    kind = NUMBERS[datatype]
    if len(raw) != size_of(shape) * kind.itemsize:
        _wrong(
            f"The tensor {name[:60]!r} of {datatype} {list(shape)[:8]} takes "
            f"{size_of(shape) * kind.itemsize} bytes; {len(raw)} came"
        )
    if datatype == "BOOL":
        # Any byte that is not 0 is true; NumPy must not see another one as a bool.
        return Tensor(name, datatype, tuple(shape), np.frombuffer(raw, np.uint8) != 0)
    return Tensor(name, datatype, tuple(shape), np.frombuffer(raw, kind))


def _to_texts(name: str, raw: memoryview, count: int) -> list[Scalar]:
    """Read elements that each say their length first."""
    found: list[Scalar] = []
    place = 0
    while place < len(raw) and len(found) <= count:
        size = int.from_bytes(raw[place : place + 4], "little")
        place += 4
        if place + size > len(raw):
            _wrong(f"The texts of {name[:60]!r} end in the middle of one")
        try:
            found.append(str(raw[place : place + size], "utf-8"))
        except UnicodeDecodeError:
            _wrong(f"Element {len(found)} of {name[:60]!r} is not UTF-8")
        place += size
    require_size(name, (count,), len(found))
    return found


def join(head: bytes, blobs: Sequence[bytes], headers: tuple[tuple[bytes, bytes], ...]) -> Reply:
    """Return a reply of JSON and the bytes behind it."""
    if not blobs:
        return Reply(200, head, JSON, headers)
    length = (LENGTH_HEADER, str(len(head)).encode())
    return Reply(200, b"".join((head, *blobs)), OCTETS, (*headers, length))


def _wrong(problem: str) -> NoReturn:
    raise InvalidInput("request.invalid", f"{problem}.", hint=HINT)
