"""What each input added to an answer: SHAP values, on request and never on the event loop.

Two methods. *Sampling* works for every runtime and explains the answer itself: an input that is
"unknown" takes its value from a row of the bundle's own background (interventional SHAP), orders of
inputs are drawn and each is walked forth and back (antithetic pairs: Mitchell, Cooper, Frank and
Holmes, arXiv:2104.12199). Each walk begins at a background row and ends at the explained one, so
the values sum to the answer minus the mean answer to the background, whatever was drawn. *Tree* is
the exact, path-dependent TreeSHAP of LightGBM and XGBoost, in the raw scale (log-odds).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from everloop.core.errors import EverloopError, InvalidInput, LimitExceeded
from everloop.registry.adapters.contributions import Explains
from everloop.serve.ask import Ask, Result
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import FloatArray
from everloop.serve.exchange import Reply
from everloop.serve.protocol import Explained, Explanation
from everloop.serve.service import Endpoint

Method: TypeAlias = Literal["sampling", "tree"]
MOST_EXPLAINED: Final = 100
MOST_WAITING: Final = 8
# Of one row: background rows, walks, and rows that the model is asked.
MOST_BACKGROUND: Final = 100
LEAST_WALKS: Final = 100
MOST_ASKED: Final = 200_000
# Short, since a model may answer one caller at a time and others wait meanwhile.
CHUNK: Final = 256
_SEED: Final = 7


class Shap(NamedTuple):
    """SHAP values of some rows.

    Attributes:
        base: For each number of an answer, what the values are added to.
        values: By row, input and number of the answer.
        errors: Standard errors of the values by the draws; None for exact ones.
        background: How many rows stand for the unknown.
    """

    base: FloatArray
    values: FloatArray
    errors: FloatArray | None
    background: int


class Explainer:
    """Explains on one thread of its own; made after a fork."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._waiting = 0

    async def answer(
        self,
        endpoint: Endpoint,
        ask: Ask,
        method: Method | Literal[True],
        encode: Callable[[Result, Explanation], Reply],
    ) -> Reply:
        """Answer an ask and explain the answer, by the version that gave it.

        Raises:
            LimitExceeded: ``explain.too_many_rows``, or ``server.busy``.
            InvalidInput: ``explain.unavailable`` for a version that cannot be explained so.
        """
        self._require_room(len(ask.matrix))
        told: list[Result] = []

        def keep(result: Result) -> Reply:
            told.append(result)
            return Reply()

        lineup = ask.lineup or endpoint.lineup
        if lineup.constant is not None:
            raise constant_answers()
        champion = lineup.champion
        given = endpoint.answer(ask, keep)
        if not isinstance(given, Reply):
            await given
        (result,) = told
        loaded, matrix = result.loaded, ask.matrix
        origin = ask.version or (champion.loaded if champion is not None else loaded)
        if loaded.bundle.inputs != origin.bundle.inputs:
            matrix = loaded.rows.adapt(origin.rows, ask.matrix, ask.values)
        return encode(result, await self.explain(loaded, matrix, method))

    async def explain(
        self, loaded: LoadedBundle, rows: FloatArray, method: Method | Literal[True]
    ) -> Explanation:
        """Explain a version's answers to rows, after those that wait already.

        Raises:
            LimitExceeded: ``explain.too_many_rows``, or ``server.busy``.
            InvalidInput: ``explain.unavailable``.
        """
        self._require_room(len(rows))
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, explain, loaded, rows, method)
        finally:
            self._waiting -= 1

    def _require_room(self, rows: int) -> None:
        if rows > MOST_EXPLAINED:
            raise LimitExceeded(
                "explain.too_many_rows",
                f"{rows} rows are too many to explain.",
                hint=f"Send at most {MOST_EXPLAINED} rows, or leave `explain` out.",
            )
        if self._waiting >= MOST_WAITING:
            raise LimitExceeded(
                "server.busy",
                f"{self._waiting} explanations wait already.",
                hint="Try again in a second.",
            )


def constant_answers() -> EverloopError:
    """Return the refusal to explain where a constant answers."""
    return InvalidInput(
        "explain.constant",
        "A constant answers here now, and no model: there is nothing to explain.",
        hint="Ask without explain, or take the halt back with `everloop release resume`.",
    )


def to_method(value: object) -> Method | Literal[True] | None:
    """Return what a protocol's parameter ``explain`` asks for; None for nothing.

    Raises:
        InvalidInput: ``request.invalid``.
    """
    if value is None or value is False:
        return None
    if value is True or value == "sampling" or value == "tree":  # noqa: PLR1714 -- mypy narrows so
        return value
    raise InvalidInput(
        "request.invalid",
        f"`explain` is {str(value)[:40]!r}.",
        hint="It is true, sampling or tree, or left out.",
    )


def explain(
    loaded: LoadedBundle, rows: FloatArray, method: Method | Literal[True] = True
) -> Explanation:
    """Explain a version's answers to rows.

    Args:
        loaded: The version.
        rows: The rows as it takes them.
        method: True takes sampling where the bundle has a background, else the tree's own.

    Raises:
        InvalidInput: ``explain.unavailable``.
    """
    if method is True:
        method = "tree" if loaded.background is None else "sampling"
    if method == "sampling":
        if loaded.background is None or not len(loaded.background):
            raise _unavailable("The bundle has no background rows.")
        return _told(loaded, sample(loaded.model, rows, loaded.background), method)
    predictor: object = loaded.predictor
    if not isinstance(predictor, Explains):
        raise _unavailable("The model's runtime knows no exact contributions.")
    found = predictor.contributions(rows).transpose(0, 2, 1)
    if not np.isfinite(found).all():
        raise _unavailable("The model's file does not say how much data came to each leaf.")
    return _told(loaded, Shap(found[0, -1], found[:, :-1], None, 0), method)


def sample(
    model: Callable[[FloatArray], FloatArray], rows: FloatArray, background: FloatArray
) -> Shap:
    """Return interventional SHAP values of the model's own answers, by paired walks.

    Deterministic: the same rows have the same values.
    """
    inputs = rows.shape[1]
    chosen = _spread(background, max(1, min(MOST_BACKGROUND, MOST_ASKED // (2 * inputs))))
    walks = -(-LEAST_WALKS // len(chosen)) * len(chosen)
    generator = np.random.default_rng(_SEED)
    starts = np.resize(np.arange(len(chosen)), walks)
    answered = _ask(model, chosen)
    ends = _ask(model, rows)
    outputs = answered.shape[1]
    values = np.empty((len(rows), inputs, outputs))
    errors = np.empty_like(values)
    for place, row in enumerate(rows):
        drawn = np.empty((walks, inputs, outputs))
        for walk, start in enumerate(starts):
            ends_at = (answered[start], ends[place])
            drawn[walk] = _walk(model, row, chosen[start], generator.permutation(inputs), ends_at)
        values[place] = drawn.mean(axis=0)
        errors[place] = drawn.std(axis=0) / np.sqrt(walks)
    return Shap(answered.mean(axis=0), values, errors, len(chosen))


def _walk(
    model: Callable[[FloatArray], FloatArray],
    row: FloatArray,
    start: FloatArray,
    order: npt.NDArray[np.int64],
    ends: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Return what each input adds from one row to the other: mean of an order and its reverse."""
    inputs = len(row)
    steps = np.arange(1, inputs)[:, None]
    rank = np.empty(inputs, dtype=np.int64)
    rank[order] = np.arange(inputs)
    known = np.concatenate([rank < steps, inputs - 1 - rank < steps])
    first, last = ends
    between = _ask(model, np.where(known, row, start)).reshape(2, inputs - 1, len(first))
    added = np.empty((inputs, len(first)))
    forth = np.diff(np.concatenate([first[None], between[0], last[None]]), axis=0)
    back = np.diff(np.concatenate([first[None], between[1], last[None]]), axis=0)
    added[order] = forth
    added[order[::-1]] += back
    return added / 2


def _ask(model: Callable[[FloatArray], FloatArray], rows: FloatArray) -> FloatArray:
    if not len(rows):
        return np.empty((0, 1))
    found = [
        np.asarray(model(np.ascontiguousarray(rows[at : at + CHUNK])), dtype=np.float64)
        for at in range(0, len(rows), CHUNK)
    ]
    return np.concatenate(found).reshape(len(rows), -1)


def _spread(rows: FloatArray, most: int) -> FloatArray:
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _told(loaded: LoadedBundle, found: Shap, method: Method) -> Explanation:
    names = [field.name for field in loaded.bundle.inputs]
    is_one = not loaded.bundle.outputs

    def by_name(table: FloatArray) -> dict[str, float | list[float]]:
        numbers = (table[:, 0] if is_one else table).tolist()
        return dict(zip(names, numbers, strict=True))

    errors = found.errors
    return Explanation(
        method=method,
        scale="answer" if method == "sampling" else "raw",
        base=(found.base[0] if is_one else found.base).tolist(),
        background=found.background,
        rows=tuple(
            Explained(
                values=by_name(table), errors=None if errors is None else by_name(errors[place])
            )
            for place, table in enumerate(found.values)
        ),
    )


def _unavailable(problem: str) -> InvalidInput:
    return InvalidInput(
        "explain.unavailable",
        problem,
        hint="Bundles of versions that passed a gate have background rows; "
        "tree models of LightGBM and XGBoost can be asked for `tree`.",
    )
