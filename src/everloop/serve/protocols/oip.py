"""The Open Inference Protocol, version 2, over HTTP: JSON, and tensors as bytes where asked for.

Also called the V2 inference protocol of KServe and Triton. What is read here becomes rows by
``tensors``; what the specification leaves open or says twice is settled as its clients expect it.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from everloop.core.errors import EverloopError, InvalidInput
from everloop.core.wire import Scalar
from everloop.serve.ask import Ask, Result, no_model
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import MAX_UNIT_CHARS, event_time, malformed
from everloop.serve.dispatch import Route
from everloop.serve.exchange import (
    JSON,
    JSON_TYPES,
    Answer,
    Reply,
    Request,
    extra_headers,
    status_of,
    to_json,
)
from everloop.serve.explain import Explainer, to_method
from everloop.serve.identity import to_id
from everloop.serve.protocol import Explanation
from everloop.serve.protocols import binary
from everloop.serve.protocols.tensors import (
    BYTES,
    DATATYPES,
    HINT,
    NUMBERS,
    NeedsTexts,
    OutputAsk,
    Tensor,
    TensorReader,
    narrow,
    pick_outputs,
    require_outputs,
    require_shape,
    require_size,
)
from everloop.serve.service import Endpoint, Service, told
from everloop.serve.switchboard import Lineup

SERVER: Final = "everloop"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository")
PREDICTION_HEADER: Final = b"x-everloop-prediction-id"
MOST_ID_CHARS: Final = 1_000
PACKED_FROM: Final = 8_192
_TYPES: Final = JSON_TYPES | {b"application/octet-stream"}
_NESTED = re.compile(rb"\s*\[\s*\[")
_NULLABLE: Final[dict[str, Scalar]] = {"nullable": True}
_ENCODER: Final = msgspec.json.Encoder()

_Numbers = list[float | None]
_Wholes = list[int | None]
_Flags = list[bool | None]
_Texts = list[str | None]


def _decoders(kind: Any) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]:
    return msgspec.json.Decoder(kind), msgspec.json.Decoder(list[kind])


_FLAT_AND_NESTED: Final = {
    **dict.fromkeys(NUMBERS, _decoders(_Wholes)),
    **dict.fromkeys(("FP16", "FP32", "FP64"), _decoders(_Numbers)),
    "BOOL": _decoders(_Flags),
    BYTES: _decoders(_Texts),
}


class InputTensor(msgspec.Struct):
    """One input of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] | None = None


class WantedOutput(msgspec.Struct):
    """One output that a request asks for."""

    name: str
    parameters: dict[str, Any] | None = None


class InferBody(msgspec.Struct):
    """The body of an inference request; fields that are not known are passed over."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[WantedOutput] | None = None


class TensorMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """An input or output of a model; -1 stands for any number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Scalar] = {}


class ModelMetadata(msgspec.Struct, frozen=True):
    """The answer to ``GET /v2/models/{model}``."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    parameters: dict[str, Scalar] = {}


class OutputTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output of an answer, in JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] = {}
    data: list[float] | None = None


class InferAnswer(msgspec.Struct, frozen=True):
    """The answer to an inference request."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, Scalar]
    outputs: list[OutputTensor]


_BODY: Final = msgspec.json.Decoder(InferBody)
_BY_VERSION: Final[WeakKeyDictionary[LoadedBundle, TensorReader]] = WeakKeyDictionary()


def refuse(error: EverloopError) -> Reply:
    """Return an error as this protocol says it: one text."""
    status = status_of(error)
    body = msgspec.json.encode({"error": told(error)})
    return Reply(status, body, JSON, extra_headers(error, status))


def routes(service: Service, explainer: Explainer) -> list[Route]:
    """Return the addresses of this protocol."""
    spoken = OpenInference(service, explainer)
    one, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    table: list[tuple[str, str, Callable[[Request], Answer]]] = [
        ("GET", "/v2", spoken.server),
        ("GET", "/v2/health/live", spoken.live),
        ("GET", "/v2/health/ready", spoken.ready),
    ]
    for place in (one, version):
        table += [
            ("GET", place, spoken.model),
            ("GET", f"{place}/ready", spoken.model_ready),
            ("POST", f"{place}/infer", spoken.infer),
        ]
    return [Route(method, pattern, handler, refuse) for method, pattern, handler in table]


class OpenInference:
    """The handlers of this protocol."""

    def __init__(self, service: Service, explainer: Explainer) -> None:
        self._service = service
        self._explainer = explainer

    def server(self, request: Request) -> Reply:
        """Tell what this server is."""
        del request
        return to_json({"name": SERVER, "version": own_version(), "extensions": EXTENSIONS})

    def live(self, request: Request) -> Reply:
        """Say that the process lives."""
        del request
        return to_json({"live": True})

    def ready(self, request: Request) -> Reply:
        """Say whether all models answer. Clients look at the status alone."""
        del request
        is_ready = self._service.is_ready(self._service.endpoints.values())
        body = msgspec.json.encode({"live": True, "ready": is_ready})
        return Reply(200 if is_ready else 503, body)

    def model(self, request: Request) -> Reply:
        """Tell what a model takes and gives."""
        endpoint = self._service.chosen(request)
        loaded = asked_version(endpoint.lineup, request.params.get("version"))
        return to_json(describe(endpoint, loaded))

    def model_ready(self, request: Request) -> Reply:
        """Say whether a model, or one version of it, answers; open as health is."""
        endpoint = self._service.find(request.params["model"])
        loaded = asked_version(endpoint.lineup, request.params.get("version"))
        body = {"name": endpoint.name, "version": loaded.bundle.semver, "ready": True}
        return to_json(body)

    def infer(self, request: Request) -> Answer:
        """Answer tensors."""
        endpoint = self._service.chosen(request)
        lineup = endpoint.lineup
        version = request.params.get("version")
        loaded = asked_version(lineup, version)
        body, raw = _read_body(request)
        tensors = _to_tensors(body.inputs, raw)
        wanted, is_binary = _to_wanted(body)
        require_outputs(loaded, wanted)
        ask = to_ask(
            self._service,
            loaded,
            tensors,
            body.parameters or {},
            request_id=body.id,
            is_versioned=version is not None,
        )
        packing = request.headers.get(b"accept-encoding", b"")

        def encode(result: Result, why: Explanation | None = None) -> Reply:
            more = {} if why is None else {"explanation": _ENCODER.encode(why).decode()}
            return _encode(
                result, endpoint, body.id, wanted, is_binary=is_binary, packing=packing, more=more
            )

        method = to_method((body.parameters or {}).get("explain"))
        if method is not None:
            return self._explainer.answer(endpoint, ask, method, encode)
        return endpoint.answer(ask, encode)


@cache
def own_version() -> str:
    """Return the version of this package; of a copy that is not installed, 0."""
    try:
        return metadata.version("everloop")
    except metadata.PackageNotFoundError:
        return "0"


def asked_version(lineup: Lineup, version: str | None) -> LoadedBundle:
    """Return the version that a path names, or the champion.

    Raises:
        Unavailable: ``model.none`` before the first release.
        NotFound: ``model.version_not_resident``.
    """
    if lineup.champion is None:
        raise no_model()
    return lineup.champion.loaded if version is None else lineup.find_version(version)


def describe(endpoint: Endpoint, loaded: LoadedBundle) -> ModelMetadata:
    """Return the metadata of a model."""
    bundle = loaded.bundle
    inputs = tuple(
        TensorMetadata(
            field.name, DATATYPES[field.dtype], (-1, 1), _NULLABLE if field.nullable else {}
        )
        for field in bundle.inputs
    )
    names: dict[str, Scalar] = {}
    if bundle.outputs:
        names["columns"] = json.dumps(bundle.outputs, ensure_ascii=False)
    output = TensorMetadata(bundle.output_name, "FP64", (-1, len(bundle.outputs) or 1), names)
    return ModelMetadata(
        name=endpoint.name,
        versions=tuple(each.loaded.bundle.semver for each in endpoint.lineup.resident),
        platform=f"everloop_{bundle.format}",
        inputs=inputs,
        outputs=(output,),
        parameters={"content_type": "pd", "version": bundle.semver, "task": bundle.task},
    )


def reader_of(loaded: LoadedBundle) -> TensorReader:
    """Return the reader of a version, made once; it goes when the version goes."""
    found = _BY_VERSION.get(loaded)
    if found is None:
        found = _BY_VERSION[loaded] = TensorReader(loaded)
    return found


def to_ask(
    service: Service,
    loaded: LoadedBundle,
    tensors: Sequence[Tensor],
    parameters: Mapping[str, object],
    *,
    request_id: str | None,
    is_versioned: bool,
) -> Ask:
    """Return what a request asks, by HTTP or gRPC.

    Of the parameters, ``unit``, ``at``, ``key`` and ``keys`` are ours; others are passed over.

    Raises:
        InvalidInput: ``request.invalid`` or ``request.time``.
        LimitExceeded: ``request.too_many_rows``.
    """
    matrix, values = reader_of(loaded).read(tensors)
    unit, at_us = None, None
    keys: tuple[str, ...] = ()
    if parameters:
        unit = _short("unit", parameters.get("unit"))
        keys = _keys(parameters, len(matrix))
        at = _short("at", parameters.get("at"))
        if at is not None:
            at_us = int(event_time(at, service.clock.now()).timestamp() * 1_000_000)
    if request_id is not None and len(request_id) > MOST_ID_CHARS:
        _wrong(f"The id has {len(request_id)} characters; {MOST_ID_CHARS} are allowed")
    return Ask(
        matrix=matrix,
        values=values,
        at_us=at_us,
        unit=unit,
        request=request_id,
        keys=keys,
        version=loaded if is_versioned else None,
    )


def _short(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_UNIT_CHARS:
        _wrong(f"The parameter {name!r} is a text of 1 to {MAX_UNIT_CHARS} characters")
    return value


def _keys(parameters: Mapping[str, object], rows: int) -> tuple[str, ...]:
    found = parameters.get("keys", parameters.get("key"))
    if found is None:
        return ()
    if isinstance(found, str) and "keys" in parameters:
        # Where parameters are single values, a list comes as its JSON.
        try:
            found = msgspec.json.decode(found)
        except msgspec.DecodeError:
            _wrong("The parameter 'keys' is a list of texts, or such a list as JSON")
    keys = found if isinstance(found, list) else [found]
    if len(keys) != rows:
        _wrong(f"There are {len(keys)} keys for {rows} rows")
    return tuple(_short("keys", one) or "" for one in keys)


def _read_body(request: Request) -> tuple[InferBody, memoryview]:
    content_type = request.headers.get(b"content-type", b"")
    if content_type.partition(b";")[0].strip().lower() not in _TYPES:
        raise InvalidInput(
            "request.unsupported_type",
            f"The content type {content_type[:60].decode('latin-1')!r} is not read here.",
            hint="Send application/json, or application/octet-stream with "
            "Inference-Header-Content-Length.",
        )
    head, raw = binary.split(request.headers, request.body)
    try:
        return _BODY.decode(head), raw
    except msgspec.ValidationError as error:
        raise InvalidInput("request.invalid", f"{error}.", hint=HINT) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(bytes(head), error) from error


def _to_tensors(inputs: Sequence[InputTensor], raw: memoryview) -> list[Tensor]:
    made, place = [], 0
    for each in inputs:
        require_shape(each.name, each.datatype, each.shape)
        size = (each.parameters or {}).get("binary_data_size")
        if size is None:
            made.append(_from_json(each))
            continue
        if bytes(each.data):
            _wrong(f"The tensor {each.name[:60]!r} has its data twice: in JSON and as bytes")
        if type(size) is not int or not 0 <= size <= len(raw) - place:
            _wrong(
                f"The tensor {each.name[:60]!r} says {str(size)[:30]} bytes of data; "
                f"{len(raw) - place} are left in the body"
            )
        made.append(
            binary.to_tensor(each.name, each.datatype, each.shape, raw[place : place + size])
        )
        place += size
    if place != len(raw):
        _wrong(f"{len(raw) - place} bytes of the body belong to no tensor")
    return made


def _from_json(each: InputTensor) -> Tensor:
    """Return a tensor whose elements stand in the JSON, flat or nested."""
    shape = tuple(each.shape)
    raw = bytes(each.data)
    if not raw:
        _wrong(f"The tensor {each.name[:60]!r} has no data")
    flat, nested = _FLAT_AND_NESTED[each.datatype]
    try:
        if _NESTED.match(raw):
            rows = nested.decode(raw)
            if len(shape) != 2 or any(len(row) != shape[1] for row in rows):
                _wrong(f"The data of {each.name[:60]!r} is not nested as its shape {each.shape}")
            data = [item for row in rows for item in row]
        else:
            data = flat.decode(raw)
    except msgspec.ValidationError as error:
        problem = f"The data of {each.name[:60]!r} is not {each.datatype}: {error}"
        raise InvalidInput("request.invalid", f"{problem}.", hint=HINT) from error
    require_size(each.name, shape, len(data))
    return Tensor(each.name, each.datatype, shape, _typed(each, data, raw))


def _typed(each: InputTensor, data: list[Any], raw: bytes) -> Any:
    """Return elements as an array of their datatype; texts, and wholes with gaps, stay a list."""
    if each.datatype in {"FP64", "FP32", "FP16"}:
        numbers = np.array(data, dtype=np.float64)
        try:
            return narrow(numbers, each.datatype)
        except NeedsTexts:
            return narrow(numbers, each.datatype, _texts_of(raw))
    if each.datatype == BYTES or None in data:
        return data
    try:
        return np.array(data, dtype=NUMBERS[each.datatype])
    except OverflowError as error:
        problem = f"The data of {each.name[:60]!r} does not fit into {each.datatype}"
        raise InvalidInput("request.invalid", f"{problem}.", hint=HINT) from error


def _texts_of(raw: bytes) -> list[str]:
    found = json.loads(raw, parse_float=str, parse_int=str)
    return [item for row in found for item in row] if _NESTED.match(raw) else found


def _to_wanted(body: InferBody) -> tuple[list[OutputAsk], bool]:
    is_binary = (body.parameters or {}).get("binary_data_output") is True
    wanted = [
        OutputAsk(each.name, bool((each.parameters or {}).get("binary_data", is_binary)))
        for each in body.outputs or ()
    ]
    return wanted, is_binary


def parameters_of(result: Result) -> dict[str, Scalar]:
    """Return what an answer says of itself beside its outputs."""
    found: dict[str, Scalar] = {
        "prediction_id": to_id(result.first),
        "version_id": result.loaded.bundle.version_id,
        "arm": result.arm.value,
    }
    if result.is_fallback:
        found["fallback"] = True
    if not result.is_logged:
        found["logged"] = False
    return found


def _encode(
    result: Result,
    endpoint: Endpoint,
    request_id: str | None,
    wanted: Sequence[OutputAsk],
    *,
    is_binary: bool,
    packing: bytes,
    more: Mapping[str, Scalar],
) -> Reply:
    picked = pick_outputs(result.loaded, result.outputs, wanted, is_binary=is_binary)
    parameters = {**parameters_of(result), **more}
    id_ = str(parameters["prediction_id"])
    made, blobs = [], []
    for each in picked:
        shape = each.data.shape
        if each.is_binary:
            blobs.append(each.data.astype("<f8", copy=False).tobytes())
            size = {"binary_data_size": len(blobs[-1])}
            made.append(OutputTensor(each.name, "FP64", shape, size))
        else:
            data = each.data.reshape(-1).tolist()
            made.append(OutputTensor(each.name, "FP64", shape, data=data))
    answer = InferAnswer(
        model_name=endpoint.name,
        model_version=result.loaded.bundle.semver,
        id=request_id or id_,
        parameters=parameters,
        outputs=made,
    )
    headers = ((PREDICTION_HEADER, id_.encode()),)
    reply = binary.join(_ENCODER.encode(answer), blobs, headers)
    return _pack(reply, packing) if packing and len(reply.body) >= PACKED_FROM else reply


def _pack(reply: Reply, accepted: bytes) -> Reply:
    """Compress a long reply if the client asks for it."""
    asked = [one.partition(b";")[0].strip().lower() for one in accepted.split(b",")]
    if b"gzip" in asked:
        body, name = gzip.compress(reply.body, 1, mtime=0), b"gzip"
    elif b"deflate" in asked:
        body, name = zlib.compress(reply.body, 1), b"deflate"
    else:
        return reply
    headers = (*reply.headers, (b"content-encoding", name), (b"vary", b"accept-encoding"))
    return Reply(reply.status, body, reply.content_type, headers)


def _wrong(problem: str) -> NoReturn:
    raise InvalidInput("request.invalid", f"{problem}.", hint=HINT)
