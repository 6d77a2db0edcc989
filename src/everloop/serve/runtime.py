"""The one place where serving meets model formats, each imported when a bundle first needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from everloop.core.errors import IntegrityError, UnsafeArtifact
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.loaders import FORMATS, Predictor
from everloop.registry.runtimes import DEFAULTS, RUNTIMES, open_runtime

__all__ = ["SERVED_FORMATS", "Model", "Predictor", "open_model"]

Model = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
SERVED_FORMATS = tuple(FORMATS)


def open_model(
    format_name: str,
    files: Mapping[str, bytes],
    inputs: int,
    *,
    trusted_types: tuple[str, ...] = (),
    runtime: str = "",
    outputs: int = 0,
    weak_isolation: bool = False,
) -> Predictor:
    """Load a model from its files.

    Args:
        format_name: One of ``SERVED_FORMATS``.
        files: The model's files.
        inputs: How many columns a row has by the signature.
        trusted_types: Types that scikit-learn models may hold beyond the safe ones; the sealed
            bundle carries them from the policy of the server that wrote it.
        runtime: What loads it, as the gate chose; empty for the usual one of the format.
        outputs: How many numbers an answer has by the signature; 0 for one.
        weak_isolation: Whether a Python function may run where its process can't be locked.

    Raises:
        UnsafeArtifact: ``artifact.format_refused`` for a format that is not served, or a type in
            the model is not trusted.
        IntegrityError: ``bundle.unreadable`` when the model does not take that many inputs, or its
            runtime does not read its format.
        InvalidInput: the files are no sound model.
        MissingExtra: the format's package is not installed.
    """
    if format_name not in SERVED_FORMATS:
        raise UnsafeArtifact(
            "artifact.format_refused",
            f"The format {format_name[:40]!r} is not served.",
            hint=f"Register the model as one of: {', '.join(SERVED_FORMATS)}.",
        )
    policy = LoadPolicy(
        formats=frozenset(SERVED_FORMATS),
        trusted_types=trusted_types,
        weak_isolation=weak_isolation,
    )
    name = runtime or DEFAULTS[format_name]
    if name in RUNTIMES and RUNTIMES[name].reads != format_name:
        raise _mismatch(f"The runtime {name} does not read the format {format_name}.")
    predictor = open_runtime(name, files, policy)
    if predictor.inputs != inputs or len(predictor.outputs) != outputs:
        told = f"{predictor.inputs} inputs and answers {len(predictor.outputs) or 1} numbers"
        predictor.close()
        raise _mismatch(
            f"The model takes {told}; its signature has {inputs} and {outputs or 'one'}."
        )
    return predictor


def _mismatch(problem: str) -> IntegrityError:
    return IntegrityError(
        "bundle.unreadable", problem, hint="Write the bundle again from the registry."
    )
