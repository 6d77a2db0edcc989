"""What the log is given: one block a request, and what the requests of a line-up have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from everloop.core.ids import Id
from everloop.core.wire import Arm, Scalar, Status

Numbers: TypeAlias = npt.NDArray[np.generic]
STATUS_CODES: Final = {Status.OK: 0, Status.ERROR: 1, Status.INVALID: 2}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """What all requests to one version of a line-up have in common; made once, used for each.

    Attributes:
        version: The version the requests are assigned to.
        share: The canary's share of the traffic, known before the outcome.
        names: Names of the inputs, in the order of the values.
        dtypes: Their types by the signature (float64, int64, bool, string), for values that come
            as a matrix of floats; empty when they need no such translation.
        outputs: Names of the numbers of an answer; empty for one number.
        masked: Names of inputs that are never written.
        sample: Share of the requests whose inputs are kept. Ids, versions and answers always are.
        max_bytes: Space that all files of the log may take; None for what the writer was given.
        fallback_version: Who answers where this version fails; None when nobody does. A fallback
            of nobody is the constant of a kill switch.
        shadow_version: Who answers in the shadow; None without one.
    """

    version: Id
    arm: Arm
    share: float
    epoch: int
    names: tuple[str, ...]
    dtypes: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    masked: frozenset[str] = frozenset()
    sample: float = 1.0
    max_bytes: int | None = None
    fallback_version: Id | None = None
    shadow_version: Id | None = None


class Block(msgspec.Struct, kw_only=True):
    """One answered request. Times are microseconds since 1970.

    Attributes:
        first: The 16 bytes of the id of the first row; row k has the id that is k higher.
        at_us: Event time; the caller's, or the wall clock's.
        values: Rows of raw inputs in the order of ``source.names``, or a matrix of numbers, where
            NaN is a missing value.
        outputs: One number a row or, flat or as a matrix, ``len(source.outputs)`` of them; what
            is not finite reads as None.
        statuses: A code of ``STATUS_CODES`` a row; None when all are well.
        fallback: What ``source.fallback_version`` answered, shaped as ``outputs``; read for those
            rows alone whose status is not OK.
        has_shadow: Whether ``LogWriter.append_shadow`` will be called for it.
        unit: Whom the assignment sticks to, as the caller named it.
        keys: The caller's own name of each row (a business key), to join the truth by; or none.
        request: The caller's own name of the request.
    """

    source: Source
    first: bytes
    rows: int
    at_us: int
    logged_us: int
    latency_us: int
    values: Sequence[Sequence[Scalar]] | Numbers
    outputs: Sequence[float] | Numbers
    statuses: bytes | None = None
    fallback: Sequence[float] | Numbers | None = None
    has_shadow: bool = False
    unit: str | None = None
    keys: Sequence[str] = ()
    request: str | None = None
