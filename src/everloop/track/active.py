"""Which run the plain functions (``everloop.log_metric`` and so on) log to.

A run that was started is the active one until it ends, and the one before it is then active again.
Each thread and task has its own; one that started none uses the newest live run of the process.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from typing import Protocol

from everloop.core.ids import Id


class Live(Protocol):
    """A run as far as it matters here."""

    @property
    def id(self) -> Id:
        """Its id."""
        ...

    @property
    def is_ended(self) -> bool:
        """Whether it has ended in this process."""
        ...


_OWN: ContextVar[tuple[Live, ...]] = ContextVar("everloop_active_runs", default=())
_ALL: list[weakref.ref[Live]] = []


def activate(run: Live) -> None:
    """Make a run the active one until it ends; repeating it changes nothing."""
    live = tuple(known for known in _OWN.get() if not known.is_ended and known is not run)
    _OWN.set((*live, run))
    _ALL[:] = [ref for ref in _ALL if (known := ref()) is not None and not known.is_ended]
    if all(ref() is not run for ref in _ALL):
        _ALL.append(weakref.ref(run))


def active_run() -> Live | None:
    """Return the run that is active here, or None."""
    for run in reversed(_OWN.get()):
        if not run.is_ended:
            return run
    for ref in reversed(_ALL):
        newest = ref()
        if newest is not None and not newest.is_ended:
            return newest
    return None


def has_own_run() -> bool:
    """Tell whether this thread or task started a run itself that is still live."""
    return any(not run.is_ended for run in _OWN.get())
