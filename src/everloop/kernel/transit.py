"""Bytes that come in over a connection, hashed and written while they arrive, and go out again.

What carries the request may lend its socket, so that the bytes of a large body pass between it
and the disk without a stop at the event loop; what that looks like is said here, and made
elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from typing import Any, Final, Protocol, cast

from everloop.core.digest import Digest, content_digest, require_digest
from everloop.core.errors import LimitExceeded
from everloop.core.ports import BlobStore, Incoming

LOAN: Final = "everloop.loan"
MAX_BLOB_BYTES: Final = 64 * 1024**3
WHOLE_BYTES: Final = 64 * 1024
WRITE_BYTES: Final = 1024 * 1024
Sink = Callable[[memoryview], None]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Loan(Protocol):
    """The socket of one request, to be had for its body and for that of the answer."""

    @property
    def length(self) -> int | None:
        """Bytes of the body; None when nobody knows before its end."""
        ...

    async def pour(self, sink: Sink) -> bool:
        """Give the whole body to a sink, called in a thread; return False when that can't be done.

        Nothing of the body was read then. An error of the sink is raised after the body's end.

        Raises:
            Exception: what the sink raises, or what says that the client went away.
        """
        ...

    async def give(self, send: Send, start: Message, pieces: Iterator[bytes]) -> bool:
        """Send an answer whose pieces are made in a thread; return False when that can't be done.

        Nothing was sent then. ``start`` must say the length. A client that goes away ends it.

        Raises:
            Exception: what the pieces raise; the client finds its file too short.
        """
        ...


def loan_of(scope: Mapping[str, object]) -> Loan | None:
    """Return what a request's connection lends, if it does."""
    extensions = cast("Mapping[str, object]", scope.get("extensions") or {})
    return cast("Loan | None", extensions.get(LOAN))


async def send_lent(
    scope: Mapping[str, object],
    send: Send,
    headers: Sequence[tuple[bytes, bytes]],
    pieces: Iterator[bytes],
) -> bool:
    """Send a whole answer past the event loop; False, with nothing sent, where none is lent."""
    loan = loan_of(scope)
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    return loan is not None and await loan.give(send, start, pieces)


async def take_in(
    blobs: BlobStore,
    pieces: AsyncIterator[bytes],
    *,
    loan: Loan | None = None,
    expected: Digest | None = None,
) -> tuple[Digest, int]:
    """Store bytes as they come in; return their digest and size. Bytes cut short leave nothing.

    Args:
        blobs: Where they go.
        pieces: The bytes.
        loan: Another way to the same bytes.
        expected: The digest that they must have.

    Raises:
        LimitExceeded: ``blob.too_large``.
        InvalidInput: ``blob.wrong_digest``.
        Unavailable: ``store.full`` or ``blob.unavailable``.
    """
    length = None if loan is None else loan.length
    if length is not None and length > MAX_BLOB_BYTES:
        raise too_large()
    if length is not None and length <= WHOLE_BYTES:
        data = b"".join([piece async for piece in pieces])
        return await asyncio.to_thread(_put_whole, blobs, data, expected), len(data)
    with blobs.incoming() as incoming:
        if loan is not None and length is not None and await loan.pour(incoming.write):
            size = length
        else:
            size = await _write_along(incoming, pieces)
        return await asyncio.to_thread(incoming.keep, expected), size


def too_large() -> LimitExceeded:
    """Return the refusal of more bytes than one blob may have."""
    return LimitExceeded(
        "blob.too_large", f"More than {MAX_BLOB_BYTES:,} bytes.", hint="Split the file."
    )


def _put_whole(blobs: BlobStore, data: bytes, expected: Digest | None) -> Digest:
    if expected is not None:
        require_digest(content_digest(data), expected)
    return blobs.put(data)


async def _write_along(incoming: Incoming, pieces: AsyncIterator[bytes]) -> int:
    """Write pieces: a thread writes one while the next one comes."""
    loop, size, waiting = asyncio.get_running_loop(), 0, bytearray()
    writing: asyncio.Future[None] = loop.create_future()
    writing.set_result(None)
    try:
        async for piece in pieces:
            size += len(piece)
            if size > MAX_BLOB_BYTES:
                raise too_large()
            waiting += piece
            if len(waiting) >= WRITE_BYTES:
                await writing
                writing = loop.run_in_executor(None, incoming.write, waiting)
                waiting = bytearray()
    finally:
        await writing  # the thread must not write into a file that is closed
    incoming.write(waiting)
    return size
