"""The Python SDK: what a training script needs, as plain functions over one connection.

The first call connects as `connect()` would; `use` puts another connection in its place.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from everloop.app.client import Client, connect, with_reason
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id

if TYPE_CHECKING:
    import pyarrow as pa

    from everloop.data.model import DatasetVersion
    from everloop.monitor.feedback import FeedbackReceipt
    from everloop.pipeline import PipelineResult, Progress
    from everloop.registry.loaded import LoadedModel
    from everloop.registry.model import ModelVersion
    from everloop.registry.signature import Signature, Task
    from everloop.registry.versioning import Override

_lock = threading.Lock()
_client: Client | None = None


def current_client() -> Client:
    """Return the connection that the functions here use, made at first use.

    Raises:
        EverloopError: what `connect` refuses.
    """
    global _client  # noqa: PLW0603 -- one connection a process is the point
    with _lock:
        if _client is None:
            _client = connect()
        return _client


def use(client: Client | None) -> None:
    """Let the functions here use this connection; None forgets it."""
    global _client  # noqa: PLW0603
    with _lock:
        _client = client


def commit(
    name: str,
    data: pa.Table | Path | str,
    *,
    message: str = "",
    allow_violations: bool = False,
    reason: str | None = None,
    client: Client | None = None,
) -> DatasetVersion:
    """Commit a table, a file or a folder as the next version of a dataset.

    Data that breaks its contract is committed with `allow_violations` and a `reason`.

    Raises:
        GateFailed: ``data.contract_violated``.
        EverloopError: what `data.commit` refuses.
    """
    from everloop.data.snapshot import commit_path, commit_table

    at = with_reason(client or current_client(), reason)
    if isinstance(data, str | Path):
        return commit_path(at, name, Path(data), message=message, allow_violations=allow_violations)
    if not hasattr(data, "schema"):  # a table's; without pyarrow, which takes long to import
        raise InvalidInput(
            "data.type_unsupported",
            f"A {type(data).__name__} is no table, file or folder.",
            hint="Give a path or a pyarrow.Table, as pyarrow.table makes it of columns or a frame.",
        )
    return commit_table(at, name, data, message=message, allow_violations=allow_violations)


def read(ref: str, *, columns: list[str] | None = None, client: Client | None = None) -> pa.Table:
    """Return the table of a dataset version, such as ``bike@3``.

    Raises:
        EverloopError: there is no such version, or it is no table.
    """
    from everloop.data.model import DatasetVersion
    from everloop.data.queries import ShowDataset
    from everloop.data.tables import read_table

    at = client or current_client()
    version = at.perform("data.show", ShowDataset(ref=ref), DatasetVersion)
    return read_table(at.blobs, version, columns)


def register(  # noqa: PLR0913 -- the parts of a registration, all but two keyword-only
    name: str,
    model: object,
    *,
    training: str,
    target: str,
    task: str | None = None,
    holdout: str | None = None,
    inputs: Sequence[str] = (),
    run: Id | None = None,
    params: Mapping[str, str] | None = None,
    waiver: str = "",
    bump: Override | None = None,
    bump_reason: str = "",
    client: Client | None = None,
) -> ModelVersion:
    """Register a trained model; its signature is read from the data it was trained on.

    Args:
        name: Name of the model.
        model: A model of LightGBM, XGBoost, scikit-learn or PyTorch, an ONNX model, `ModelFiles`,
            or, by waiver, a Python function of a matrix of rows.
        training: Ref of the dataset version it was trained on.
        target: Name of the column it predicts.
        task: ``regression`` or ``classification``; left out, as the model itself says, else as
            everloop.yaml says.
        holdout: Ref of a dataset version kept from training; the gate needs it.
        inputs: Columns that the model takes, in its order; left out, as the model names them.
        run: Id of the run that trained it.
        params: What it was trained with.
        waiver: Why code may be registered in place of a safe format.
        bump: ``major``, ``minor`` or ``patch``: the part of its version number to raise, where
            the rule that goes by evidence does not fit.
        bump_reason: Why it does not fit; kept beside what the rule said.
        client: The connection; that of `current_client` when left out.

    Raises:
        InvalidInput: ``version.reason_missing`` for a ``bump`` without a reason.
        EverloopError: what `model.register` refuses.
    """
    from everloop.app.registering import Registration, register_trained

    return register_trained(
        client or current_client(),
        Registration(
            name=name,
            training=training,
            holdout=holdout,
            target=target,
            task=None if task is None else _task(task),
            inputs=tuple(inputs),
            run=run,
            params=dict(params or {}),
            waiver=waiver,
            bump=bump,
            bump_reason=bump_reason,
        ),
        model,
    )


def log_model(  # noqa: PLR0913 -- the parts of a registration, all but two keyword-only
    model: object,
    name: str,
    *,
    examples: object | None = None,
    signature: Signature | None = None,
    target: str = "prediction",
    inputs: Sequence[str] = (),
    task: Task | None = None,
    run: Id | None = None,
    params: Mapping[str, str] | None = None,
    description: str = "",
    waiver: str = "",
    bump: Override | None = None,
    bump_reason: str = "",
    client: Client | None = None,
) -> ModelVersion:
    """Register a model as the next version of a name; its format and signature are found out.

    Args:
        model: A model of LightGBM, XGBoost, scikit-learn or PyTorch, an ONNX model, `ModelFiles`,
            or, by waiver, a Python function of a matrix of rows.
        name: Name of the model.
        examples: Rows as it will be asked with: a frame, a table, a dict of columns or a list of
            dicts. The signature is read from them, and the next version is compared on them.
        signature: Instead of one read from the examples.
        target: The column it predicts; where the examples have it, it gives the answers' range.
        inputs: Columns that the model takes, in its order; left out, as the model names them.
        task: ``regression`` or ``classification``; left out, as the model itself says.
        run: Id of the run that trained it; the active one when left out, if there is one.
        params: What it was trained with.
        description: What it is for.
        waiver: Why code may be registered in place of a safe format.
        bump: ``major``, ``minor`` or ``patch``: the part of its version number to raise, where
            the rule that goes by evidence does not fit.
        bump_reason: Why it does not fit; kept beside what the rule said.
        client: The connection; that of `current_client` when left out.

    Raises:
        InvalidInput: ``version.reason_missing`` for a ``bump`` without a reason.
        EverloopError: what `model.register` refuses.
    """
    from everloop.app.recording import Record, record_model
    from everloop.track.active import active_run

    active, at = active_run(), client or current_client()
    trained_by = run or (active.id if active is not None else None)
    is_live = active is not None and active.id == trained_by
    told = Record(
        name=name,
        target=target,
        signature=signature,
        task=None if task is None else _task(task),
        inputs=tuple(inputs),
        run=trained_by,
        here=at.folder if is_live else None,
        params=dict(params or {}),
        description=description,
        waiver=waiver,
        bump=bump,
        bump_reason=bump_reason,
    )
    return record_model(at, told, model, examples)


def load_model(ref: str, *, as_of: str | None = None, client: Client | None = None) -> LoadedModel:
    """Load a model version, such as ``credit@production``, from verified bytes.

    Args:
        ref: ``model:credit@production``, ``credit@1.4.0``, ``credit@3`` or ``credit``.
        as_of: The time (RFC 3339) at which its alias is asked for; now when left out.
        client: The connection; that of `current_client` when left out.

    Raises:
        NotFound: there is no such version.
        IntegrityError: its bytes are not those that were registered.
        UnsafeArtifact: the server's policy does not trust its format or a type in it.
        MissingExtra: its library is not installed.
    """
    from everloop.app.models import load_model as load

    return load(client or current_client(), ref, as_of=as_of)


def run_pipeline(
    function: object,
    arguments: Mapping[str, object] | None = None,
    *,
    use_cache: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
    client: Client | None = None,
) -> PipelineResult:
    """Run a function decorated with ``@pipeline`` as one run; finished steps come from the cache.

    Args:
        function: The pipeline.
        arguments: What it is called with, by name.
        use_cache: False runs every step anew.
        workers: Most processes at work at once.
        progress: Hears of every step.
        client: The connection; that of `current_client` when left out.

    Raises:
        InvalidInput: it is no pipeline, or the arguments do not fit.
        Exception: whatever a step raises.
    """
    from everloop.pipeline import Pipeline, PipelineOptions
    from everloop.pipeline import run_pipeline as run
    from everloop.track import RunPorts

    at = client or current_client()
    options = PipelineOptions(
        use_cache=use_cache,
        workers=workers,
        root=at.folder,
        ports=RunPorts(spool=at.spool),
    )
    if not isinstance(function, Pipeline):
        raise InvalidInput(
            "pipeline.not_a_pipeline",
            f"{function!r} is not a pipeline."[:200],
            hint="Decorate the function with @pipeline.",
        )
    return run(function, arguments or {}, at, options=options, progress=progress)


def add_feedback(
    labels: Mapping[str, float | bool | str] | Iterable[tuple[str, float | bool | str]],
    *,
    deployment: str | None = None,
    source: str = "sdk",
    client: Client | None = None,
) -> FeedbackReceipt:
    """Tell the truth about predictions; return what became of it.

    Args:
        labels: The truth by the id of each prediction or, with a deployment, by its business key.
        deployment: Name of the deployment whose business keys the labels are by.
        source: Who says so, in a word.
        client: Whom to tell; the current one by default.

    Raises:
        InvalidInput: a label is not finite.
        NotFound: ``deployment.not_found``.
    """
    from everloop.app.labels import Telling, tell_labels
    from everloop.core.wire import Label

    pairs = labels.items() if isinstance(labels, Mapping) else labels
    told = (
        Label(prediction=Id(name), value=value)
        if deployment is None
        else Label(key=name, value=value)
        for name, value in pairs
    )
    how = Telling(deployment=deployment, source=source)
    return tell_labels(client or current_client(), told, how)


def _task(text: str) -> Task:
    if text not in {"regression", "classification"}:
        raise InvalidInput(
            "task.unknown",
            f"{text[:40]!r} is no task.",
            hint="Use 'regression' or 'classification'.",
        )
    return cast("Task", text)
