"""What a gate measures on: one version, its rivals, and the rows, loaded when a check asks.

A check that needs something which is not there fails with the reason; so everything here raises
rather than answers None.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from everloop.core.errors import NotFound
from everloop.core.ports import BlobStore
from everloop.data.model import DatasetVersion
from everloop.data.tables import read_table
from everloop.gate.model import GateConfig
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.evidence import LossName, ServingProof
from everloop.registry.formats import Predictor, open_version
from everloop.registry.model import ModelVersion
from everloop.registry.signature import to_matrix, to_target

if TYPE_CHECKING:
    import pyarrow as pa

FloatArray: TypeAlias = npt.NDArray[np.float64]
_CLIP = 1e-15


class Case:
    """One version before its gate, with verified bytes and rows read by the evaluator itself.

    Attributes:
        serving: The runtime that was found to answer for the version, once that was looked for.
    """

    def __init__(
        self,
        version: ModelVersion,
        config: GateConfig,
        *,
        data: tuple[DatasetVersion | None, DatasetVersion | None],
        blobs: BlobStore,
        policy: LoadPolicy,
        target: str | None = None,
    ) -> None:
        """Take the version, its training and holdout data, and the target the project asks for."""
        self.version = version
        self.config = config
        self.training_version, self.holdout_version = data
        self.target = target
        self.serving: ServingProof | None = None
        self.blobs = blobs
        self.policy = policy

    @property
    def loss(self) -> LossName:
        """The loss by which rows are judged."""
        if self.config.loss is not None:
            return self.config.loss
        is_regression = self.version.signature.task == "regression"
        return "absolute_error" if is_regression else "log_loss"

    @cached_property
    def predictor(self) -> Predictor:
        """The version's own predictor."""
        return open_version(self.blobs, self.version, self.policy)

    @cached_property
    def training(self) -> pa.Table:
        """The rows it was trained on, as registered."""
        if self.training_version is None:
            raise _missing("its training data", "dataset")
        return read_table(self.blobs, self.training_version)

    @cached_property
    def holdout(self) -> pa.Table:
        """The rows kept from training."""
        if self.holdout_version is None:
            raise _missing("data kept from training", "holdout")
        return read_table(self.blobs, self.holdout_version)

    @cached_property
    def matrix(self) -> FloatArray:
        """The holdout's inputs as the version takes them."""
        return to_matrix(self.version.signature, self.holdout)

    @cached_property
    def answers(self) -> FloatArray:
        """The version's answers on the holdout."""
        return self.predictor.predict(self.matrix)

    @cached_property
    def truth(self) -> FloatArray:
        """The true answers of the holdout; NaN where unknown."""
        return to_target(self.version.signature, self.holdout)

    def answers_of(self, rival: ModelVersion) -> FloatArray:
        """Return another version's answers on the same rows."""
        predictor = open_version(self.blobs, rival, self.policy)
        try:
            return predictor.predict(to_matrix(rival.signature, self.holdout))
        finally:
            predictor.close()

    def constant_answer(self) -> float:
        """Return the best answer that ignores the inputs, learnt from the training rows."""
        truth = to_target(self.version.signature, self.training)
        known = truth[np.isfinite(truth)]
        if not known.size:
            raise NotFound(
                "gate.target_empty",
                "The training data has no true answer.",
                hint="Register the version with the data it was trained on, target included.",
            )
        if self.loss == "absolute_error":
            return float(np.median(known))
        mean = float(known.mean())
        return float(mean >= 0.5) if self.loss == "zero_one" else mean

    def close(self) -> None:
        """Free the predictor, if it was loaded."""
        if "predictor" in self.__dict__:
            self.predictor.close()


def losses(name: LossName, answers: FloatArray, truth: FloatArray) -> FloatArray:
    """Return the loss of each answer; an answer that is not finite loses infinitely."""
    if name == "absolute_error":
        lost = np.abs(answers - truth)
    elif name == "squared_error":
        lost = (answers - truth) ** 2
    elif name == "zero_one":
        lost = ((answers >= 0.5) != (truth >= 0.5)).astype(np.float64)
    else:
        share = np.clip(answers, _CLIP, 1 - _CLIP)
        lost = -(truth * np.log(share) + (1 - truth) * np.log(1 - share))
    return np.where(np.isfinite(answers), lost, np.inf)


def _missing(what: str, field: str) -> NotFound:
    return NotFound(
        "gate.data_missing",
        f"The version was registered without {what}.",
        hint=f"Register it with `{field}`, the id of a dataset version.",
    )
