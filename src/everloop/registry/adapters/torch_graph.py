"""Runs PyTorch models by a graph in JSON, with their weights in safetensors.

``torch.export`` gives a graph of operators; what its own file format holds is not used, because
reading it looks functions up by names in the file, anywhere below ``torch``, and unpickles. Here a
graph may name nothing but the operators of `torch_operators`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from everloop.core.errors import EverloopError
from everloop.registry.adapters.refusals import (
    FloatArray,
    OneAnswer,
    ask_one,
    closed,
    missing,
    no_answers,
    predict_failed,
    require_rows,
    require_size,
    unreadable,
)
from everloop.registry.adapters.torch_operators import find_operator
from everloop.registry.adapters.torch_steps import Graph, import_torch, read_graph

LARGEST_MODEL_BYTES: Final = 2 << 30
_LARGEST_GRAPH_BYTES: Final = 64 << 20


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
        self._torch = import_torch()
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

    def predict_one(self, values: Sequence[float]) -> OneAnswer:
        """Return the answer to one row, by way of a matrix of one row.

        Raises:
            InvalidInput: as `predict`.
        """
        return ask_one(self.predict, values)

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
