"""Routes made from verbs: a change is a POST, a question a GET, and the name is the path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from everloop.core.errors import EverloopError, InvalidInput, NotAuthenticated
from everloop.http.auth import caller_of
from everloop.http.errors import error_response, json_response
from everloop.http.parameters import from_parameters
from everloop.kernel.authz import NOBODY, Caller
from everloop.kernel.perform import Call, Kernel
from everloop.kernel.verbs import Scope, Verb, declared_verbs

Endpoint = Callable[[Request], Awaitable[Response]]
# The first actors are made by the process that owns the home folder, never over the network.
LOCAL_ONLY = frozenset({"instance.initialise"})


def verb_path(verb: Verb) -> str:
    """Return the path of a verb's route."""
    if verb.scope is Scope.INSTANCE:
        return f"/api/v1/{verb.name}"
    return f"/api/v1/projects/{{project}}/{verb.name}"


def verb_routes(kernel: Kernel) -> list[Route]:
    """Return one route for every declared verb but the local ones."""
    return [
        Route(
            verb_path(verb),
            _endpoint(kernel, verb),
            methods=["GET"] if verb.is_query else ["POST"],
            name=verb.name,
        )
        for verb in declared_verbs().values()
        if verb.name not in LOCAL_ONLY
    ]


def _endpoint(kernel: Kernel, verb: Verb) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            body = b"" if verb.is_query else await request.body()
            return await run_in_threadpool(_answer, kernel, verb, request, body)
        except EverloopError as error:
            return error_response(error)

    return endpoint


def _answer(kernel: Kernel, verb: Verb, request: Request, body: bytes) -> Response:
    # Who calls comes first: an anonymous caller learns nothing from how input is judged.
    caller = _anyone(request, kernel) if verb.open_to_all else caller_of(request, kernel)
    ask = ask_from_query(verb, request) if verb.is_query else ask_from_body(verb, body)
    reason = request.headers.get("x-everloop-reason")
    call = Call(
        verb=verb.name,
        caller=caller,
        ask=ask,
        project=request.path_params.get("project"),
        request=request.headers.get("idempotency-key"),
        reason=None if reason is None else unquote(reason),
    )
    try:
        return json_response(kernel.perform(call))
    except OverflowError as error:  # no store counts beyond 64 bits
        raise _invalid(verb, error) from error


def _anyone(request: Request, kernel: Kernel) -> Caller:
    try:
        return caller_of(request, kernel)
    except NotAuthenticated:  # an ended session must not keep anybody from logging in again
        return NOBODY


def ask_from_body(verb: Verb, body: bytes) -> msgspec.Struct:
    """Read a change's input from JSON.

    Raises:
        InvalidInput: ``input.invalid``, which names the field.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=verb.ask)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as e:
        raise _invalid(verb, e) from e


def ask_from_query(verb: Verb, request: Request) -> msgspec.Struct:
    """Read a question's input from URL parameters; only those of a list may be repeated.

    Raises:
        InvalidInput: ``input.invalid``, which names the parameter.
    """
    try:
        return from_parameters(verb.ask, request.query_params.multi_items())
    except (msgspec.DecodeError, RecursionError) as error:
        raise _invalid(verb, error) from error


def _invalid(verb: Verb, error: Exception) -> InvalidInput:
    return InvalidInput(
        "input.invalid",
        f"{verb.name}: {str(error)[:300]}.",
        hint="The OpenAPI document at /api/v1/openapi.json states each field's type and limits.",
    )
