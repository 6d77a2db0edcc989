"""Takes the truth about predictions where they are answered, and loses none that it took.

A label is on the disk before it is acknowledged: a file of frames as the prediction log's, synced
once for all requests that came meanwhile. The control plane joins it with its prediction later, so
the server needs no database and the caller needs no retry.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time_ns
from typing import Final

import msgspec

from everloop.core.errors import InvalidInput, LimitExceeded, Unavailable
from everloop.core.ids import is_id
from everloop.core.wire import Label
from everloop.serve.decode import MAX_FUTURE
from everloop.serve.dispatch import Route
from everloop.serve.exchange import Reply, Request, is_json
from everloop.serve.log.file import FrameFile, remove_drafts
from everloop.serve.log.frames import FEEDBACK, WrittenFeedback
from everloop.serve.log.writer import new_file
from everloop.serve.service import Endpoint, Service

FOLDER: Final = "feedback"
REFUSED_FILE: Final = "labels-refused.json"
MAX_LABELS: Final = 20_000
FILE_BYTES: Final = 4 * 1024 * 1024
MAX_BYTES: Final = 256 * 1024 * 1024
LABELS_A_SECOND: Final = 5_000.0
BURST: Final = 100_000.0
HINT: Final = 'Send {"prediction": "<id>", "value": 1} or {"key": "<your key>", "value": 1}.'
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_ONE_OR_MANY: Final = msgspec.json.Decoder(Label | list[Label])
_LINE: Final = msgspec.json.Decoder(Label)
# In another zone a time further out would be none of ours.
_EARLIEST: Final = datetime(2, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_LINES: Final = frozenset([b"application/x-ndjson", b"application/jsonl", b"application/jsonlines"])


def routes(service: Service) -> list[Route]:
    """Return the addresses that take feedback."""
    desk = FeedbackDesk(service)
    return [
        Route("POST", "/feedback", desk.take),
        Route("POST", "/v1/feedback", desk.take),
        Route("POST", "/models/{model}/feedback", desk.take),
    ]


class FeedbackTaken(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``POST /feedback``: so many labels are kept and will be joined."""

    accepted: int


class FeedbackDesk:
    """Takes labels, bounded in rate by token, durable before they are acknowledged."""

    def __init__(self, service: Service) -> None:
        self.taken = 0
        self._service = service
        self._logs: dict[str, FeedbackLog] = {}
        self._bucket = TokenBuckets(LABELS_A_SECOND, BURST, monotonic)

    async def take(self, request: Request) -> Reply:
        """Keep one label, a list of them, or lines of them.

        Raises:
            NotAuthenticated: ``token.invalid``.
            InvalidInput: the body is no labels.
            LimitExceeded: ``feedback.too_many`` or ``feedback.too_often``.
            Unavailable: there is no place for them.
        """
        service = self._service
        name = request.params.get("model")
        endpoint = service.only() if name is None else service.find(name)
        mark = service.authorise_feedback(request, endpoint)
        labels = read_labels(request.headers.get(b"content-type", b""), request.body)
        latest = service.clock.now() + MAX_FUTURE
        for place, label in enumerate(labels):
            require_fit(place, label, endpoint, latest)
        self._bucket.take(mark, len(labels))
        log = self._logs.get(endpoint.name)
        if log is None:
            folder = endpoint.switchboard.log
            if folder is None:
                raise Unavailable(
                    "feedback.no_place",
                    "This server has no folder where labels could be kept.",
                    hint="Give it one, or send them to the control plane.",
                )
            log = self._logs[endpoint.name] = FeedbackLog(folder / FOLDER)
        await log.keep(labels)
        self.taken += len(labels)
        return Reply(202, msgspec.json.encode(FeedbackTaken(accepted=len(labels))))


class FeedbackLog:
    """The labels of one deployment that one process took. Used by the event loop's thread."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._worker = f"p{os.getpid()}"
        self._max_bytes = max_bytes
        self._file: FrameFile | None = None
        self._flight: asyncio.Future[int] | None = None
        self._turn = asyncio.Lock()

    async def keep(self, labels: Sequence[Label]) -> None:
        """Return when the labels are on the disk.

        Raises:
            Unavailable: ``feedback.no_space`` or ``feedback.not_kept``.
        """
        payload = _ENCODE(WrittenFeedback(time_ns() // 1_000, tuple(labels)))
        file = self._file
        while file is None or not file.append(FEEDBACK, payload):
            file = await self._begin(file, len(payload))
        await self._settle(file, file.end)

    def close(self) -> None:
        """Say that no more will come; the same as the end of the process, but tidier."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    async def _settle(self, file: FrameFile, end: int) -> None:
        try:
            while file.synced < end:
                # One trip to the disk serves all who wait when it begins.
                if self._flight is None or self._flight.done():
                    self._flight = asyncio.ensure_future(asyncio.to_thread(file.sync))
                await asyncio.shield(self._flight)
        except OSError as error:
            raise Unavailable(
                "feedback.not_kept",
                f"The labels could not be brought onto the disk: {error}.",
                hint="Send them again later; what comes twice counts once.",
            ) from error

    async def _begin(self, full: FrameFile | None, size: int) -> FrameFile:
        """Return the file behind a full one, which is complete when its labels are on the disk."""
        async with self._turn:
            if self._file is not full and self._file is not None:
                return self._file  # who waited for the same turn finds it begun
            before, self._file = self._file, None
            if before is not None:
                await self._settle(before, before.end)
                await asyncio.to_thread(before.close)
            self._file = self._make(size)
            return self._file

    def _make(self, size: int) -> FrameFile:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_drafts(self._folder)
        except OSError as error:
            raise _no_space() from error
        made = new_file(self._folder, self._worker, max(FILE_BYTES, size + 64), self._max_bytes)
        if made is None:
            raise _no_space()
        return made


class TokenBuckets:
    """How much each token may send: so much at once, refilled at a steady rate."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, mark: str, amount: int) -> None:
        """Take from a token's bucket.

        Raises:
            LimitExceeded: ``feedback.too_often`` with ``retry_after_s``.
        """
        now = self._clock()
        level, since = self._levels.get(mark, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate)
        if level < amount:
            wait_s = int((min(amount, self._burst) - level) / self._rate) + 1
            raise LimitExceeded(
                "feedback.too_often",
                "This token sends labels faster than they are taken.",
                hint=f"Send {amount} labels again in {wait_s} s.",
                context={"retry_after_s": wait_s},
            )
        self._levels[mark] = level - amount, now


def read_refused(folder: Path) -> dict[str, int]:
    """Return how many labels the control plane could not use, by reason, as far as it said so."""
    try:
        return msgspec.json.decode((folder / REFUSED_FILE).read_bytes(), type=dict[str, int])
    except (OSError, msgspec.MsgspecError):
        return {}


def read_labels(content_type: bytes, body: bytes) -> list[Label]:
    """Read a body: a label, a list, or lines of labels.

    Raises:
        InvalidInput: ``feedback.invalid`` or ``request.unsupported_type``.
        LimitExceeded: ``feedback.too_many``.
    """
    kind = content_type.partition(b";")[0].strip().lower()
    if kind in _LINES:
        labels = _read_lines(body)
    elif is_json(kind):
        try:
            found = _ONE_OR_MANY.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _invalid(str(error)) from error
        labels = found if isinstance(found, list) else [found]
    else:
        raise InvalidInput(
            "request.unsupported_type",
            f"Labels of type {kind[:60].decode('ascii', 'replace')!r} are not read here.",
            hint="Send application/json or application/x-ndjson.",
        )
    if not labels:
        raise _invalid("There are no labels")
    if len(labels) > MAX_LABELS:
        raise LimitExceeded(
            "feedback.too_many",
            f"{len(labels)} labels are too many for one request.",
            hint=f"Send at most {MAX_LABELS} at once, or a file by `everloop feedback add`.",
        )
    for place, label in enumerate(labels):
        _require_meaning(place, label)
    return labels


def _read_lines(body: bytes) -> list[Label]:
    labels: list[Label] = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            try:
                labels.append(_LINE.decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise _invalid(f"Line {number}: {error}") from error
        if len(labels) > MAX_LABELS:
            break
    return labels


def _require_meaning(place: int, label: Label) -> None:
    if label.prediction is None and label.key is None:
        raise _invalid(f"Label {place} names no prediction")
    if label.prediction is not None and not is_id(label.prediction):
        raise _invalid(f"Label {place}: {label.prediction[:40]!r} is no id of a prediction")
    if label.value is None and not label.overridden:
        raise _invalid(f"Label {place} has no value")
    if label.at is not None and not _EARLIEST < label.at < _LATEST:
        raise _invalid(f"Label {place}: its time cannot be")


def require_fit(place: int, label: Label, endpoint: Endpoint, latest: datetime) -> None:
    """Let pass a label that can be the truth of this deployment's predictions."""
    if label.at is not None and label.at > latest:
        raise _invalid(f"Label {place}: its time is more than a day in the future")
    champion = endpoint.lineup.champion
    if champion is None or not isinstance(label.value, str):
        return
    if champion.loaded.bundle.task == "regression":
        raise _invalid(f"Label {place}: {label.value[:40]!r} is no number")


def _invalid(problem: str) -> InvalidInput:
    return InvalidInput("feedback.invalid", f"{problem[:300]}.", hint=HINT)


def _no_space() -> Unavailable:
    return Unavailable(
        "feedback.no_space",
        "There is no space for more labels until those before are taken over.",
        hint="Send them again later; look whether the control plane runs.",
        context={"retry_after_s": 5},
    )
