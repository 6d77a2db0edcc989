"""What each input added to the answer of a tree model, by the libraries' own exact TreeSHAP.

Path-dependent (Lundberg and others, arXiv:1802.03888): what is unknown is averaged by how many
training rows took each branch, so no rows are needed, and the sums are in the model's raw scale,
log-odds for a classifier. A model has this when its predictor has a method ``contributions``.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from everloop.registry.adapters.refusals import FloatArray


@runtime_checkable
class Explains(Protocol):
    """A predictor that knows exact contributions."""

    def contributions(self, rows: FloatArray) -> FloatArray:
        """Return an array of (rows, answers of a row, inputs + 1); the last is the base."""
        ...
