"""The table of model formats: the files of each, how an object becomes them, and what reads them.

Serving imports this, so it needs nothing of ours but core, the policy of safe loading and the
adapters, each of which is imported when its format is first met. No format runs code out of its
files in this process; what makes each of them safe stands in its row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from everloop.core.errors import InvalidInput
from everloop.kernel.safe_load import LoadPolicy, require_format

__all__ = [
    "FORMATS",
    "PYFUNC",
    "FloatArray",
    "Format",
    "LoadPolicy",
    "ModelFiles",
    "Predictor",
    "find_format",
    "load_predictor",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]
ModelFiles: TypeAlias = Mapping[str, bytes]


PYFUNC: Final = "pyfunc"


class Predictor(Protocol):
    """A loaded model.

    Contract: thread-safe; rows are a 2-D float64 array with the inputs in the signature's order
    and NaN for null; the answer is one float64 a row where ``outputs`` is empty, else a 2-D array
    with one column for each of them.

    Attributes:
        inputs: How many columns a row has.
        names: The inputs as the model names them; empty when it does not.
        outputs: Names of the columns of an answer; empty where it is one number a row.
        is_classifier: Whether its answers are probabilities of classes, as far as it says.
    """

    inputs: int
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    is_classifier: bool

    def predict(self, rows: FloatArray) -> FloatArray:
        """Return one number, or one row of numbers, for each row."""
        ...

    def predict_one(self, values: Sequence[float]) -> float | FloatArray:
        """Return the answer to one row, in the same bits as `predict` gives for it."""
        ...

    def close(self) -> None:
        """Free what it holds; idempotent."""
        ...


class Format(NamedTuple):
    """One model format.

    Attributes:
        name: As in policies, versions and bundles.
        layouts: The sets of file names that a model of it may have.
        makers: Top-level packages whose objects it saves.
        needs: The package that must be importable to read it.
        extra: The extra of Everloop that installs it.
        save: Makes its files of an object, and of a few rows where the object needs them.
        load: Makes a predictor of its files.
        safe: Why its files can be trusted to be read, in a sentence.
    """

    name: str
    layouts: tuple[frozenset[str], ...]
    makers: tuple[str, ...]
    needs: str
    extra: str
    save: Callable[[object, FloatArray | None], dict[str, bytes]]
    load: Callable[[ModelFiles, LoadPolicy], Predictor]
    safe: str


def _load_lightgbm(files: ModelFiles, policy: LoadPolicy) -> Predictor:
    from everloop.registry.adapters.lightgbm_native import NativeBooster

    del policy
    return NativeBooster(files["model.txt"])


def _save_lightgbm(model: object, example: FloatArray | None) -> dict[str, bytes]:
    del example
    booster: Any = getattr(model, "booster_", model)
    best = int(getattr(booster, "best_iteration", 0) or 0)
    text: str = booster.model_to_string(num_iteration=best if best > 0 else -1)
    return {"model.txt": text.encode()}


def _load_sklearn(files: ModelFiles, policy: LoadPolicy) -> Predictor:
    from everloop.registry.adapters.sklearn_skops import SkopsPredictor

    return SkopsPredictor(files["model.skops"], policy.trusted_types)


def _save_sklearn(model: object, example: FloatArray | None) -> dict[str, bytes]:
    del example
    from everloop.registry.adapters.sklearn_skops import save_estimator

    return save_estimator(model)


def _load_xgboost(files: ModelFiles, policy: LoadPolicy) -> Predictor:
    from everloop.registry.adapters.xgboost_native import XgboostPredictor

    del policy
    return XgboostPredictor(next(iter(files.values())))


def _save_xgboost(model: object, example: FloatArray | None) -> dict[str, bytes]:
    del example
    from everloop.registry.adapters.xgboost_native import save_xgboost

    return save_xgboost(model)


def _load_onnx(files: ModelFiles, policy: LoadPolicy) -> Predictor:
    from everloop.registry.adapters.onnx_runtime import OnnxPredictor

    del policy
    return OnnxPredictor(files["model.onnx"])


def _save_onnx(model: object, example: FloatArray | None) -> dict[str, bytes]:
    del example
    from everloop.registry.adapters.onnx_runtime import save_onnx

    return save_onnx(model)


def _load_torch(files: ModelFiles, policy: LoadPolicy) -> Predictor:
    from everloop.registry.adapters.torch_graph import TorchPredictor

    del policy
    return TorchPredictor(files["graph.json"], files["model.safetensors"])


def _save_torch(model: object, example: FloatArray | None) -> dict[str, bytes]:
    from everloop.registry.adapters.torch_export import save_torch

    return save_torch(model, example)


def _load_pyfunc(files: ModelFiles, policy: LoadPolicy) -> Predictor:
    from everloop.registry.adapters.pyfunc import FunctionPredictor

    return FunctionPredictor(
        files["function.json"], files["function.py"], must_hold=not policy.weak_isolation
    )


def _save_pyfunc(model: object, example: FloatArray | None) -> dict[str, bytes]:
    from everloop.registry.adapters.pyfunc import save_function

    return save_function(model, example)


def _one_of(*names: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset({name}) for name in names)


_ROWS: Final = (
    Format(
        name="lightgbm",
        layouts=_one_of("model.txt"),
        makers=("lightgbm",),
        needs="lightgbm",
        extra="lightgbm",
        save=_save_lightgbm,
        load=_load_lightgbm,
        safe="The text is checked and written anew before the C library sees it.",
    ),
    Format(
        name="xgboost",
        layouts=_one_of("model.ubj", "model.json"),
        makers=("xgboost",),
        needs="xgboost",
        extra="xgboost",
        save=_save_xgboost,
        load=_load_xgboost,
        safe="The trees are checked and written anew before the C library sees them.",
    ),
    Format(
        name="onnx",
        layouts=_one_of("model.onnx"),
        makers=("onnx",),
        needs="onnxruntime",
        extra="onnx",
        save=_save_onnx,
        load=_load_onnx,
        safe="A graph of standard operators: no files beside it, no other operators, no loops.",
    ),
    Format(
        name="torch",
        layouts=(frozenset({"graph.json", "model.safetensors"}),),
        makers=("torch",),
        needs="torch",
        extra="torch",
        save=_save_torch,
        load=_load_torch,
        safe="Weights as safetensors, and a graph that may name core operators of ATen only.",
    ),
    Format(
        name="sklearn",
        layouts=_one_of("model.skops"),
        makers=("sklearn",),
        needs="skops",
        extra="sklearn",
        save=_save_sklearn,
        load=_load_sklearn,
        safe="A skops archive: only types that skops or the server's policy trusts are rebuilt.",
    ),
    Format(
        name=PYFUNC,
        layouts=(frozenset({"function.json", "function.py"}),),
        makers=(),
        needs="numpy",
        extra="",
        save=_save_pyfunc,
        load=_load_pyfunc,
        safe="Not by itself: it is code. By waiver only, in a locked process of its own.",
    ),
)
FORMATS: Final[dict[str, Format]] = {row.name: row for row in _ROWS}


def find_format(model: object) -> Format:
    """Return the format in which an object is saved.

    Raises:
        InvalidInput: ``model.type_unsupported``.
    """
    kinds = {parent.__module__.partition(".")[0] for parent in type(model).__mro__}
    if isinstance(model, FunctionType):
        return FORMATS[PYFUNC]
    for row in _ROWS:
        if kinds.intersection(row.makers):
            return row
    if hasattr(model, "get_params") and hasattr(model, "predict"):
        return FORMATS["sklearn"]
    raise InvalidInput(
        "model.type_unsupported",
        f"A {type(model).__name__} has no safe format here.",
        hint="Give a model of LightGBM, XGBoost, scikit-learn, PyTorch or ONNX.",
    )


def load_predictor(format_name: str, files: ModelFiles, policy: LoadPolicy) -> Predictor:
    """Load a predictor from the files of a model, if the policy allows the format.

    Raises:
        UnsafeArtifact: the format or something in the files is not trusted.
        InvalidInput: ``model.files_wrong`` or ``model.unreadable``.
        LimitExceeded: ``model.too_large``.
        MissingExtra: the library is not installed.
    """
    require_format(policy, format_name)
    row = FORMATS.get(format_name)
    if row is None or frozenset(files) not in row.layouts:
        wanted = " or ".join(", ".join(sorted(layout)) for layout in row.layouts) if row else "none"
        raise InvalidInput(
            "model.files_wrong",
            f"A model of format {format_name[:40]!r} has the files {wanted}.",
            hint="Save the model with everloop's save_model.",
        )
    return row.load(files, policy)
