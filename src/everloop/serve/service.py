"""What all protocols share: the deployments of this process, who may ask, and the answering."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from time import time_ns
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from everloop.core.clock import Clock, Instant
from everloop.core.errors import Denied, EverloopError, NotAuthenticated, NotFound
from everloop.core.wire import FEEDBACK, PREDICT
from everloop.serve.answer import Answerer
from everloop.serve.ask import Ask, Result
from everloop.serve.exchange import Answer, Reply, Request
from everloop.serve.lineup import Lineup
from everloop.serve.log import Flusher
from everloop.serve.observe.jsonlog import say_failure
from everloop.serve.observe.tally import Tally
from everloop.serve.pages import Pages
from everloop.serve.recording import Log
from everloop.serve.still import Still
from everloop.serve.switchboard import Switchboard
from everloop.serve.tokens import TokensFile
from everloop.serve.turn import Turn

RELOAD_PAUSE_S: Final = 0.02
TOKENS_POLLS: Final = 50
MOST_KNOWN: Final = 1_024
RETRY_POLLS: Final = 100  # refused bundles are looked at again every two seconds
MOST_LOADING: Final = 4  # at one time; fewer than asyncio has threads, which rollbacks need


class Endpoint:
    """One deployment: its versions, its log and its answerer."""

    def __init__(
        self, name: str, switchboard: Switchboard | Still, answerer: Answerer, log: Log
    ) -> None:
        self.name = name
        self.switchboard = switchboard
        self.answerer = answerer
        self.log = log

    @property
    def lineup(self) -> Lineup:
        """The versions that answer now."""
        return self.switchboard.lineup

    def answer(self, ask: Ask, encode: Callable[[Result], Reply]) -> Answer:
        """Answer one ask, by the line-up that it was read for."""
        return self.answerer.answer(ask.lineup or self.switchboard.lineup, ask, encode)


class _Known(NamedTuple):
    """A header that was let pass; as long as the tokens are those of then."""

    mark: str
    tokens: Mapping[str, Instant]
    expires_ns: int


class Shelf(Protocol):
    """Brings bundles in and takes them out, in all workers; raises what they raise."""

    def absent(self) -> dict[str, str]:
        """Return the bundles that are there and not loaded, and why."""
        ...

    async def bring_in(self, name: str) -> None:
        """Load a bundle, or load it again."""
        ...

    async def take_out(self, name: str) -> None:
        """Unload a bundle."""
        ...


class Service:
    """The deployments of one process.

    Attributes:
        is_open: Whether anybody may ask; so where a platform in front decides who may.
        pages: Which pages of this machine's browsers may ask where anybody may; None where it
            listens to other machines, too.
        tokens: Who may ask bundles that stand alone; None where the routes say so.
        is_draining: Whether the process is ending, so that it is not ready for more.
        turn: What is done for all requests of a turn of the event loop together.
        shelf: What loads and unloads by request; None where that is not allowed.
        count: Returns the counts of all workers; of this one until somebody knows the others.
    """

    def __init__(self, clock: Clock, tally: Tally | None = None, *, is_open: bool = False) -> None:
        self.clock = clock
        self.endpoints: dict[str, Endpoint] = {}
        self.is_open = is_open
        self.pages: Pages | None = None
        self.is_draining = False
        self.flusher: Flusher | None = None
        self.shelf: Shelf | None = None
        self.tally = Tally() if tally is None else tally
        self.turn = Turn()
        self.count: Callable[[], Tally] = lambda: self.tally
        self.tokens: TokensFile | None = None
        self._known: dict[bytes, _Known] = {}

    def fsync_errors(self) -> int:
        """Return how often the log could not be brought onto the disk."""
        return 0 if self.flusher is None else self.flusher.errors

    def find(self, name: str) -> Endpoint:
        """Return a deployment by its name.

        Raises:
            NotFound: ``model.not_served``.
        """
        found = self.endpoints.get(name)
        if found is None:
            raise NotFound(
                "model.not_served",
                f"There is no model {name[:60]!r} here.",
                hint=f"Here are: {', '.join(sorted(self.endpoints)[:20]) or 'none'}.",
            )
        return found

    def only(self) -> Endpoint:
        """Return the deployment that is meant where the address names none.

        Raises:
            NotFound: ``model.unnamed`` where there is not exactly one.
        """
        if len(self.endpoints) == 1:
            return next(iter(self.endpoints.values()))
        raise NotFound(
            "model.unnamed",
            f"There are {len(self.endpoints)} models here, and the address names none of them.",
            hint=f"Name one: {', '.join(sorted(self.endpoints)[:20]) or 'none'}.",
        )

    def chosen(self, request: Request) -> Endpoint:
        """Return the deployment that a path names, or the only one, if the caller may ask it.

        Raises:
            NotFound: ``model.not_served`` or ``model.unnamed``.
            NotAuthenticated: ``token.invalid``.
        """
        name = request.params.get("model")
        endpoint = self.only() if name is None else self.find(name)
        self.authorise(request, endpoint)
        return endpoint

    def admit(self, request: Request) -> None:
        """Let pass what may come in at all, before it is found what it asks.

        Raises:
            Denied: ``request.foreign_host`` or ``request.foreign_origin``.
        """
        if self.is_open and self.pages is not None:
            self.pages.require(request)

    def authorise(self, request: Request, endpoint: Endpoint) -> str:
        """Let pass whoever may ask a deployment; return the mark of their token.

        Raises:
            NotAuthenticated: ``token.invalid``.
            Denied: ``token.scope``.
        """
        if self.is_open:
            return ""
        if self.tokens is not None:
            return self._require_token(request, self.tokens.known)
        lineup = endpoint.lineup
        lacking = (lineup.feedback_tokens, lineup.others)
        return self._require_token(request, lineup.tokens, lacking, PREDICT)

    def authorise_feedback(self, request: Request, endpoint: Endpoint) -> str:
        """Let pass whoever may tell a deployment the truth; return the mark of their token.

        Raises:
            NotAuthenticated: ``token.invalid``.
        """
        if self.is_open or self.tokens is not None:
            return self.authorise(request, endpoint)
        lineup = endpoint.lineup
        # Who may ask may tell the truth, too.
        mark = self._remembered(request.headers.get(b"authorization", b""), lineup.tokens)
        if mark is not None:
            return mark
        try:
            return self._require_token(request, lineup.feedback_tokens)
        except NotAuthenticated:
            return self._require_token(request, lineup.tokens, (lineup.others,), FEEDBACK)

    def authorise_any(self, request: Request) -> None:
        """Let pass whoever may ask everything here.

        Raises:
            NotAuthenticated: ``token.invalid``.
        """
        if not self.is_open:
            self._require_token(request, {} if self.tokens is None else self.tokens.known)

    def _remembered(self, secret: bytes, tokens: Mapping[str, Instant]) -> str | None:
        """Return the mark of a header that was let pass by these very tokens, and still is good."""
        known = self._known.get(secret)
        if known is not None and known.tokens is tokens and time_ns() < known.expires_ns:
            return known.mark
        return None

    def _require_token(
        self,
        request: Request,
        tokens: Mapping[str, Instant],
        lacking: Sequence[Mapping[str, Instant]] = (),
        scope: str = "",
    ) -> str:
        secret = request.headers.get(b"authorization", b"")
        remembered = self._remembered(secret, tokens)
        if remembered is not None:
            return remembered
        scheme, _, token = secret.partition(b" ")
        # The hash is looked up, not the secret: how long that takes tells nothing about it.
        mark = hashlib.sha256(token.strip()).hexdigest()
        expires = tokens.get(mark)
        now = self.clock.now()
        if scheme.lower() != b"bearer" or expires is None or expires <= now:
            if any(each[mark] > now for each in lacking if mark in each):
                raise Denied(
                    "token.scope",
                    f"The token is good, but may not do this: it lacks {scope}.",
                    hint=f"Make one with `everloop token create --scope {scope}` for somebody "
                    "whose role allows it.",
                    context={"scope": scope},
                )
            raise NotAuthenticated(
                "token.invalid",
                "The token is missing, unknown, expired or revoked.",
                hint="Send `Authorization: Bearer <token>`; make one with `everloop token create`.",
            )
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[secret] = _Known(mark, tokens, int(expires.timestamp() * 1e9))
        return mark

    def is_ready(self, endpoints: Collection[Endpoint]) -> bool:
        """Tell whether these deployments answer, of which there must be one."""
        if self.tokens is not None and self.tokens.problem and not self.tokens.known:
            return False
        return (
            not self.is_draining
            and bool(endpoints)
            # At one blow: a thread hosts new ones meanwhile.
            and all(each.lineup.champion is not None for each in tuple(endpoints))
        )

    async def keep_routes(self) -> None:
        """Watch the routes files and switch; runs until cancelled.

        Each deployment for itself, and to what is loaded at once: a rollback does not wait for a
        large model, be it of another deployment or of its own canary.
        """
        polls = 0
        following: dict[str, asyncio.Task[None]] = {}
        loading: dict[str, asyncio.Task[None]] = {}
        incomplete: set[str] = set()
        slots = asyncio.Semaphore(MOST_LOADING)
        while True:
            await asyncio.sleep(RELOAD_PAUSE_S)
            polls += 1
            if self.tokens is not None and polls % TOKENS_POLLS == 0:
                self.tokens.refresh()
            for name, endpoint in tuple(self.endpoints.items()):
                board = endpoint.switchboard
                if not isinstance(board, Switchboard):
                    continue
                is_due = bool(board.refused) and polls % RETRY_POLLS == 0
                if (is_due or board.is_stale()) and name not in following:
                    following[name] = asyncio.create_task(_do("follow", board.follow))
            # What is to be loaded comes after; a rollback meanwhile does not wait for it.
            incomplete.update(_ended(following))
            _ended(loading)
            for name in [name for name in incomplete if name not in loading]:
                incomplete.remove(name)
                loading[name] = asyncio.create_task(self._load(name, slots))

    async def _load(self, name: str, slots: asyncio.Semaphore) -> None:
        async with slots:
            endpoint = self.endpoints.get(name)
            if endpoint is not None and isinstance(endpoint.switchboard, Switchboard):
                await _do("load", endpoint.switchboard.complete)


async def _do(what: str, work: Callable[[], None]) -> None:
    try:
        # In a thread: verifying and loading must not hold up answers.
        await asyncio.to_thread(work)
    except Exception as error:  # noqa: BLE001 -- the watch outlives what it finds
        say_failure(what, error)


def _ended(tasks: dict[str, asyncio.Task[None]]) -> list[str]:
    """Take out the tasks that have ended, and return their names."""
    names = [name for name, task in tasks.items() if task.done()]
    for name in names:
        del tasks[name]
    return names


def tell_name(error: EverloopError, endpoint: Endpoint) -> None:
    """Put a deployment's name where an error's hint has an address of ``{model}``."""
    error.hint = error.hint.replace("{model}", quote(endpoint.name, safe=""))


def told(error: EverloopError) -> str:
    """Return an error in one line, for protocols that have no more room."""
    return f"{error.message} {error.hint}".strip()
