"""What is asked and what is answered, in the words of no protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import msgspec

from everloop.core.ids import Id
from everloop.core.wire import Arm
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray, RowDecoder, Values
from everloop.serve.identity import to_ids
from everloop.serve.lineup import Lineup


class Ask:
    """What a request asks, whatever protocol it came by.

    Attributes:
        rows: How many rows.
        values: The rows as they were sent; None where the matrix says it all, with NaN for null.
        at_us: Event time in microseconds since 1970; None for now.
        unit: Whom the assignment sticks to.
        request: The caller's own id of the request.
        keys: The caller's own key of each row, by which the truth may come; or none.
        version: A resident version to ask, whoever is champion; None to be routed.
        lineup: By whose champion's signature the rows were read; None for that of the moment.
    """

    __slots__ = (
        "_decoder", "_matrix", "at_us", "keys", "lineup", "request", "rows", "unit", "values",
        "version",
    )  # fmt: skip

    def __init__(
        self,
        matrix: FloatArray | None = None,
        *,
        values: Values | None = None,
        decoder: RowDecoder | None = None,
        at_us: int | None = None,
        unit: str | None = None,
        request: str | None = None,
        keys: Sequence[str] = (),
        version: LoadedBundle | None = None,
    ) -> None:
        """Take a matrix, or values with the decoder that makes a matrix of them when it is needed.

        Args:
            matrix: The rows as the champion takes them, or as ``version`` does.
            values: The rows as they were sent.
            decoder: That of the champion, or of ``version``.
            at_us: See the attributes; likewise the others.
            unit: See the attributes.
            request: See the attributes.
            keys: See the attributes.
            version: See the attributes.
        """
        self._matrix = matrix
        self._decoder = decoder
        self.values = values
        self.rows = len(values) if values is not None else len(matrix) if matrix is not None else 0
        self.at_us = at_us
        self.unit = unit
        self.request = request
        self.keys = keys
        self.version = version
        self.lineup: Lineup | None = None

    def of(self, lineup: Lineup) -> Self:
        """Say by which line-up the rows were read, and return the ask."""
        self.lineup = lineup
        return self

    @property
    def matrix(self) -> FloatArray:
        """The rows as the champion takes them."""
        if self._matrix is None:
            assert self._decoder is not None
            assert self.values is not None
            self._matrix = self._decoder.to_numbers(self.values)
        return self._matrix

    @property
    def given_matrix(self) -> FloatArray | None:
        """The matrix, where it is made already."""
        return self._matrix

    def only_row(self) -> Sequence[float] | None:
        """Return the one row as plain numbers, if there is one and it is nothing but numbers."""
        if self.rows != 1:
            return None
        if self._matrix is not None:
            row: list[float] = self._matrix[0].tolist()
            return row
        if self._decoder is None or not self._decoder.is_plain or self.values is None:
            return None
        return self.values[0]  # type: ignore[return-value]


class Result(msgspec.Struct, gc=False):
    """The answer to a request.

    Attributes:
        first: Bytes of the id of the first row's prediction; the others follow it.
        outputs: One number a row, or one row of numbers.
        loaded: The version whose outputs these are; of a constant the one in whose place it is.
        is_fallback: Whether another one answered: the champion because the canary could not, or
            a constant.
        is_logged: False when the log had no room, so that these ids will not be found.
        is_constant: Whether a kill switch's constant answered, and no version at all.
    """

    first: bytes
    outputs: FloatArray
    loaded: LoadedBundle
    arm: Arm
    is_fallback: bool
    is_logged: bool
    is_constant: bool = False

    def ids(self) -> list[Id]:
        """Return the id of each row's prediction."""
        return to_ids(self.first, len(self.outputs))
