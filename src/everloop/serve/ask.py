"""What is asked and what is answered, in the words of no protocol."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from everloop.core.ids import Id
from everloop.core.wire import Arm
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray, RowDecoder, Values
from everloop.serve.identity import to_ids
from everloop.serve.lineup import Lineup
from everloop.serve.scoring import Scorer


class Ask(msgspec.Struct, kw_only=True, gc=False):
    """What a request asks, whatever protocol it came by.

    Attributes:
        given_matrix: The rows as the champion takes them, or as ``version`` does; None until the
            decoder has made it of the values.
        values: The rows as they were sent; None where the matrix says it all, with NaN for null.
        decoder: That of the champion, or of ``version``; it makes a matrix of the values.
        at_us: Event time in microseconds since 1970; None for now.
        unit: Whom the assignment sticks to.
        request: The caller's own id of the request.
        keys: The caller's own key of each row, by which the truth may come; or none.
        version: A resident version to ask, whoever is champion; None to be routed.
        lineup: By whose champion's signature the rows were read; None for that of the moment.
        rows: How many rows; counted here.
    """

    given_matrix: FloatArray | None = None
    values: Values | None = None
    decoder: RowDecoder | None = None
    at_us: int | None = None
    unit: str | None = None
    request: str | None = None
    keys: Sequence[str] = ()
    version: LoadedBundle | None = None
    lineup: Lineup | None = None
    rows: int = 0

    def __post_init__(self) -> None:
        """Count the rows."""
        self.rows = len(self.matrix if self.values is None else self.values)

    @property
    def matrix(self) -> FloatArray:
        """The rows as the champion takes them."""
        if self.given_matrix is None:
            assert self.decoder is not None
            assert self.values is not None
            self.given_matrix = self.decoder.to_numbers(self.values)
        return self.given_matrix

    def only_row(self) -> Sequence[float] | None:
        """Return the one row as plain numbers, if there is one and it is nothing but numbers."""
        if self.rows != 1:
            return None
        if self.given_matrix is not None:
            row: list[float] = self.given_matrix[0].tolist()
            return row
        if self.decoder is None or not self.decoder.is_plain or self.values is None:
            return None
        return self.values[0]  # type: ignore[return-value]


def rows_for(scorer: Scorer, lineup: Lineup, ask: Ask) -> FloatArray:
    """Return rows as another version takes them than the one that they were read for.

    Raises:
        InvalidInput: ``request.invalid`` when it takes what nobody sent.
    """
    assert lineup.champion is not None
    origin = ask.version or lineup.champion.loaded
    if scorer.loaded is origin or scorer.loaded.bundle.inputs == origin.bundle.inputs:
        return ask.matrix
    return scorer.loaded.rows.adapt(origin.rows, ask.matrix, ask.values)


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
