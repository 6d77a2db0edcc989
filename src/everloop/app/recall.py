"""What was tracked, read back: runs, the points of a metric, files, as plain functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from everloop.app.sdk import current_client

if TYPE_CHECKING:
    import pyarrow as pa

    from everloop.app.client import Client


def search_runs(
    filter: str = "",
    *,
    order: str = "",
    limit: int | None = None,
    client: Client | None = None,
    **also: object,
) -> pa.Table:
    """Return runs as an Arrow table: ``params.x``, ``metrics.x``, ``tags.x``; ``.to_pandas()``.

    Args:
        filter: Which rows, such as ``metrics.auc > 0.9 and params.model = 'xgb'``.
        order: How they are sorted, such as ``metrics.auc DESC``; the newest first when empty.
        limit: Rows at most; all when None.
        client: The connection; that of `current_client` when left out.
        also: Further fields of ``run.search``, such as ``experiment=("credit",)``.

    Raises:
        InvalidInput: what is wrong with filter or order, with the position.
    """
    return (client or current_client()).search_runs(filter, order=order, limit=limit, **also)


def read_metric(run: str, key: str, *, client: Client | None = None) -> pa.Table:
    """Return every point of a metric, in the order of logging.

    Args:
        run: Id of the run.
        key: Name of the metric.
        client: The connection; that of `current_client` when left out.

    Returns:
        An Arrow table with the columns ``step`` (int64), ``time`` (UTC, microseconds) and ``value``
        (float64; NaN and the infinities as they were logged).

    Raises:
        NotFound: ``run.not_found`` or ``metric.not_found``.
    """
    import pyarrow as pa

    from everloop.track.history import history_of

    points = history_of(client or current_client(), run, key)
    times = pa.array(points.times_us, pa.timestamp("us", tz="UTC"))
    return pa.table({"step": points.steps, "time": times, "value": points.values})


def download_artifacts(
    run: str,
    path: str = "",
    *,
    to: Path | str = ".",
    replace: bool = False,
    client: Client | None = None,
) -> list[Path]:
    """Write a run's files below a folder, each verified against its digest; return where they lie.

    Args:
        run: Id of the run.
        path: A file or a folder within the run; everything when empty.
        to: The folder, which is made when missing.
        replace: Whether files that are there may be replaced.
        client: The connection; that of `current_client` when left out.

    Raises:
        NotFound: ``run.not_found`` or ``artifact.not_found``.
        Conflict: ``artifact.target_exists``, before anything is written.
        InvalidInput: ``artifact.target_invalid``.
        IntegrityError: ``blob.corrupt``.
    """
    from everloop.track.download import download_artifacts as download

    return download(client or current_client(), run, path, to=Path(to), replace=replace)
