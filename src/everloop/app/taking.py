"""Hands labels that serving processes took to the control plane, each of them once.

A process can be killed between the verb and its note of how far it came. What was handed on is then
handed on again: labels that were joined are known as repeated, but those that were refused would be
counted anew. So the stretch is noted before, and goes under request ids made of it: the next
process asks for the same stretch, and the kernel knows the calls that were answered.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from everloop.core.canonical import canonical_json
from everloop.core.errors import Conflict, IntegrityError
from everloop.core.ids import Id
from everloop.core.wire import Label
from everloop.kernel.performer import Performer
from everloop.monitor.feedback import MAX_LABELS, AddFeedback, FeedbackReceipt
from everloop.serve.files import held, write_atomically
from everloop.serve.log import list_files
from everloop.serve.log.frames import WrittenFeedback
from everloop.serve.log.reader import FeedbackChunk, read_feedback

TAKEN_FILE: Final = "taken.json"
LOCK_FILE: Final = ".taken.lock"
SOURCE: Final = "serve"
WAIT_HOURS: Final = 24.0
_LOG = logging.getLogger(__name__)


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """How far the files of labels were handed on.

    Attributes:
        done: Up to where, by file.
        until: Up to where the stretch goes that is being handed on; empty when there is none.
    """

    done: dict[str, int] = {}
    until: dict[str, int] = {}


class LabelTaker:
    """Hands on the labels of deployments; used by one thread."""

    def __init__(self, performer: Performer) -> None:
        self._performer = performer
        # What the files say counts; this is for a note that cannot be read any more.
        self._done: dict[str, int] = {}

    def take(self, deployment: Id, folder: Path) -> None:
        """Hand on what the servers took, in the order in which it came.

        Raises:
            IntegrityError: a file is damaged; what the others hold was handed on all the same.
        """
        if not folder.is_dir():
            return
        with held(folder / LOCK_FILE):
            begun = _read_taken(folder)
            if begun.until:
                self._hand_on(deployment, folder, begun)
            self._hand_on(deployment, folder, Taken(done=_read_taken(folder).done))

    def _hand_on(self, deployment: Id, folder: Path, taken: Taken) -> None:
        chunks: dict[str, FeedbackChunk] = {}
        damage: IntegrityError | None = None
        done = {}
        for file in list_files(folder):
            path = folder / file.name
            start = max(taken.done.get(file.name, 0), self._done.get(str(path), 0))
            done[file.name] = start
            if taken.until and file.name not in taken.until:
                continue
            try:
                chunks[file.name] = read_feedback(path, start, until=taken.until.get(file.name))
            except IntegrityError as error:
                damage = damage or error
        until = {
            name: chunk.next_offset
            for name, chunk in chunks.items()
            if chunk.next_offset != done[name]
        }
        if until and not taken.until:
            _write_taken(folder, Taken(done=done, until=until))
        self._add(deployment, {name: (done[name], end) for name, end in until.items()}, chunks)
        if until or taken.until:
            _write_taken(folder, Taken(done=done | until))
        self._done |= {str(folder / name): end for name, end in until.items()}
        for name, chunk in chunks.items():
            if chunk.is_finished:
                (folder / name).unlink(missing_ok=True)
                self._done.pop(str(folder / name), None)
        if damage is not None:
            raise damage

    def _add(
        self,
        deployment: Id,
        stretch: dict[str, tuple[int, int]],
        chunks: dict[str, FeedbackChunk],
    ) -> None:
        came = sorted(
            (item for chunk in chunks.values() for item in chunk.items),
            key=lambda item: item.received_us,
        )
        labels = [label for item in came for label in _dated(item)]
        for start in range(0, len(labels), MAX_LABELS):
            ask = AddFeedback(
                labels=tuple(labels[start : start + MAX_LABELS]),
                deployment=deployment,
                source=SOURCE,
                wait_hours=WAIT_HOURS,
            )
            # Of the labels, too: a file that can't be read any more makes it another call.
            told = canonical_json({"stretch": stretch, "from": start, "ask": ask})
            request = f"labels:{hashlib.sha256(told).hexdigest()}"
            try:
                done = self._performer.perform(
                    "feedback.add", ask, FeedbackReceipt, request=request
                )
            except Conflict as conflict:
                if conflict.code != "request.reused":
                    raise
                continue  # answered before, and the answer is not kept any more
            given_up = len(done.refused) + len(done.unknown) - done.waiting
            if given_up:
                _LOG.warning("%d labels were refused; see `everloop feedback refused`.", given_up)


def _read_taken(folder: Path) -> Taken:
    try:
        return msgspec.json.decode((folder / TAKEN_FILE).read_bytes(), type=Taken)
    except (OSError, msgspec.MsgspecError):
        return Taken()


def _write_taken(folder: Path, taken: Taken) -> None:
    write_atomically(folder / TAKEN_FILE, msgspec.json.encode(taken))


def _dated(item: WrittenFeedback) -> Iterator[Label]:
    """Yield labels with the time when they came, or an earlier one that their sender told."""
    received = datetime.fromtimestamp(item.received_us / 1e6, UTC)
    for label in item.labels:
        at = received if label.at is None else min(label.at, received)
        yield msgspec.structs.replace(label, at=at)
