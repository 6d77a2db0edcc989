"""Connections that lend their socket to a thread, for bodies too large for the event loop.

Through the event loop a body comes in pieces of a few kilobytes, each with a turn of the loop, a
copy and a parser's call, and half of the time reading is paused. A thread that reads the socket
itself takes a megabyte at a time, hashes and writes it while the next one arrives in the kernel;
and likewise the other way.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from typing import Any, Final

import httptools
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from everloop.kernel.transit import LOAN, Message, Send, Sink

LOANS: Final = 8
BUFFER_BYTES: Final = 1024 * 1024
LOW_WATER_BYTES: Final = 256 * 1024
STALLED_S: Final = 60.0

_free = threading.BoundedSemaphore(LOANS)


class LendingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the socket of each request to be had under ``everloop.loan``."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        if self.scheme == "http":
            lent: dict[str, Any] = {LOAN: SocketLoan(self)}
            self.scope["extensions"] = lent

    def begin_anew(self) -> None:
        """Forget a request whose body went past the parser; the next one begins where it ended."""
        if self.transport.is_closing():
            return
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)


class SocketLoan:
    """The socket of one request; see ``everloop.kernel.transit.Loan``."""

    __slots__ = ("_protocol", "_scope")

    def __init__(self, protocol: LendingProtocol) -> None:
        self._protocol = protocol
        self._scope = protocol.scope

    @property
    def length(self) -> int | None:
        """Bytes of the body; None when nobody knows before its end."""
        given = [value for name, value in self._scope["headers"] if name == b"content-length"]
        return int(given[0]) if len(given) == 1 and given[0].isdigit() else None

    async def pour(self, sink: Sink) -> bool:
        """Give the whole body to a sink, called in a thread; return False when that can't be done.

        Raises:
            ClientDisconnect: the client went away, or sent nothing for a minute.
            Exception: what the sink raises, after the body's end.
        """
        protocol, cycle, length = self._protocol, self._protocol.cycle, self.length
        is_ours = self._scope is cycle.scope and cycle.more_body and not cycle.disconnected
        if length is None or not is_ours or not _free.acquire(blocking=False):
            return False
        try:
            if cycle.waiting_for_100_continue:
                protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                cycle.waiting_for_100_continue = False
            protocol.flow.pause_reading()
            begun, cycle.body = cycle.body, bytearray()
            with _own_handle(protocol.transport) as lent:
                await _in_a_thread(lent, partial(_pour, lent, begun, length, sink))
        except (ClientDisconnect, asyncio.CancelledError):
            cycle.keep_alive = False  # in the middle of a body nobody knows the place
            raise
        finally:
            _free.release()
            cycle.more_body = False
            protocol.begin_anew()
        return True

    async def give(self, send: Send, start: Message, pieces: Iterator[bytes]) -> bool:
        """Send an answer whose pieces are made in a thread; return False when that can't be done.

        Raises:
            Exception: what the pieces raise; the client finds its file too short.
        """
        protocol, cycle = self._protocol, self._protocol.cycle
        is_ours = self._scope is cycle.scope and self._scope["method"] == "GET"
        if not is_ours or not _free.acquire(blocking=False):
            return False
        try:
            await send(start)
            while protocol.transport.get_write_buffer_size():
                await asyncio.sleep(0)  # the head goes first
            with _own_handle(protocol.transport) as lent:
                await _in_a_thread(lent, partial(_give, lent, pieces))
        except OSError:
            cycle.disconnected = True
            protocol.transport.abort()
            return True
        finally:
            _free.release()
        cycle.expected_content_length = 0
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(LOANS, thread_name_prefix="everloop-loan")


def _own_handle(transport: asyncio.Transport) -> socket.socket:
    """Return the connection under a handle of our own, which outlives the transport's."""
    lent = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    lent.settimeout(STALLED_S)
    return lent


async def _in_a_thread(lent: socket.socket, task: Callable[[], None]) -> None:
    work = asyncio.get_running_loop().run_in_executor(_threads(), task)
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        with suppress(OSError):
            lent.shutdown(socket.SHUT_RDWR)  # wakes the thread
        await asyncio.wait([work])
        raise


def _pour(lent: socket.socket, begun: bytearray, length: int, sink: Sink) -> None:
    buffer = memoryview(bytearray(min(BUFFER_BYTES, length)))
    refused: Exception | None = None
    left = length
    while left:
        piece = memoryview(begun) if begun else buffer[: _fill(lent, buffer[:left])]
        begun = bytearray()
        left -= len(piece)
        try:
            if refused is None:
                sink(piece)
        except Exception as error:  # noqa: BLE001 -- raised when the client can hear of it
            refused = error
    _wake_at(lent, 1)
    if refused is not None:
        raise refused


def _fill(lent: socket.socket, room: memoryview) -> int:
    """Read until there is no more room; return how much that was.

    Raises:
        ClientDisconnect: the client went away, or sent nothing for a minute.
    """
    filled = 0
    while filled < len(room):
        _wake_at(lent, min(LOW_WATER_BYTES, len(room) - filled))
        try:
            came = _receive(lent, room[filled:])
        except OSError as error:
            raise ClientDisconnect from error
        if not came:
            raise ClientDisconnect
        filled += came
    return filled


def _receive(lent: socket.socket, room: memoryview) -> int:
    try:
        return lent.recv_into(room)
    except TimeoutError:
        _wake_at(lent, 1)  # a slow client is no absent one
        return lent.recv_into(room)


def _give(lent: socket.socket, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:  # each call may take its time, other than one for the whole
            view = view[lent.send(view) :]


def _wake_at(lent: socket.socket, size: int) -> None:
    """Let a reader sleep until so many bytes are there; a wake-up for each packet costs more."""
    lent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
