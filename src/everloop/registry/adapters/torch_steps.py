"""The file in which the graph of a PyTorch model is kept, and the check that it can be followed."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from everloop.core.errors import EverloopError
from everloop.registry.adapters.refusals import missing, unreadable

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


def read_graph(data: bytes) -> Graph:
    """Return a graph whose steps use only what came before them.

    Raises:
        InvalidInput: ``model.unreadable``.
    """
    try:
        graph = msgspec.json.decode(data, type=Graph)
        check_graph(graph)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if isinstance(error, EverloopError):
            raise
        raise unreadable("PyTorch", str(error)) from error
    return graph


def check_graph(graph: Graph) -> None:
    """Let a graph pass whose steps use only what came before them.

    Raises:
        ValueError: something in it can't be followed.
    """
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


def import_torch() -> Any:
    """Import PyTorch.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise missing("PyTorch", "torch") from error
    return torch
