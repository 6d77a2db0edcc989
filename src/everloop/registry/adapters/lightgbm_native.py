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
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from everloop.core.errors import InvalidInput
from everloop.registry.adapters.lightgbm_text import names_in_text, rewrite_model_text
from everloop.registry.adapters.refusals import (
    FloatArray,
    OneAnswer,
    closed,
    missing,
    no_answers,
    require_rows,
    unreadable,
    wrong_count,
)

_FLOAT64: Final = 1  # C_API_DTYPE_FLOAT64
_ROW_MAJOR: Final = 1
_NORMAL: Final = 0  # C_API_PREDICT_NORMAL
_CONTRIBUTIONS: Final = 3  # C_API_PREDICT_CONTRIB
_ALL_TREES: Final = -1
_OF_CLASSES: Final = (
    b"\nobjective=binary", b"\nobjective=cross_entropy", b"\nobjective=multiclass",
)  # fmt: skip
_LIBRARY: Final = "lib_lightgbm.so"


class NativeBooster:
    """A LightGBM model loaded from its text form, predicting on one thread.

    Thread-safe: calls run one after the other. A batch lets other threads run meanwhile; one row
    does not, since it takes less time than to hand over. ``close`` frees the memory; it is
    idempotent and also happens when the object is collected.

    Attributes:
        inputs: How many columns a row has.
        names: Its inputs as the file names them; empty when it only counts them.
        outputs: Names of the columns of an answer; empty where it is one number a row.
        is_classifier: Whether its answers are probabilities of classes.
    """

    def __init__(self, model: bytes) -> None:
        """Load the model.

        Raises:
            InvalidInput: ``model.unreadable`` for bytes that are no sound model text.
            MissingExtra: LightGBM is not installed.
        """
        text = rewrite_model_text(model)
        self.names = names_in_text(model)
        self.is_classifier = any(text.find(start) > 0 for start in _OF_CLASSES)
        self._lock = threading.Lock()
        self._handle: ctypes.c_void_p | None = None
        self._library = _load_library()
        handle, trees = ctypes.c_void_p(), ctypes.c_int()
        self._call("LGBM_BoosterLoadModelFromString", text, ctypes.byref(trees), _at(handle))
        self._handle = handle
        self._single: _SingleRow | None = None
        columns = ctypes.c_int()
        self._call("LGBM_BoosterGetNumFeature", handle, ctypes.byref(columns))
        self.inputs = int(columns.value)
        outputs = ctypes.c_int()
        self._call("LGBM_BoosterGetNumClasses", handle, ctypes.byref(outputs))
        self.outputs = tuple(map(str, range(outputs.value))) if outputs.value > 1 else ()

    def predict(self, rows: FloatArray) -> FloatArray:
        """Return one number, or one row of numbers, for each row; NaN in a row means missing.

        Raises:
            InvalidInput: ``model.wrong_shape``.
            Conflict: ``model.closed``.
        """
        if rows.shape == (1, self.inputs):
            with self._lock:
                single = self._plan()
                single.view[:] = rows[0]
                answer = self._ask_single(single)
                return answer[None, :] if self.outputs else answer
        matrix = require_rows(rows, self.inputs)
        if not len(matrix):
            return no_answers(self.outputs)
        wanted = (len(matrix), len(self.outputs)) if self.outputs else (len(matrix),)
        return self._predict_batch(matrix, _NORMAL, wanted)

    def contributions(self, rows: FloatArray) -> FloatArray:
        """Return (rows, answers of a row, inputs + 1): exact path-dependent SHAP values, then base.

        Raises:
            InvalidInput: ``model.wrong_shape``.
            Conflict: ``model.closed``.
        """
        matrix = require_rows(rows, self.inputs)
        wanted = (len(matrix), len(self.outputs) or 1, self.inputs + 1)
        return self._predict_batch(matrix, _CONTRIBUTIONS, wanted)

    def _predict_batch(self, matrix: FloatArray, kind: int, wanted: tuple[int, ...]) -> FloatArray:
        answers = np.empty(wanted, dtype=np.float64)
        length = ctypes.c_int64()
        with self._lock:
            if self._handle is None:
                raise closed()
            # Addresses, not `data_as`: each of its pointers is a cycle for the collector to find.
            self._call(
                "LGBM_BoosterPredictForMat",
                self._handle,
                ctypes.c_void_p(matrix.ctypes.data),
                ctypes.c_int(_FLOAT64),
                ctypes.c_int32(matrix.shape[0]),
                ctypes.c_int32(matrix.shape[1]),
                ctypes.c_int(_ROW_MAJOR),
                ctypes.c_int(kind),
                ctypes.c_int(0),
                ctypes.c_int(_ALL_TREES),
                b"num_threads=1",
                ctypes.byref(length),
                ctypes.c_void_p(answers.ctypes.data),
            )
        return answers

    def predict_one(self, values: Sequence[float]) -> OneAnswer:
        """Return the answer to one row, in the same bits as `predict`; some 3 times faster.

        Raises:
            InvalidInput: ``model.wrong_shape``.
            Conflict: ``model.closed``.
        """
        with self._lock:
            single = self._plan()
            try:
                single.row[:] = values  # type: ignore[call-overload]
            except (TypeError, ValueError) as error:
                raise wrong_count(self.inputs, error) from error
            if single.ask(single.config, single.row_at, single.length_at, single.answer_at) != 0:
                raise self._failed()
            return np.array(single.answer) if self.outputs else single.answer[0]

    def _plan(self) -> _SingleRow:
        single = self._single
        if single is None:
            if self._handle is None:
                raise closed()
            single = self._single = _SingleRow(self._handle, self.inputs, len(self.outputs) or 1)
        return single

    def _ask_single(self, single: _SingleRow) -> FloatArray:
        if single.ask(single.config, single.row_at, single.length_at, single.answer_at) != 0:
            raise self._failed()
        return np.array(single.answer)

    def close(self) -> None:
        """Free the model's memory."""
        with self._lock:
            handle, self._handle = self._handle, None
            single, self._single = self._single, None
            if single is not None:
                single.free()
            if handle is not None:
                self._library.LGBM_BoosterFree(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._library, name)(*arguments) != 0:
            raise self._failed()

    def _failed(self) -> InvalidInput:
        told = self._library.LGBM_GetLastError().decode("utf-8", "replace")
        return unreadable("LightGBM", told)


class _SingleRow:
    """Memory that is used again for one row after the other, and the library's plan for it."""

    def __init__(self, handle: ctypes.c_void_p, inputs: int, outputs: int) -> None:
        # PyDLL keeps the interpreter's lock: to hand it over and wait for it costs more than a row.
        self._library = ctypes.PyDLL(_load_library()._name)
        self.config = ctypes.c_void_p()
        self.row = (ctypes.c_double * inputs)()
        self.answer = (ctypes.c_double * outputs)()
        self._length = ctypes.c_int64()
        self.view = np.frombuffer(
            memoryview(self.row), dtype=np.float64
        )  # the same memory, for rows that are arrays already
        self.row_at = ctypes.addressof(self.row)
        self.answer_at = ctypes.addressof(self.answer)
        self.length_at = ctypes.addressof(self._length)
        prepared = self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
            handle,
            ctypes.c_int(_NORMAL),
            ctypes.c_int(0),
            ctypes.c_int(_ALL_TREES),
            ctypes.c_int(_FLOAT64),
            ctypes.c_int32(inputs),
            b"num_threads=1",
            ctypes.byref(self.config),
        )
        if prepared != 0:
            raise unreadable("LightGBM", "it can't answer single rows")
        self.ask = self._library.LGBM_BoosterPredictForMatSingleRowFast
        self.ask.argtypes = [ctypes.c_void_p] * 4
        self.ask.restype = ctypes.c_int

    def free(self) -> None:
        """Give the plan back; the model itself stays."""
        self._library.LGBM_FastConfigFree(self.config)


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
    raise missing("LightGBM", "lightgbm")


_QUIET = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda _: None)


def _silence(library: ctypes.CDLL) -> None:
    # The library writes warnings about odd models to standard output otherwise.
    library.LGBM_RegisterLogCallback(_QUIET)
