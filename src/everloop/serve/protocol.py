"""What the serving process says over HTTP; its client needs this module and no more."""

from __future__ import annotations

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
        version: The version that made this output.
        arm: To which side of a canary the request was assigned.
        fallback: Whether the champion answered because the canary could not.
    """

    id: Id
    output: float
    version: Id
    arm: Arm
    fallback: bool = False


class PredictAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to ``POST /v1/predict``, in the order of the rows.

    Attributes:
        logged: False when the log could not be written, so that these ids will not be found.
    """

    predictions: tuple[Prediction, ...]
    deployment: str
    logged: bool = True


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``GET /v1/model``: what the champion takes and gives."""

    deployment: str
    model: str
    version: str
    number: int
    semver: str
    task: str
    inputs: tuple[InputField, ...]
    output: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``GET /healthz`` and ``GET /readyz``.

    Attributes:
        ready: Whether a model answers.
        unlogged: Answers whose log line could not be written, since the start.
        refused: Codes of bundles that did not verify.
    """

    ready: bool
    epoch: int
    predictions: int
    fallbacks: int
    unlogged: int
    fsync_errors: int
    awaited_shadows: int
    refused: tuple[str, ...]
