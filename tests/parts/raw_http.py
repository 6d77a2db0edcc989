"""An HTTP client that can be as wrong as a test wants: bytes out, parsed answers back.

It is strict about what comes back: an answer must be framed by exactly one Content-Length, or have
no body; anything that a proxy could read in two ways fails the test.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

LIMIT_BYTES = 64 * 1024 * 1024


class Answer(NamedTuple):
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of our error body."""
        found: str = json.loads(self.body)["error"]["code"]
        return found


class RawLink:
    """One connection."""

    def __init__(self, host: str, port: int, *, timeout_s: float = 15.0) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Send; return False when the server has closed the connection meanwhile."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def end(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):  # the server may have closed the connection meanwhile
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def abort(self) -> None:
        """Break the connection off with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def read(self, *, is_head: bool = False) -> Answer | None:
        """Return the next answer; None when the connection is closed without one."""
        while b"\r\n\r\n" not in self._data:
            if not self._receive():
                assert not self._data, f"half an answer: {self._data[:200]!r}"
                return None
        head, _, rest = self._data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = [*first.split(" ", 2), ""][:3]
        assert version in {"HTTP/1.1", "HTTP/1.0"}, first
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon, f"a header without a colon: {line!r}"
            assert name.lower() not in headers, f"twice: {line!r}"
            headers[name.lower()] = value.strip()
        assert "transfer-encoding" not in headers
        length = int(headers.get("content-length", "0"))
        if is_head or status in {"100", "204", "304"}:
            length = 0
        while len(rest) < length:
            if not self._receive():
                raise AssertionError(f"an answer cut off: {self._data[:300]!r}")
            rest = self._data.partition(b"\r\n\r\n")[2]
        self._data = rest[length:]
        return Answer(int(status), headers, rest[:length])

    def read_all(self) -> list[Answer]:
        """Return the answers up to the server's closing the connection."""
        found = []
        while (answer := self.read()) is not None:
            found.append(answer)
        return found

    def has_answer(self, within_s: float = 0.0) -> bool:
        """Tell whether something has come from the server, or comes in time."""
        found, _, _ = select.select([self._socket], [], [], within_s)
        return bool(found or self._data)

    def is_closed(self) -> bool:
        """Tell whether the server closes the connection, with nothing more said."""
        return self.read() is None

    def _receive(self) -> bool:
        assert len(self._data) < LIMIT_BYTES
        try:
            data = self._socket.recv(262_144)
        except ConnectionResetError:
            return False
        self._data += data
        return bool(data)


def request(
    method: str = "POST",
    path: str = "/v1/predict",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    host: str | None = "x",
    version: str = "1.1",
) -> bytes:
    """Return a request as bytes, with a Content-Length when there is a body."""
    lines = [f"{method} {path} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def chunked(*parts: bytes) -> bytes:
    """Return a body in chunks, with its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
