"""What every format refuses in the same words.

Serving imports it, so it needs nothing but core and numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from everloop.core.errors import Conflict, InvalidInput, LimitExceeded, MissingExtra

FloatArray: TypeAlias = npt.NDArray[np.float64]
OneAnswer: TypeAlias = float | FloatArray


def require_rows(rows: FloatArray, inputs: int) -> FloatArray:
    """Return rows as one block of float64 in C order if they have as many columns as the model.

    Raises:
        InvalidInput: ``model.wrong_shape``.
    """
    matrix = np.ascontiguousarray(rows, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != inputs:
        raise InvalidInput(
            "model.wrong_shape",
            f"The model takes rows of {inputs} numbers, not an array of {rows.shape}.",
            hint="Give the inputs of the signature, all of them, in its order.",
        )
    return matrix


def no_answers(outputs: tuple[str, ...]) -> FloatArray:
    """Return the answer to no rows."""
    return np.empty((0, len(outputs)) if outputs else 0, dtype=np.float64)


def ask_one(predict: Callable[[FloatArray], FloatArray], values: Sequence[float]) -> OneAnswer:
    """Return the answer to one row, for a model that has no faster way than a matrix of one row."""
    answer = predict(np.array([values], dtype=np.float64))[0]
    return answer if isinstance(answer, np.ndarray) else float(answer)


def wrong_count(inputs: int, error: Exception) -> InvalidInput:
    """Return the refusal of one row of another length, or with something that is no number."""
    return InvalidInput(
        "model.wrong_shape",
        f"The model takes a row of {inputs} numbers: {str(error)[:100]}.",
        hint="Give the inputs of the signature, all of them, in its order.",
    )


def require_size(data: bytes, most: int) -> None:
    """Refuse a model file beyond a size in bytes.

    Raises:
        LimitExceeded: ``model.too_large``.
    """
    if len(data) > most:
        raise too_large(f"The model has {len(data) >> 20} MiB.", most)


def too_large(problem: str, most: int) -> LimitExceeded:
    """Return the refusal of a model beyond a size in bytes."""
    return LimitExceeded(
        "model.too_large", problem, hint=f"Keep models below {most >> 20} MiB: fewer parts."
    )


def unreadable(library: str, why: str) -> InvalidInput:
    """Return the refusal of bytes that are no sound model of a library."""
    return InvalidInput(
        "model.unreadable",
        f"The {library} model cannot be read: {why[:200]}.",
        hint="Save the model again with everloop's save_model.",
    )


def unsupported(problem: str, hint: str) -> InvalidInput:
    """Return the refusal of a model that answers what can't be passed on."""
    return InvalidInput("model.outputs_unsupported", problem, hint=hint)


def predict_failed(library: str, why: str) -> InvalidInput:
    """Return the report of a model that does not answer rows of the right shape."""
    return InvalidInput(
        "model.predict_failed",
        f"The {library} model cannot predict these rows: {why[:200]}",
        hint="Train it on a plain matrix of numbers, in the order of the signature.",
    )


def closed() -> Conflict:
    """Return the refusal of a model that was closed."""
    return Conflict("model.closed", "The model was closed.", hint="Load the model again.")


def missing(what: str, extra: str) -> MissingExtra:
    """Return the error that names the install line of a library."""
    return MissingExtra(
        "extra.missing",
        f"{what} is not installed.",
        hint=f'Install it with: pip install "everloop[{extra}]"',
    )
