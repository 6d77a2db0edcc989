"""Traces: what happened within one request, as another tracker's clients send it.

A trace is a row; its spans are blobs, one for each delivery. The client's id of a trace is kept,
for the client asks by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from everloop.core.clock import Instant
from everloop.core.digest import Digest, parse_digest
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.filter.fields import InstantField, NumberField, TextField
from everloop.core.filter.joins import one_of
from everloop.core.filter.keyed import LookedTexts
from everloop.core.filter.scene import Scene
from everloop.core.filter.vocabulary import Vocabulary, declare
from everloop.core.ids import Id, ProjectId
from everloop.core.ports import Compare, Condition, where
from everloop.core.records import Record, record
from everloop.core.search import Order
from everloop.kernel.searching import LENIENT_LONGEST, Search, scene_of, search_text
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query, verb
from everloop.track import limits
from everloop.track.model import Experiment

MAX_PAGE = 500
MAX_TRACES = 1_000
MAX_PREVIEW_CHARS = 10_000
MAX_DELIVERIES = 2_000
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=250, pattern=r"^[\w.:/-]+$")]
Long = Annotated[str, msgspec.Meta(max_length=20_000)]
Texts = dict[str, str]
SOURCE_RUN = "mlflow.sourceRun"
NAME = "mlflow.traceName"


@record("trace", unique=(("project", "key"),), index=(("project", "experiment", "started_at"),))
class Trace(Record, frozen=True, kw_only=True):
    """One request with its spans.

    Attributes:
        key: The client's id of it.
        run: The run that it belongs to, as the client says.
        state: ``OK``, ``ERROR``, ``IN_PROGRESS`` or ``STATE_UNSPECIFIED``.
        spans: Blobs, each a JSON list of spans; of one span the later state counts.
        files: Blobs by name, for clients that send the spans as a file.
    """

    project: ProjectId
    experiment: Id
    key: str
    name: str = ""
    run: str | None = None
    state: str = "STATE_UNSPECIFIED"
    started_at: Instant
    duration_ms: int | None = None
    client_request: str | None = None
    request: str | None = None
    response: str | None = None
    metadata: Texts = msgspec.field(default_factory=dict)
    tags: Texts = msgspec.field(default_factory=dict)
    spans: tuple[Digest, ...] = ()
    files: dict[str, Digest] = msgspec.field(default_factory=dict)


def _tags(scene: Scene) -> Mapping[str, Mapping[str, str]]:
    return {row.id: row.tags for row in scene.reader.select(Trace) if row.tags}


def _metadata(scene: Scene) -> Mapping[str, Mapping[str, str]]:
    return {row.id: row.metadata for row in scene.reader.select(Trace) if row.metadata}


TRACES = declare(
    Vocabulary(
        noun="trace",
        kind="trace",
        fields={
            "id": TextField("key", "the client's id of it"),
            "name": TextField("name", "its name"),
            "status": TextField("state", "how it ended"),
            "started_at": InstantField("started_at", "when it began"),
            "run_id": TextField("run", "the run that it belongs to", nullable=True),
            "duration_ms": NumberField("duration_ms", "how long it took", nullable=True),
            "client_request_id": TextField(
                "client_request", "the id that its asker gave it", nullable=True
            ),
        },
        synonyms={
            "trace_id": "id",
            "request_id": "id",
            "state": "status",
            "timestamp": "started_at",
            "timestamp_ms": "started_at",
            "request_time": "started_at",
            "start_time": "started_at",
            "execution_time": "duration_ms",
            "execution_time_ms": "duration_ms",
            "tag": "tags",
            "request_metadata": "metadata",
        },
        spaces={
            "tags": LookedTexts(_tags, "a tag"),
            "metadata": LookedTexts(_metadata, "what the client says of the request"),
        },
        selves=frozenset({"attribute", "attributes", "attr", "trace"}),
        order=(Order("started_at", descending=True), Order("id")),
    )
)


class _Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class TraceNamed(_Ask, frozen=True, kw_only=True):
    """What ``trace.show`` takes."""

    trace: Key


class TraceShown(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of the verbs over one trace: its state after the call."""

    trace: Trace


class LogTrace(_Ask, frozen=True, kw_only=True):
    """What ``trace.log`` takes; what is known of the trace already is kept where this is silent.

    Attributes:
        experiment: Id of its experiment; needed for a new trace.
        spans: A blob with a JSON list of spans, put before.
    """

    trace: Key
    experiment: Key | None = None
    state: Annotated[str, msgspec.Meta(max_length=40)] | None = None
    started_at: Instant | None = None
    ended_at: Instant | None = None
    duration_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    client_request: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    request: Long | None = None
    response: Long | None = None
    metadata: Texts = msgspec.field(default_factory=dict)
    tags: Texts = msgspec.field(default_factory=dict)
    spans: str | None = None
    files: Texts = msgspec.field(default_factory=dict)


class UntagTrace(_Ask, frozen=True, kw_only=True):
    """What ``trace.untag`` takes."""

    trace: Key
    key: Annotated[str, msgspec.Meta(max_length=limits.MAX_KEY_CHARS)]


class DeleteTraces(_Ask, frozen=True, kw_only=True):
    """What ``trace.delete`` takes: ids, or all that began until a time.

    Attributes:
        most: How many to delete, the oldest first.
    """

    experiment: Key
    traces: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_TRACES)] = ()
    until: Instant | None = None
    most: Annotated[int, msgspec.Meta(ge=1, le=MAX_TRACES)] = MAX_TRACES


class TracesDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``trace.delete``."""

    deleted: int


class FindTraces(_Ask, frozen=True, kw_only=True):
    """What ``trace.search`` takes: experiments by their ids; a filter and an order as text."""

    experiments: Annotated[tuple[str, ...], msgspec.Meta(max_length=1_000)]
    filter: Annotated[str, msgspec.Meta(max_length=10_000)] = ""
    order: Annotated[tuple[str, ...], msgspec.Meta(max_length=20)] = ()
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100
    after: Annotated[str, msgspec.Meta(max_length=20_000)] | None = None


class TraceList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``trace.search``, without spans."""

    items: tuple[Trace, ...]
    next: str | None


@query("trace.show", permission="run:read")
def show_trace(ask: TraceNamed, view: View) -> TraceShown:
    """Show a trace by the client's id of it.

    Raises:
        NotFound: ``trace.not_found``.
    """
    return TraceShown(trace=_get(view, ask.trace))


@query("trace.search", permission="run:read")
def search_traces(ask: FindTraces, view: View) -> TraceList:
    """Search the traces of experiments by filter and order, the newest first.

    Raises:
        InvalidInput: ``filter.invalid``, ``order.invalid`` or ``query.cursor_invalid``.
    """
    page = search_text(
        view,
        Trace,
        TRACES,
        (ask.filter, ask.order),
        (one_of("experiment", ask.experiments),),
        page=Search(limit=ask.limit, after=ask.after),
        scene=scene_of(view, lenient=True),
        longest=LENIENT_LONGEST,
    )
    return TraceList(items=tuple(page.rows), next=page.next)


@verb("trace.log", permission="run:write")
def log_trace(ask: LogTrace, work: Work) -> TraceShown:
    """Write down a trace, or add to one that is there.

    Raises:
        NotFound: ``experiment.not_found``, ``trace.not_found`` or ``blob.not_found``.
        InvalidInput: a tag or the path of a file is not usable.
        LimitExceeded: ``run.too_many`` deliveries of spans.
    """
    for texts, what in ((ask.tags, "Tag"), (ask.metadata, "Metadata"), (ask.files, "File")):
        limits.check_texts(texts, what, limits.MAX_TAG_CHARS * 4)
        limits.check_count(len(texts), limits.MAX_PARAMS_A_RUN, "entries")
    for name in ask.files:
        limits.check_artifact_path(name)
    known = work.first(Trace, *where(key=ask.trace))
    base = known or _new(ask, work)
    spans = base.spans if ask.spans is None else (*base.spans, _stored(work, ask.spans))
    limits.check_count(len(spans), MAX_DELIVERIES, "deliveries of spans")
    metadata, tags = base.metadata | ask.metadata, base.tags | ask.tags
    after = msgspec.structs.replace(
        base,
        name=tags.get(NAME, base.name),
        run=metadata.get(SOURCE_RUN, base.run),
        state=ask.state or base.state,
        started_at=ask.started_at or base.started_at,
        duration_ms=_duration(ask, base),
        client_request=ask.client_request or base.client_request,
        request=_cut(ask.request) or base.request,
        response=_cut(ask.response) or base.response,
        metadata=metadata,
        tags=tags,
        spans=spans,
        files=base.files | {name: _stored(work, digest) for name, digest in ask.files.items()},
    )
    work.touch(f"trace:{after.id}")
    if known is None:
        return TraceShown(trace=work.insert(after))
    return TraceShown(trace=known if after == known else work.replace(after))


@verb("trace.untag", permission="run:write")
def untag_trace(ask: UntagTrace, work: Work) -> TraceShown:
    """Take a tag from a trace.

    Raises:
        NotFound: ``trace.not_found`` or ``tag.not_found``.
    """
    found = _get(work, ask.trace)
    if ask.key not in found.tags:
        raise NotFound(
            "tag.not_found",
            f"There is no tag {ask.key[:60]!r}.",
            hint="Look at the tags that are set; their names are case-sensitive.",
        )
    tags = {key: value for key, value in found.tags.items() if key != ask.key}
    work.touch(f"trace:{found.id}")
    return TraceShown(trace=work.replace(msgspec.structs.replace(found, tags=tags)))


@verb("trace.delete", permission="run:write")
def delete_traces(ask: DeleteTraces, work: Work) -> TracesDeleted:
    """Delete traces of an experiment for good; their spans go when unneeded bytes are collected.

    Raises:
        InvalidInput: ``trace.unnamed`` when it says neither which nor until when.
    """
    own = where(experiment=ask.experiment)
    if ask.traces:
        chosen = (Condition("key", Compare.IN, ask.traces),)
    elif ask.until is not None:
        chosen = (Condition("started_at", Compare.LE, ask.until),)
    else:
        raise InvalidInput(
            "trace.unnamed",
            "Neither ids nor a time was given.",
            hint="Name the traces, or the time until which they began.",
        )
    found = work.select(Trace, *own, *chosen, order="started_at", limit=ask.most)
    for trace in found:
        work.delete(trace)
    if found:
        work.touch(f"experiment:{ask.experiment}")
    return TracesDeleted(deleted=len(found))


def _new(ask: LogTrace, work: Work) -> Trace:
    if ask.experiment is None:
        raise _missing(ask.trace)
    experiment = work.get(Experiment, Id(ask.experiment))
    return Trace(
        id=work.new_id(),
        project=work.project,
        experiment=experiment.id,
        key=ask.trace,
        started_at=ask.started_at or work.now,
    )


def _duration(ask: LogTrace, base: Trace) -> int | None:
    if ask.duration_ms is not None:
        return ask.duration_ms
    if ask.ended_at is None:
        return base.duration_ms
    spent = ask.ended_at - (ask.started_at or base.started_at)
    return max(int(spent.total_seconds() * 1_000), 0)


def _cut(text: str | None) -> str | None:
    return text[:MAX_PREVIEW_CHARS] if text else None


def _stored(work: Work, text: str) -> Digest:
    digest = parse_digest(text)
    if work.services.blobs.size(digest) is None:
        raise NotFound(
            "blob.not_found",
            f"There are no bytes under {digest}.",
            hint="Put the bytes before naming them.",
        )
    return digest


def _get(view: View, key: str) -> Trace:
    found = view.first(Trace, *where(key=key))
    if found is None:
        raise _missing(key)
    return found


def _missing(key: str) -> NotFound:
    return NotFound(
        "trace.not_found",
        f"There is no trace {key[:60]!r}.",
        hint="List the traces of its experiment.",
    )
