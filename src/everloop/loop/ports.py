"""What the controller asks of the process it runs in."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from everloop.core.ids import Id
from everloop.core.wire import Applied


class TrainingJob(Struct, frozen=True, kw_only=True):
    """One training to be done.

    Attributes:
        key: Names the job; the same key is never trained twice at the same time.
        pipeline: ``module:function`` in the project folder.
        model: Name of the model to register the outcome under.
        target: The column to predict.
        task: ``regression`` or ``classification``.
        training: Id of the dataset version to train on.
        holdout: Id of the dataset version kept for the gate.
        time_column: A column of both that is no input of the model.
        seed: For whatever is random in the training.
    """

    key: str
    pipeline: str
    model: str
    target: str
    task: str
    training: Id
    holdout: Id
    time_column: str
    seed: int


class TrainingResult(Struct, frozen=True, kw_only=True):
    """What came of a job: the registered version, or why there is none."""

    version: Id | None
    error: str | None


class Trainer(Protocol):
    """Trains in a process of its own.

    Contract: ``start`` returns at once and repeating it for a job that runs changes nothing; after
    a crash of this process the job is unknown and may be started again, since its steps are
    cached and registering the same artifact twice gives the same version.
    """

    def start(self, job: TrainingJob) -> None:
        """Begin a job."""
        ...

    def poll(self, key: str) -> TrainingResult | None:
        """Return the job's outcome, or None while it runs.

        Raises:
            NotFound: ``training.unknown`` when this process never started the job.
        """
        ...


class PredictionSource(Protocol):
    """The prediction logs and the reports of the serving processes on this machine."""

    def seal(self, deployment: Id, name: str, champion: Id | None, *, pause_s: float = 0.0) -> int:
        """Seal what was logged since the last time; return the number of new rows.

        Nothing is done within ``pause_s`` seconds of the last time, unless very much waits.
        """
        ...

    def applied(self, deployment: Id, name: str) -> Applied | None:
        """Return what the server last made of a deployment's routes; None when nobody can tell."""
        ...
