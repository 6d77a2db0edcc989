"""Decimals to floats of fewer bits, rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from everloop.serve.decode import FloatArray
from everloop.serve.protocols.datatypes import NUMBERS, wrong

_LEAST_NORMAL: Final = 2.0**-126
_LARGEST: Final = {"FP32": float(np.finfo(np.float32).max), "FP16": float(np.finfo(np.float16).max)}

Array = npt.NDArray[np.generic]


def narrow(numbers: FloatArray, datatype: str, texts: Sequence[str] | None = None) -> Array:
    """Return numbers as 32 or 16 bit floats, rounded once.

    A decimal that becomes a float64 and then a float32 is rounded twice, which goes wrong where
    the float64 lies exactly between two float32: there, and only there, the text decides.

    Args:
        numbers: The decimals as float64.
        datatype: ``FP64``, ``FP32`` or ``FP16``.
        texts: The decimals as they were written; None to be told whether they are needed.

    Raises:
        InvalidInput: ``request.invalid`` for a number that is too large.
        NeedsTexts: some of them lie between two floats.
    """
    if datatype == "FP64":
        return numbers
    kind = NUMBERS[datatype]
    size = np.abs(numbers)
    if (size > _LARGEST[datatype]).any():
        wrong(f"A number is too large for {datatype}")
    made = numbers.astype(kind)
    if datatype == "FP32" and not _may_lie_between(numbers, size):
        return made
    back = made.astype(np.float64)
    towards = np.where(numbers > back, np.inf, -np.inf).astype(kind)
    with np.errstate(over="ignore", invalid="ignore"):
        neighbour = np.nextafter(made, towards).astype(np.float64)
        is_between = (numbers != back) & ((back + neighbour) / 2 == numbers)
    if not is_between.any():
        return made
    if texts is None:
        raise NeedsTexts
    from fractions import Fraction

    for place in np.flatnonzero(is_between).tolist():
        exact, middle = Fraction(texts[place]), Fraction(float(numbers[place]))
        low, high = sorted((float(back[place]), float(neighbour[place])))
        if exact != middle:  # an exact tie is rounded to even already
            made[place] = low if exact < middle else high
    return made


def _may_lie_between(numbers: FloatArray, size: FloatArray) -> bool:
    """Tell quickly whether a float64 may be the middle of two float32: hardly any is.

    The middle has a one and 28 zeros behind the bits of a float32; below the least normal float32
    the bits stand elsewhere.
    """
    behind = numbers.view(np.int64) & 0x1FFF_FFFF
    if (behind == 0x1000_0000).any():
        return True
    is_small = size < _LEAST_NORMAL
    return bool(is_small.any()) and bool((numbers[is_small] != 0.0).any())


class NeedsTexts(Exception):
    """Some decimals can only be rounded right by their texts."""
