"""A small client of the serving process, over one kept connection."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping, Sequence
from typing import Self
from urllib.parse import urlsplit

import msgspec

from everloop.core.clock import Instant, to_text
from everloop.core.errors import (
    Denied,
    EverloopError,
    InvalidInput,
    LimitExceeded,
    NotAuthenticated,
    NotFound,
    Unavailable,
)
from everloop.core.wire import Scalar
from everloop.serve.protocol import Health, ModelCard, PredictAnswer

_KINDS: dict[int, type[EverloopError]] = {
    400: InvalidInput,
    401: NotAuthenticated,
    403: Denied,
    404: NotFound,
    405: InvalidInput,
    413: LimitExceeded,
    429: LimitExceeded,
    503: Unavailable,
}
# What a kept connection does when the server closed it while idle: safe to ask again once.
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class _Told(msgspec.Struct):
    code: str
    message: str
    hint: str


class _Refusal(msgspec.Struct):
    error: _Told


class PredictClient:
    """Asks one serving process. Thread-safe: requests go one after the other."""

    def __init__(self, url: str, token: str, *, timeout_s: float = 10.0) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            url: Of a model, as a deployment's ``server.json`` tells it, or of a server of one
                model alone.
            token: That may predict.
            timeout_s: How long to wait for an answer.
        """
        split = urlsplit(url)
        self._host = split.netloc
        self._place = split.path.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None

    def predict(
        self,
        rows: Sequence[Mapping[str, Scalar]],
        *,
        at: Instant | None = None,
        unit: str | None = None,
    ) -> PredictAnswer:
        """Return the answers to rows, in their order.

        Args:
            rows: Inputs by name.
            at: Event time, when it is not now.
            unit: Whom a canary's assignment sticks to, such as a user's id.

        Raises:
            InvalidInput: a row does not fit the model's signature.
            NotAuthenticated: the token is not accepted.
            LimitExceeded: too many rows or requests.
            Unavailable: the process is away or has no model.
        """
        ask: dict[str, object] = {"inputs": rows}
        if at is not None:
            ask["at"] = to_text(at)
        if unit is not None:
            ask["unit"] = unit
        body = self._ask("POST", f"{self._place or '/v1'}/predict", msgspec.json.encode(ask))
        return msgspec.json.decode(body, type=PredictAnswer)

    def model(self) -> ModelCard:
        """Return what the champion takes and gives."""
        return msgspec.json.decode(self._ask("GET", self._place or "/v1/model"), type=ModelCard)

    def health(self) -> Health:
        """Return the state of the process."""
        return msgspec.json.decode(self._ask("GET", f"{self._place}/healthz"), type=Health)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        with self._lock:
            self._drop()

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        with self._lock:
            try:
                status, answer = self._exchange(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                raise Unavailable(
                    "serving.away",
                    f"The serving process at {self._host} does not answer: {error}.",
                    hint="Start it with `everloop up`, or try again.",
                ) from error
        if status == 200:
            return answer
        raise _to_error(status, answer)

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        is_kept = self._connection is not None
        try:
            return self._once(method, path, body)
        except _STALE:
            self._drop()
            if not is_kept:
                raise
        return self._once(method, path, body)

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, timeout=self._timeout_s)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            self._connection.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError) as cut:
            # A server that refuses a body hangs up before it has come whole: it has said why.
            response = self._early_answer(cut)
        else:
            response = self._connection.getresponse()
        answer = response.read()
        if response.will_close:
            self._drop()
        return response.status, answer

    def _early_answer(self, cut: OSError) -> http.client.HTTPResponse:
        assert self._connection is not None
        try:
            return self._connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise cut from None

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _to_error(status: int, body: bytes) -> EverloopError:
    kind = _KINDS.get(status, EverloopError)
    try:
        told = msgspec.json.decode(body, type=_Refusal).error
    except msgspec.MsgspecError:
        return kind(
            "serving.failed", f"The server answered {status}.", hint="See the server's log."
        )
    return kind(told.code, told.message, hint=told.hint)
