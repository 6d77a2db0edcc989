"""The Open Inference Protocol, version 2, over HTTP: JSON, and tensors as bytes where asked for.

Also called the V2 inference protocol of KServe and Triton. What is read here becomes rows by
``tensors``; what the specification leaves open or says twice is settled as its clients expect it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Final

import msgspec

from everloop.core.errors import EverloopError, InvalidInput
from everloop.core.wire import Scalar
from everloop.serve.ask import Result
from everloop.serve.bundle import LoadedBundle
from everloop.serve.dispatch import Route
from everloop.serve.exchange import (
    JSON,
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
from everloop.serve.protocols.datatypes import DATATYPES
from everloop.serve.protocols.oip_body import read_body, to_ask, to_tensors, to_wanted
from everloop.serve.protocols.outputs import OutputAsk, pick_outputs, require_outputs
from everloop.serve.service import Endpoint, Service, tell_name, told

SERVER: Final = "everloop"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository")
PREDICTION_HEADER: Final = b"x-everloop-prediction-id"
PACKED_FROM: Final = 8_192
_NULLABLE: Final[dict[str, Scalar]] = {"nullable": True}
_ENCODER: Final = msgspec.json.Encoder()


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
    """The answer to an inference request; without a version where none answered."""

    model_name: str
    model_version: str | msgspec.UnsetType
    id: str
    parameters: dict[str, Scalar]
    outputs: list[OutputTensor]


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
        loaded = endpoint.lineup.get_version(request.params.get("version"))
        return to_json(describe(endpoint, loaded))

    def model_ready(self, request: Request) -> Reply:
        """Say whether a model, or one version of it, answers; open as health is."""
        endpoint = self._service.find(request.params["model"])
        loaded, _ = endpoint.lineup.choose(request.params.get("version"))
        body = {"name": endpoint.name, "version": loaded.bundle.semver, "ready": True}
        return to_json(body)

    def infer(self, request: Request) -> Answer:
        """Answer tensors."""
        endpoint = self._service.chosen(request)
        lineup = endpoint.lineup
        chosen = lineup.choose(request.params.get("version"))
        try:
            body, raw = read_body(request)
            tensors = to_tensors(body.inputs, raw)
            wanted, is_binary = to_wanted(body)
            require_outputs(chosen.loaded, wanted)
            ask = to_ask(
                self._service, lineup, chosen, tensors, body.parameters or {}, request_id=body.id
            )
        except InvalidInput as error:
            tell_name(error, endpoint)
            raise
        packing = request.headers.get(b"accept-encoding", b"")

        def encode(result: Result, why: Explanation | None = None) -> Reply:
            return _encode(
                result,
                endpoint,
                body.id,
                wanted,
                is_binary=is_binary,
                packing=packing,
                more=explained(why),
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


def parameters_of(result: Result) -> dict[str, Scalar]:
    """Return what an answer says of itself beside its outputs."""
    found: dict[str, Scalar] = {"prediction_id": to_id(result.first)}
    if result.is_constant:
        found["constant"] = True
    else:
        found |= {"version_id": result.loaded.bundle.version_id, "arm": result.arm.value}
    if result.is_fallback:
        found["fallback"] = True
    if not result.is_logged:
        found["logged"] = False
    return found


def explained(why: Explanation | None) -> dict[str, Scalar]:
    """Return the parameter in which an explanation stands, as JSON; none without one."""
    return {} if why is None else {"explanation": _ENCODER.encode(why).decode()}


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
        model_version=msgspec.UNSET if result.is_constant else result.loaded.bundle.semver,
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
