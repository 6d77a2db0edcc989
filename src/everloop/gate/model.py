"""How a gate is configured: ``models.<name>.gate`` in everloop.yaml."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from everloop.registry.evidence import LossName


class GateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of one model's gate.

    Attributes:
        loss: What is compared on each row, here and wherever the version is watched; left out,
            ``absolute_error`` for regression and ``log_loss`` for classification.
        min_improvement: By which share of the champion's loss the new one must be lower.
        alpha: How likely a version that is no better may pass at most.
        block: Column whose values group rows that belong together, such as the date: rows of one
            day are not independent, so days are compared.
        min_rows: How many rows the holdout must have.
        max_latency_ms: Limit of the 99th percentile of single-row predictions.
        leakage: Whether inputs are searched for the answer in disguise.
        schema: Whether holdout and callers must fit the signature.
    """

    loss: LossName | None = None
    min_improvement: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    alpha: Annotated[float, Meta(gt=0, le=0.5)] = 0.05
    block: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    min_rows: Annotated[int, Meta(ge=2, le=10**9)] = 50
    max_latency_ms: Annotated[float, Meta(gt=0, le=60_000)] = 50.0
    leakage: bool = True
    schema: bool = True
