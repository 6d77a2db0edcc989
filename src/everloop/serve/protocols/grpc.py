"""The Open Inference Protocol over gRPC, the repository calls and the health that Kubernetes asks.

A server of its own in each worker, on one port that the kernel shares out. What a tensor means is
settled in ``tensors``, what an answer says in ``oip``; this module only packs and unpacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any, Final, NoReturn

import numpy as np

from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.serve.ask import Result
from everloop.serve.decode import FloatArray
from everloop.serve.exchange import Reply, Request
from everloop.serve.explain import Explainer, to_method
from everloop.serve.limits import Limits
from everloop.serve.proto import load_messages, missing
from everloop.serve.protocol import Explanation
from everloop.serve.protocols import binary, oip
from everloop.serve.protocols.datatypes import BYTES, HINT, NUMBERS
from everloop.serve.protocols.grpc_door import Door, Handle, Kept
from everloop.serve.protocols.oip_body import to_ask
from everloop.serve.protocols.outputs import OutputAsk, pick_outputs, require_outputs
from everloop.serve.protocols.repository import Repository
from everloop.serve.protocols.tensors import Tensor, require_shape, require_size
from everloop.serve.service import Endpoint, Service, tell_name

SERVICE: Final = "inference.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"
WATCH_PAUSE_S: Final = 0.5
# Where each datatype's elements are, if they are not raw; FP16 has no such place.
_CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def require_grpc() -> None:
    """Let pass a process that can speak gRPC; imports nothing, since it may still fork.

    Raises:
        MissingExtra: grpcio or protobuf is not installed.
    """
    try:
        is_there = find_spec("grpc") is not None and find_spec("google.protobuf") is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise missing()


async def start(
    service: Service, address: str, limits: Limits, *, has_access_log: bool = False
) -> Kept:
    """Start answering on an address that may be shared with other workers; return the server.

    Raises:
        OSError: the address is taken.
    """
    import grpc.aio

    door = Door(grpc, limits, has_access_log=has_access_log)
    kept = Kept(lambda: _open(service, address, limits, door))
    await kept.start()
    return kept


def _open(service: Service, address: str, limits: Limits, door: Door) -> Any:
    import grpc.aio

    options = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", limits.body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", limits.head_bytes),
        ("grpc.max_concurrent_streams", limits.in_flight),
    ]
    # Calls whose messages are still coming count here; in flight are those that have arrived.
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=limits.connections)
    server.add_generic_rpc_handlers(Rpc(service, grpc, door).handlers())
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        message = f"gRPC can't listen on {address}: {error}"
        raise OSError(message) from error
    return server


class Rpc:
    """The handlers of this protocol; ``grpc`` is the package, imported after the fork."""

    def __init__(self, service: Service, grpc: Any, door: Door) -> None:
        self._service = service
        self._grpc = grpc
        self._door = door
        self._says = load_messages()
        self._repository = Repository(service)
        self._explainer = Explainer()

    def handlers(self) -> tuple[Any, ...]:
        """Return what grpc serves by name."""
        table: dict[str, Handle] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._model,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        door = self._door
        ours = {
            name: door.unary(f"/{SERVICE}/{name}", getattr(self._says, f"{name}Request"), handle)
            for name, handle in table.items()
        }
        asked = self._says.HealthCheckRequest
        health = {
            "Check": door.unary(f"/{HEALTH}/Check", asked, self._check),
            "Watch": door.stream(f"/{HEALTH}/Watch", asked, self._watch),
        }
        make = self._grpc.method_handlers_generic_handler
        return make(SERVICE, ours), make(HEALTH, health), door

    def _live(self, request: Any, headers: Mapping[bytes, bytes]) -> Any:
        del request, headers
        return self._says.ServerLiveResponse(live=True)

    def _ready(self, request: Any, headers: Mapping[bytes, bytes]) -> Any:
        del request, headers
        return self._says.ServerReadyResponse(ready=self._is_ready())

    def _is_ready(self) -> bool:
        return self._service.is_ready(self._service.endpoints.values())

    def _model_ready(self, request: Any, headers: Mapping[bytes, bytes]) -> Any:
        """Say so of what is not there, too: the answer is the field, not the status."""
        del headers
        try:
            endpoint = self._service.find(request.name)
            endpoint.lineup.choose(request.version or None)
        except EverloopError:
            return self._says.ModelReadyResponse(ready=False)
        return self._says.ModelReadyResponse(ready=True)

    def _server(self, request: Any, headers: Mapping[bytes, bytes]) -> Any:
        del request, headers
        return self._says.ServerMetadataResponse(
            name=oip.SERVER, version=oip.own_version(), extensions=oip.EXTENSIONS
        )

    def _model(self, request: Any, headers: Mapping[bytes, bytes]) -> Any:
        endpoint = self._chosen(request.name, headers)
        found = oip.describe(endpoint, endpoint.lineup.get_version(request.version or None))
        made = self._says.ModelMetadataResponse
        inputs, outputs = (
            [
                made.TensorMetadata(name=each.name, datatype=each.datatype, shape=each.shape)
                for each in tensors
            ]
            for tensors in (found.inputs, found.outputs)
        )
        return made(
            name=found.name,
            versions=found.versions,
            platform=found.platform,
            inputs=inputs,
            outputs=outputs,
        )

    def _chosen(self, name: str, headers: Mapping[bytes, bytes]) -> Endpoint:
        return self._service.chosen(_as_request(headers, {"model": name}))

    async def _infer(self, request: Any, headers: Mapping[bytes, bytes]) -> Any:
        endpoint = self._chosen(request.model_name, headers)
        lineup = endpoint.lineup
        chosen = lineup.choose(request.model_version or None)
        wanted = [OutputAsk(each.name, is_binary=True) for each in request.outputs]
        parameters = {key: _value_of(each) for key, each in request.parameters.items()}
        try:
            tensors = _to_tensors(request)
            require_outputs(chosen.loaded, wanted)
            ask = to_ask(
                self._service, lineup, chosen, tensors, parameters, request_id=request.id or None
            )
        except InvalidInput as error:
            tell_name(error, endpoint)
            raise
        kept: list[tuple[Result, Explanation | None]] = []

        def keep(result: Result, why: Explanation | None = None) -> Reply:
            kept.append((result, why))
            return Reply()

        method = to_method(parameters.get("explain"))
        if method is None:
            answer = endpoint.answer(ask, keep)
        else:
            answer = self._explainer.answer(endpoint, ask, method, keep)
        if not isinstance(answer, Reply):
            await answer
        return self._to_answer(*kept[0], endpoint, request, wanted)

    def _to_answer(
        self,
        result: Result,
        why: Explanation | None,
        endpoint: Endpoint,
        request: Any,
        wanted: list[OutputAsk],
    ) -> Any:
        says = self._says
        picked = pick_outputs(result.loaded, result.outputs, wanted, is_binary=True)
        parameters = {**oip.parameters_of(result), **oip.explained(why)}
        is_raw = bool(request.raw_input_contents)
        made = says.ModelInferResponse.InferOutputTensor
        outputs = []
        for each in picked:
            tensor = made(name=each.name, datatype="FP64", shape=each.data.shape)
            if not is_raw:
                tensor.contents.fp64_contents.extend(each.data.reshape(-1).tolist())
            outputs.append(tensor)
        return says.ModelInferResponse(
            model_name=endpoint.name,
            model_version="" if result.is_constant else result.loaded.bundle.semver,
            id=request.id or str(parameters["prediction_id"]),
            parameters={key: self._to_parameter(value) for key, value in parameters.items()},
            outputs=outputs,
            raw_output_contents=[_to_bytes(each.data) for each in picked] if is_raw else [],
        )

    def _to_parameter(self, value: object) -> Any:
        if isinstance(value, bool):
            return self._says.InferParameter(bool_param=value)
        return self._says.InferParameter(string_param=str(value))

    def _index(self, request: Any, headers: Mapping[bytes, bytes]) -> Any:
        found = self._repository.list(_as_request(headers), is_ready=request.ready)
        made = self._says.RepositoryIndexResponse
        models = [
            made.ModelIndex(
                name=each.name, version=each.version, state=each.state, reason=each.reason
            )
            for each in found
        ]
        return made(models=models)

    async def _load(self, request: Any, headers: Mapping[bytes, bytes]) -> Any:
        await self._repository.bring_in(_as_request(headers), request.model_name)
        return self._says.RepositoryModelLoadResponse()

    async def _unload(self, request: Any, headers: Mapping[bytes, bytes]) -> Any:
        await self._repository.take_out(_as_request(headers), request.model_name)
        return self._says.RepositoryModelUnloadResponse()

    def _status(self, name: str) -> int | None:
        """Return the number of a serving status; None for what is not here."""
        if name in {"", SERVICE}:
            return 1 if self._is_ready() else 2
        endpoint = self._service.endpoints.get(name)
        if endpoint is None:
            return None
        return 1 if self._service.is_ready([endpoint]) else 2

    def _check(self, request: Any, headers: Mapping[bytes, bytes]) -> Any:
        del headers
        found = self._status(request.service)
        if found is None:
            raise NotFound("service.not_found", "There is no such service.", hint="Name a model.")
        return self._says.HealthCheckResponse(status=found)

    async def _watch(self, request: Any, context: Any) -> None:
        """Tell the status now and whenever it changes."""
        last: int | None = None
        while True:
            found = self._status(request.service) or 3
            if found != last:
                await context.write(self._says.HealthCheckResponse(status=found))
            last = found
            if self._service.is_draining:
                return
            await asyncio.sleep(WATCH_PAUSE_S)


def _as_request(headers: Mapping[bytes, bytes], params: Mapping[str, str] | None = None) -> Request:
    """Return a call as the service knows requests, to be authorised like them."""
    return Request(method="POST", path="", query="", headers=headers, body=b"", params=params or {})


def _value_of(parameter: Any) -> object:
    chosen = parameter.WhichOneof("parameter_choice")
    return None if chosen is None else getattr(parameter, chosen)


def _to_tensors(request: Any) -> list[Tensor]:
    """Return the tensors of a call, whose elements are all raw or all typed."""
    raw, inputs = request.raw_input_contents, request.inputs
    if not raw:
        return [_from_contents(each) for each in inputs]
    if len(raw) != len(inputs):
        _wrong(f"There are {len(raw)} raw_input_contents for {len(inputs)} inputs")
    for each in inputs:
        if each.HasField("contents"):
            _wrong(f"The tensor {each.name[:60]!r} has its data twice: as contents and raw")
        require_shape(each.name, each.datatype, each.shape)
    return [
        binary.to_tensor(each.name, each.datatype, tuple(each.shape), data)
        for each, data in zip(inputs, raw, strict=True)
    ]


def _from_contents(each: Any) -> Tensor:
    shape = tuple(each.shape)
    require_shape(each.name, each.datatype, shape)
    place = _CONTENTS.get(each.datatype)
    if place is None:
        _wrong(f"{each.datatype} comes in raw_input_contents alone")
    set_ones = {field.name for field, _ in each.contents.ListFields()}
    if set_ones - {place}:
        _wrong(f"The data of {each.name[:60]!r} is {each.datatype}, which belongs in {place}")
    found = getattr(each.contents, place)
    require_size(each.name, shape, len(found))
    if each.datatype == BYTES:
        return Tensor(each.name, BYTES, shape, _to_texts(each.name, found))
    try:
        return Tensor(
            each.name, each.datatype, shape, np.array(list(found), NUMBERS[each.datatype])
        )
    except OverflowError:
        _wrong(f"The data of {each.name[:60]!r} does not fit into {each.datatype}")


def _to_texts(name: str, found: Iterable[bytes]) -> list[Any]:
    try:
        return [one.decode() for one in found]
    except UnicodeDecodeError:
        _wrong(f"The data of {name[:60]!r} is not UTF-8")


def _to_bytes(data: FloatArray) -> bytes:
    return data.astype("<f8", copy=False).tobytes()


def _wrong(problem: str) -> NoReturn:
    raise InvalidInput("request.invalid", f"{problem}.", hint=HINT)
