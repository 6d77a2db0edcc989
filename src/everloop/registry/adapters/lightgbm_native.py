"""Predicts with LightGBM through its C API, without importing the Python package.

The package pulls in SciPy and takes most of a second and 100 MB to import; the shared library
inside it needs neither. Only numpy, the standard library and core may be imported here, since the
serving process loads this module. The C API is documented at
https://lightgbm.readthedocs.io/en/latest/C-API.html.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from everloop.core.errors import Conflict, InvalidInput, MissingExtra
from everloop.registry.adapters.lightgbm_text import rewrite_model_text

FloatArray: TypeAlias = npt.NDArray[np.float64]

_FLOAT64: Final = 1  # C_API_DTYPE_FLOAT64
_ROW_MAJOR: Final = 1
_NORMAL: Final = 0  # C_API_PREDICT_NORMAL
_ALL_TREES: Final = -1
_LIBRARY: Final = "lib_lightgbm.so"


class NativeBooster:
    """A LightGBM model loaded from its text form, predicting on one thread.

    Thread-safe: calls run one after the other. ``close`` frees the memory; it is idempotent and
    also happens when the object is collected.

    Attributes:
        inputs: How many columns a row has.
    """

    def __init__(self, model: bytes) -> None:
        """Load the model.

        Raises:
            InvalidInput: ``model.unreadable`` for bytes that are no sound model text.
            MissingExtra: LightGBM is not installed.
        """
        text = rewrite_model_text(model)
        self._lock = threading.Lock()
        self._handle: ctypes.c_void_p | None = None
        self._library = _load_library()
        handle, trees = ctypes.c_void_p(), ctypes.c_int()
        self._call("LGBM_BoosterLoadModelFromString", text, ctypes.byref(trees), _at(handle))
        self._handle = handle
        columns = ctypes.c_int()
        self._call("LGBM_BoosterGetNumFeature", handle, ctypes.byref(columns))
        self.inputs = int(columns.value)
        outputs = ctypes.c_int()
        self._call("LGBM_BoosterGetNumClasses", handle, ctypes.byref(outputs))
        if outputs.value != 1:
            self.close()
            raise InvalidInput(
                "model.outputs_unsupported",
                f"The model gives {outputs.value} numbers a row.",
                hint="Register a regression model or a classifier of two classes.",
            )

    def predict(self, rows: FloatArray) -> FloatArray:
        """Return one number for each row of a 2-D array; NaN in a row means missing.

        Raises:
            InvalidInput: ``model.wrong_shape``.
            Conflict: ``model.closed``.
        """
        matrix = np.ascontiguousarray(rows, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != self.inputs:
            raise InvalidInput(
                "model.wrong_shape",
                f"The model takes rows of {self.inputs} numbers, not an array of {matrix.shape}.",
                hint="Give the inputs of the signature, all of them, in its order.",
            )
        answers = np.empty(matrix.shape[0], dtype=np.float64)
        if not matrix.shape[0]:
            return answers
        length = ctypes.c_int64()
        with self._lock:
            if self._handle is None:
                raise Conflict(
                    "model.closed", "The model was closed.", hint="Load the model again."
                )
            self._call(
                "LGBM_BoosterPredictForMat",
                self._handle,
                matrix.ctypes.data_as(ctypes.c_void_p),
                ctypes.c_int(_FLOAT64),
                ctypes.c_int32(matrix.shape[0]),
                ctypes.c_int32(matrix.shape[1]),
                ctypes.c_int(_ROW_MAJOR),
                ctypes.c_int(_NORMAL),
                ctypes.c_int(0),
                ctypes.c_int(_ALL_TREES),
                b"num_threads=1",
                ctypes.byref(length),
                answers.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
            )
        return answers

    def close(self) -> None:
        """Free the model's memory."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None:
                self._library.LGBM_BoosterFree(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._library, name)(*arguments) != 0:
            told = self._library.LGBM_GetLastError().decode("utf-8", "replace")
            raise InvalidInput(
                "model.unreadable",
                f"LightGBM refuses the model: {told[:200]}",
                hint="Save the model again with Booster.save_model or everloop's save_model.",
            )


def _at(handle: ctypes.c_void_p) -> object:
    return ctypes.byref(handle)


@cache
def _load_library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("lightgbm")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        for place in ("lib", "."):
            path = Path(folder) / place / _LIBRARY
            if path.is_file():
                library = ctypes.CDLL(str(path))
                library.LGBM_GetLastError.restype = ctypes.c_char_p
                library.LGBM_BoosterFree.argtypes = [ctypes.c_void_p]
                _silence(library)
                return library
    raise MissingExtra(
        "extra.missing",
        "LightGBM is not installed.",
        hint='Install it with: pip install "everloop[lightgbm]"',
    )


_QUIET = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda _: None)


def _silence(library: ctypes.CDLL) -> None:
    # The library writes warnings about odd models to standard output otherwise.
    library.LGBM_RegisterLogCallback(_QUIET)
