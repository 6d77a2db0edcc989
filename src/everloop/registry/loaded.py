"""A model version in memory: loaded from verified bytes, asked with named columns."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from everloop.core.errors import InvalidInput
from everloop.core.ports import BlobStore
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.formats import open_version
from everloop.registry.loaders import FloatArray, Predictor
from everloop.registry.model import ModelVersion
from everloop.registry.quick_rows import QuickRows
from everloop.registry.rows import Rows, to_table
from everloop.registry.signature import Signature, find_row_problems, to_matrix

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_PROBLEMS = 5


class LoadedModel:
    """A model version that answers; best used as a context manager. Thread-safe.

    Attributes:
        version: The version as it was registered.
    """

    def __init__(self, version: ModelVersion, predictor: Predictor) -> None:
        self.version = version
        self._predictor = predictor
        self._quick = QuickRows(version.signature)

    @property
    def signature(self) -> Signature:
        """What it takes and answers."""
        return self.version.signature

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the columns of an answer: one for each number."""
        several = tuple(field.name for field in self.signature.outputs)
        return several or (self.signature.output.name,)

    def predict(self, rows: Rows) -> FloatArray:
        """Return one number for each row, or a 2-D array with one column for each output.

        Args:
            rows: A pandas frame, a pyarrow table, a dict of columns, a list of dicts, or, with
                the signature's inputs in its order, a matrix or a list of lists. Columns beyond
                the inputs are passed over.

        Raises:
            InvalidInput: ``model.rows_unreadable``, or ``model.rows_refused`` with everything that
                does not fit the signature.
            Conflict: ``model.closed``.
        """
        quick = self._quick.read(rows)
        if quick is not None:
            return self._predictor.predict(quick)
        table = to_table(rows, [field.name for field in self.signature.inputs])
        problems = find_row_problems(self.signature, table)
        if problems:
            more = len(problems) - _MOST_PROBLEMS
            told = "; ".join(problems[:_MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
            raise InvalidInput(
                "model.rows_refused",
                f"The rows do not fit {self.version.name}@{self.version.version}: {told}.",
                hint=f"`everloop models show {self.version.name}@{self.version.version} --json` "
                "states the signature.",
                context={"problems": list(problems[:100])},
            )
        return self._predictor.predict(to_matrix(self.signature, table))

    def predict_table(self, rows: Rows) -> pa.Table:
        """Return the answers as a table with one column for each output.

        Raises:
            InvalidInput: as ``predict``.
        """
        import pyarrow as pa

        answers = self.predict(rows)
        columns = answers.reshape(len(answers), len(self.outputs))
        return pa.table({name: columns[:, place] for place, name in enumerate(self.outputs)})

    def close(self) -> None:
        """Free its memory; idempotent."""
        self._predictor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LoadedModel {self.version.name}@{self.version.version} ({self.version.format})>"


def load_version(blobs: BlobStore, version: ModelVersion, policy: LoadPolicy) -> LoadedModel:
    """Load a version from verified bytes, as far as the policy trusts it.

    Raises:
        IntegrityError: ``blob.corrupt`` or ``model.artifact_mismatch``.
        UnsafeArtifact: the policy refuses it.
        InvalidInput: it cannot be read.
        MissingExtra: its library is not installed.
    """
    return LoadedModel(version, open_version(blobs, version, policy))
