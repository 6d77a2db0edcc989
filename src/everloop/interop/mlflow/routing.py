"""Routes of MLflow's REST interface: a method, a path, and the handler that binds it to verbs.

A handler takes a ``Context`` and its input, and returns JSON; it runs in a thread. One that takes
bytes in or gives them out is ``async`` and returns a response.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

import msgspec
from starlette.requests import Request

from everloop.core.ids import Id
from everloop.interop.mlflow.reading import check_ask
from everloop.kernel.performer import Performer

A = TypeVar("A", bound=msgspec.Struct)
Json = dict[str, Any]
Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler gets beside its input.

    Attributes:
        performer: Performs verbs for the caller in the project.
        path: Parts of the address, decoded: ``{"model_id": "m-..."}``.
        request: The request; ``async`` handlers read its body.
        new_id: Makes an id.
    """

    performer: Performer
    path: Mapping[str, str]
    request: Request
    new_id: Callable[[], Id]

    def perform(self, verb: str, ask: msgspec.Struct, answer: type[A]) -> A:
        """Perform a verb and return its answer.

        Raises:
            InvalidInput: ``input.invalid`` for what the verb's type does not allow.
            EverloopError: what the verb raises.
        """
        return self.performer.perform(verb, check_ask(ask), answer)


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """The input of a route that takes none."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    Attributes:
        method: ``GET``, ``POST``, ``PATCH``, ``PUT`` or ``DELETE``.
        path: Below ``/api/``, such as ``2.0/mlflow/runs/get`` or ``2.0/mlflow/x/{id}``;
            ``{x:path}`` takes slashes too.
        handler: ``handler(context, ask)``; the annotation of ``ask`` says how the input is read.
        whole: ``whole(context, body)``, run in a thread instead of an ``async`` handler when the
            body is small; None when there is none.
    """

    method: str
    path: str
    handler: Handler
    whole: Handler | None = None
    ask: type[msgspec.Struct] = field(init=False)
    is_async: bool = field(init=False)

    def __post_init__(self) -> None:
        hints = get_type_hints(self.handler)
        second = list(inspect.signature(self.handler).parameters)[1]
        object.__setattr__(self, "ask", hints[second])
        object.__setattr__(self, "is_async", inspect.iscoroutinefunction(self.handler))


class Router:
    """Finds a route: by one look-up, and only addresses with variables by their patterns."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[tuple[str, str], Route] = {}
        self._variable: list[tuple[str, re.Pattern[str], Route]] = []
        for route in routes:
            if "{" in route.path:
                self._variable.append((route.method, _pattern(route.path), route))
                continue
            if (route.method, route.path) in self._fixed:
                message = f"two routes for {route.method} {route.path}"
                raise TypeError(message)
            self._fixed[route.method, route.path] = route

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """Return the route and the parts of the address that it names."""
        route = self._fixed.get((method, path))
        if route is not None:
            return route, {}
        for wanted, pattern, candidate in self._variable:
            if wanted == method:
                match = pattern.fullmatch(path)
                if match is not None:
                    return candidate, match.groupdict()
        return None


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)(:path)?\}", path)
    text = ""
    for index in range(0, len(parts), 3):
        text += re.escape(parts[index])
        if index + 1 < len(parts):
            text += f"(?P<{parts[index + 1]}>{'.+' if parts[index + 2] else '[^/]+'})"
    return re.compile(text)
