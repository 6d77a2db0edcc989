"""Answers with an ONNX model by onnxruntime, on one thread, fed as the manifest says."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from everloop.edge.device.refusal import EdgeError


class Graph:
    """An ONNX model.

    Args:
        model: Its bytes.
        plan: ``feeds`` (pairs of name and numpy type), ``matrix`` (one tensor of all columns),
            ``columns`` (whether each column is a matrix of width one), ``answer``, ``binary``
            (two classes: the second column counts) and ``width`` (numbers an answer).
    """

    def __init__(self, model: bytes, plan: Dict[str, Any]) -> None:
        try:
            import numpy
            import onnxruntime
        except ImportError as error:
            raise EdgeError(
                "edge.runtime_missing",
                "This bundle holds an ONNX model, and onnxruntime is not installed here.",
                "Install it with `pip install onnxruntime`.",
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._numpy = numpy
        self._plan = plan
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    def predict(self, rows: Sequence[Sequence[float]]) -> List[Any]:
        """Return one number for each row, or a list of numbers where the model has several."""
        numpy, plan = self._numpy, self._plan
        matrix = numpy.asarray(rows, dtype=numpy.float64)
        feeds = {}
        for place, (name, kind) in enumerate(plan["feeds"]):
            part = matrix if plan["matrix"] else matrix[:, place]
            if kind.startswith("int") and not numpy.isfinite(part).all():
                raise EdgeError(
                    "edge.row_invalid",
                    f"The input {name[:60]!r} takes no missing value.",
                    "Fill it before asking.",
                )
            with numpy.errstate(over="ignore"):
                part = part.astype(kind)
            feeds[name] = part[:, None] if not plan["matrix"] and plan["columns"][place] else part
        found = self._session.run([plan["answer"]], feeds)[0]
        if isinstance(found, list):
            keys = sorted(found[0], key=lambda key: (isinstance(key, str), key))
            found = [[row[key] for key in keys] for row in found]
        table = numpy.asarray(found, dtype=numpy.float64).reshape(len(matrix), -1)
        if plan["binary"]:
            answers: List[Any] = table[:, 1].tolist()
            return answers
        answers = table.tolist()
        return answers if plan["width"] > 1 else [answer[0] for answer in answers]
