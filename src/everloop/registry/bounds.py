"""Which answers of a version count as valid, for servers, devices and kill switches alike."""

from __future__ import annotations

from typing import Final

from everloop.registry.signature import Signature

OUTPUT_MARGIN: Final = 1.0
"""A number this far outside the range seen in training counts as invalid: the range's own width."""


def output_bounds(signature: Signature) -> tuple[float | None, float | None]:
    """Return the least and the largest answer that counts as valid; None where nothing bounds it.

    A probability is bounded by what it is, a number by what was seen in training and a margin.
    """
    low, high = signature.output.minimum, signature.output.maximum
    if low is None or high is None or signature.task == "classification":
        return low, high
    margin = (high - low) * OUTPUT_MARGIN
    return low - margin, high + margin
