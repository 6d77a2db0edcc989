"""Registers a model out of a script in one call: format and signature are found out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np

from everloop.app.registering import (
    ROWS_TO_TRY,
    Registration,
    Seen,
    find_inputs,
    find_task,
    look_at,
    run_environment,
    to_example,
)
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.kernel.performer import Performer
from everloop.pipeline.codecs import ModelFiles
from everloop.registry.client import upload_files
from everloop.registry.examples import store_examples
from everloop.registry.formats import ModelFormat, save_model
from everloop.registry.model import ModelVersion
from everloop.registry.rows import Rows, to_table
from everloop.registry.signature import Signature, Task, infer_signature, name_outputs, to_matrix
from everloop.registry.verbs import RegisterModel
from everloop.registry.versioning import Override

if TYPE_CHECKING:
    import pyarrow as pa


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a model beside the model itself.

    Attributes:
        name: Name of the model.
        target: The column that it predicts; in the examples it gives the range of the answers.
        signature: Instead of one read from the examples.
        task: As the model itself says, else as the project's settings say, when None.
        inputs: Columns that it takes, in its order; as the model names them, else all columns of
            the examples but the target, when empty.
        run: Id of the run that trained it.
        here: Folder of the project, where the run is one of this process.
        waiver: Why a Python function may be registered.
    """

    name: str
    target: str = "prediction"
    signature: Signature | None = None
    task: Task | None = None
    inputs: tuple[str, ...] = ()
    run: Id | None = None
    here: Path | None = None
    params: dict[str, str] = {}
    description: str = ""
    waiver: str = ""
    bump: Override | None = None
    bump_reason: str = ""


def record_model(
    performer: Performer,
    told: Record,
    model: object,
    examples: Rows | None = None,
    *,
    request: str | None = None,
) -> ModelVersion:
    """Register a model; the same artifact again gives the same version.

    Raises:
        InvalidInput: ``model.signature_missing`` without a signature and without examples, or what
            does not fit together.
        EverloopError: what `model.register` refuses.
    """
    table = None if examples is None else to_table(examples)
    if told.signature is None and table is None:
        raise InvalidInput(
            "model.signature_missing",
            f"Nothing says what {told.name!r} takes and answers.",
            hint="Give examples: a few rows as it is asked with, best with the true answers.",
        )
    kind, files = _to_files(model, told, table)
    signature = told.signature or _read_signature(
        performer, told, look_at(model, kind, files), cast("pa.Table", table)
    )
    ask = RegisterModel(
        name=told.name,
        files=upload_files(performer.blobs, files),
        format=kind,
        signature=signature,
        description=told.description,
        run=told.run,
        examples=None if table is None else store_examples(performer.blobs, signature, table),
        params=told.params,
        environment=run_environment(performer, told.run, told.here),
        waiver=told.waiver,
        bump=told.bump,
        bump_reason=told.bump_reason,
    )
    return performer.perform("model.register", ask, ModelVersion, request=request)


def _to_files(
    model: object, told: Record, table: pa.Table | None
) -> tuple[ModelFormat, dict[str, bytes]]:
    if isinstance(model, ModelFiles):
        return cast("ModelFormat", model.format), dict(model.files)
    return save_model(model, None if table is None else _try_rows(told, table))


def _try_rows(told: Record, table: pa.Table) -> np.ndarray | None:
    """Return a few rows as numbers, for formats that must see the model at work to keep it."""
    if told.signature is not None:
        return to_matrix(told.signature, table.slice(0, ROWS_TO_TRY))
    return to_example(table, told.inputs, told.target)


def _read_signature(performer: Performer, told: Record, seen: Seen, table: pa.Table) -> Signature:
    wanted = Registration(
        name=told.name, training="", target=told.target, inputs=told.inputs, run=told.run
    )
    inputs = find_inputs(seen, table, wanted)
    task = told.task or find_task(performer, told.name, seen)
    signature = infer_signature(table, inputs, told.target, task, is_target_given=False)
    return name_outputs(signature, seen.outputs) if seen.outputs else signature
