"""Traces over MLflow's REST interface, in its second and third form, and OpenTelemetry's export."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from everloop.core.clock import from_text, to_text
from everloop.core.digest import Digest
from everloop.core.errors import InvalidInput, NotFound
from everloop.interop.mlflow.otlp import MALFORMED, attribute, read_spans
from everloop.interop.mlflow.places import ARTIFACTS, Place, address_invalid
from everloop.interop.mlflow.routing import Context, Json, Nothing, Route
from everloop.interop.mlflow.words import Pair, experiment_id, from_ms, pairs_of, to_ms, to_texts
from everloop.track.traces import (
    MAX_PAGE,
    MAX_TRACES,
    DeleteTraces,
    FindTraces,
    LogTrace,
    Trace,
    TraceList,
    TraceNamed,
    TracesDeleted,
    TraceShown,
    UntagTrace,
)

MAX_NAME_CHARS = 500
TRACE_ID_BYTES = 16
SPANS_LOCATION = "mlflow.trace.spansLocation"
ARTIFACT_LOCATION = "mlflow.artifactLocation"
EXPERIMENT_HEADER = "x-mlflow-experiment-id"
RUN_HEADER = "x-mlflow-run-id"
_DURATION = re.compile(r"(-?[0-9]+)(?:\.([0-9]{1,9}))?s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATES = {0: "STATE_UNSPECIFIED", 1: "OK", 2: "ERROR"}


class _Ask(msgspec.Struct, frozen=True, kw_only=True):
    pass


class ExperimentPlace(_Ask, frozen=True, kw_only=True):
    """An experiment as the place of a trace."""

    experiment_id: str = "0"


class Location(_Ask, frozen=True, kw_only=True):
    """Where a trace belongs."""

    mlflow_experiment: ExperimentPlace = ExperimentPlace()


class Info(_Ask, frozen=True, kw_only=True):
    """A trace as the third form shows it."""

    trace_id: str = ""
    client_request_id: str | None = None
    trace_location: Location = Location()
    request_preview: str | None = None
    response_preview: str | None = None
    request_time: str | None = None
    execution_duration: str | None = None
    state: str = "STATE_UNSPECIFIED"
    trace_metadata: dict[str, str] = msgspec.field(default_factory=dict)
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class StartedTrace(_Ask, frozen=True, kw_only=True):
    """A trace without its spans."""

    trace_info: Info


class Start(_Ask, frozen=True, kw_only=True):
    """Body of the third form's ``traces``, sent when the trace has ended."""

    trace: StartedTrace


class StartV2(_Ask, frozen=True, kw_only=True):
    """Body of the second form's ``traces``, sent when the trace begins."""

    experiment_id: str = "0"
    timestamp_ms: int = 0
    request_metadata: tuple[Pair, ...] = ()
    tags: tuple[Pair, ...] = ()


class EndV2(_Ask, frozen=True, kw_only=True):
    """Body of the second form's end of a trace."""

    timestamp_ms: int = 0
    status: str = ""
    request_metadata: tuple[Pair, ...] = ()
    tags: tuple[Pair, ...] = ()


class Tag(_Ask, frozen=True, kw_only=True):
    """A tag of a trace; to delete one, its key alone."""

    key: str = ""
    value: str = ""


class Get(_Ask, frozen=True, kw_only=True):
    """Query of ``traces/get``."""

    trace_id: str = ""


class GetMany(_Ask, frozen=True, kw_only=True):
    """Query of ``traces/batchGet`` and body of ``traces/batchGetInfos``."""

    trace_ids: tuple[str, ...] = ()


class SearchV3(_Ask, frozen=True, kw_only=True):
    """Body of ``traces/search``."""

    locations: tuple[Location, ...] = ()
    filter: str = ""
    max_results: int = 100
    order_by: tuple[str, ...] = ()
    page_token: str = ""


class SearchV2(_Ask, frozen=True, kw_only=True):
    """Query of the second form's search."""

    experiment_ids: tuple[str, ...] = ()
    filter: str = ""
    max_results: int = 100
    order_by: tuple[str, ...] = ()
    page_token: str = ""


class Delete(_Ask, frozen=True, kw_only=True):
    """Body of ``traces/delete-traces``."""

    experiment_id: str = "0"
    max_timestamp_millis: int | None = None
    max_traces: int | None = None
    request_ids: tuple[str, ...] = ()


def start(context: Context, ask: Start) -> Json:
    """Write down a trace that has ended."""
    info = ask.trace.trace_info
    place = experiment_id(context, info.trace_location.mlflow_experiment.experiment_id)
    log = LogTrace(
        trace=info.trace_id,
        experiment=place,
        state=info.state,
        started_at=from_text(info.request_time) if info.request_time else None,
        duration_ms=_from_duration(info.execution_duration),
        client_request=info.client_request_id,
        request=info.request_preview,
        response=info.response_preview,
        metadata=info.trace_metadata,
        tags=info.tags,
    )
    return {"trace": {"trace_info": _to_info(_log(context, log))}}


def start_v2(context: Context, ask: StartV2) -> Json:
    """Begin a trace."""
    log = LogTrace(
        trace=f"tr-{context.new_id().replace('-', '')}",
        experiment=experiment_id(context, ask.experiment_id),
        state="IN_PROGRESS",
        started_at=from_ms(ask.timestamp_ms),
        metadata=to_texts(ask.request_metadata),
        tags=to_texts(ask.tags),
    )
    return {"trace_info": _to_info_v2(_log(context, log))}


def end_v2(context: Context, ask: EndV2) -> Json:
    """End a trace."""
    log = LogTrace(
        trace=context.path["trace"],
        state=ask.status or "OK",
        ended_at=from_ms(ask.timestamp_ms),
        metadata=to_texts(ask.request_metadata),
        tags=to_texts(ask.tags),
    )
    return {"trace_info": _to_info_v2(_log(context, log))}


def get_info(context: Context, ask: Nothing) -> Json:
    """Show a trace without its spans."""
    del ask
    return {"trace": {"trace_info": _to_info(_find(context, context.path["trace"]))}}


def get_info_v2(context: Context, ask: Nothing) -> Json:
    """Show a trace in the second form."""
    del ask
    return {"trace_info": _to_info_v2(_find(context, context.path["trace"]))}


def get(context: Context, ask: Get) -> Json:
    """Show a trace with its spans."""
    return {"trace": _to_trace(context, _find(context, ask.trace_id))}


def get_many(context: Context, ask: GetMany) -> Json:
    """Show traces with their spans; those that are not there are left out."""
    return {"traces": [_to_trace(context, found) for found in _known(context, ask.trace_ids)]}


def get_many_infos(context: Context, ask: GetMany) -> Json:
    """Show traces without their spans; those that are not there are left out."""
    return {"trace_infos": [_to_info(found) for found in _known(context, ask.trace_ids)]}


def search(context: Context, ask: SearchV3) -> Json:
    """Search traces."""
    places = tuple(location.mlflow_experiment.experiment_id for location in ask.locations)
    found = _search(context, places, ask)
    return _with_token({"traces": [_to_info(trace) for trace in found.items]}, found)


def search_v2(context: Context, ask: SearchV2) -> Json:
    """Search traces in the second form."""
    found = _search(context, ask.experiment_ids, ask)
    return _with_token({"traces": [_to_info_v2(trace) for trace in found.items]}, found)


def set_tag(context: Context, ask: Tag) -> Json:
    """Set a tag."""
    _log(context, LogTrace(trace=context.path["trace"], tags={ask.key: ask.value}))
    return {}


def delete_tag(context: Context, ask: Tag) -> Json:
    """Take a tag away."""
    context.perform("trace.untag", UntagTrace(trace=context.path["trace"], key=ask.key), TraceShown)
    return {}


def delete(context: Context, ask: Delete) -> Json:
    """Delete traces."""
    named = DeleteTraces(
        experiment=experiment_id(context, ask.experiment_id),
        traces=ask.request_ids,
        until=None if ask.max_timestamp_millis is None else from_ms(ask.max_timestamp_millis),
        most=min(max(ask.max_traces or MAX_TRACES, 1), MAX_TRACES),
    )
    return {"traces_deleted": context.perform("trace.delete", named, TracesDeleted).deleted}


async def export(context: Context, ask: Nothing) -> Response:
    """Take spans in, as OpenTelemetry exports them."""
    del ask
    headers = context.request.headers
    body = await context.request.body()
    spans = read_spans(body, headers.get("content-type", ""), headers.get("content-encoding", ""))
    place = headers.get(EXPERIMENT_HEADER)
    if not place:
        raise InvalidInput(
            "trace.experiment_missing",
            f"The header {EXPERIMENT_HEADER} is missing.",
            hint="Say in it to which experiment the spans belong.",
        )
    await run_in_threadpool(_add_spans, context, place, headers.get(RUN_HEADER), spans)
    return Response(b"", media_type="application/x-protobuf")


def _add_spans(context: Context, place: str, run: str | None, spans: list[Json]) -> None:
    try:
        drafts = _drafts(run, spans)
    except MALFORMED as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(
            "trace.export_invalid",
            "The trace export cannot be read: a span has no usable id, time or attributes.",
            hint="Send OTLP over HTTP as application/x-protobuf or application/json.",
        ) from error
    where = experiment_id(context, place)
    for draft, own in drafts:
        digest = context.performer.blobs.put(own)
        _log(context, msgspec.structs.replace(draft, experiment=where, spans=digest))


def _drafts(run: str | None, spans: list[Json]) -> list[tuple[LogTrace, bytes]]:
    """Return what is to be written down of each trace, and its spans as JSON."""
    by_trace: dict[str, list[Json]] = {}
    for span in spans:
        trace_id = base64.b64decode(span["traceId"], validate=True)
        if len(trace_id) != TRACE_ID_BYTES:
            message = "a trace id has 16 bytes"
            raise ValueError(message)
        if not isinstance(span.get("spanId", ""), str):
            message = "the id of a span is a text"
            raise TypeError(message)
        by_trace.setdefault(f"tr-{trace_id.hex()}", []).append(span)
    drafts = []
    for key, own in by_trace.items():
        draft = LogTrace(trace=key, metadata={"mlflow.sourceRun": run} if run else {})
        times = [int(span.get("startTimeUnixNano", 0)) for span in own]
        root = next((span for span in own if not span.get("parentSpanId")), None)
        if root is not None:
            draft = msgspec.structs.replace(
                draft,
                started_at=_from_ns(min(times)),
                ended_at=_from_ns(int(root.get("endTimeUnixNano", 0))),
                state=_STATES.get(root.get("status", {}).get("code", 0)),
                request=attribute(root, "mlflow.spanInputs"),
                response=attribute(root, "mlflow.spanOutputs"),
                tags={"mlflow.traceName": str(root.get("name", ""))[:MAX_NAME_CHARS]},
            )
        drafts.append((draft, msgspec.json.encode(own)))
    return drafts


def _log(context: Context, log: LogTrace) -> Trace:
    return context.perform("trace.log", log, TraceShown).trace


def _find(context: Context, key: str) -> Trace:
    return context.perform("trace.show", TraceNamed(trace=key), TraceShown).trace


def _known(context: Context, keys: tuple[str, ...]) -> list[Trace]:
    found = []
    for key in dict.fromkeys(keys[:MAX_PAGE]):
        try:
            found.append(_find(context, key))
        except NotFound:
            continue
    return found


def _search(context: Context, places: tuple[str, ...], ask: SearchV3 | SearchV2) -> TraceList:
    fetch = FindTraces(
        experiments=tuple(experiment_id(context, place) for place in places),
        filter=ask.filter,
        order=ask.order_by,
        limit=min(max(ask.max_results, 1), MAX_PAGE),
        after=ask.page_token or None,
    )
    return context.perform("trace.search", fetch, TraceList)


def _with_token(answer: Json, found: TraceList) -> Json:
    return answer if found.next is None else {**answer, "next_page_token": found.next}


def _tags(trace: Trace) -> dict[str, str]:
    place = f"mlflow-artifacts:/{trace.experiment}/traces/{trace.key}/{ARTIFACTS}"
    stored = {SPANS_LOCATION: "TRACKING_STORE"} if trace.spans else {}
    return {**trace.tags, ARTIFACT_LOCATION: place, **stored}


def _to_info(trace: Trace) -> Json:
    info: Json = {
        "trace_id": trace.key,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": trace.experiment},
        },
        "request_time": to_text(trace.started_at),
        "state": trace.state,
        "trace_metadata": trace.metadata,
        "tags": _tags(trace),
    }
    optional = {
        "client_request_id": trace.client_request,
        "request_preview": trace.request,
        "response_preview": trace.response,
        "execution_duration": None
        if trace.duration_ms is None
        else f"{trace.duration_ms // 1_000}.{trace.duration_ms % 1_000:03}s",
    }
    return info | {name: value for name, value in optional.items() if value is not None}


def _to_info_v2(trace: Trace) -> Json:
    info: Json = {
        "request_id": trace.key,
        "experiment_id": trace.experiment,
        "timestamp_ms": to_ms(trace.started_at),
        "status": trace.state if trace.state in {"OK", "ERROR", "IN_PROGRESS"} else "OK",
        "request_metadata": pairs_of(trace.metadata),
        "tags": pairs_of(_tags(trace)),
    }
    if trace.duration_ms is not None:
        info["execution_time_ms"] = trace.duration_ms
    return info


def _to_trace(context: Context, trace: Trace) -> Json:
    spans: dict[str, Json] = {}
    for digest in trace.spans:
        for span in _read_delivery(context.performer.blobs.get(digest)):
            spans[str(span.get("spanId"))] = span
    return {"trace_info": _to_info(trace), "spans": sorted(spans.values(), key=_begin_of)}


def _read_delivery(data: bytes) -> list[Json]:
    # Another interface takes any bytes for spans; those that are none must not hide the others.
    try:
        return msgspec.json.decode(data, type=list[Json])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []


def _begin_of(span: Json) -> int:
    try:
        return int(span.get("startTimeUnixNano", 0))
    except MALFORMED:
        return 0


def _from_duration(text: str | None) -> int | None:
    match = _DURATION.fullmatch(text or "")
    if match is None:
        return None
    fraction = (match.group(2) or "").ljust(9, "0")
    return max(int(match.group(1)) * 1_000 + int(fraction) // 1_000_000, 0)


def _from_ns(nanoseconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1_000)
    except OverflowError as error:
        raise InvalidInput(
            "time.invalid",
            f"{nanoseconds} nanoseconds since 1970 are no time.",
            hint="Send nanoseconds.",
        ) from error


@dataclass(frozen=True, slots=True)
class TracePlace:
    """The files of a trace: older clients send the spans as one."""

    context: Context
    trace: str

    def files(self, path: str) -> list[Json]:
        """Return the files of the trace, which has no folders."""
        del path
        found = _find(self.context, self.trace).files
        blobs = self.context.performer.blobs
        return [
            {"path": name, "is_dir": False, "file_size": blobs.size(digest) or 0}
            for name, digest in sorted(found.items())
        ]

    def find(self, path: str) -> tuple[Digest, int]:
        """Return digest and size of a file."""
        digest = _find(self.context, self.trace).files.get(path)
        if digest is None:
            raise NotFound(
                "artifact.not_found",
                f"Trace {self.trace} has no file {path[:80]!r}.",
                hint="List its files; paths are exact.",
            )
        return digest, self.context.performer.blobs.size(digest) or 0

    def admit(self, path: str) -> None:
        """Check that the caller may add to the trace."""
        del path
        _log(self.context, LogTrace(trace=self.trace))

    def add(self, path: str, digest: Digest, size: int) -> None:
        """Keep a file; another one of the same path gives way."""
        del size
        _log(self.context, LogTrace(trace=self.trace, files={path: digest}))

    def drop(self, path: str) -> None:
        """Refuse: a trace goes as a whole."""
        raise InvalidInput(
            "trace.file_kept",
            f"The file {path[:80]!r} goes with its trace.",
            hint="Delete the trace.",
        )


def trace_place(context: Context, parts: list[str]) -> tuple[Place, str]:
    """Return a trace's folder, for ``<experiment>/traces/<trace>/artifacts/...``.

    Raises:
        InvalidInput: ``artifact.address_invalid``.
    """
    if len(parts) < 4 or parts[3] != ARTIFACTS:
        raise address_invalid("/".join(parts))
    return TracePlace(context, parts[2]), "/".join(parts[4:])


_V2, _V3 = "2.0/mlflow/traces", "3.0/mlflow/traces"
ROUTES = (
    Route("POST", _V3, start),
    Route("POST", f"{_V3}/search", search),
    Route("GET", f"{_V3}/get", get),
    Route("GET", f"{_V3}/batchGet", get_many),
    Route("POST", f"{_V3}/batchGetInfos", get_many_infos),
    Route("GET", f"{_V3}/{{trace}}", get_info),
    Route("PATCH", f"{_V3}/{{trace}}/tags", set_tag),
    Route("DELETE", f"{_V3}/{{trace}}/tags", delete_tag),
    Route("POST", f"{_V3}/delete-traces", delete),
    Route("POST", _V2, start_v2),
    Route("GET", _V2, search_v2),
    Route("PATCH", f"{_V2}/{{trace}}", end_v2),
    Route("GET", f"{_V2}/{{trace}}/info", get_info_v2),
    Route("PATCH", f"{_V2}/{{trace}}/tags", set_tag),
    Route("DELETE", f"{_V2}/{{trace}}/tags", delete_tag),
    Route("POST", f"{_V2}/delete-traces", delete),
    Route("POST", "v1/traces", export),
)
