"""The decorators that make plain functions steps and pipelines."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Generic, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from everloop.core.errors import InvalidInput
from everloop.pipeline.context import ACTIVE, FutureResult, StepRunner

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class StepOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a step is run.

    Attributes:
        cache: Whether its result is kept and taken again.
        env: Environment variables that its result depends on.
        retries: How often it is tried again after an exception.
        timeout_s: After how long it is given up; needs a process of its own, and gets one.
        process: Whether it runs in another process.
    """

    cache: bool = True
    env: tuple[str, ...] = ()
    retries: int = 0
    timeout_s: float | None = None
    process: bool = False


class TypedFuture(Protocol[R_co]):
    """A step's result that may still be computed."""

    def result(self) -> R_co:
        """Wait for the result and return it; raises what the step raised."""
        ...


class Step(Generic[P, R]):
    """A function whose calls inside a pipeline are cached and recorded.

    Outside a pipeline, and inside another step, it is the plain function.
    """

    def __init__(self, function: Callable[P, R], options: StepOptions) -> None:
        if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
            raise InvalidInput(
                "step.not_a_function",
                f"{function!r} cannot be a step.",
                hint="Decorate a function made with def.",
            )
        if options.retries < 0 or (options.timeout_s is not None and options.timeout_s <= 0):
            raise InvalidInput(
                "step.option_invalid",
                f"Step {function.__qualname__} has negative retries or no time.",
                hint="Use retries of 0 or more and a timeout_s above 0.",
            )
        functools.update_wrapper(self, function)
        self.function: FunctionType = function
        self.options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step, or take its result from the cache."""
        runner = _runner()
        if runner is None:
            return cast("R", self.function(*args, **kwargs))
        return cast("R", runner.call(self, args, kwargs))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TypedFuture[R]:
        """Begin the step in another process and return its future.

        Outside a pipeline the step runs at once, here.
        """
        runner = _runner()
        if runner is None:
            return cast("TypedFuture[R]", _Done(self.function(*args, **kwargs)))
        return cast("TypedFuture[R]", runner.submit(self, args, kwargs))

    def map(self, items: Iterable[object], **fixed: object) -> list[R]:
        """Run the step for each item as its first argument, in parallel; results in order."""
        futures: list[FutureResult] = []
        runner = _runner()
        for item in items:
            if runner is None:
                futures.append(_Done(self.function(item, **fixed)))
            else:
                futures.append(runner.submit(self, (item,), fixed))
        return [cast("R", future.result()) for future in futures]

    def __repr__(self) -> str:
        return f"<step {self.function.__module__}:{self.function.__qualname__}>"


class Pipeline(Generic[P, R]):
    """A function whose steps are run by the engine; called directly it is the plain function."""

    def __init__(self, function: Callable[P, R], name: str) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function; inside another pipeline its steps belong to that one."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<pipeline {self.name}>"


class _Done:
    def __init__(self, value: object) -> None:
        self._value = value

    def result(self) -> object:
        """Return the value."""
        return self._value


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    cache: bool = True,
    env: Iterable[str] = (),
    retries: int = 0,
    timeout_s: float | None = None,
    process: bool = False,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[P, R] | None = None,
    /,
    *,
    cache: bool = True,
    env: Iterable[str] = (),
    retries: int = 0,
    timeout_s: float | None = None,
    process: bool = False,
) -> Step[P, R] | Callable[[Callable[P, R]], Step[P, R]]:
    """Make a function a step; see ``StepOptions`` for what can be set.

    Raises:
        InvalidInput: ``step.not_a_function`` or ``step.option_invalid``.
    """
    names = (env,) if isinstance(env, str) else tuple(sorted(env))
    options = StepOptions(
        cache=cache, env=names, retries=retries, timeout_s=timeout_s, process=process
    )
    if function is not None:
        return Step(function, options)
    return lambda decorated: Step(decorated, options)


@overload
def pipeline(function: Callable[P, R], /) -> Pipeline[P, R]: ...
@overload
def pipeline(*, name: str | None = None) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...
def pipeline(
    function: Callable[P, R] | None = None, /, *, name: str | None = None
) -> Pipeline[P, R] | Callable[[Callable[P, R]], Pipeline[P, R]]:
    """Make a function a pipeline, named after itself unless another name is given."""
    if function is not None:
        return Pipeline(function, name or function.__name__)
    return lambda decorated: Pipeline(decorated, name or decorated.__name__)


def _runner() -> StepRunner | None:
    active = ACTIVE.get()
    return None if active is None else active.runner
