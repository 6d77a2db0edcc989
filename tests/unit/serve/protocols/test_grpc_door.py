"""Calls without a message are ended, and a server that breaks is begun anew."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import Any, TypeVarTuple

import grpc
import pytest

from everloop.serve.limits import Limits
from everloop.serve.proto import load_messages
from everloop.serve.protocols.grpc_door import LOOK_S, Door, Kept, until_broken
from tests.campaign.grpc_fuzz import END_HEADERS, HEADERS, PREFACE, SETTINGS, frame, head
from tests.parts.ports import free_port

KIND = load_messages().ServerLiveResponse
SENT = KIND(live=True).SerializeToString()
Given = TypeVarTuple("Given")
Handle = Callable[[Any, Mapping[bytes, bytes]], Any]


@asynccontextmanager
async def opened(limits: Limits, handle: Handle, **more: bool) -> AsyncIterator[Any]:
    door = Door(grpc, limits, **more)
    server = grpc.aio.server()
    handlers = {"Ask": door.unary("/toy.Toy/Ask", KIND, handle)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("toy.Toy", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


def echo(request: Any, headers: Mapping[bytes, bytes]) -> Any:
    del headers
    return request


def test_a_message_that_never_comes_is_not_waited_for() -> None:
    async def ask() -> tuple[str, str]:
        async with opened(Limits(request_s=0.1), echo) as channel:
            call = channel.stream_unary("/toy.Toy/Ask")()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            return refused.value.code().name, refused.value.details() or ""

    assert ("DEADLINE_EXCEEDED", True) == (
        (told := asyncio.run(ask()))[0],
        "did not come within 0.1 seconds" in told[1],
    )


def test_a_call_without_a_message_is_refused() -> None:
    async def ask() -> str:
        async with opened(Limits(), echo) as channel:
            call = channel.stream_unary("/toy.Toy/Ask")()
            await call.done_writing()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            return str(refused.value.code().name)

    assert "INVALID_ARGUMENT" == asyncio.run(ask())


def test_calls_that_have_arrived_and_are_too_many_are_told_to_come_again() -> None:
    gate = asyncio.Event()

    async def wait(request: Any, headers: Mapping[bytes, bytes]) -> Any:
        del headers
        await gate.wait()
        return request

    async def ask() -> tuple[str, bytes]:
        async with opened(Limits(in_flight=1), wait) as channel:
            call = channel.unary_unary("/toy.Toy/Ask")
            both = [asyncio.ensure_future(call(SENT)) for _ in range(2)]
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            error = done.pop().exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            gate.set()
            answers = await asyncio.gather(*both, return_exceptions=True)
            (answer,) = (one for one in answers if isinstance(one, bytes))
            return error.code().name, answer

    assert ("RESOURCE_EXHAUSTED", SENT) == asyncio.run(ask())


def test_a_call_whose_time_was_over_is_logged_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    ended = asyncio.Event()

    async def wait(request: Any, headers: Mapping[bytes, bytes]) -> None:
        del request, headers
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def ask() -> None:
        async with opened(Limits(), wait, has_access_log=True) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/toy.Toy/Ask")(SENT, timeout=0.1)
            await ended.wait()

    asyncio.run(ask())

    line = json.loads(capsys.readouterr().err)
    assert "DEADLINE_EXCEEDED" == line["rpc.response.status_code"]
    assert "gRPC /toy.Toy/Ask DEADLINE_EXCEEDED" == line["message"]


class Counting(asyncio.SelectorEventLoop):
    """A loop that notes for what it will wake by itself."""

    def __init__(self) -> None:
        super().__init__(selectors.DefaultSelector())
        self.timers: list[float] = []

    def call_at(
        self,
        when: float,
        callback: Callable[[*Given], object],
        *args: *Given,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self.timers.append(when)
        return super().call_at(when, callback, *args, context=context)


def make_at(port: int) -> Any:
    door, server = Door(grpc, Limits()), grpc.aio.server()
    handlers = {"Ask": door.unary("/toy.Toy/Ask", KIND, echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("toy.Toy", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    return server


async def say_no_text(port: int) -> None:
    """Send a path that is not UTF-8, which ends the loop of grpcio that takes calls."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, head("\x93")))
    await reader.read(1)
    writer.close()


async def ask_at(port: int) -> bytes:
    """Ask until there is an answer: a call that came while the port was opened anew has none."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/toy.Toy/Ask")
        async with asyncio.timeout(20):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    answer: bytes = await call(SENT, wait_for_ready=True)
                    return answer


def test_a_server_that_breaks_is_begun_anew_and_one_that_does_not_wakes_nobody() -> None:
    loop, port = Counting(), free_port()

    async def keep() -> tuple[list[float], bytes]:
        kept = Kept(lambda: make_at(port))
        await kept.start()
        await asyncio.sleep(5 * LOOK_S)
        timers = loop.timers.copy()
        await say_no_text(port)
        answer = await ask_at(port)
        await kept.stop(1.0)
        return timers, answer

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        timers, answer = runner.run(keep())

    assert 1 == len(timers)  # that of this test
    assert SENT == answer


def test_a_server_whose_loop_is_not_known_is_seen_to_break_too() -> None:
    port = free_port()

    async def wait() -> BaseException:
        server = make_at(port)
        await server.start()
        await say_no_text(port)
        error = await until_broken(server, None)
        await server.stop(None)
        return error

    assert isinstance(asyncio.run(wait()), UnicodeDecodeError)
