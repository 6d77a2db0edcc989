"""Results of steps that run in other processes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class StepFuture:
    """A step's result that may still be computed in another process."""

    def __init__(self, finish: Callable[[], object], running: Future[Any] | None = None) -> None:
        self._finish: Callable[[], object] | None = finish
        self._running = running
        self._value: object = None
        self._error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether the result, or its failure, is there."""
        return self._running is None or self._running.done()

    def result(self) -> object:
        """Wait for the result and return it; raises what the step raised."""
        if self._finish is not None:
            finish, self._finish = self._finish, None
            try:
                self._value = finish()
            except BaseException as error:
                self._error = error
                raise
        if self._error is not None:
            raise self._error
        return self._value


def settle(value: object) -> object:
    """Return a future's result, also of futures directly inside a list or tuple."""
    if isinstance(value, StepFuture):
        return value.result()
    if type(value) in {list, tuple} and any(isinstance(part, StepFuture) for part in value):  # type: ignore[attr-defined]
        return type(value)(settle(part) for part in value)  # type: ignore[call-arg, attr-defined]
    return value
