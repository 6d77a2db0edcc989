"""What the protocols of platforms share: an ask from rows, and what of it stands in headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from everloop.core.errors import InvalidInput
from everloop.serve.ask import Ask, Result
from everloop.serve.decode import MAX_UNIT_CHARS, Values, event_time
from everloop.serve.exchange import JSON, Reply, Request
from everloop.serve.identity import to_id
from everloop.serve.protocols.frames import Frames, frames_of
from everloop.serve.service import Endpoint, Service, tell_name

Reader = Callable[[Frames], Values]
_NONE: Final[Mapping[str, object]] = {}


def make_ask(
    service: Service,
    endpoint: Endpoint,
    request: Request,
    read: Reader,
    extras: object = None,
) -> Ask:
    """Return what a request asks.

    Args:
        service: Whose clock bounds the times.
        endpoint: The deployment that is asked.
        request: Where the caller's own id of the request may stand.
        read: Gives the rows, from the reader of the champion's signature.
        extras: What the protocol calls parameters: of those ``unit``, ``at`` and ``keys`` are
            known here, and the others belong to somebody else.

    Raises:
        Unavailable: ``model.none`` before the first release.
        InvalidInput: the rows or the extras cannot be read.
        LimitExceeded: ``request.too_many_rows``.
    """
    lineup = endpoint.lineup
    decoder = lineup.choose(None).loaded.rows
    try:
        values = read(frames_of(decoder))
    except InvalidInput as error:
        tell_name(error, endpoint)
        raise
    told = extras if isinstance(extras, dict) else _NONE
    return Ask(
        given_matrix=decoder.to_numbers(values),
        values=values,
        at_us=_event_us(service, told),
        unit=_short(told, "unit"),
        keys=_keys(told, len(values)),
        request=_request_id(request),
        lineup=lineup,
    )


def answer_headers(result: Result) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that lead from an answer to its row in the log, and to its version.

    The id is the first row's; each further row's is one more. An answer of no version says so.
    """
    told = (b"x-model-version", result.loaded.bundle.semver.encode())
    return (
        (b"x-prediction-id", to_id(result.first).encode()),
        (b"x-prediction-constant", b"true") if result.is_constant else told,
        *(() if result.is_logged else ((b"x-prediction-logged", b"false"),)),
    )


def with_headers(body: bytes, result: Result, content_type: bytes = JSON) -> Reply:
    """Return an answer's body with its headers."""
    return Reply(200, body, content_type, answer_headers(result))


def _event_us(service: Service, told: Mapping[str, object]) -> int | None:
    text = _short(told, "at")
    if text is None:
        return None
    return int(event_time(text, service.clock.now()).timestamp() * 1_000_000)


def _short(told: Mapping[str, object], name: str) -> str | None:
    value = told.get(name)
    if value is None or (isinstance(value, str) and 0 < len(value) <= MAX_UNIT_CHARS):
        return value
    raise _unfit(f"`{name}` is a text of 1 to {MAX_UNIT_CHARS} characters")


def _keys(told: Mapping[str, object], rows: int) -> list[str]:
    keys = told.get("keys")
    if keys is None:
        return []
    if (
        not isinstance(keys, list)
        or len(keys) != rows
        or not all(isinstance(key, str) and 0 < len(key) <= MAX_UNIT_CHARS for key in keys)
    ):
        raise _unfit("`keys` is a list with one text for each row")
    return keys


def _unfit(told: str) -> InvalidInput:
    return InvalidInput("request.invalid", f"{told}.", hint="Correct it, or leave it out.")


def _request_id(request: Request) -> str | None:
    told = request.headers.get(b"x-request-id")
    return told[:MAX_UNIT_CHARS].decode("latin-1") if told else None
