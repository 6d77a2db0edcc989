"""``/invocations`` as MLflow's scoring server and Amazon SageMaker's containers answer it.

MLflow's protocol is that of its version 3 (docs: "Local Inference Spec"); SageMaker asks the same
paths with CSV and JSON lines too, and with headers of its own that mean nothing here.
"""

from __future__ import annotations

from typing import Final

import msgspec

from everloop.core.errors import (
    Conflict,
    Denied,
    EverloopError,
    InvalidInput,
    LimitExceeded,
    NotAuthenticated,
    NotFound,
    Unavailable,
)
from everloop.core.wire import Scalar
from everloop.serve.ask import Result
from everloop.serve.decode import Values
from everloop.serve.dispatch import Route
from everloop.serve.exchange import (
    JSON,
    TEXT,
    Answer,
    Reply,
    Request,
    extra_headers,
    is_json,
    status_of,
)
from everloop.serve.identity import to_id
from everloop.serve.protocols.asking import Reader, make_ask, with_headers
from everloop.serve.protocols.frames import Frames, read_json
from everloop.serve.service import Service, told

# What MLflow's clients are told of the protocol: that of this version of MLflow.
PROTOCOL_VERSION: Final = b"3.0.0"
FORMATS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
CSV: Final = "text/csv"
JSON_LINES: Final = frozenset(
    {"application/jsonlines", "application/x-jsonlines", "application/jsonl"}
)
_SAGEMAKER: Final = b"x-amzn-sagemaker-"
_CODES: Final[tuple[tuple[type[EverloopError], str], ...]] = (
    (NotAuthenticated, "UNAUTHENTICATED"),
    (Denied, "PERMISSION_DENIED"),
    (InvalidInput, "BAD_REQUEST"),
    (NotFound, "RESOURCE_DOES_NOT_EXIST"),
    (Conflict, "RESOURCE_CONFLICT"),
    (LimitExceeded, "RESOURCE_EXHAUSTED"),
    (Unavailable, "TEMPORARILY_UNAVAILABLE"),
)


class _Refusal(msgspec.Struct, frozen=True):
    error_code: str
    message: str


def refuse(error: EverloopError) -> Reply:
    """Return an error as MLflow says it; of a type that is not understood as plain text."""
    status = status_of(error)
    headers = extra_headers(error, status)
    if status == 415:
        return Reply(status, told(error).encode(), TEXT, headers)
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "INTERNAL_ERROR")
    return Reply(status, msgspec.json.encode(_Refusal(code, told(error))), JSON, headers)


def routes(service: Service) -> list[Route]:
    """Return the addresses of this protocol."""
    spoken = Invocations(service)
    return [
        Route("POST", "/invocations", spoken.invoke, refuse),
        Route("POST", "/models/{model}/invocations", spoken.invoke, refuse),
        Route("GET", "/ping", spoken.ping, refuse),
        Route("GET", "/health", spoken.ping, refuse),
        Route("GET", "/version", spoken.version, refuse),
    ]


class Invocations:
    """The handlers of MLflow's scoring protocol."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def ping(self, request: Request) -> Reply:
        """Answer 200 while models answer; 404 without one, as MLflow does."""
        del request
        service = self._service
        if service.is_ready(service.endpoints.values()):
            return Reply(200, b"\n")
        return Reply(503 if service.is_draining else 404, b"\n")

    def version(self, request: Request) -> Reply:
        """Tell whose protocol this is, as text."""
        del request
        return Reply(200, PROTOCOL_VERSION, TEXT)

    def invoke(self, request: Request) -> Answer:
        """Answer rows in any of MLflow's and SageMaker's formats."""
        endpoint = self._service.chosen(request)
        read, extras = _reader(request)
        ask = make_ask(self._service, endpoint, request, read, extras)
        return endpoint.answer(ask, lambda result: _encode(result, request))


def _reader(request: Request) -> tuple[Reader, object]:
    """Return how the rows of a request are read, and its parameters.

    Raises:
        InvalidInput: ``request.unsupported_type``, or the body is in none of the formats.
    """
    kind = content_type(request)
    if kind == CSV:
        text = _utf8(request.body)
        return lambda frames: frames.from_csv(text), None
    if kind in JSON_LINES:
        return lambda frames: frames.from_json_lines(request.body), None
    if not is_json(kind.encode("latin-1")):
        raise _unsupported(f"The content type {kind[:60]!r} is not understood here.")
    body = read_json(request.body)
    if not isinstance(body, dict):
        raise _no_format("The body is no JSON object")
    return lambda frames: read_formats(frames, body), body.get("params")


def content_type(request: Request) -> str:
    """Return the media type of a request in small letters; empty when it tells none.

    Raises:
        InvalidInput: ``request.unsupported_type`` for a character set other than UTF-8 and for
            other parameters.
    """
    kind, *rest = request.headers.get(b"content-type", b"").decode("latin-1").split(";")
    for parameter in rest:
        name, _, value = parameter.strip().partition("=")
        if name and name.lower() != "charset":
            raise _unsupported(f"The parameter {name[:40]!r} of the content type is unknown.")
        if name and value.strip('" ').lower() not in {"utf-8", "utf8"}:
            raise _unsupported("The character set is UTF-8 and no other.")
    return kind.strip().lower()


def read_formats(frames: Frames, body: dict[str, object]) -> Values:
    """Return the rows of a JSON body with exactly one of MLflow's formats.

    Raises:
        InvalidInput: ``request.invalid``.
        LimitExceeded: ``request.too_many_rows``.
    """
    given = [name for name in FORMATS if name in body]
    if len(given) != 1:
        raise _no_format(f"The body has {', '.join(given) or 'none'} of the formats")
    (name,) = given
    data, place = body[name], f"$.{name}"
    if name == "dataframe_split":
        if not isinstance(data, dict):
            raise _no_format("`dataframe_split` is an object with `columns` and `data`")
        return frames.from_split(data.get("columns"), data.get("data"), place)
    if isinstance(data, dict) and name == "inputs":
        return frames.from_columns(data, place)
    return frames.from_rows(data, place, ignore_others=True)


def _encode(result: Result, request: Request) -> Reply:
    outputs = result.outputs.tolist()
    wanted = request.headers.get(b"accept", b"").partition(b",")[0].partition(b";")[0].strip()
    kind = wanted.decode("latin-1").lower()
    if kind == CSV:
        lines = (_csv(each) for each in outputs)
        reply = with_headers("".join(lines).encode(), result, CSV.encode())
    elif kind in JSON_LINES:
        found = b"".join(msgspec.json.encode(each) + b"\n" for each in outputs)
        reply = with_headers(found, result, kind.encode())
    else:
        reply = with_headers(msgspec.json.encode({"predictions": outputs}), result)
    if any(name.startswith(_SAGEMAKER) for name in request.headers):
        # The one header of a container's that SageMaker hands on to the caller.
        attributes = f"prediction={to_id(result.first)}".encode()
        headers = (*reply.headers, (_SAGEMAKER + b"custom-attributes", attributes))
        reply = msgspec.structs.replace(reply, headers=headers)
    return reply


def _csv(output: Scalar | list[float]) -> str:
    values = output if isinstance(output, list) else [output]
    return ",".join(map(repr, values)) + "\r\n"


def _utf8(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            "request.malformed", f"The body is not UTF-8: {error}.", hint="Send it in UTF-8."
        ) from error


def _unsupported(problem: str) -> InvalidInput:
    return InvalidInput(
        "request.unsupported_type",
        problem,
        hint="Send application/json, text/csv or application/jsonlines in UTF-8.",
    )


def _no_format(problem: str) -> InvalidInput:
    return InvalidInput(
        "request.invalid",
        f"{problem}.",
        hint=f"Send a JSON object with exactly one of {', '.join(FORMATS)}.",
    )
