"""What a request of the Open Inference Protocol asks: its JSON and bytes, read into tensors.

What the specification leaves open or says twice is settled as its clients expect it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from everloop.core.errors import InvalidInput
from everloop.serve.ask import Ask
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import MAX_UNIT_CHARS, event_time, malformed
from everloop.serve.exchange import Request, is_json
from everloop.serve.lineup import Chosen, Lineup
from everloop.serve.protocols import binary
from everloop.serve.protocols.datatypes import BYTES, HINT, NUMBERS
from everloop.serve.protocols.outputs import OutputAsk
from everloop.serve.protocols.rounding import NeedsTexts, narrow
from everloop.serve.protocols.tensors import Tensor, TensorReader, require_shape, require_size
from everloop.serve.service import Service

MOST_ID_CHARS: Final = 1_000
_BYTES: Final = b"application/octet-stream"
_NESTED = re.compile(rb"\s*\[\s*\[")

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


_BODY: Final = msgspec.json.Decoder(InferBody)
_BY_VERSION: Final[WeakKeyDictionary[LoadedBundle, TensorReader]] = WeakKeyDictionary()


def reader_of(loaded: LoadedBundle) -> TensorReader:
    """Return the reader of a version, made once; it goes when the version goes."""
    found = _BY_VERSION.get(loaded)
    if found is None:
        found = _BY_VERSION[loaded] = TensorReader(loaded)
    return found


def to_ask(
    service: Service,
    lineup: Lineup,
    chosen: Chosen,
    tensors: Sequence[Tensor],
    parameters: Mapping[str, object],
    *,
    request_id: str | None,
) -> Ask:
    """Return what a request asks, by HTTP or gRPC.

    Of the parameters, ``unit``, ``at``, ``key`` and ``keys`` are ours; others are passed over.

    Raises:
        InvalidInput: ``request.invalid`` or ``request.time``.
        LimitExceeded: ``request.too_many_rows``.
    """
    matrix, values = reader_of(chosen.loaded).read(tensors)
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
        given_matrix=matrix,
        values=values,
        at_us=at_us,
        unit=unit,
        request=request_id,
        keys=keys,
        version=chosen.named,
        lineup=lineup,
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


def read_body(request: Request) -> tuple[InferBody, memoryview]:
    """Return the JSON of a request and the bytes behind it.

    Raises:
        InvalidInput: ``request.unsupported_type``, ``request.malformed`` or ``request.invalid``.
    """
    content_type = request.headers.get(b"content-type", b"")
    kind = content_type.partition(b";")[0].strip().lower()
    if kind != _BYTES and not is_json(kind):
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


def to_tensors(inputs: Sequence[InputTensor], raw: memoryview) -> list[Tensor]:
    """Return the tensors of a request, whose elements stand in its JSON or in the bytes behind it.

    Raises:
        InvalidInput: ``request.invalid``.
    """
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


def to_wanted(body: InferBody) -> tuple[list[OutputAsk], bool]:
    """Return the outputs that a request names, and whether those that it does not are bytes."""
    is_binary = (body.parameters or {}).get("binary_data_output") is True
    wanted = [
        OutputAsk(each.name, bool((each.parameters or {}).get("binary_data", is_binary)))
        for each in body.outputs or ()
    ]
    return wanted, is_binary


def _wrong(problem: str) -> NoReturn:
    raise InvalidInput("request.invalid", f"{problem}.", hint=HINT)
