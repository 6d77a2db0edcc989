"""The process that trains for the loop: reads a job, runs the project's function, registers.

The function is named ``module:function`` in everloop.yaml and lies in the project's folder. It is
called with the training rows as a table, without the column of event time, and with those of
``target``, ``task`` and ``seed`` that it takes by name. It returns a LightGBM or scikit-learn
model, or `ModelFiles`. It may be a plain function, or a ``@pipeline`` whose steps are then cached.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa

from everloop.app import sdk
from everloop.app.client import Client, connect_home
from everloop.app.home import find_home
from everloop.app.loading import load_pipeline
from everloop.app.registering import Registration, register_trained
from everloop.app.trainer import read_result
from everloop.core.errors import EverloopError
from everloop.core.ids import Id
from everloop.data.model import DatasetVersion
from everloop.data.queries import ShowDataset
from everloop.data.tables import read_table
from everloop.loop.ports import TrainingJob, TrainingResult
from everloop.pipeline import (
    DatasetRef,
    Pipeline,
    PipelineOptions,
    current_performer,
    pipeline,
    run_pipeline,
    step,
)
from everloop.registry.model import ModelVersion
from everloop.serve.files import held
from everloop.track import RunPorts

MOST_ERROR_CHARS = 1_000


def main(arguments: list[str]) -> int:
    """Do the job whose files begin with the given path; write the result beside it.

    One process at a time does a job. Another one waits, and ends when there is a result.
    """
    place = Path(arguments[0])
    with held(place.with_suffix(".lock")):
        known = read_result(place)
        return _do(place) if known is None else _code(known)


def _do(place: Path) -> int:
    job = msgspec.json.decode(place.with_suffix(".job.json").read_bytes(), type=TrainingJob)
    try:
        with connect_home(find_home()) as client:
            sdk.use(client)
            version = train(client, job)
        result = TrainingResult(version=version.id, error=None)
    except Exception as error:  # noqa: BLE001 -- the process edge: the controller gets the words
        result = TrainingResult(version=None, error=_words(error))
    draft = place.with_suffix(".draft")
    draft.write_bytes(msgspec.json.encode(result))
    draft.replace(place.with_suffix(".result.json"))
    return _code(result)


def _code(result: TrainingResult) -> int:
    return 0 if result.error is None else 1


def train(client: Client, job: TrainingJob) -> ModelVersion:
    """Run the project's training function as a run, and register what it returns.

    Raises:
        EverloopError: the function can't be loaded or its model not be registered.
        Exception: whatever the function raises.
    """
    assert client.home is not None
    root = client.home.project_folder
    function = load_pipeline(job.pipeline, root)
    assert callable(function)
    client.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    result = run_pipeline(
        training_pipeline(job, function),
        {
            "training": DatasetRef(job.training),
            "target": job.target,
            "task": job.task,
            "seed": job.seed,
        },
        client,
        options=PipelineOptions(
            experiment=job.model,
            tags={"loop": job.key},
            root=root,
            ports=RunPorts(spool=client.spool),
        ),
    )
    return register_trained(
        client,
        Registration(
            name=job.model,
            training=job.training,
            holdout=job.holdout,
            target=job.target,
            task=job.task,
            left_out=(job.time_column,),
            run=Id(result.run_id),
            params={"seed": str(job.seed)},
        ),
        result.value,
    )


def training_pipeline(job: TrainingJob, function: Callable[..., object]) -> Pipeline[..., object]:
    """Return a pipeline around the project's function, so that its run reads a dataset version."""
    plain = function.function if isinstance(function, Pipeline) else function
    takes = inspect.signature(plain).parameters

    @pipeline(name=job.pipeline)
    def trained(training: DatasetRef, target: str, task: str, seed: int) -> object:
        rows = read_rows(training, job.time_column)
        told: dict[str, object] = {"target": target, "task": task, "seed": seed}
        return function(rows, **{name: told[name] for name in told if name in takes})

    return trained


@step
def read_rows(training: DatasetRef, left_out: str) -> pa.Table:
    """Return the rows to train on, without one column."""
    performer = current_performer()
    version = performer.perform("data.show", ShowDataset(ref=training.version), DatasetVersion)
    table = read_table(performer.blobs, version)
    return table.drop_columns([left_out]) if left_out in table.column_names else table


def _words(error: Exception) -> str:
    if isinstance(error, EverloopError):
        return f"{error.message} {error.hint}"[:MOST_ERROR_CHARS]
    return f"{type(error).__name__}: {error}"[:MOST_ERROR_CHARS]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
