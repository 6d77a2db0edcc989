"""One turn of the event loop: what has arrived by now is read first, then answered together.

What many requests need is dearest where it is done for each of them alone, in between everything
else: each step is done for all requests of a turn, then the next. Nothing waits for company: a turn
ends when there is nothing more to be read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator

from everloop.core.errors import EverloopError
from everloop.serve.exchange import Reply, refuse


class Turn:
    """What is to be done at the end of this turn of the event loop."""

    def __init__(self) -> None:
        self._works: deque[Callable[[], None]] = deque()
        self._is_due = False

    def at_end(self, work: Callable[[], None]) -> None:
        """Do something when what has arrived by now is read."""
        self._works.append(work)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        try:
            while self._works:
                self._works.popleft()()
        finally:
            self._is_due = bool(self._works)
            if self._is_due:  # one of them broke; the others are somebody's answers
                asyncio.get_running_loop().call_soon(self._end)


class Deferred:
    """A reply that comes at the end of the turn; taken by one caller, or awaited by one.

    Attributes:
        found: The reply, or why there is none; None as long as it has not come.
        say: How an error becomes a reply for who takes it; who awaits is given the error itself.
    """

    __slots__ = ("_taker", "found", "say")

    def __init__(self) -> None:
        self.found: Reply | EverloopError | None = None
        self.say: Callable[[EverloopError], Reply] = refuse
        # One of the two. Nothing here may refer to itself: a cycle a request fills the memory
        # until the collector stops all answers to clear it.
        self._taker: Callable[[Reply], None] | asyncio.Future[None] | None = None

    def settle(self, found: Reply | EverloopError) -> None:
        """Hand over what was found."""
        self.found = found
        taker, self._taker = self._taker, None
        if isinstance(taker, asyncio.Future):
            if not taker.done():
                taker.set_result(None)
        elif taker is not None:
            taker(self.reply())

    def reply(self) -> Reply:
        """Return what was found, as a reply."""
        found = self.found
        assert found is not None
        return found if isinstance(found, Reply) else self.say(found)

    def then(self, taker: Callable[[Reply], None]) -> None:
        """Call with the reply when it comes."""
        self._taker = taker

    def __await__(self) -> Generator[object, None, Reply]:
        """Wait for it.

        Raises:
            EverloopError: why there is none.
        """
        if self.found is None:
            self._taker = asyncio.get_running_loop().create_future()
            yield from self._taker
        found = self.found
        assert found is not None
        if isinstance(found, EverloopError):
            raise found
        return found
