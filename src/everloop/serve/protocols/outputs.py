"""The tensors of an answer: which outputs a request asks for, and their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray
from everloop.serve.protocols.datatypes import wrong


class OutputAsk(msgspec.Struct):
    """An output that is asked for."""

    name: str
    is_binary: bool = False


class OutTensor(NamedTuple):
    """One tensor of an answer, always FP64."""

    name: str
    data: FloatArray
    is_binary: bool


def pick_outputs(
    loaded: LoadedBundle, outputs: FloatArray, asked: Sequence[OutputAsk], *, is_binary: bool
) -> list[OutTensor]:
    """Return the outputs that were asked for, in that order; all of them when none was named.

    Args:
        loaded: The version that answered.
        outputs: One number a row, or one row of numbers.
        asked: What the request names.
        is_binary: Whether what it does not name goes as bytes.

    Raises:
        InvalidInput: ``request.invalid`` for a name that there is not.
    """
    bundle = loaded.bundle
    table = outputs.reshape(len(outputs), -1)
    if not asked:
        return [OutTensor(bundle.output_name, table, is_binary)]
    return [
        OutTensor(each.name, table[:, _columns_of(loaded, each.name)], each.is_binary)
        for each in asked
    ]


def require_outputs(loaded: LoadedBundle, asked: Sequence[OutputAsk]) -> None:
    """Let pass outputs that there are.

    Raises:
        InvalidInput: ``request.invalid``.
    """
    for each in asked:
        _columns_of(loaded, each.name)


def _columns_of(loaded: LoadedBundle, name: str) -> slice:
    bundle = loaded.bundle
    if name == bundle.output_name:
        return slice(None)
    if name not in bundle.outputs:
        known = ", ".join((bundle.output_name, *bundle.outputs))
        wrong(f"There is no output {name[:60]!r}; there are: {known[:300]}")
    place = bundle.outputs.index(name)
    return slice(place, place + 1)
