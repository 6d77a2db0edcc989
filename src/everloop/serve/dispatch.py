"""From a path to what answers it: a table of routes, and each route's own words for an error."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote

from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.serve.exchange import Answer, Handler, Reply, Request, refuse
from everloop.serve.limits import failed
from everloop.serve.observe.jsonlog import say_failure
from everloop.serve.turn import Deferred

MOST_REMEMBERED: Final = 4_096
LONGEST_REMEMBERED: Final = 256
_PLACE = re.compile(r"\{([a-z_]+)\}")


class Route(NamedTuple):
    """One address.

    Attributes:
        pattern: A path; ``{name}`` in it stands for one percent-encoded segment.
        refuse: How this protocol says an error.
    """

    method: str
    pattern: str
    handler: Handler
    refuse: Callable[[EverloopError], Reply] = refuse


class _Found(NamedTuple):
    handler: Handler
    refuse: Callable[[EverloopError], Reply]
    params: Mapping[str, str]


class Dispatcher:
    """Answers requests by the table; ``handle`` never raises.

    Args:
        admit: Raises for a request that may not come in, whatever it asks; None lets all in.
    """

    def __init__(
        self, routes: Iterable[Route], admit: Callable[[Request], None] | None = None
    ) -> None:
        self._admit = admit
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        by_pattern: dict[str, dict[str, Route]] = {}
        for route in routes:
            methods = by_pattern.setdefault(route.pattern, {})
            methods[route.method] = route
            if route.method == "GET":
                methods.setdefault("HEAD", route)
        for pattern, methods in by_pattern.items():
            if "{" in pattern:
                self._patterns.append((_compile(pattern), methods))
            else:
                self._exact[pattern] = methods
        self._remembered: dict[tuple[str, str], _Found] = {}
        self._manners = _manners_of(by_pattern)

    def handle(self, request: Request) -> Answer:
        """Answer a request, or begin to."""
        say: Callable[[EverloopError], Reply] = refuse
        try:
            found = self._remembered.get((request.method, request.path))
            if found is None:
                say = self._manners.get(_first_of(request.path), refuse)
                found = self._find(request.method, request.path)
            handler, say, request.params = found
            if self._admit is not None:
                self._admit(request)
            answer = handler(request)
        except EverloopError as error:
            return say(error)
        except Exception as error:  # noqa: BLE001 -- the process edge: the caller gets no trace
            return say(_internal(error))
        if isinstance(answer, Deferred):
            answer.say = say
            return answer
        return answer if isinstance(answer, Reply) else _guarded(answer, say)

    def _find(self, method: str, path: str) -> _Found:
        methods, params = self._match(path)
        route = methods.get(method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise InvalidInput(
                "method.not_allowed",
                f"{method[:20]} is not allowed here.",
                hint=f"Use {allowed}.",
                context={"allowed": allowed},
            )
        found = _Found(route.handler, route.refuse, params)
        if len(self._remembered) < MOST_REMEMBERED and len(path) <= LONGEST_REMEMBERED:
            self._remembered[method, path] = found
        return found

    def _match(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        for spelled in (path, path.rstrip("/") or "/"):
            exact = self._exact.get(spelled)
            if exact is not None:
                return exact, {}
            for pattern, methods in self._patterns:
                matched = pattern.fullmatch(spelled)
                if matched is not None:
                    return methods, {
                        key: unquote(text) for key, text in matched.groupdict().items()
                    }
        raise NotFound(
            "path.not_found",
            "There is nothing at this address.",
            hint="GET / lists the models of this server and what they are asked with.",
        )


def _first_of(path: str) -> str:
    return path[1:].partition("/")[0]


def _manners_of(
    by_pattern: Mapping[str, Mapping[str, Route]],
) -> dict[str, Callable[[EverloopError], Reply]]:
    """Return how to refuse where no route is found: as all the routes that begin so do it."""
    found: dict[str, set[Callable[[EverloopError], Reply]]] = {}
    for pattern, methods in by_pattern.items():
        manners = found.setdefault(_first_of(pattern), set())
        manners.update(route.refuse for route in methods.values())
    return {first: next(iter(each)) for first, each in found.items() if len(each) == 1}


async def _guarded(answer: Awaitable[Reply], say: Callable[[EverloopError], Reply]) -> Reply:
    try:
        return await answer
    except EverloopError as error:
        return say(error)
    except Exception as error:  # noqa: BLE001 -- the process edge
        return say(_internal(error))


def _internal(error: Exception) -> EverloopError:
    say_failure("request", error)
    return failed()


def _compile(pattern: str) -> re.Pattern[str]:
    parts = _PLACE.split(pattern)
    # Odd places are names.
    made = "".join(
        f"(?P<{part}>[^/:]+)" if place % 2 else re.escape(part) for place, part in enumerate(parts)
    )
    return re.compile(made)
