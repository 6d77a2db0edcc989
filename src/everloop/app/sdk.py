"""The Python SDK: what a training script needs, as plain functions over one connection.

The first call connects as `connect()` would; `use` puts another connection in its place.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from everloop.app.client import Client, connect, with_reason
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id

if TYPE_CHECKING:
    import pyarrow as pa

    from everloop.data.model import DatasetVersion
    from everloop.monitor.verbs import FeedbackReceipt
    from everloop.pipeline import PipelineResult, Progress
    from everloop.registry.model import ModelVersion
    from everloop.track import RunHandle
    from everloop.track.client import ParamValue

LABELS_A_CALL = 5_000
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


def start_run(
    experiment: str = "default",
    *,
    name: str = "",
    params: Mapping[str, ParamValue] | None = None,
    tags: Mapping[str, str] | None = None,
    client: Client | None = None,
) -> RunHandle:
    """Begin a run and return its handle, best used as a context manager.

    The environment (code, packages, platform, command line) is captured with secrets masked.

    Raises:
        InvalidInput: a name, parameter or tag is not usable.
    """
    from everloop.track import RunDraft, RunPorts, capture_environment
    from everloop.track import start_run as begin

    at = client or current_client()
    draft = RunDraft(
        experiment=experiment,
        name=name,
        params=params or {},
        tags=tags or {},
        environment=capture_environment(_project_folder(at)),
    )
    return begin(at, draft, ports=RunPorts(spool=_spool(at)))


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
    client: Client | None = None,
) -> ModelVersion:
    """Register a trained model; its signature is read from the data it was trained on.

    Args:
        name: Name of the model.
        model: A LightGBM or scikit-learn model, or `ModelFiles`.
        training: Ref of the dataset version it was trained on.
        target: Name of the column it predicts.
        task: ``regression`` or ``classification``; left out, as the model itself says, else as
            everloop.yaml says.
        holdout: Ref of a dataset version kept from training; the gate needs it.
        inputs: Columns that the model takes, in its order; left out, as the model names them.
        run: Id of the run that trained it.
        params: What it was trained with.
        client: The connection; that of `current_client` when left out.

    Raises:
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
        ),
        model,
    )


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
        root=_project_folder(at),
        ports=RunPorts(spool=_spool(at)),
    )
    if not isinstance(function, Pipeline):
        raise InvalidInput(
            "pipeline.not_a_pipeline",
            f"{function!r} is not a pipeline."[:200],
            hint="Decorate the function with @pipeline.",
        )
    return run(function, arguments or {}, at, options=options, progress=progress)


def add_feedback(
    labels: Mapping[str, float | bool] | Iterable[tuple[str, float | bool]],
    *,
    source: str = "sdk",
    client: Client | None = None,
) -> FeedbackReceipt:
    """Tell the truth about predictions, by their ids; return what became of it.

    Raises:
        InvalidInput: a label is not finite.
    """
    from everloop.monitor.verbs import AddFeedback, FeedbackReceipt, Label

    at = client or current_client()
    pairs = list(labels.items() if isinstance(labels, Mapping) else labels)
    receipts = [
        at.perform(
            "feedback.add",
            AddFeedback(
                labels=tuple(
                    Label(prediction=Id(key), value=value)
                    for key, value in pairs[start : start + LABELS_A_CALL]
                ),
                source=source,
            ),
            FeedbackReceipt,
        )
        for start in range(0, len(pairs), LABELS_A_CALL)
    ]
    return FeedbackReceipt(
        joined=sum(receipt.joined for receipt in receipts),
        corrected=sum(receipt.corrected for receipt in receipts),
        repeated=sum(receipt.repeated for receipt in receipts),
        unknown=tuple(key for receipt in receipts for key in receipt.unknown),
    )


def _task(text: str) -> str:
    if text not in {"regression", "classification"}:
        raise InvalidInput(
            "task.unknown",
            f"{text[:40]!r} is no task.",
            hint="Use 'regression' or 'classification'.",
        )
    return text


def _project_folder(client: Client) -> Path:
    return client.home.project_folder if client.home is not None else Path.cwd()


def _spool(client: Client) -> Path:
    client.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    return client.spool
