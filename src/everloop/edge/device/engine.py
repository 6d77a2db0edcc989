"""Answers and remembers: one bundle, one log, and what the device says of itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from everloop.edge.device.bundle import Bundle
from everloop.edge.device.ids import new_id
from everloop.edge.device.journal import Journal
from everloop.edge.device.refusal import EdgeError

MOST_ROWS = 1_000


class Engine:
    """A bundle that answers and logs.

    Args:
        bundle: The model.
        folder: Where the device keeps its log; None logs nothing.
    """

    def __init__(self, bundle: Bundle, folder: Optional[Path] = None) -> None:
        self.bundle = bundle
        self.version: str = bundle.manifest["version_id"]
        self.journal = None if folder is None else Journal(folder)
        self.answers = 0
        self.errors = 0
        columns = bundle.manifest["columns"]
        self._is_masked = [bool(column.get("masked")) for column in columns]
        if self.journal is not None:
            self.journal.learn(self.version, columns)

    def predict(self, rows: List[Any]) -> List[Dict[str, Any]]:
        """Answer rows of inputs by name; each answer has an id that leads to the version.

        Raises:
            EdgeError: ``edge.row_invalid`` or ``edge.too_many_rows``, before anything is logged;
                ``edge.model_failed`` when the model itself has no answer.
        """
        if not 1 <= len(rows) <= MOST_ROWS:
            raise EdgeError(
                "edge.too_many_rows",
                f"{len(rows)} rows were sent; from 1 to {MOST_ROWS} are answered at once.",
                "Send them in parts.",
            )
        matrix = [self.bundle.rows.to_numbers(row) for row in rows]
        begun = time.perf_counter()
        try:
            outputs = self.bundle.answer(matrix)
        except Exception as error:
            # A model is foreign code: whatever it raises is counted as its error.
            self._log_all(rows, [None] * len(rows), begun)
            raise EdgeError(
                "edge.model_failed",
                f"The model has no answer: {type(error).__name__}.",
                "Report the inputs; `verify` shows whether the bundle works on this machine.",
            ) from error
        ids = self._log_all(rows, outputs, begun)
        return [
            {"id": id_, "output": _speakable(output), "version": self.bundle.manifest["version"]}
            for id_, output in zip(ids, outputs)
        ]

    def _log_all(self, rows: List[Any], outputs: List[Any], begun: float) -> List[str]:
        spent = int((time.perf_counter() - begun) * 1e6)
        return [self._log(row, output, spent) for row, output in zip(rows, outputs)]

    def _log(self, row: Dict[str, Any], output: Any, spent: int) -> str:
        status = "error" if output is None else "ok"
        if output is not None and not self.bundle.is_valid(output):
            status = "invalid"
        self.answers += 1
        self.errors += status != "ok"
        id_ = new_id()
        if self.journal is not None:
            values = self.bundle.rows.to_values(row)
            # What is masked is never written, so that it can never leave.
            kept = [None if masked else v for v, masked in zip(values, self._is_masked)]
            at = int(time.time() * 1e6)
            told = _speakable(output)
            self.journal.append([id_, at, self.version, status, told, spent, kept])
        return id_


def _speakable(output: Any) -> Any:
    """Return an answer as strict JSON can say it: what is not finite becomes null."""
    if isinstance(output, list):
        return [_speakable(number) for number in output]
    if output is None or output != output or output in (float("inf"), float("-inf")):
        return None
    return output
