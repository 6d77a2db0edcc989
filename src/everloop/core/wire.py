"""What the control plane and the serving process say to each other through files.

``routes.json`` goes down, ``applied.json`` and the prediction log come up. Both sides import these
types and nothing else of each other. The files are caches and logs, never the truth about a
release: that is in the records.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from everloop.core.clock import Instant
from everloop.core.ids import Id

PREDICT: Final = "prediction:predict"
FEEDBACK: Final = "feedback:write"
"""What a token must be good for, to ask and to tell the truth."""


class Arm(StrEnum):
    """Which of the two answering versions a request was given to."""

    CHAMPION = "champion"
    CANARY = "canary"


class Status(StrEnum):
    """How a version's answer turned out: INVALID is no number, or one outside the bounds."""

    OK = "ok"
    ERROR = "error"
    INVALID = "invalid"


class TokenHash(msgspec.Struct, frozen=True, kw_only=True):
    """A token that may ask for predictions: SHA-256 of the secret in hex, and its end."""

    hash: str
    expires_at: Instant


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A model version and the folder of its sealed bundle, relative to the serving folder."""

    version_id: Id
    bundle: str


class CanaryTarget(Target, frozen=True, kw_only=True):
    """A version that answers a share of the requests.

    Attributes:
        share: Part of the traffic, above 0 and below 1.
        salt: Makes the assignment of one release independent of the one before.
    """

    share: float
    salt: str


class LogRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a server writes of the requests it answers.

    Attributes:
        sample: Share of the requests whose inputs are kept.
        masked: Inputs that are never written, beside those that a bundle masks.
        max_bytes: Space that answers may take before they are sealed.
    """

    sample: float = 1.0
    masked: tuple[str, ...] = ()
    max_bytes: int = 1 << 30


class StandIn(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is read by where a constant answers and no version can be loaded.

    Attributes:
        inputs: The fields of the champion's signature.
        output: Name of its answer.
    """

    inputs: tuple[dict[str, object], ...]
    output: str


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """Which versions of one deployment answer, and who may ask.

    Attributes:
        other_tokens: Good tokens that may neither ask nor tell the truth; their holders are told
            what they lack.
        epoch: Grows by at least one with every change of the routes.
        public_key: Hex of the Ed25519 key that sealed the bundles.
        champion: Answers what the canary does not; None before the first release.
        shadow: Computes answers that nobody gets.
        previous: Stays loaded, so that a rollback needs no loading.
        constant: Answers every row instead of any version: the last resort of a kill switch.
        stand_in: Reads the requests that a constant answers, when the champion cannot be loaded.
        is_halted: Whether a kill switch was thrown, so that nobody may ask another version than
            the one that answers.
    """

    epoch: int
    deployment: str
    public_key: str
    tokens: tuple[TokenHash, ...] = ()
    feedback_tokens: tuple[TokenHash, ...] = ()
    other_tokens: tuple[TokenHash, ...] = ()
    champion: Target | None = None
    canary: CanaryTarget | None = None
    shadow: Target | None = None
    previous: Target | None = None
    log: LogRules = LogRules()
    constant: float | None = None
    stand_in: StandIn | None = None
    is_halted: bool = False


class RefusedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that the serving process did not accept, and why."""

    role: str
    version_id: Id
    code: str
    message: str


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What the serving process made of ``routes.json``.

    Attributes:
        epoch: The routes in force.
        seen_epoch: The newest routes of which every version is loaded or refused; below
            ``epoch`` while a canary is still being loaded, above it when the champion was refused.
        refused: Bundles that did not verify; empty when all is well.
    """

    epoch: int
    seen_epoch: int
    at: Instant
    pid: int
    refused: tuple[RefusedBundle, ...] = ()


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where the serving process listens (``server.json``).

    Attributes:
        grpc: Host and port of gRPC; None where it is not spoken.
    """

    url: str
    pid: int
    grpc: str | None = None


class Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The truth about one prediction, which its id or its business key names.

    Attributes:
        prediction: Id of the prediction.
        key: The caller's own name of the row; the newest prediction of that name is meant.
        value: A number; classes are 0 and 1 or true and false; of several classes the name or the
            place of the right one. None when only ``overridden`` is told.
        overridden: Whether somebody decided otherwise than the answer.
        at: When this was known; the newest label of a prediction counts. None means now.
    """

    prediction: Annotated[Id, msgspec.Meta(max_length=40)] | None = None
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    value: bool | float | Annotated[str, msgspec.Meta(max_length=200)] | None = None
    overridden: bool = False
    at: Instant | None = None

    @property
    def name(self) -> str:
        """The id or the key, for those who sent it."""
        return self.prediction or self.key or ""


Scalar = None | bool | int | float | str


class PredictionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One answered row of a request, as the prediction log holds it.

    Attributes:
        at: Event time; the caller's, or the wall clock.
        version: The version the request was assigned to, whatever came of it.
        share: The canary's share of the traffic at that moment, known before the outcome.
        output: What that version answered; None for an error or a value that is no number.
        fallback_version: The champion, when the caller got its answer instead.
        unit: Whom the assignment sticks to, as the caller named it.
        shadow_version: The version whose shadow answer was asked for; None when there was none,
            or when the process was too busy for it.
        shadow_status: None also when the process ended before the shadow's answer, or the shadow
            was too slow to be asked.
        outputs: The numbers of an answer that has several, such as one a class; ``output`` is
            None then. ``fallback_outputs`` and ``shadow_outputs`` likewise.
        key: The caller's own name of the row (a business key), to join the truth by.
        request: The caller's own name of the request.
    """

    id: Id
    at: Instant
    logged_at: Instant
    version: Id
    arm: Arm
    share: float
    status: Status
    latency_us: int
    inputs: dict[str, Scalar]
    output: float | None
    epoch: int
    unit: str | None = None
    fallback_version: Id | None = None
    fallback_output: float | None = None
    shadow_version: Id | None = None
    shadow_output: float | None = None
    shadow_status: Status | None = None
    outputs: tuple[float | None, ...] | None = None
    fallback_outputs: tuple[float | None, ...] | None = None
    shadow_outputs: tuple[float | None, ...] | None = None
    key: str | None = None
    request: str | None = None
