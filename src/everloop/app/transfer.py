"""A file's bytes to a server and back, a megabyte at a time.

The client for everything else cuts bodies into pieces and copies each more than once.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import urlsplit

from blake3 import blake3

from everloop.core.digest import Digest
from everloop.core.errors import EverloopError, InvalidInput, NotFound, Unavailable

PIECE_BYTES: Final = 1024 * 1024
PATIENCE_S: Final = 60.0
HASTE_S: Final = 2.0
JUDGED_AFTER_S: Final = 0.5


class Sent(NamedTuple):
    """What was sent and what the server answered."""

    digest: Digest
    size: int
    status: int
    answer: bytes


def send_file(
    address: str,
    path: Path,
    headers: Mapping[str, str],
    *,
    least_rate: float = 0.0,
    moved: Callable[[int], object] = int,
) -> Sent:
    """Send a file's bytes as the body of a POST.

    Args:
        address: Where to.
        path: The file.
        headers: What the request says beside its length.
        least_rate: Bytes a second; give up when it goes slower, or nothing moves for two seconds.
        moved: Hears of each piece how many bytes it had.

    Raises:
        NotFound: ``file.not_found``.
        InvalidInput: ``file.changed`` when it became shorter while it was read.
        Unavailable: ``server.unreachable`` or ``blob.too_slow``.
    """
    patience = HASTE_S if least_rate else PATIENCE_S
    with _opened(path) as file, _connected(address, patience) as connection:
        body = partial(_send_body, connection, file, least_rate=least_rate, moved=moved)
        return _send(connection, urlsplit(address).path, file, headers, body)


def fetch(address: str, headers: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the body that is at an address, in pieces.

    Raises:
        Refused: the server answers with an error.
        Unavailable: ``server.unreachable``, also when the body ends too early.
    """
    with _connected(address, PATIENCE_S) as connection:
        connection.request("GET", urlsplit(address).path, headers=dict(headers))
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            raise Refused(response.status, response.read())
        left = response.length
        while piece := response.read(PIECE_BYTES):
            left = None if left is None else left - len(piece)
            yield piece
        if left:
            raise http.client.IncompleteRead(b"", left)


class Refused(Exception):
    """The server answers with an error, which the caller knows how to read."""

    def __init__(self, status: int, answer: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.answer = answer


@contextmanager
def _connected(address: str, patience_s: float) -> Iterator[http.client.HTTPConnection]:
    parts = urlsplit(address)
    is_safe = parts.scheme == "https"
    kind = http.client.HTTPSConnection if is_safe else http.client.HTTPConnection
    with closing(kind(parts.netloc, timeout=patience_s)) as connection:
        try:
            yield connection
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, EverloopError):
                raise
            raise Unavailable(
                "server.unreachable",
                f"The server at {parts.netloc} does not answer: {error}.",
                hint="Start it with `everloop up`, or check the address in EVERLOOP_URL.",
            ) from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise NotFound(
            "file.not_found",
            f"The file {path.name} can't be read: {error.strerror}.",
            hint="Check its name and its rights.",
        ) from error


def _send(
    connection: http.client.HTTPConnection,
    path: str,
    file: BinaryIO,
    headers: Mapping[str, str],
    send_body: Callable[[int], Digest],
) -> Sent:
    size = os.fstat(file.fileno()).st_size
    connection.putrequest("POST", path)
    for name, value in {**headers, "content-length": str(size)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        digest = send_body(size)
    except (BrokenPipeError, ConnectionResetError):
        digest = Digest("")  # a server that refuses may answer before it has read all
    connection.sock.settimeout(PATIENCE_S)  # it answers when the bytes are on its disk
    response = connection.getresponse()
    return Sent(digest, size, response.status, response.read())


def _send_body(
    connection: http.client.HTTPConnection,
    file: BinaryIO,
    size: int,
    *,
    least_rate: float,
    moved: Callable[[int], object],
) -> Digest:
    buffer = memoryview(bytearray(min(PIECE_BYTES, size)))
    hasher, left, begun = blake3(), size, time.monotonic()
    while left:
        read = file.readinto(buffer[:left])  # type: ignore[attr-defined]
        if not read:
            raise InvalidInput(
                "file.changed",
                "The file became shorter while it was read.",
                hint="Keep files as they are until they are stored.",
            )
        hasher.update(buffer[:read])
        connection.sock.sendall(buffer[:read])
        left -= read
        moved(read)
        spent = time.monotonic() - begun
        if spent > JUDGED_AFTER_S and (size - left) / spent < least_rate:
            raise Unavailable(
                "blob.too_slow",
                f"The server takes less than {least_rate / 1e6:.0f} MB a second.",
                hint="Nothing is to be done: the file is shipped in the background.",
            )
    return Digest("blake3:" + hasher.hexdigest())
