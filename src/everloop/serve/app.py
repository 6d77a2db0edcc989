"""The HTTP face of the serving process, as a raw ASGI application."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

from everloop.core.clock import Clock
from everloop.core.errors import (
    EverloopError,
    InvalidInput,
    LimitExceeded,
    NotAuthenticated,
    NotFound,
    Unavailable,
)
from everloop.serve.answer import Answerer, ShadowJob, score_adapted
from everloop.serve.decode import MAX_BODY_BYTES
from everloop.serve.lines import LogWriter, ShadowLine
from everloop.serve.protocol import Health, ModelCard
from everloop.serve.switchboard import Lineup, Switchboard

Message = MutableMapping[str, Any]  # ASGI's own types: https://asgi.readthedocs.io
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_IN_FLIGHT = 512
BODY_TIMEOUT_S = 10.0
RELOAD_PAUSE_S = 0.02
RETRY_POLLS = 100  # refused bundles are tried again every two seconds
STATUSES: tuple[tuple[type[EverloopError], int], ...] = (
    (NotAuthenticated, 401),
    (InvalidInput, 400),
    (NotFound, 404),
    (LimitExceeded, 413),
    (Unavailable, 503),
)
Headers = Iterable[tuple[bytes, bytes]]


class ServeApp:
    """Answers HTTP requests, keeps the routes fresh and runs the shadow behind the answers."""

    def __init__(
        self, switchboard: Switchboard, answerer: Answerer, log: LogWriter, clock: Clock
    ) -> None:
        self._switchboard = switchboard
        self._answerer = answerer
        self._log = log
        self._clock = clock
        self._in_flight = 0
        self._jobs: deque[ShadowJob] = deque()
        self._has_jobs = asyncio.Event()
        self._handlers: dict[str, dict[str, Callable[[Message, Receive], Awaitable[_Reply]]]] = {
            "/v1/predict": {"POST": self._predict},
            "/v1/model": {"GET": self._model},
            "/healthz": {"GET": self._health},
            "/readyz": {"GET": self._ready},
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one ASGI request."""
        if scope["type"] != "http":
            return
        self._in_flight += 1
        try:
            reply = await self._reply(scope, receive)
        except EverloopError as error:
            reply = _refusal(error)
        except Exception as error:  # noqa: BLE001 -- the process edge: the caller gets no trace
            sys.stderr.write(f"serve: {type(error).__name__}: {error}\n")
            reply = _refusal(_internal())
        finally:
            self._in_flight -= 1
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(reply.body)).encode()),
            *reply.headers,
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})
        if self._jobs:
            self._has_jobs.set()

    async def keep_routes(self) -> None:
        """Watch the routes file and switch; runs until cancelled."""
        polls = 0
        while True:
            await asyncio.sleep(RELOAD_PAUSE_S)
            polls += 1
            retry = self._switchboard.refused and polls % RETRY_POLLS == 0
            if not retry and not self._switchboard.is_stale():
                continue
            try:
                # In a thread: verifying and loading must not hold up answers.
                await asyncio.to_thread(self._switchboard.reload)
            except Exception as error:  # noqa: BLE001 -- the watch must outlive whatever it finds
                sys.stderr.write(f"serve: reload: {type(error).__name__}: {error}\n")

    async def run_shadows(self) -> None:
        """Let the shadow answer what has been answered; runs until cancelled."""
        while True:
            await self._has_jobs.wait()
            self._has_jobs.clear()
            while self._jobs:
                await self._run_shadow(self._jobs.popleft())

    async def drain(self) -> None:
        """Finish the shadow's work that is left."""
        while self._jobs:
            await self._run_shadow(self._jobs.popleft())

    async def _run_shadow(self, job: ShadowJob) -> None:
        found = await asyncio.to_thread(score_adapted, job.loaded, job.origin, job.rows)
        lines = [
            ShadowLine(
                id=id_,
                shadow_version=job.loaded.bundle.version_id,
                shadow_output=scored.output,
                shadow_status=scored.status,
            )
            for id_, scored in zip(job.ids, found, strict=True)
        ]
        self._answerer.awaited_shadows -= len(lines)
        try:
            self._log.append_shadow(job.file, lines)
        except OSError:
            self._answerer.counters.unlogged += len(lines)

    async def _reply(self, scope: Message, receive: Receive) -> _Reply:
        methods = self._handlers.get(scope["path"])
        if methods is None:
            raise NotFound(
                "path.not_found",
                "There is nothing at this address.",
                hint="Ask POST /v1/predict, GET /v1/model, /healthz or /readyz.",
            )
        handler = methods.get(scope["method"])
        if handler is None:
            allowed = ", ".join(methods)
            wrong = InvalidInput(
                "method.not_allowed", "This method is not allowed here.", hint=f"Use {allowed}."
            )
            return _refusal(wrong, 405, [(b"allow", allowed.encode())])
        if self._in_flight > MAX_IN_FLIGHT:
            busy = LimitExceeded(
                "server.busy", "Too many requests at once.", hint="Try again in a second."
            )
            return _refusal(busy, 429, [(b"retry-after", b"1")])
        return await handler(scope, receive)

    async def _predict(self, scope: Message, receive: Receive) -> _Reply:
        self._require_token(scope["headers"])
        body = await _read_body(scope["headers"], receive)
        answer, job = self._answerer.answer(self._switchboard.lineup, body)
        if job is not None:
            self._jobs.append(job)
        return _Reply(200, answer)

    async def _model(self, scope: Message, _receive: Receive) -> _Reply:
        self._require_token(scope["headers"])
        champion = self._switchboard.lineup.champion
        if champion is None:
            raise Unavailable(
                "model.none",
                "No model is released to this deployment yet.",
                hint="Release one with `everloop release start`.",
            )
        found = champion.bundle
        card = ModelCard(
            deployment=found.deployment,
            model=found.model,
            version=found.version_id,
            number=found.number,
            semver=found.semver,
            task=found.task,
            inputs=found.inputs,
            output=found.output_name,
        )
        return _Reply(200, msgspec.json.encode(card))

    async def _health(self, _scope: Message, _receive: Receive) -> _Reply:
        return _Reply(200, msgspec.json.encode(self._state()))

    async def _ready(self, _scope: Message, _receive: Receive) -> _Reply:
        state = self._state()
        return _Reply(200 if state.ready else 503, msgspec.json.encode(state))

    def _state(self) -> Health:
        counters = self._answerer.counters
        lineup: Lineup = self._switchboard.lineup
        return Health(
            ready=lineup.champion is not None,
            epoch=lineup.epoch,
            predictions=counters.predictions,
            fallbacks=counters.fallbacks,
            unlogged=counters.unlogged,
            fsync_errors=self._log.fsync_errors,
            awaited_shadows=self._answerer.awaited_shadows,
            refused=tuple(refusal.code for refusal in self._switchboard.refused),
        )

    def _require_token(self, headers: Headers) -> None:
        secret = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, token = secret.partition(b" ")
        # The hash is looked up, not the secret: how long that takes tells nothing about it.
        expires = self._switchboard.lineup.tokens.get(hashlib.sha256(token.strip()).hexdigest())
        if scheme.lower() != b"bearer" or expires is None or expires <= self._clock.now():
            raise NotAuthenticated(
                "token.invalid",
                "The token is missing, unknown, expired or revoked.",
                hint="Send `Authorization: Bearer <token>`; make one with `everloop token create`.",
            )


class _Reply(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]] = []


async def _read_body(headers: Headers, receive: Receive) -> bytes:
    length = next((value for name, value in headers if name == b"content-length"), b"0")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    message = await receive()
    body = bytes(message.get("body", b""))
    if not message.get("more_body"):
        return _checked(body)
    parts = [body]
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while message.get("more_body"):
                message = await receive()
                parts.append(message.get("body", b""))
                if sum(map(len, parts)) > MAX_BODY_BYTES:
                    raise _too_large()
    except TimeoutError as error:
        raise InvalidInput(
            "request.slow",
            f"The body took longer than {BODY_TIMEOUT_S:.0f} seconds.",
            hint="Send the request at once.",
        ) from error
    return _checked(b"".join(parts))


def _checked(body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    return body


def _too_large() -> LimitExceeded:
    return LimitExceeded(
        "request.too_large",
        "The body is too large.",
        hint=f"Send at most {MAX_BODY_BYTES:,} bytes a request, in several requests if need be.",
    )


def _internal() -> EverloopError:
    return EverloopError(
        "server.failed", "The server failed.", hint="Its log on standard error says why."
    )


def _refusal(
    error: EverloopError,
    status: int | None = None,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> _Reply:
    if status is None:
        status = next((code for kind, code in STATUSES if isinstance(error, kind)), 500)
    extra = list(headers or [])
    if status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if status == 413:
        extra.append((b"connection", b"close"))  # the rest of the body is not read
    told = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    return _Reply(status, msgspec.json.encode(told), extra)
