"""What every call over gRPC passes: its message arrives in time, is read, and has room.

A handler is registered as one of a stream, of which it reads one message: so the wait for a message
that never comes is ours to end, and a call counts as one in flight only when it has arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from everloop.core.errors import EverloopError, InvalidInput
from everloop.serve.exchange import status_of
from everloop.serve.limits import Limits, busy, failed
from everloop.serve.observe.access import Call, headers_of
from everloop.serve.observe.jsonlog import say_failure
from everloop.serve.service import told

LOOK_S: Final = 0.05
MAIN_LOOP: Final = "_server_main_loop"  # of grpc.aio, which has no other sign that it broke
ENDING_S: Final = 30.0
Handle = Callable[[Any, Mapping[bytes, bytes]], Any]
Answer = Callable[[AsyncIterator[bytes] | None, Any], Awaitable[Any]]
_CODES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


class Door:
    """Makes handlers out of functions from a message and its headers to an answer.

    Args:
        grpc: The package, imported after the fork.
        limits: How long a message may take, and how many calls may be in flight.
        has_access_log: Whether each call has a line in the log.
    """

    def __init__(self, grpc: Any, limits: Limits, *, has_access_log: bool = False) -> None:
        self._grpc = grpc
        self._limits = limits
        self._has_access_log = has_access_log
        self._in_flight = 0

    def unary(self, path: str, kind: Any, handle: Handle) -> Any:
        """Return the handler of a call with one message of a kind and one answer."""

        async def answer(messages: AsyncIterator[bytes] | None, context: Any) -> Any:
            del messages  # see `_receive`
            try:
                return await self._within(handle, await self._receive(kind, context), context)
            except EverloopError as error:
                return await self._refuse(context, error)
            except Exception as error:  # noqa: BLE001 -- the process edge: the caller gets no trace
                say_failure("grpc", error)
                return await self._refuse(context, failed())

        return self._grpc.stream_unary_rpc_method_handler(
            self._logged(path, answer), request_deserializer=None, response_serializer=_serialise
        )

    def stream(self, path: str, kind: Any, handle: Callable[[Any, Any], Awaitable[None]]) -> Any:
        """Return the handler of a call with one message, which writes its answers itself."""

        async def answer(messages: AsyncIterator[bytes] | None, context: Any) -> None:
            del messages
            try:
                request = await self._receive(kind, context)
            except EverloopError as error:
                await self._refuse(context, error)
            else:
                await handle(request, context)

        return self._grpc.stream_stream_rpc_method_handler(
            self._logged(path, answer), request_deserializer=None, response_serializer=_serialise
        )

    def service(self, details: Any) -> Any:
        """Return the handler of a call that nothing else answers, if it is to have its line."""
        if not self._has_access_log:
            return None

        async def answer(messages: AsyncIterator[bytes] | None, context: Any) -> Any:
            del messages
            await context.abort(self._grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

        return self._grpc.stream_unary_rpc_method_handler(self._logged(details.method, answer))

    def _logged(self, path: str, answer: Answer) -> Answer:
        if not self._has_access_log:
            return answer

        async def logged(messages: AsyncIterator[bytes] | None, context: Any) -> Any:
            del messages
            call = Call(path, context)
            try:
                answered = await answer(None, call)
            except BaseException as error:
                call.say(error=error)
                raise
            call.say(answered)
            return answered

        return logged

    async def _receive(self, kind: Any, context: Any) -> Any:
        # Not by the iterator: begun and not ended, it is a cycle that holds the message until the
        # collector runs, which in a worker is after thousands of calls.
        try:
            async with asyncio.timeout(self._limits.request_s):
                data = await context.read()
        except TimeoutError:
            raise InvalidInput(
                "request.slow",
                f"The message did not come within {self._limits.request_s:g} seconds.",
                hint="Send it at once.",
            ) from None
        if data is self._grpc.aio.EOF:
            raise InvalidInput(
                "request.malformed", "The call has no message.", hint="Send one, even if empty."
            )
        try:
            return kind.FromString(data)
        except Exception as error:
            raise InvalidInput(
                "request.malformed",
                f"The message is no {kind.DESCRIPTOR.full_name}.",
                hint="Check the client against the protocol's messages.",
            ) from error

    async def _within(self, handle: Handle, request: Any, context: Any) -> Any:
        if self._in_flight >= self._limits.in_flight:
            raise busy("Too many calls wait for an answer.")
        headers = headers_of(context)
        self._in_flight += 1
        try:
            found = handle(request, headers)
            return await found if asyncio.iscoroutine(found) else found
        finally:
            self._in_flight -= 1

    async def _refuse(self, context: Any, problem: EverloopError) -> Any:
        # grpcio keeps what `abort` raises, in a cycle with the call: the frames that the problem
        # came through, and with them the message, must not be kept too.
        problem.__traceback__ = problem.__cause__ = problem.__context__ = None
        name = _CODES.get(status_of(problem), "INTERNAL")
        return await context.abort(getattr(self._grpc.StatusCode, name), told(problem))


class Kept:
    """A server of grpcio that is begun anew when it breaks.

    One call whose path is not UTF-8 ends the loop that takes calls, and with it the port. The calls
    that were under way then go on.

    Args:
        make: Opens a server that is still to be started.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Any = None
        self._taking: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        """Start, and see to it that it stays so.

        Raises:
            OSError: the address is taken.
        """
        await self._open()
        self._begin(self._keep())

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and let those in flight end."""
        for task in self._tasks:
            task.cancel()
        await self._server.stop(seconds)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        server, others = self._make(), asyncio.all_tasks()
        await server.start()
        self._server = server
        self._taking = next(filter(_takes_calls, asyncio.all_tasks() - others), None)

    async def _keep(self) -> None:
        while True:
            say_failure("grpc", await until_broken(self._server, self._taking))
            self._begin(_end(self._server))
            await self._again()

    async def _again(self) -> None:
        while True:
            try:
                return await self._open()
            except Exception as error:  # noqa: BLE001 -- the port must not stay gone unsaid
                say_failure("grpc", error)
                await asyncio.sleep(1.0)


async def until_broken(server: Any, taking: asyncio.Task[Any] | None) -> BaseException:
    """Wait until a started server has broken, and return what it broke at.

    Args:
        server: It is looked at every now and then where ``taking`` is not known: it tells nobody
            when it breaks, and its own end comes only after the last call under way.
        taking: The task that takes its calls.
    """
    while taking is None:
        try:
            await server.wait_for_termination(LOOK_S)
        except Exception as error:  # noqa: BLE001 -- what grpcio broke at is no matter
            return error
    await asyncio.wait({taking})
    return taking.exception() or RuntimeError("It takes no more calls.")


def _takes_calls(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__name__", "") == MAIN_LOOP


async def _end(server: Any) -> None:
    await server.stop(ENDING_S)


def _serialise(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
