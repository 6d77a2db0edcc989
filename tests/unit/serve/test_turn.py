"""A turn of the event loop: what was kept for its end is done once, and all of it."""

import asyncio

import pytest

from everloop.core.errors import InvalidInput
from everloop.serve.exchange import Reply
from everloop.serve.turn import Deferred, Turn

PROBLEM = InvalidInput("request.invalid", "No.", hint="Ask for something else.")


def test_what_is_kept_is_done_after_what_has_arrived_in_its_order() -> None:
    done: list[str] = []

    async def run() -> None:
        turn = Turn()
        turn.at_end(lambda: done.append("first"))
        turn.at_end(lambda: done.append("second"))
        done.append("read")
        await asyncio.sleep(0)

    asyncio.run(run())

    assert ["read", "first", "second"] == done


def test_what_is_kept_at_the_end_is_done_in_the_same_turn() -> None:
    done: list[str] = []

    async def run() -> None:
        turn = Turn()

        def answer() -> None:
            turn.at_end(lambda: done.append("sent"))
            done.append("answered")

        turn.at_end(answer)
        await asyncio.sleep(0)
        assert ["answered", "sent"] == done
        turn.at_end(lambda: done.append("next"))
        await asyncio.sleep(0)

    asyncio.run(run())

    assert ["answered", "sent", "next"] == done


def test_a_turn_goes_on_after_work_that_broke() -> None:
    done: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _told: None)
        turn = Turn()
        turn.at_end(broken)
        turn.at_end(lambda: done.append("after"))
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(run())

    assert ["after"] == done


def test_who_takes_a_reply_is_given_an_error_as_its_route_says_it() -> None:
    taken: list[Reply] = []
    reply = Deferred()
    reply.say = lambda error: Reply(418, error.code.encode())
    reply.then(taken.append)

    reply.settle(PROBLEM)

    assert [Reply(418, b"request.invalid")] == taken


@pytest.mark.parametrize("comes_first", [True, False])
def test_who_awaits_a_reply_is_given_it_or_the_error_itself(comes_first: bool) -> None:
    async def run(found: Reply | InvalidInput) -> Reply:
        reply = Deferred()
        if comes_first:
            reply.settle(found)
        else:
            asyncio.get_running_loop().call_soon(reply.settle, found)
        return await reply

    assert Reply(200, b"yes") == asyncio.run(run(Reply(200, b"yes")))
    with pytest.raises(InvalidInput):
        asyncio.run(run(PROBLEM))


def test_a_reply_that_nobody_waits_for_any_more_is_dropped() -> None:
    async def run() -> None:
        reply = Deferred()

        async def wait() -> Reply:
            return await reply

        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        reply.settle(Reply())
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(run())
