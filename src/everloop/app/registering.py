"""Registers what a training gave: finds the inputs, reads the signature, keeps example rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest
from everloop.core.errors import Denied, InvalidInput, MissingExtra, NotFound, UnsafeArtifact
from everloop.core.ids import Id
from everloop.data.model import DatasetVersion
from everloop.data.queries import ShowDataset
from everloop.data.tables import read_table
from everloop.kernel.performer import Performer
from everloop.kernel.safe_load import SAFE_FORMATS, LoadPolicy
from everloop.loop.settings import read_settings
from everloop.pipeline.codecs import ModelFiles
from everloop.registry.client import upload_files
from everloop.registry.examples import store_examples
from everloop.registry.formats import ModelFormat, save_model
from everloop.registry.loaders import PYFUNC, find_format, load_predictor
from everloop.registry.model import ModelVersion
from everloop.registry.signature import (
    Task,
    count_numbers,
    infer_signature,
    name_outputs,
    to_matrix,
)
from everloop.registry.verbs import RegisterModel
from everloop.registry.versioning import Override
from everloop.track.environment import capture_environment
from everloop.track.queries import RunDetails, ShowRun

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

# A function runs in a locked process here, too; whether it may be registered, the server says.
_HERE = LoadPolicy(formats=SAFE_FORMATS | {PYFUNC})


SEEN_AT_WORK = frozenset({PYFUNC, "torch"})
ROWS_TO_TRY = 16


class Seen(NamedTuple):
    """What a model says of itself; None and empty where that can't be told here.

    Attributes:
        names: Its inputs by name, in its order.
        inputs: How many it takes.
        outputs: What it answers, where that is several numbers a row.
        is_classifier: Whether its answers are probabilities.
    """

    names: tuple[str, ...] = ()
    inputs: int | None = None
    outputs: tuple[str, ...] = ()
    is_classifier: bool = False


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a trained model beside the model itself.

    Attributes:
        training: Ref or id of the dataset version it was trained on.
        task: As the model itself says, else as everloop.yaml says, when None.
        holdout: Ref or id of one kept from training.
        inputs: Columns that it takes, in its order; as the model names them when empty.
        left_out: Columns of the training data that are no inputs, such as the event time.
        waiver: Why a Python function may be registered.
        bump: The part of the version to raise, against the rule; needs ``bump_reason``.
    """

    name: str
    training: str
    target: str
    task: str | None = None
    holdout: str | None = None
    inputs: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    run: Id | None = None
    params: dict[str, str] = {}
    waiver: str = ""
    bump: Override | None = None
    bump_reason: str = ""


def register_trained(
    performer: Performer, told: Registration, model: object, *, request: str | None = None
) -> ModelVersion:
    """Register a trained model; the same artifact again gives the same version.

    Raises:
        InvalidInput: the model's inputs are not columns of its training data.
        EverloopError: what `model.register` refuses.
    """
    training = performer.perform("data.show", ShowDataset(ref=told.training), DatasetVersion)
    holdout = None
    if told.holdout is not None:
        holdout = performer.perform("data.show", ShowDataset(ref=told.holdout), DatasetVersion)
    table = read_table(performer.blobs, training)
    kind, files = _to_files(model, told, table)
    seen = look_at(model, kind, files)
    inputs = find_inputs(seen, table, told)
    task = told.task or find_task(performer, told.name, seen)
    signature = infer_signature(table, inputs, told.target, cast("Task", task))
    if seen.outputs:
        signature = name_outputs(signature, seen.outputs)
    rows = table if holdout is None else read_table(performer.blobs, holdout)
    ask = RegisterModel(
        name=told.name,
        files=upload_files(performer.blobs, files),
        format=kind,
        signature=signature,
        run=told.run,
        dataset=training.id,
        holdout=holdout.id if holdout else None,
        reference=training.reference,
        examples=store_examples(performer.blobs, signature, rows),
        params=told.params,
        environment=run_environment(performer, told.run),
        waiver=told.waiver,
        bump=told.bump,
        bump_reason=told.bump_reason,
    )
    return performer.perform("model.register", ask, ModelVersion, request=request)


def _to_files(
    model: object, told: Registration, table: pa.Table
) -> tuple[ModelFormat, dict[str, bytes]]:
    """Return the format and the files of a model, saved or not.

    Raises:
        InvalidInput: ``model.type_unsupported``.
    """
    if isinstance(model, ModelFiles):
        return cast("ModelFormat", model.format), dict(model.files)
    if find_format(model).name not in SEEN_AT_WORK:
        return save_model(model)
    return save_model(model, to_example(table, told.inputs, told.target, told.left_out))


def to_example(
    table: pa.Table, inputs: Sequence[str], target: str, left_out: Sequence[str] = ()
) -> np.ndarray | None:
    """Return a few rows as numbers, for formats that must see the model at work to keep it.

    None where the inputs are no columns of the table; what comes next says so.
    """
    apart = {target, *left_out}
    names = list(inputs) or [name for name in table.column_names if name not in apart]
    if any(name not in table.column_names for name in names):
        return None
    rows = table.slice(0, ROWS_TO_TRY)
    signature = infer_signature(table, names, target, "regression", is_target_given=False)
    return to_matrix(signature, rows)


def look_at(model: object, kind: str, files: dict[str, bytes]) -> Seen:
    """Return what a model says of itself; it is opened from its files, as a server would.

    Where its library is missing, the server tells what does not fit.
    """
    told = Seen(
        names=tuple(str(name) for name in getattr(model, "feature_names_in_", ())),
        inputs=getattr(model, "n_features_in_", None),
        is_classifier=hasattr(model, "classes_"),
    )
    try:
        predictor = load_predictor(kind, files, _HERE)
    except (MissingExtra, UnsafeArtifact):
        return told
    try:
        return Seen(
            names=predictor.names or told.names,
            inputs=predictor.inputs,
            outputs=predictor.outputs,
            is_classifier=predictor.is_classifier or told.is_classifier,
        )
    finally:
        predictor.close()


def find_task(performer: Performer, name: str, seen: Seen) -> Task:
    """Return what a model is for: as it says itself, else as the project's settings say."""
    if seen.is_classifier:
        return "classification"
    try:
        told = read_settings(performer, name).task
    except Denied:  # a narrow token may register and not read settings
        return "regression"
    return "classification" if told == "classification" else "regression"


def find_inputs(seen: Seen, table: pa.Table, told: Registration) -> list[str]:
    """Return the model's inputs in its order: as told, as it names them, else all that may be.

    Raises:
        InvalidInput: ``model.inputs_unknown`` when they are not columns of the data, or not as
            many as the model takes.
    """
    apart = {told.target, *told.left_out}
    columns = [name for name in table.column_names if name not in apart]
    named = list(seen.names)
    inputs = list(told.inputs) or named or columns
    if named and sorted(named) == sorted(inputs) and named != inputs:
        raise InvalidInput(
            "model.inputs_unknown",
            f"The model takes its inputs in another order: {', '.join(named)[:200]}.",
            hint="Leave them out, since it names them, or give them in that order.",
        )
    unknown = [name for name in inputs if name not in columns]
    if unknown:
        raise InvalidInput(
            "model.inputs_unknown",
            f"The model takes {unknown[0][:60]!r}, which is no column of its training data.",
            hint="Train on the columns of the dataset by their names, so that callers can be told.",
        )
    taken = seen.inputs
    if taken is not None and taken != sum(count_numbers(table, name) for name in inputs):
        raise InvalidInput(
            "model.inputs_unknown",
            f"The model takes {taken} inputs without naming them, and there are {len(inputs)}: "
            f"{', '.join(inputs)[:200]}.",
            hint="Name the columns in the model's order with inputs=[...], or --input.",
        )
    return inputs


def run_environment(
    performer: Performer, run: Id | None, here: Path | None = None
) -> Digest | None:
    """Return the environment that a run captured; None where there is none, or it can't be read.

    A run of this process tells its environment a while after it began; with ``here``, the folder
    of its project, it is captured now if it did not yet.
    """
    if run is None:
        return None
    found = None
    with suppress(Denied, NotFound):  # a narrow token may register and not read runs
        found = performer.perform("run.show", ShowRun(run=run), RunDetails).run.environment
    if found is None and here is not None:
        return performer.blobs.put(canonical_json(capture_environment(here)))
    return found
