"""Predicts with XGBoost through its C API, without importing the Python package.

Only numpy, the standard library and core may be imported here, since the serving process loads
this module. The C API is documented at https://xgboost.readthedocs.io/en/stable/c.html.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import threading
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from everloop.registry.adapters.refusals import (
    FloatArray,
    OneAnswer,
    ask_one,
    closed,
    missing,
    no_answers,
    predict_failed,
    require_rows,
    unreadable,
    wrong_count,
)
from everloop.registry.adapters.xgboost_model import rewrite_xgboost

_LIBRARY: Final = "libxgboost.so"
# Of all rounds, the answer as the objective gives it; NaN means missing.
_SETTINGS: Final = (
    b'{"type": 0, "training": false, "iteration_begin": 0, "iteration_end": 0, '
    b'"strict_shape": false, "cache_id": 0, "missing": NaN}'
)

_CONTRIBUTIONS: Final = (
    b'{"type": 2, "training": false, "iteration_begin": 0, "iteration_end": 0, '
    b'"strict_shape": true}'
)
_PLAIN: Final = (
    b'{"type": 0, "training": false, "iteration_begin": 0, "iteration_end": 0, '
    b'"strict_shape": false}'
)


class XgboostPredictor:
    """An XGBoost model, from JSON or UBJSON, predicting on one thread.

    Thread-safe: calls run one after the other. ``close`` frees the memory; it is idempotent and
    also happens when the object is collected.

    Attributes:
        inputs: How many columns a row has.
        names: Its inputs as it names them; empty when it does not.
        outputs: Names of the columns of an answer; empty where it is one number a row.
        is_classifier: Whether its answers are probabilities of classes.
    """

    def __init__(self, model: bytes, *, by_matrix: bool = False) -> None:
        """Load the model; asked by matrix it rounds as the Python package's ``predict`` does.

        The quicker way sums the trees of a DART model in another order.

        Raises:
            InvalidInput: ``model.unreadable`` or ``model.outputs_unsupported``.
            LimitExceeded: ``model.too_large``.
            MissingExtra: XGBoost is not installed.
        """
        sound = rewrite_xgboost(model)
        self.inputs, self.names = sound.features, sound.names
        self.outputs = tuple(map(str, range(sound.groups))) if sound.groups > 1 else ()
        self.is_classifier = sound.is_classifier
        self._by_matrix = by_matrix
        self._lock = threading.Lock()
        self._handle: ctypes.c_void_p | None = None
        self._single: _SingleRow | None = None
        self._library = _load_library()
        handle = ctypes.c_void_p()
        self._call("XGBoosterCreate", None, ctypes.c_uint64(0), ctypes.byref(handle))
        self._handle = handle
        self._call("XGBoosterSetParam", handle, b"nthread", b"1")
        self._call(
            "XGBoosterLoadModelFromBuffer", handle, sound.text, ctypes.c_uint64(len(sound.text))
        )

    def predict(self, rows: FloatArray) -> FloatArray:
        """Return one number, or one row of numbers, for each row; NaN means missing.

        Raises:
            InvalidInput: ``model.wrong_shape``.
            Conflict: ``model.closed``.
        """
        matrix = require_rows(rows, self.inputs)
        if not len(matrix):
            return no_answers(self.outputs)
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        answers = ctypes.POINTER(ctypes.c_float)()
        with self._lock:
            if self._handle is None:
                raise closed()
            found_at = (ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(answers))
            if self._by_matrix:
                self._predict_matrix(matrix, found_at)
            else:
                self._call(
                    "XGBoosterPredictFromDense",
                    self._handle,
                    _describe(matrix),
                    _SETTINGS,
                    None,
                    *found_at,
                )
            sizes = tuple(shape[place] for place in range(dimensions.value))
            # The memory is the library's own and changes with the next call.
            found = np.ctypeslib.as_array(answers, shape=sizes).astype(np.float64)
        wanted = (len(matrix), len(self.outputs)) if self.outputs else (len(matrix),)
        if found.size != int(np.prod(wanted)):
            raise predict_failed("XGBoost", f"It answers an array of {sizes}.")
        return found.reshape(wanted)

    def contributions(self, rows: FloatArray) -> FloatArray:
        """Return (rows, answers of a row, inputs + 1): exact path-dependent SHAP values, then base.

        Raises:
            InvalidInput: ``model.wrong_shape`` or ``model.unreadable``.
            Conflict: ``model.closed``.
        """
        matrix = require_rows(rows, self.inputs)
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        answers = ctypes.POINTER(ctypes.c_float)()
        with self._lock:
            if self._handle is None:
                raise closed()
            found_at = (ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(answers))
            self._predict_matrix(matrix, found_at, _CONTRIBUTIONS)
            sizes = tuple(shape[place] for place in range(dimensions.value))
            return np.ctypeslib.as_array(answers, shape=sizes).astype(np.float64)

    def _predict_matrix(
        self, matrix: FloatArray, found_at: tuple[object, ...], settings: bytes = _PLAIN
    ) -> None:
        held = ctypes.c_void_p()
        self._call(
            "XGDMatrixCreateFromDense",
            _describe(matrix),
            b'{"missing": NaN, "nthread": 1}',
            ctypes.byref(held),
        )
        try:
            self._call("XGBoosterPredictFromDMatrix", self._handle, held, settings, *found_at)
        finally:
            self._library.XGDMatrixFree(held)

    def predict_one(self, values: Sequence[float]) -> OneAnswer:
        """Return the answer to one row, in the same bits as `predict`, with less around it.

        Raises:
            InvalidInput: ``model.wrong_shape`` or ``model.predict_failed``.
            Conflict: ``model.closed``.
        """
        if self._by_matrix:
            return ask_one(self.predict, values)
        with self._lock:
            single = self._single
            if single is None:
                if self._handle is None:
                    raise closed()
                single = self._single = _SingleRow(self._library, self._handle, self.inputs)
            try:
                single.row[:] = values
            except (TypeError, ValueError) as error:
                raise wrong_count(self.inputs, error) from error
            if single.ask() != 0:
                told = self._library.XGBGetLastError().decode("utf-8", "replace")
                raise predict_failed("XGBoost", told.strip().partition("\n")[0])
            if not self.outputs:
                return float(single.answers[0])
            return np.array(single.answers[: len(self.outputs)], dtype=np.float64)

    def close(self) -> None:
        """Free the model's memory."""
        with self._lock:
            handle, self._handle = self._handle, None
            single, self._single = self._single, None
            if single is not None:
                single.free()
            if handle is not None:
                self._library.XGBoosterFree(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._library, name)(*arguments) != 0:
            told = self._library.XGBGetLastError().decode("utf-8", "replace")
            raise unreadable("XGBoost", told.strip().partition("\n")[0])


class _SingleRow:
    """Memory that is used again for one row after the other, described to the library once."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p, inputs: int) -> None:
        self._matrix = np.zeros((1, inputs), dtype=np.float64)
        self.row = self._matrix[0]
        self._described = _describe(self._matrix)
        self._shape = ctypes.POINTER(ctypes.c_uint64)()
        self._dimensions = ctypes.c_uint64()
        self.answers = ctypes.POINTER(ctypes.c_float)()
        self._library = library
        self._proxy = ctypes.c_void_p()
        # Without one of ours the library makes one for each call, at half the price of the answer.
        if library.XGProxyDMatrixCreate(ctypes.byref(self._proxy)) != 0:
            raise unreadable("XGBoost", "it can't answer single rows")
        self.ask = partial(
            library.XGBoosterPredictFromDense,
            handle,
            self._described,
            _SETTINGS,
            self._proxy,
            ctypes.byref(self._shape),
            ctypes.byref(self._dimensions),
            ctypes.byref(self.answers),
        )

    def free(self) -> None:
        """Give the library's part back; the model itself stays."""
        self._library.XGDMatrixFree(self._proxy)


def _describe(matrix: FloatArray) -> bytes:
    """Return what the library wants to know of a matrix (NumPy's array interface, version 3)."""
    described = {
        "data": [matrix.ctypes.data, True],
        "shape": list(matrix.shape),
        "typestr": "<f8",
        "version": 3,
    }
    return json.dumps(described).encode()


@cache
def _load_library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xgboost")
    for folder in list(spec.submodule_search_locations or ()) if spec else []:
        path = Path(folder) / "lib" / _LIBRARY
        if path.is_file():
            library = ctypes.CDLL(str(path))
            library.XGBGetLastError.restype = ctypes.c_char_p
            library.XGBoosterFree.argtypes = [ctypes.c_void_p]
            library.XGBSetGlobalConfig(b'{"verbosity": 0}')
            return library
    raise missing("XGBoost", "xgboost")


def save_xgboost(model: object) -> dict[str, bytes]:
    """Return the files of a Booster or of an estimator of XGBoost's scikit-learn interface.

    An estimator that stopped early keeps the rounds with which it predicts.
    """
    given: Any = model
    booster = given.get_booster() if hasattr(model, "get_booster") else given
    if booster is not model and getattr(model, "early_stopping_rounds", None) is not None:
        booster = booster[: given.best_iteration + 1]
    return {"model.ubj": bytes(booster.save_raw("ubj"))}
