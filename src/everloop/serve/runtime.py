"""The one place where serving meets model formats, each imported when a bundle first needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from everloop.core.errors import IntegrityError, UnsafeArtifact
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.loaders import FORMATS, load_predictor

Model = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
SERVED_FORMATS = tuple(row.name for row in FORMATS.values() if row.is_served)


def open_model(
    format_name: str,
    files: Mapping[str, bytes],
    inputs: int,
    *,
    trusted_types: tuple[str, ...] = (),
) -> Model:
    """Load a model from its files.

    Args:
        format_name: One of ``SERVED_FORMATS``.
        files: The model's files.
        inputs: How many columns a row has by the signature.
        trusted_types: Types that scikit-learn models may hold beyond the safe ones; the sealed
            bundle carries them from the policy of the server that wrote it.

    Raises:
        UnsafeArtifact: ``artifact.format_refused`` for a format that is not served, or a type in
            the model is not trusted.
        IntegrityError: ``bundle.unreadable`` when the model does not take that many inputs.
        InvalidInput: the files are no sound model.
        MissingExtra: the format's package is not installed.
    """
    if format_name not in SERVED_FORMATS:
        raise UnsafeArtifact(
            "artifact.format_refused",
            f"The format {format_name[:40]!r} is not served.",
            hint=f"Register the model as one of: {', '.join(SERVED_FORMATS)}.",
        )
    policy = LoadPolicy(formats=frozenset(SERVED_FORMATS), trusted_types=trusted_types)
    predictor = load_predictor(format_name, files, policy)
    if predictor.inputs != inputs or predictor.outputs:
        raise _mismatch(
            f"The model takes {predictor.inputs} inputs and answers {len(predictor.outputs) or 1} "
            f"numbers; its signature has {inputs} and one."
        )
    return predictor.predict


def _mismatch(problem: str) -> IntegrityError:
    return IntegrityError(
        "bundle.unreadable", problem, hint="Write the bundle again from the registry."
    )
