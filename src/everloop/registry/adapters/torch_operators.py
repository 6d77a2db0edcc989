"""The operators of PyTorch that a stored graph may call, and the checks that PyTorch leaves out.

All are core operators of ATen (https://docs.pytorch.org/docs/stable/torch.compiler_ir.html) without
side effects, whose kernels check sizes and indices themselves; the two that leave it to their
callers are checked here. Left out of the core are those that are random, show memory that nobody
wrote (``empty``), change their arguments, or belong to training.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from everloop.core.errors import UnsafeArtifact

_NAMES: Final = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _log_softmax _native_batch_norm_legit_no_training
    _softmax _to_copy abs acos acosh adaptive_avg_pool1d add addmm alias amax amin any arange argmax
    argmin asin asinh atan atan2 atanh avg_pool1d avg_pool2d avg_pool3d bitwise_and bitwise_not
    bitwise_or bitwise_xor bmm cat ceil clamp clone constant_pad_nd convolution cos cosh cumsum
    diagonal div elu embedding eq erf exp expand expm1 fill flip floor fmod full full_like gather ge
    gelu gt hardtanh index index_select isinf isnan le leaky_relu log log10 log1p log2 logical_and
    logical_not logical_or logical_xor lt max max_pool2d_with_indices max_pool3d_with_indices
    maximum mean min minimum mm mul native_group_norm native_layer_norm ne neg permute pow prod
    reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu remainder repeat
    replication_pad2d replication_pad3d round rsqrt scalar_tensor select sigmoid sign sin sinh slice
    sort split_with_sizes sqrt squeeze sub sum sym_numel sym_size tan tanh topk trunc unsqueeze
    upsample_bilinear2d upsample_nearest2d var view where
"""
_CORE: Final = frozenset(_NAMES.split())
_LARGEST_WHOLE: Final = 2**62


def find_operator(torch: Any, name: str) -> Callable[..., Any]:
    """Return what a step of a graph calls: ``aten.add.Tensor``, or ``mul`` on whole numbers.

    Raises:
        UnsafeArtifact: ``artifact.operators_refused``.
    """
    function = _FUNCTIONS.get(name)
    if function is not None:
        return function
    parts = name.split(".")
    if len(parts) != 3 or parts[0] != "aten" or parts[1] not in _CORE:
        raise _refused(name)
    packet = getattr(torch.ops.aten, parts[1], None)
    # Overloads are attributes beside others, so only a name that the packet lists is looked up.
    if packet is None or parts[2] not in packet.overloads():
        raise _refused(name)
    found: Callable[..., Any] = getattr(packet, parts[2])
    if found._schema.is_mutable:  # type: ignore[attr-defined]
        raise _refused(name)
    guard = _GUARDS.get(parts[1])
    return found if guard is None else _guarded(found, guard)


def _guarded(call: Callable[..., Any], guard: Callable[..., None]) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        guard(*args, **kwargs)
        return call(*args, **kwargs)

    return guarded


def _check_batch_norm(rows: Any, *parts: Any, **others: Any) -> None:
    if others or rows.dim() < 2:
        raise ValueError("a batch normalisation has wrong arguments")
    for part in parts[:4]:
        if part is not None and (part.dim() != 1 or part.numel() != rows.size(1)):
            raise ValueError("a batch normalisation has weights of another width")


def _check_group_norm(*parts: Any, **others: Any) -> None:
    rows, weight, bias, count, width, size, groups = parts[:7]
    is_sound = not others and count * width * size == rows.numel() and groups >= 1
    if not is_sound or rows.dim() < 2 or rows.size(1) != width or width % groups:
        raise ValueError("a group normalisation has wrong sizes")
    for part in (weight, bias):
        if part is not None and (part.dim() != 1 or part.numel() != width):
            raise ValueError("a group normalisation has weights of another width")


_GUARDS: Final[dict[str, Callable[..., None]]] = {
    "_native_batch_norm_legit_no_training": _check_batch_norm,
    "native_group_norm": _check_group_norm,
}


def _on_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function meet plain numbers only: of lists and huge numbers it could make any size."""

    def limited(*args: Any) -> Any:
        if not all(isinstance(arg, int | float) for arg in args):
            raise TypeError("a function on numbers was given something else")
        found = function(*args)
        if isinstance(found, int) and abs(found) > _LARGEST_WHOLE:
            raise OverflowError("a whole number grew too large")
        return found

    return limited


def _get_item(values: Any, place: Any) -> Any:
    if not isinstance(values, list | tuple) or not isinstance(place, int):
        raise TypeError("an item was asked of what is no list")
    return values[place]


_ARITHMETIC: Final = "add sub mul floordiv mod neg eq ne lt le gt ge"
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "getitem": _get_item,
    **{name: _on_numbers(getattr(operator, name)) for name in _ARITHMETIC.split()},
}


def _refused(name: str) -> UnsafeArtifact:
    return UnsafeArtifact(
        "artifact.operators_refused",
        f"The model calls {name[:80]!r}, which is not trusted here.",
        hint="Export it with core operators only: everloop's save_model decomposes into them.",
        context={"operator": name[:100]},
    )
