"""Answers joined with the truth that came later."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.core.clock import Instant
from everloop.core.ids import Id
from everloop.core.wire import Arm, PredictionRow, Status
from everloop.monitor.segments import read_parquet
from everloop.registry.evidence import LossName

_CLIP = 1e-12
_CLASS_CLIP = 1e-15


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One labelled answer.

    Attributes:
        output: What the asked version answered; None for an error.
        truth: The label as a number; classes as 0 and 1, of several by their place. None when
            nobody has told it: only that the answer was overridden.
        overridden: Whether somebody decided otherwise than the answer, said here for the first
            time.
        epoch: Which routes were in force at the request.
        unit: Whom the assignment sticks to, as the caller named it.
        request: The caller's own name of the request, by which its retries are known.
    """

    prediction: Id
    at: Instant
    version: Id
    arm: Arm
    share: float
    status: Status
    output: float | None
    truth: float | None
    epoch: int = 0
    unit: str | None = None
    shadow_version: Id | None = None
    shadow_output: float | None = None
    overridden: bool = False
    outputs: tuple[float | None, ...] | None = None
    shadow_outputs: tuple[float | None, ...] | None = None
    request: str | None = None


class Truth(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one prediction.

    Attributes:
        value: The label as a number; None when nobody has told it.
        at_us: When the newest label was given, in microseconds since 1970.
    """

    value: float | None
    at_us: int = 0
    overridden: bool = False


def join(row: PredictionRow, truth: float | None, *, overridden: bool = False) -> Outcome:
    """Return a row with its label."""
    return Outcome(
        prediction=row.id,
        at=row.at,
        version=row.version,
        arm=row.arm,
        share=row.share,
        status=row.status,
        output=row.output,
        truth=truth,
        epoch=row.epoch,
        unit=row.unit,
        shadow_version=row.shadow_version,
        shadow_output=row.shadow_output,
        overridden=overridden,
        outputs=row.outputs,
        shadow_outputs=row.shadow_outputs,
        request=row.request,
    )


def encode_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """Return outcomes as Parquet bytes, in their order."""
    plain = [msgspec.structs.asdict(outcome) for outcome in outcomes]
    schema = pa.schema(
        [
            ("prediction", pa.string()),
            ("at", pa.timestamp("us", tz="UTC")),
            ("version", pa.string()),
            ("arm", pa.string()),
            ("share", pa.float64()),
            ("status", pa.string()),
            ("output", pa.float64()),
            ("truth", pa.float64()),
            ("epoch", pa.int64()),
            ("unit", pa.string()),
            ("shadow_version", pa.string()),
            ("shadow_output", pa.float64()),
            ("overridden", pa.bool_()),
            ("outputs", pa.list_(pa.float64())),
            ("shadow_outputs", pa.list_(pa.float64())),
            ("request", pa.string()),
        ]
    )
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(plain, schema=schema), sink, compression="zstd")
    return sink.getvalue()


def decode_outcomes(data: bytes) -> list[Outcome]:
    """Return outcomes from their Parquet bytes."""
    rows = read_parquet(data).to_pylist()
    return msgspec.convert(rows, list[Outcome])


def encode_truths(truths: Mapping[Id, Truth]) -> bytes:
    """Return what is known of a segment, by prediction id, as JSON bytes."""
    return msgspec.json.encode(truths, order="sorted")


def decode_truths(data: bytes) -> dict[Id, Truth]:
    """Return what is known of a segment."""
    return msgspec.json.decode(data, type=dict[Id, Truth])


def decode_labels(data: bytes) -> dict[Id, float]:
    """Return the labels of a segment alone."""
    return {key: one.value for key, one in decode_truths(data).items() if one.value is not None}


def loss_of(kind: LossName, output: float, truth: float) -> float:
    """Return the loss of one answer.

    Log loss clips probabilities to [1e-12, 1 - 1e-12] so that one sure mistake stays finite.
    """
    if kind == "absolute_error":
        return abs(output - truth)
    if kind == "squared_error":
        return (output - truth) ** 2
    if kind == "zero_one":
        return float((output >= 0.5) != (truth >= 0.5))
    probability = min(max(output, _CLIP), 1 - _CLIP)
    return -math.log(probability if truth >= 0.5 else 1 - probability)


def loss_of_classes(kind: LossName, outputs: Sequence[float | None], truth: float) -> float | None:
    """Return the loss of an answer with one number a class; None when it is no answer.

    The numbers are taken as shares of their sum, as by the gate; of equal ones the first is the
    answer, and a class that the model does not know is always wrong.
    """
    numbers = [value for value in outputs if value is not None and math.isfinite(value)]
    total = sum(numbers)
    if len(numbers) != len(outputs) or min(numbers, default=-1.0) < 0 or total <= 0:
        return None
    shares = [value / total for value in numbers]
    place = int(truth)
    if kind == "zero_one":
        return float(shares.index(max(shares)) != place)
    if kind == "log_loss":
        known = shares[place] if 0 <= place < len(shares) else 0.0
        return -math.log(max(known, _CLASS_CLIP))
    power = 1 if kind == "absolute_error" else 2
    return sum(abs(share - (index == place)) ** power for index, share in enumerate(shares))
