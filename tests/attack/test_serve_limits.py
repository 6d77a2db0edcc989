"""Callers that hold what they take: the limits of the serving process's HTTP, before a toy."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvloop

from everloop.serve.exchange import Answer, Reply, Request
from everloop.serve.http import Listener
from everloop.serve.limits import Limits
from tests.parts.raw_http import RawLink, chunked, request
from tests.unit.serve.served import wait_until

LARGE = b"x" * 1_000_000
LIMITS = Limits(request_s=0.5, idle_s=0.5, write_s=0.5)
PATIENT = Limits()


class Toy:
    """Remembers what it was asked; answers much to little."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.dear = 0
        self.gate = asyncio.Event()

    def handle(self, request: Request) -> Answer:
        self.asked.append(request)
        if request.path == "/large":
            return Reply(200, LARGE)
        if request.path == "/some":
            return Reply(200, LARGE[:12_000])
        if request.path == "/dear":
            time.sleep(0.1)
            self.dear += 1
        if request.path == "/later":
            return self._later()
        return Reply(200, b"{}")

    async def _later(self) -> Reply:
        await self.gate.wait()
        return Reply(200, b'"later"')


class Running:
    """A listener on a loop of its own thread."""

    def __init__(self, limits: Limits) -> None:
        self.toy = Toy()
        self.listener = Listener(self.toy, limits)
        self.errors: list[str] = []
        self.loop = uvloop.new_event_loop()
        self.loop.set_exception_handler(
            lambda _, context: self.errors.append(str(context.get("exception")))
        )
        self.sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port = int(self.sockets[0].getsockname()[1])
        self._ready, self._ending = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)

    def link(self) -> RawLink:
        return RawLink("127.0.0.1", self.port)

    def open_gate(self) -> None:
        self.loop.call_soon_threadsafe(self.toy.gate.set)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await self.loop.create_server(self.listener.connect, sock=self.sockets[0])
        sweeping = asyncio.ensure_future(self.listener.sweep())
        self._ready.set()
        await self._ending.wait()
        server.close()
        await self.listener.drain(1.0)
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)


@contextmanager
def listening(limits: Limits = PATIENT) -> Iterator[Running]:
    found = Running(limits)
    try:
        yield found
        with found.link() as link:
            link.send(request("GET", "/"))
            answer = link.read()
            assert answer is not None
            assert 200 == answer.status
    finally:
        found.close()
    assert [] == found.errors


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
)
def test_a_request_that_does_not_end_is_told_so_and_closed(sent: bytes) -> None:
    with listening(LIMITS) as running:
        with running.link() as link:
            link.send(sent)
            answer = link.read()
            closed = link.is_closed()

        assert [] == [asked for asked in running.toy.asked if asked.method == "POST"]

    assert answer is not None
    assert (408, "request.slow") == (answer.status, answer.code)
    assert closed


def test_a_request_that_drips_is_cut_off_although_something_always_comes() -> None:
    with listening(LIMITS) as running, running.link() as link:
        link.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        drops = 0
        while drops < 100_000 and link.send(b"x") and not link.has_answer():
            drops += 1
        answer = link.read()

    assert answer is not None
    assert 408 == answer.status


def test_the_second_of_two_requests_that_does_not_end_is_told_so() -> None:
    with listening(LIMITS) as running, running.link() as link:
        link.send(request("GET", "/") + b"GET / HT")
        first, second = link.read(), link.read()

    assert first is not None
    assert 200 == first.status
    assert second is None or 408 == second.status


def test_a_connection_that_asks_nothing_is_closed() -> None:
    with listening(LIMITS) as running, running.link() as link:
        assert link.is_closed()


def test_who_asks_for_much_and_reads_nothing_is_not_answered_ahead() -> None:
    with listening(Limits(write_s=0.5)) as running:
        link = socket.create_connection(("127.0.0.1", running.port))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        link.sendall(request("GET", "/large") * 4_000)
        link.settimeout(20)
        got = 0
        try:
            while data := link.recv(65_536):
                got += len(data)
                if got > 2 * len(LARGE):
                    break
        except ConnectionResetError:
            pass
        answered = len(running.toy.asked)
        link.close()

    # What the kernel's buffers hold has been answered, and little more: not all 4,000 at once.
    assert answered < 100


def never_reading(running: Running, *, room_bytes: int = 4_096) -> socket.socket:
    """Return a connection for which nobody keeps much room, here or there."""
    running.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room_bytes)
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
    link.connect(("127.0.0.1", running.port))
    return link


def test_who_asks_for_much_and_reads_nothing_is_cut_off() -> None:
    with listening(LIMITS) as running, never_reading(running) as link:
        link.sendall(request("GET", "/large") * 40)
        wait_until(lambda: bool(running.toy.asked))

        wait_until(lambda: not running.listener.connections)


@pytest.mark.parametrize("last", [{}, {"Connection": "close"}])
def test_who_asks_for_little_and_reads_nothing_is_cut_off(last: dict[str, str]) -> None:
    with listening(LIMITS) as running, never_reading(running) as link:
        # More than the system keeps for us, less than what would count as stuck.
        link.sendall(request("GET", "/some") * 3 + request("GET", "/some", headers=last))
        wait_until(lambda: 4 == len(running.toy.asked))

        wait_until(lambda: not running.listener.connections)


def test_who_reads_slowly_gets_all_of_a_long_answer() -> None:
    limits = Limits(write_s=1.0)
    with listening(limits) as running, never_reading(running, room_bytes=65_536) as link:
        link.sendall(request("GET", "/large"))
        got, begun = 0, time.monotonic()
        while got < len(LARGE) and (data := link.recv(40_000)):
            got += len(data)
            if time.monotonic() < begun + 3 * limits.write_s:
                time.sleep(0.2)  # a thin line

    assert got >= len(LARGE)


def test_a_broken_request_does_not_cost_the_one_before_it_its_answer() -> None:
    with listening(LIMITS) as running, running.link() as link:
        link.send(request("GET", "/later"))
        wait_until(lambda: bool(running.toy.asked))
        link.send(b"nonsense\r\n\r\n")
        # Much more time than a request may take to arrive.
        assert not link.has_answer(4 * LIMITS.request_s)
        running.open_gate()
        first, second = link.read(), link.read()

    assert first is not None
    assert (200, b'"later"') == (first.status, first.body)
    assert second is not None
    assert 400 == second.status


def test_upgrades_sent_at_once_are_answered_without_being_taken() -> None:
    upgrade = {"Connection": "upgrade", "Upgrade": "h2c"}
    with listening() as running, running.link() as link:
        link.send(request("GET", "/", headers=upgrade) * 3_000)
        first = link.read()
        count = 1
        while count < 3_000 and (answer := link.read()) is not None:
            assert 200 == answer.status
            count += 1

    assert first is not None
    assert 200 == first.status
    assert 3_000 == count


def test_a_trailer_is_not_taken_for_a_header() -> None:
    body = b"1\r\na\r\n0\r\nAuthorization: Bearer stolen\r\nX: y\r\n\r\n"
    with listening() as running:
        with running.link() as link:
            head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            link.send(head + b"Authorization: Bearer own\r\n\r\n" + body)
            answer = link.read()
        (asked,) = running.toy.asked

    assert answer is not None
    assert answer.status in {200, 400}
    assert b"Bearer own" == asked.headers[b"authorization"].strip()
    assert b"x" not in asked.headers


def test_trailers_without_an_end_are_refused_before_they_fill_the_memory() -> None:
    with listening() as running, running.link() as link:
        link.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
        sent = 0
        while sent < 40_000_000 and link.send(b"a" * 50_000) and not link.has_answer():
            sent += 50_000
        answer = link.read()

    assert answer is None or answer.status in {400, 413, 431}
    assert sent < 10_000_000


def test_bodies_that_wait_to_be_whole_do_not_fill_the_memory_together() -> None:
    limits = Limits(body_bytes=8_000_000, buffered_bytes=32_000_000)
    with listening(limits) as running:
        links = [running.link() for _ in range(12)]
        statuses = []
        for link in links:
            link.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n")
            link.send(b"x" * 7_999_999)
        for link in links:
            if link.has_answer(0.5):
                answer = link.read()
                statuses.append(answer.status if answer else 0)
        for link in links:
            link.abort()

    assert {429} == set(statuses)
    assert len(statuses) >= 12 - 4


def test_packed_bodies_that_wait_to_be_answered_do_not_fill_the_memory_together() -> None:
    limits = Limits(body_bytes=1_000_000, buffered_bytes=4_000_000)
    bomb = request("POST", "/", gzip.compress(bytes(1_000_000)), {"Content-Encoding": "gzip"})
    with listening(limits) as running:
        with running.link() as link:
            link.send(request("GET", "/later") + 6 * bomb)
            wait_until(lambda: running.listener.room.taken == 4_000_000)
            running.open_gate()
            statuses = [answer.status for answer in link.read_all()]
        assert 0 == running.listener.room.taken

    assert [200] * 5 + [429] == statuses


def test_no_answer_waits_until_all_others_of_its_turn_are_made() -> None:
    with listening(PATIENT) as running:
        links = [running.link() for _ in range(8)]
        for link in links:  # all of them are listened to
            link.send(request("GET", "/"))
            link.read()
        for link in links:
            link.send(request("GET", "/dear"))
        links[0].read()
        links[1].read()
        made = running.toy.dear
        for link in links[2:]:
            link.read()
        for link in links:
            link.close()

    assert made < 8
    assert 8 == running.toy.dear


def test_old_connections_are_closed_after_one_answer_whatever_follows() -> None:
    keep = {"Connection": "keep-alive"}
    with listening() as running:
        with running.link() as link:
            link.send(request("GET", "/", headers=keep, version="1.0") * 3)
            answers = link.read_all()

        assert 1 == len(running.toy.asked)

    assert [200] == [answer.status for answer in answers]


def test_what_follows_a_last_request_is_not_even_looked_at() -> None:
    with listening() as running:
        with running.link() as link:
            link.send(request("GET", "/", headers={"Connection": "close"}) + request("GET", "/x"))
            answers = link.read_all()

        assert ["/"] == [asked.path for asked in running.toy.asked]

    assert [200] == [answer.status for answer in answers]


def test_who_may_go_on_is_not_told_so_before_the_answers_to_what_came_first() -> None:
    with listening() as running, running.link() as link:
        expecting = {"Expect": "100-continue", "Content-Length": "2"}
        link.send(request("GET", "/later") + request("POST", "/", headers=expecting) + b"{")
        early = link.has_answer(0.2)
        running.open_gate()
        first = link.read()
        link.send(b"}")
        second = link.read()

    assert not early
    assert first is not None
    assert b'"later"' == first.body
    assert second is not None
    assert 200 == second.status


def test_more_requests_at_once_than_allowed_are_told_to_come_again() -> None:
    with listening(Limits(in_flight=3)) as running:
        links = [running.link() for _ in range(3)]
        for link in links:
            link.send(request("GET", "/later"))
        while len(running.toy.asked) < 3:
            assert not links[0].has_answer(0.01)
        with running.link() as other:
            other.send(request("GET", "/"))
            busy = other.read()
        running.open_gate()
        answers = [link.read() for link in links]
        for link in links:
            link.abort()

    assert busy is not None
    assert (429, "server.busy") == (busy.status, busy.code)
    assert int(busy.headers["retry-after"]) > 0
    assert [200, 200, 200] == [answer.status for answer in answers if answer is not None]


def test_more_connections_than_allowed_are_told_to_come_again() -> None:
    with listening(Limits(connections=3)) as running:
        links = [running.link() for _ in range(3)]
        for link in links:
            link.send(request("GET", "/"))
            assert link.read() is not None
        with running.link() as other:
            other.send(request("GET", "/"))
            busy = other.read()
        for link in links:
            link.abort()
        while running.listener.connections:
            assert running.loop.is_running()

    assert busy is None or 429 == busy.status


@pytest.mark.parametrize("pieces", [1, 3, 1_000])
def test_a_body_arrives_as_it_was_sent_in_however_many_chunks(pieces: int) -> None:
    parts = [b"%d," % number for number in range(pieces)]
    with listening() as running:
        with running.link() as link:
            head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            link.send(head + chunked(*parts))
            assert link.read() is not None
        (asked,) = running.toy.asked

    assert b"".join(parts) == asked.body
