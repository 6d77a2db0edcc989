"""Looks through an ONNX model before the runtime does, without the ``onnx`` package.

What the runtime would do at an artifact's word and must not: read weights from files that the model
names (``external_data``), load operators from outside of the standard, run loops that need not end,
and allocate whatever a constant's shape says. The bytes are walked as protocol buffers by the field
numbers of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); an unknown field is
passed over as the runtime does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Final, NamedTuple, TypeAlias

from everloop.core.errors import EverloopError, UnsafeArtifact
from everloop.registry.adapters.refusals import require_size, too_large, unreadable

LARGEST_MODEL_BYTES: Final = 512 << 20
TRUSTED_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Their number of rounds comes out of the data, so nothing bounds how long they run.
REFUSED_OPERATORS: Final = frozenset({"Loop", "Scan", "SequenceMap"})
_MOST_NODES: Final = 200_000
_DEEPEST: Final = 20
_MOST_ELEMENTS: Final = 1 << 29
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5

Value: TypeAlias = "int | memoryview"


class _Child(NamedTuple):
    """In which field of which message which other message lies."""

    message: str
    field: int


# Messages inside messages, as far as a graph, a tensor or a function can lie in them.
_INSIDE: Final[dict[_Child, str]] = {
    _Child("model", 7): "graph",
    _Child("model", 20): "training",
    _Child("model", 25): "function",
    _Child("graph", 1): "node",
    _Child("graph", 5): "tensor",
    _Child("graph", 15): "sparse",
    _Child("node", 5): "attribute",
    _Child("attribute", 5): "tensor",
    _Child("attribute", 6): "graph",
    _Child("attribute", 10): "tensor",
    _Child("attribute", 11): "graph",
    _Child("attribute", 22): "sparse",
    _Child("attribute", 23): "sparse",
    _Child("sparse", 1): "tensor",
    _Child("sparse", 2): "tensor",
    _Child("training", 1): "graph",
    _Child("training", 2): "graph",
    _Child("function", 7): "node",
    _Child("function", 11): "attribute",
}


def check_onnx(model: bytes) -> None:
    """Let a model pass that needs nothing but its own bytes and standard operators.

    Raises:
        InvalidInput: ``model.unreadable``.
        UnsafeArtifact: ``artifact.external_data`` or ``artifact.operators_refused``.
        LimitExceeded: ``model.too_large``.
    """
    require_size(model, LARGEST_MODEL_BYTES)
    walk = _Walk()
    try:
        walk.message("model", memoryview(model), 0)
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, EverloopError):
            raise
        raise unreadable("ONNX", str(error)) from error
    if not walk.count["graph"]:
        raise unreadable("ONNX", "it has no graph")


def has_trees(model: bytes) -> bool:
    """Tell whether a model may compare numbers with the thresholds of trees."""
    return b"TreeEnsemble" in model  # the names of its operators stand in it as they are


class _Walk:
    """Visits every message of a model."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def message(self, kind: str, data: memoryview, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError("its graphs are nested too deeply")
        self.count[kind] += 1
        if self.count["node"] > _MOST_NODES:
            raise ValueError(f"it has more than {_MOST_NODES} operators")
        if kind == "node":
            _require_operator(data)
        if kind == "tensor":
            _require_inline(data)
        for number, value in _fields(data):
            inner = _INSIDE.get(_Child(kind, number))
            if inner is not None:
                if not isinstance(value, memoryview):
                    raise ValueError(f"field {number} of a {kind} is no message")
                self.message(inner, value, depth + 1)


def _require_operator(node: memoryview) -> None:
    operator = domain = ""
    for number, value in _fields(node):
        if number in {4, 7} and isinstance(value, memoryview):
            text = bytes(value).decode("utf-8")
            operator, domain = (text, domain) if number == 4 else (operator, text)
    if domain not in TRUSTED_DOMAINS or operator in REFUSED_OPERATORS:
        raise UnsafeArtifact(
            "artifact.operators_refused",
            f"The model runs {domain[:40]}:{operator[:60]}, which is not trusted here.",
            hint="Export it with operators of ai.onnx and ai.onnx.ml, without loops.",
            context={"operator": operator[:100], "domain": domain[:100]},
        )


def _require_inline(tensor: memoryview) -> None:
    shape: list[int] = []
    for number, value in _fields(tensor):
        if number == 13 or (number == 14 and value != 0):
            raise UnsafeArtifact(
                "artifact.external_data",
                "The model reads its weights from files that it names.",
                hint="Save it as one file: onnx.save(model, path, save_as_external_data=False).",
            )
        if number == 1:
            shape += [value] if isinstance(value, int) else list(_packed(value))
    if prod(shape) > _MOST_ELEMENTS:
        raise too_large(f"A tensor of the model has the shape {shape[:8]}.", LARGEST_MODEL_BYTES)


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in {_EIGHT, _FOUR}:
            size = 8 if wire == _EIGHT else 4
        else:
            raise ValueError(f"a field has the wire type {wire}")
        if number == 0 or size > len(data) - at:
            raise ValueError("it is cut off or lies about a length")
        yield number, data[at : at + size]
        at += size


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("it is cut off or is no protocol buffer")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
