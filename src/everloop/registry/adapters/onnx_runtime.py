"""Predicts with ONNX models by onnxruntime, on one thread and from bytes alone.

A model takes its rows as one tensor of two dimensions, or as one tensor for each column. Of its
answers the one with numbers counts: of a classifier (a label, and probabilities as a tensor or as
skl2onnx's list of maps) the probabilities; of two classes 0 and 1 the probability of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from everloop.core.errors import EverloopError
from everloop.registry.adapters.onnx_check import check_onnx
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
    unsupported,
    wrong_count,
)

Array: TypeAlias = npt.NDArray[Any]
_TYPES: Final[dict[str, type[np.generic]]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
_NUMBERS: Final = frozenset(_TYPES)
_FRACTIONS: Final = frozenset({"tensor(float)", "tensor(double)", "tensor(float16)"})
_MAPS: Final = frozenset({"seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))"})
_QUIET: Final = 4  # fatal errors only


class OnnxPredictor:
    """An ONNX model. Thread-safe: a session may run in several threads at once.

    Attributes:
        inputs: How many columns a row has.
        names: Its inputs by name where each column is an input of its own, else empty.
        outputs: Names of the columns of an answer; empty where it is one number a row.
        is_classifier: Whether its answers are probabilities of classes.
    """

    def __init__(self, model: bytes, *, optimised: bool = True) -> None:
        """Load the model; unoptimised, each operator runs as it is written.

        Raises:
            InvalidInput: ``model.unreadable``, ``model.inputs_unsupported`` or
                ``model.outputs_unsupported``.
            UnsafeArtifact: ``artifact.external_data`` or ``artifact.operators_refused``.
            LimitExceeded: ``model.too_large``.
            MissingExtra: onnxruntime is not installed.
        """
        check_onnx(model)
        self.names: tuple[str, ...] = ()
        self._session = _open(model, optimised=optimised)
        self._is_binary = self.is_classifier = False
        try:
            self._understand()
        except EverloopError:
            raise
        except Exception as error:  # names and shapes come out of the file, in any encoding
            raise unreadable("ONNX", str(error)) from error

    def _understand(self) -> None:
        """Find out what the model takes and answers."""
        self._feeds = [(given.name, _type_of(given.type)) for given in self._session.get_inputs()]
        shapes = [tuple(given.shape) for given in self._session.get_inputs()]
        self._is_matrix = len(shapes) == 1 and len(shapes[0]) == 2
        if self._is_matrix:
            width = shapes[0][1]
            if not isinstance(width, int) or width < 1:
                raise unsupported(
                    "The model does not say how many columns it takes.",
                    "Export it with a fixed number of columns, and a free number of rows.",
                )
            self.inputs = width
        else:
            for (name, _), shape in zip(self._feeds, shapes, strict=True):
                if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
                    raise unsupported(
                        f"The input {name[:60]!r} has the shape {list(shape)}.",
                        "Give it one matrix of rows, or one input for each column.",
                    )
            self.inputs, self.names = len(shapes), tuple(name for name, _ in self._feeds)
            self._columns = [len(shape) == 2 for shape in shapes]
        self._answer = self._choose()
        self.outputs = self._find_outputs()

    def predict(self, rows: FloatArray) -> FloatArray:
        """Return one number, or one row of numbers, for each row.

        Raises:
            InvalidInput: ``model.wrong_shape`` or ``model.predict_failed``.
            Conflict: ``model.closed``.
        """
        matrix = require_rows(rows, self.inputs)
        if self._session is None:
            raise closed()
        if not len(matrix):
            return no_answers(self.outputs)
        found = self._run(matrix)
        if self._is_binary:
            return np.ascontiguousarray(found[:, 1])
        wanted = (len(matrix), len(self.outputs)) if self.outputs else (len(matrix),)
        if found.size != int(np.prod(wanted)):
            raise predict_failed("ONNX", f"It answers an array of {found.shape}.")
        return found.reshape(wanted)

    def predict_one(self, values: Sequence[float]) -> OneAnswer:
        """Return the answer to one row, in the same bits as `predict`.

        Raises:
            InvalidInput: ``model.wrong_shape`` or ``model.predict_failed``.
            Conflict: ``model.closed``.
        """
        session, dtype = self._session, self._feeds[0][1]
        if session is None or not self._is_matrix or np.issubdtype(dtype, np.integer):
            return ask_one(self.predict, values)
        if len(values) != self.inputs:
            raise wrong_count(self.inputs, ValueError(f"there are {len(values)}"))
        feeds = {self._feeds[0][0]: np.array([values], dtype=np.float64).astype(dtype)}
        try:
            found = session.run([self._answer], feeds)[0]
        except Exception as error:  # the runtime's own classes derive from Exception alone
            raise predict_failed("ONNX", str(error)) from error
        if isinstance(found, list):
            return ask_one(self.predict, values)
        if self._is_binary:
            return float(found[0, 1])
        if self.outputs:
            return np.asarray(found[0], dtype=np.float64)
        return float(found.reshape(-1)[0])

    def plan(self) -> dict[str, Any]:
        """Return in plain words how the model is fed and read, for those who open it elsewhere."""
        return {
            "feeds": [[name, np.dtype(dtype).name] for name, dtype in self._feeds],
            "matrix": self._is_matrix,
            "columns": [] if self._is_matrix else self._columns,
            "answer": self._answer,
            "binary": self._is_binary,
            "width": len(self.outputs) or 1,
        }

    def close(self) -> None:
        """Free the model's memory; idempotent."""
        self._session = None

    def _run(self, matrix: FloatArray) -> FloatArray:
        feeds = {}
        for place, (name, dtype) in enumerate(self._feeds):
            part = matrix if self._is_matrix else matrix[:, place]
            if np.issubdtype(dtype, np.integer) and not np.isfinite(part).all():
                raise predict_failed("ONNX", f"The input {name[:60]!r} takes no missing value.")
            part = part.astype(dtype)
            feeds[name] = part[:, None] if not self._is_matrix and self._columns[place] else part
        try:
            found = self._session.run([self._answer], feeds)[0]
        except Exception as error:  # the runtime's own classes derive from Exception alone
            raise predict_failed("ONNX", str(error)) from error
        if isinstance(found, list):
            keys = sorted(found[0], key=lambda key: (isinstance(key, str), key)) if found else []
            found = [[row[key] for key in keys] for row in found]
        return np.asarray(found, dtype=np.float64).reshape(len(matrix), -1)

    def _choose(self) -> str:
        """Return the name of the answer that counts."""
        given = self._session.get_outputs()
        for wanted in (_MAPS, _FRACTIONS, _NUMBERS):
            for answer in given:
                if answer.type in wanted:
                    return str(answer.name)
        raise unsupported(
            f"The model answers {', '.join(answer.type for answer in given)[:200]}.",
            "Export it so that it answers numbers.",
        )

    def _find_outputs(self) -> tuple[str, ...]:
        answer = next(one for one in self._session.get_outputs() if one.name == self._answer)
        self.is_classifier = any(
            one.type in {"tensor(int64)", "tensor(string)"}
            for one in self._session.get_outputs()
            if one.name != self._answer
        )
        if answer.type in _MAPS:
            names = self._classes_of_maps()
        else:
            width = answer.shape[1] if len(answer.shape) == 2 else 1
            # A width that the model leaves open is seen by asking once.
            count = width if isinstance(width, int) else self._probe().shape[1]
            names = tuple(map(str, range(count)))
        self._is_binary = self.is_classifier and names in {("0", "1"), ("False", "True")}
        return () if self._is_binary or len(names) == 1 else names

    def _classes_of_maps(self) -> tuple[str, ...]:
        feeds = {
            name: np.zeros((1, self.inputs) if self._is_matrix else (1, 1), dtype)
            for name, dtype in self._feeds
        }
        try:
            first = self._session.run([self._answer], feeds)[0][0]
        except Exception as error:  # the runtime's own classes derive from Exception alone
            raise unreadable("ONNX", str(error)) from error
        return tuple(str(key) for key in sorted(first))

    def _probe(self) -> FloatArray:
        try:
            return self._run(np.zeros((1, self.inputs)))
        except EverloopError as error:
            raise unreadable("ONNX", error.message) from error


def save_onnx(model: object) -> dict[str, bytes]:
    """Return the files of an ``onnx.ModelProto``."""
    data: bytes = model.SerializeToString(deterministic=True)  # type: ignore[attr-defined]
    return {"model.onnx": data}


def _open(model: bytes, *, optimised: bool) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes derive from Exception alone
        raise unreadable("ONNX", str(error)) from error


def _type_of(told: str) -> type[np.generic]:
    found = _TYPES.get(told)
    if found is None:
        raise unsupported(
            f"The model takes {told[:60]}.",
            "Export it with inputs of numbers; give categories as their codes.",
        )
    return found
