"""Turns a scikit-learn estimator into an ONNX model by skl2onnx, where that is installed.

Converters are brittle, so nothing rests on this one: what it cannot convert is served by
scikit-learn itself, and what it converts wrongly is refused by the gate, which compares answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from everloop.core.errors import InvalidInput
from everloop.registry.adapters.refusals import missing


def convert_sklearn(estimator: Any, inputs: int) -> Iterator[tuple[str, bytes]]:
    """Yield ONNX models of an estimator with their precision: ``float64``, then ``float32``.

    Raises:
        InvalidInput: ``model.conversion_failed``, when none could be made.
        MissingExtra: skl2onnx is not installed.
    """
    try:
        from skl2onnx import convert_sklearn as convert
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    except ImportError as error:
        raise missing("skl2onnx", "convert") from error
    options = {"zipmap": False} if hasattr(estimator, "classes_") else {}
    problem = "unknown"
    made = 0
    for name, kind in (("float64", DoubleTensorType), ("float32", FloatTensorType)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = convert(
                    estimator,
                    initial_types=[("rows", kind([None, inputs]))],
                    options={id(estimator): options} if options else None,
                )
        except Exception as error:  # noqa: BLE001 -- a converter raises what it likes
            problem = str(error).partition("\n")[0] or type(error).__name__
            continue
        made += 1
        yield name, bytes(model.SerializeToString(deterministic=True))
    if not made:
        raise InvalidInput(
            "model.conversion_failed",
            f"skl2onnx can't convert it: {problem[:200]}",
            hint="Nothing to do: the model is served by scikit-learn.",
        )
