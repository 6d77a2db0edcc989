"""Keeps PyTorch models as a graph in JSON and weights in safetensors, and runs them by that graph.

``torch.export`` gives a graph of operators; what its own file format holds is not used, because
reading it looks functions up by names in the file, anywhere below ``torch``, and unpickles. Here a
graph may name nothing but the operators of `torch_operators`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np

from everloop.core.errors import EverloopError
from everloop.registry.adapters.refusals import (
    FloatArray,
    closed,
    missing,
    no_answers,
    predict_failed,
    require_rows,
    require_size,
    unreadable,
)
from everloop.registry.adapters.torch_operators import find_operator

LARGEST_MODEL_BYTES: Final = 2 << 30
_LARGEST_GRAPH_BYTES: Final = 64 << 20
_MOST_STEPS: Final = 100_000
_DEEPEST: Final = 8
_LONGEST: Final = 10_000
_DTYPE_NAMES: Final = "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 bool"
_DTYPES: Final = frozenset(_DTYPE_NAMES.split())
_FORMATS: Final = frozenset({"contiguous_format", "preserve_format"})


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of an operator; its answer takes the next number.

    Attributes:
        call: ``aten.<name>.<overload>``, or the name of a function on whole numbers.
        args: Plain values; ``{"of": n}`` is the answer numbered n, ``{"dtype": "float32"}`` a type,
            ``{"float": "-inf"}`` what JSON has no number for.
        kwargs: The same by name.
    """

    call: str
    args: list[Any]
    kwargs: dict[str, Any] = {}


class Graph(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model as steps. Numbers 0 to n-1 are the weights, n is the matrix of rows.

    Attributes:
        inputs: How many columns a row has.
        outputs: How many numbers it answers for each row.
        weights: Names of the tensors in the file of weights, in order.
        answer: Number of the step that is the answer.
    """

    format: Literal["everloop.torch/1"] = "everloop.torch/1"
    inputs: int
    outputs: int
    weights: list[str]
    steps: list[Step]
    answer: int


Calls: TypeAlias = list[Callable[..., Any]]


class TorchPredictor:
    """A PyTorch model on the CPU. Thread-safe: nothing in it changes.

    Attributes:
        inputs: How many columns a row has.
        names: Always empty: a tensor names no columns.
        outputs: Names of the columns of an answer; empty where it is one number a row.
        is_classifier: Always False: a graph does not say what its numbers mean.
    """

    def __init__(self, graph: bytes, weights: bytes) -> None:
        """Load the model.

        Raises:
            InvalidInput: ``model.unreadable``.
            UnsafeArtifact: ``artifact.operators_refused``.
            LimitExceeded: ``model.too_large``.
            MissingExtra: PyTorch or safetensors is not installed.
        """
        require_size(graph, _LARGEST_GRAPH_BYTES)
        require_size(weights, LARGEST_MODEL_BYTES)
        self._graph = read_graph(graph)
        self._torch = _import_torch()
        self._calls = [find_operator(self._torch, step.call) for step in self._graph.steps]
        self._values: list[Any] | None = _read_weights(weights, self._graph.weights)
        self.inputs = self._graph.inputs
        self.names: tuple[str, ...] = ()
        self.is_classifier = False
        count = self._graph.outputs
        self.outputs = tuple(map(str, range(count))) if count > 1 else ()
        self._last = _last_uses(self._graph)

    def predict(self, rows: FloatArray) -> FloatArray:
        """Return one number, or one row of numbers, for each row; computed in float32.

        Raises:
            InvalidInput: ``model.wrong_shape`` or ``model.predict_failed``.
            Conflict: ``model.closed``.
        """
        matrix = require_rows(rows, self.inputs)
        weights = self._values
        if weights is None:
            raise closed()
        if not len(matrix):
            return no_answers(self.outputs)
        torch = self._torch
        try:
            with torch.inference_mode():
                found = self._run([*weights, torch.from_numpy(matrix.astype(np.float32))])
                answer = np.asarray(found.to(torch.float64).numpy(), dtype=np.float64)
        except EverloopError:
            raise
        except Exception as error:  # an operator raises what it likes
            raise predict_failed("PyTorch", str(error).partition("\n")[0]) from error
        wanted = (len(matrix), len(self.outputs)) if self.outputs else (len(matrix),)
        if answer.size != math.prod(wanted):
            raise predict_failed("PyTorch", f"It answers an array of {answer.shape}.")
        return answer.reshape(wanted)

    def close(self) -> None:
        """Free the weights; idempotent."""
        self._values = None

    def _run(self, values: list[Any]) -> Any:
        first = len(values)
        for place, (step, call) in enumerate(zip(self._graph.steps, self._calls, strict=True)):
            args = [self._value(arg, values) for arg in step.args]
            kwargs = {name: self._value(arg, values) for name, arg in step.kwargs.items()}
            values.append(call(*args, **kwargs))
            for number in self._last[place]:
                if number >= first:
                    values[number] = None  # no later step asks for it
        return values[self._graph.answer]

    def _value(self, told: Any, values: list[Any]) -> Any:
        if isinstance(told, list):
            return [self._value(item, values) for item in told]
        if isinstance(told, dict):
            ((kind, value),) = told.items()
            if kind == "of":
                return values[value]
            return float(value) if kind == "float" else getattr(self._torch, value)
        return told


def read_graph(data: bytes) -> Graph:
    """Return a graph whose steps use only what came before them.

    Raises:
        InvalidInput: ``model.unreadable``.
    """
    try:
        graph = msgspec.json.decode(data, type=Graph)
        _check_graph(graph)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if isinstance(error, EverloopError):
            raise
        raise unreadable("PyTorch", str(error)) from error
    return graph


def _check_graph(graph: Graph) -> None:
    if not (1 <= graph.inputs <= 1_000_000 and 1 <= graph.outputs <= 10_000):
        raise ValueError(f"it has {graph.inputs} inputs and {graph.outputs} outputs")
    if len(graph.steps) > _MOST_STEPS or len(set(graph.weights)) != len(graph.weights):
        raise ValueError("it has too many steps, or a weight twice")
    known = len(graph.weights) + 1
    for place, step in enumerate(graph.steps):
        for arg in (*step.args, *step.kwargs.values()):
            _check_argument(arg, known + place, 0)
    if not 0 <= graph.answer < known + len(graph.steps):
        raise ValueError("its answer is none of its steps")


def _check_argument(told: object, known: int, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("an argument is nested too deeply")
    if isinstance(told, list):
        if len(told) > _LONGEST:
            raise ValueError("an argument is too long")
        for item in told:
            _check_argument(item, known, depth + 1)
    elif isinstance(told, dict):
        kind, value = next(iter(told.items())) if len(told) == 1 else ("", None)
        is_known = (
            (kind == "of" and type(value) is int and 0 <= value < known)
            or (kind == "float" and value in {"inf", "-inf", "nan"})
            or (kind == "dtype" and value in _DTYPES)
            or (kind == "layout" and value == "strided")
            or (kind == "memory_format" and value in _FORMATS)
        )
        if not is_known:
            raise ValueError(f"an argument {str(told)[:60]} is none")
    elif isinstance(told, str) and len(told) > 40:
        raise ValueError("an argument is a long text")


def _last_uses(graph: Graph) -> list[list[int]]:
    """Return for each step the numbers that no later one needs, so that memory is given back."""
    last: dict[int, int] = {}
    for place, step in enumerate(graph.steps):
        for number in _used([*step.args, *step.kwargs.values()]):
            last[number] = place
    done: list[list[int]] = [[] for _ in graph.steps]
    for number, place in last.items():
        if number != graph.answer:
            done[place].append(number)
    return done


def _used(told: object) -> list[int]:
    if isinstance(told, list):
        return [number for item in told for number in _used(item)]
    return [told["of"]] if isinstance(told, dict) and "of" in told else []


def _read_weights(data: bytes, names: Sequence[str]) -> list[Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise missing("safetensors", "torch") from error
    try:
        found = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise unreadable("PyTorch", f"its weights: {error}") from error
    if sorted(found) != sorted(names):
        raise unreadable("PyTorch", "its weights are not those that its graph names")
    return [found[name] for name in names]


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise missing("PyTorch", "torch") from error
    return torch


def save_torch(model: object, example: FloatArray | None) -> dict[str, bytes]:
    """Return the files of an exported program, or of a module together with a few rows.

    The module is exported as it evaluates; it takes one matrix of rows in float32.

    Raises:
        InvalidInput: ``model.example_missing`` for a module without rows,
            ``model.outputs_unsupported`` for one that answers something else than numbers a row,
            or ``model.export_failed``.
        UnsafeArtifact: ``artifact.operators_refused`` for operators beyond the core ones.
    """
    from everloop.registry.adapters.torch_export import export

    torch = _import_torch()
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise missing("safetensors", "torch") from error
    graph, weights = export(torch, model, example)
    _check_graph(graph)
    for step in graph.steps:
        find_operator(torch, step.call)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    return {"graph.json": msgspec.json.encode(graph), "model.safetensors": save(plain)}
