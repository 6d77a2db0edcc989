"""A small pool of driver connections that survives forks and never makes a caller wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """A connection, as far as the pool cares."""

    def close(self) -> None:
        """Release it."""
        ...


C = TypeVar("C", bound=Closable)


class Pool(Generic[C]):
    """Idle connections, the warmest first.

    There is no upper bound: a transaction may open a second one within itself, and a bound would
    let such callers wait for each other for ever. Beyond ``keep`` they are closed after use.
    """

    def __init__(self, connect: Callable[[], C], *, keep: int) -> None:
        self._connect = connect
        self._keep = keep
        self._idle: list[C] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._is_closed = False

    def take(self) -> C:
        """Return an idle connection or a new one.

        Raises:
            RuntimeError: the pool is closed.
        """
        with self._lock:
            if self._is_closed:
                message = "the store is closed"
                raise RuntimeError(message)
            if self._pid != os.getpid():
                # A forked child must not touch its parent's connections, not even to close them.
                _ABANDONED.append(self._idle)
                self._idle, self._pid = [], os.getpid()
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def give_back(self, connection: C) -> None:
        """Keep a connection for the next caller; it must not be inside a transaction."""
        with self._lock:
            if not self._is_closed and len(self._idle) < self._keep:
                self._idle.append(connection)
                return
        connection.close()

    def drop_idle(self) -> None:
        """Close all idle connections, as when the server behind them went away."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close what is idle now and, when given back, what is in use; idempotent."""
        with self._lock:
            self._is_closed = True
        self.drop_idle()


# Holds the parent's connections in a forked child, so that they are not closed when collected.
_ABANDONED: list[object] = []
