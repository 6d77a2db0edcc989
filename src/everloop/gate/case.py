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
from everloop.registry.classes import to_places
from everloop.registry.evidence import LossName, ServingProof
from everloop.registry.formats import Predictor, open_version
from everloop.registry.model import ModelVersion
from everloop.registry.signature import Signature, to_matrix, to_target

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
        """The true answers of the holdout, classes as their places; NaN where unknown."""
        return _truth(self.version.signature, self.holdout)

    def answers_of(self, rival: ModelVersion) -> FloatArray:
        """Return another version's answers on the same rows."""
        predictor = open_version(self.blobs, rival, self.policy)
        try:
            return predictor.predict(to_matrix(rival.signature, self.holdout))
        finally:
            predictor.close()

    def constant_answer(self) -> float | FloatArray:
        """Return the best answer that ignores the inputs, learnt from the training rows.

        Of several classes it is a probability for each.
        """
        signature = self.version.signature
        truth = _truth(signature, self.training)
        known = truth[np.isfinite(truth)]
        if not known.size:
            raise NotFound(
                "gate.target_empty",
                "The training data has no true answer.",
                hint="Register the version with the data it was trained on, target included.",
            )
        if signature.outputs:
            return _constant_shares(known, len(signature.outputs), self.loss)
        if self.loss == "absolute_error":
            return float(np.median(known))
        mean = float(known.mean())
        return float(mean >= 0.5) if self.loss == "zero_one" else mean

    def close(self) -> None:
        """Free the predictor, if it was loaded."""
        if "predictor" in self.__dict__:
            self.predictor.close()


def _constant_shares(known: FloatArray, classes: int, loss: LossName) -> FloatArray:
    """Return the best probabilities that are the same for every row."""
    places = known[known >= 0].astype(np.int64)
    counts: FloatArray = np.bincount(places, minlength=classes).astype(np.float64)
    if loss in {"zero_one", "absolute_error"}:
        only: FloatArray = np.eye(classes)[int(counts.argmax())]
        return only
    return counts / max(float(counts.sum()), 1.0)


def losses(name: LossName, answers: FloatArray, truth: FloatArray) -> FloatArray:
    """Return the loss of each answer; an answer that is not finite loses infinitely.

    Args:
        name: The loss.
        answers: One number for each row, or one column for each class.
        truth: The true numbers, or the places of the true classes.
    """
    if answers.ndim == 2:
        return _class_losses(name, answers, truth)
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


def _class_losses(name: LossName, answers: FloatArray, truth: FloatArray) -> FloatArray:
    usable: npt.NDArray[np.bool_] = np.all(np.isfinite(answers) & (answers >= 0), axis=1)
    total = np.where(usable, np.where(usable[:, None], answers, 0.0).sum(axis=1), 0.0)
    usable &= total > 0
    # Shares of their sum: else a model could be sure of every class at once.
    shares = np.where(usable[:, None], answers, 1.0) / np.where(usable, total, 1.0)[:, None]
    is_true = truth[:, None] == np.arange(answers.shape[1])
    if name == "zero_one":
        # The first of equal ones is the answer; a class that it does not know is always wrong.
        lost = (shares.argmax(axis=1) != truth).astype(np.float64)
    elif name == "absolute_error":
        lost = np.abs(shares - is_true).sum(axis=1)
    elif name == "squared_error":
        lost = ((shares - is_true) ** 2).sum(axis=1)
    else:
        lost = -np.log(np.clip((shares * is_true).sum(axis=1), _CLIP, 1.0))
    return np.where(usable, lost, np.inf)


def _truth(signature: Signature, table: pa.Table) -> FloatArray:
    return to_places(signature, table) if signature.outputs else to_target(signature, table)


def _missing(what: str, field: str) -> NotFound:
    return NotFound(
        "gate.data_missing",
        f"The version was registered without {what}.",
        hint=f"Register it with `{field}`, the id of a dataset version.",
    )
