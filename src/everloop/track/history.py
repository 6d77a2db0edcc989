"""A metric's whole history as it is stored: encoded chunks, which the caller decodes.

A million numbers as JSON take seconds to write and to read; the same numbers as chunks take no
more than their bytes take to copy.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from everloop.core.errors import NotFound
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.kernel.performer import Performer
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.track import columns
from everloop.track.columns import Columns
from everloop.track.model import MetricChunk, MetricSummary, Run
from everloop.track.series import chunk_bytes, read_waiting

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
CHUNKS_A_QUERY: Final = 256
Text = Annotated[str, msgspec.Meta(max_length=300)]


class ReadChunks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``run.chunks`` takes; ``first`` is the chunk to begin with."""

    run: Text
    key: Text
    first: Annotated[int, msgspec.Meta(ge=0)] = 0


class RunChunks(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``run.chunks``.

    Attributes:
        chunks: Points in the format of ``everloop.track.columns``, in the order of logging.
        count: How many points the metric has in all.
        next: The chunk to go on with; None after the last one.
    """

    run: Id
    key: str
    chunks: tuple[bytes, ...]
    count: int
    next: int | None


@query("run.chunks", permission="run:read")
def read_chunks(ask: ReadChunks, view: View) -> RunChunks:
    """Return all points of one metric, as chunks of columns; large ones by several pages.

    Raises:
        NotFound: ``run.not_found`` or ``metric.not_found``.
        IntegrityError: ``blob.corrupt``.
    """
    run = view.get(Run, Id(ask.run.removeprefix("run:")))
    summary = view.first(MetricSummary, *where(run=run.id, key=ask.key))
    if summary is None:
        raise NotFound(
            "metric.not_found",
            f"Run {run.id} has no metric {ask.key[:60]!r}.",
            hint="`everloop runs show` lists the metrics of a run.",
        )
    found: list[bytes] = []
    size, seq = 0, ask.first
    while size < MAX_ANSWER_BYTES and seq < summary.chunks:
        rows = view.select(
            MetricChunk,
            *where(run=run.id, key=ask.key),
            Condition("seq", Compare.GE, seq),
            order="seq",
            limit=CHUNKS_A_QUERY,
        )
        if not rows:
            break
        for row in rows:
            found.append(chunk_bytes(view, row))
            size, seq = size + len(found[-1]), row.seq + 1
            if size >= MAX_ANSWER_BYTES:
                break
    if seq >= summary.chunks:
        waiting = read_waiting(view, run.id, ask.key)
        found += [columns.encode(waiting, columns.RAW)] if len(waiting.steps) else []
    return RunChunks(
        run=run.id,
        key=ask.key,
        chunks=tuple(found),
        count=summary.count,
        next=seq if seq < summary.chunks else None,
    )


def history_of(performer: Performer, run: str, key: str) -> Columns:
    """Return every point of a metric as numpy columns, in the order of logging.

    Raises:
        NotFound: ``run.not_found`` or ``metric.not_found``.
        Unavailable: the server does not answer.
    """
    parts: list[Columns] = []
    first: int | None = 0
    while first is not None:
        answer = performer.perform(
            "run.chunks", ReadChunks(run=run, key=key, first=first), RunChunks
        )
        parts += [columns.decode(chunk) for chunk in answer.chunks]
        first = answer.next
    return columns.join(parts)
