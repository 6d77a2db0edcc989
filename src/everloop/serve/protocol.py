"""What the serving process says over HTTP; its client needs this module and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from everloop.core.ids import Id
from everloop.core.wire import Arm

Dtype = Literal["float64", "int64", "bool", "string"]


class InputField(msgspec.Struct, frozen=True, kw_only=True):
    """One input of a model.

    Attributes:
        categories: For strings: the values known from training, in the order of their codes.
        minimum: Least value seen in training; told to callers, never enforced, since the world
            may move on and drift is the monitor's to judge.
    """

    name: str
    dtype: Dtype
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer.

    Attributes:
        output: The answer; absent where a model answers several numbers.
        outputs: The numbers of an answer that has several, by their names.
        version: The version that made this output; absent where a constant answered.
        arm: To which side of a canary the request was assigned.
        fallback: Whether another one answered: the champion because the canary could not, or a
            constant.
        constant: Whether a kill switch's constant answered, and no version at all.
    """

    id: Id
    output: float | None = None
    version: Id | None = None
    arm: Arm
    fallback: bool = False
    constant: bool = False
    outputs: dict[str, float | None] | None = None


class Explained(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What each input added to one row's answer.

    Attributes:
        values: By input: a number, or one for each number of the answer.
        errors: Standard errors of the values; None where they are exact.
    """

    values: dict[str, float | list[float]]
    errors: dict[str, float | list[float]] | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of a request, explained: base plus the values of a row is its answer.

    Attributes:
        method: ``sampling`` (interventional, against the bundle's background) or ``tree`` (exact
            and path-dependent).
        scale: Whether the values add up to the ``answer``, or to its ``raw`` score (log-odds of a
            classifier of trees).
        base: What the values are added to: the mean answer to the background, for sampling.
        background: How many rows of the training data stood for the unknown.
    """

    method: Literal["sampling", "tree"]
    scale: Literal["answer", "raw"]
    base: float | list[float]
    background: int
    rows: tuple[Explained, ...]


class PredictAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answers to the rows of a request, in their order.

    Attributes:
        logged: False when the log could not be written, so that these ids will not be found.
        explanation: What each input added, when that was asked for.
    """

    predictions: Sequence[Prediction]
    deployment: str
    logged: bool = True
    explanation: Explanation | None = None


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """What the champion takes and gives.

    Attributes:
        outputs: Names of the numbers of an answer; empty where it is one.
    """

    deployment: str
    model: str
    version: str
    number: int
    semver: str
    task: str
    inputs: tuple[InputField, ...]
    output: str
    outputs: tuple[str, ...] = ()


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``GET /healthz`` and ``GET /readyz``.

    Attributes:
        ready: Whether a model answers, in the worker that was asked.
        predictions: Rows that all workers answered, as ``GET /metrics`` counts them; those of the
            others are up to a second old. So are the numbers that follow.
        unlogged: Answers whose log line could not be written.
        refused: Codes of bundles that did not verify, and of a file of tokens that is damaged.
    """

    ready: bool
    epoch: int
    predictions: int
    fallbacks: int
    unlogged: int
    fsync_errors: int
    awaited_shadows: int
    refused: tuple[str, ...]
