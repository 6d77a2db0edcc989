"""A call that sends no message is ended, and holds up nobody meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from everloop.serve.limits import Limits
from everloop.serve.proto import load_messages
from everloop.serve.protocols.grpc_door import Door

KIND = load_messages().ServerLiveResponse
Handle = Callable[[Any, Mapping[bytes, bytes]], Any]


@asynccontextmanager
async def opened(limits: Limits, handle: Handle) -> AsyncIterator[Any]:
    door = Door(grpc, limits)
    server = grpc.aio.server()
    handlers = {"Ask": door.unary(KIND, handle)}
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

    async def ask() -> tuple[str, bytes, bytes]:
        async with opened(Limits(in_flight=1), wait) as channel:
            call = channel.unary_unary("/toy.Toy/Ask")
            data = KIND(live=True).SerializeToString()
            both = [asyncio.ensure_future(call(data)) for _ in range(2)]
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            error = done.pop().exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            gate.set()
            answers = await asyncio.gather(*both, return_exceptions=True)
            (answer,) = (one for one in answers if isinstance(one, bytes))
            return error.code().name, data, answer

    code, sent, answered = asyncio.run(ask())

    assert ("RESOURCE_EXHAUSTED", sent) == (code, answered)
