"""Labels in any number: from files, tables and scripts to the verb, so many at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import Id
from everloop.core.wire import Label
from everloop.data.model import DatasetVersion
from everloop.data.queries import ShowDataset
from everloop.data.tables import read_table
from everloop.kernel.performer import Performer
from everloop.monitor.feedback import AddFeedback, FeedbackReceipt
from everloop.release.queries import DeploymentView, ShowDeployment

if TYPE_CHECKING:
    import pyarrow as pa

DATASET: Final = "dataset:"
LABELS_A_CALL: Final = 5_000
MOST_TOLD: Final = 1_000
HINT: Final = (
    "Give CSV, Parquet or JSON lines with the columns prediction and value, or say with --key and "
    "--value which ones they are."
)


class Telling(msgspec.Struct, frozen=True, kw_only=True):
    """How labels are told.

    Attributes:
        deployment: Name of the deployment whose predictions alone are meant.
        wait_hours: How long labels wait for predictions that are not known.
        is_dry: Only find out what would become of them.
    """

    deployment: str | None = None
    source: str = "sdk"
    wait_hours: float = 0.0
    is_dry: bool = False


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Which columns of a table say what.

    Attributes:
        prediction: Has ids of predictions; ``key`` business keys instead, when it is named.
        overridden: Has whether somebody decided otherwise; may be missing.
        at: Has when the label was known; may be missing.
    """

    prediction: str = "prediction"
    key: str | None = None
    value: str = "value"
    overridden: str = "overridden"
    at: str = "at"


def tell_labels(
    performer: Performer,
    labels: Iterable[Label],
    how: Telling,
    progress: Callable[[int], None] | None = None,
) -> FeedbackReceipt:
    """Tell labels, so many at once; return what became of all of them.

    Of those that are unknown or refused the first thousand are named.

    Raises:
        InvalidInput: a label means nothing; those before it in earlier calls are told.
        NotFound: ``deployment.not_found``.
    """
    deployment = None if how.deployment is None else _find(performer, how.deployment)
    total = FeedbackReceipt(joined=0, corrected=0, repeated=0, unknown=())
    rest = iter(labels)
    while some := tuple(islice(rest, LABELS_A_CALL)):
        ask = AddFeedback(
            labels=some,
            deployment=deployment,
            source=how.source,
            wait_hours=how.wait_hours,
            is_dry=how.is_dry,
        )
        done = performer.perform("feedback.add", ask, FeedbackReceipt)
        total = FeedbackReceipt(
            joined=total.joined + done.joined,
            corrected=total.corrected + done.corrected,
            repeated=total.repeated + done.repeated,
            unknown=(*total.unknown, *done.unknown)[:MOST_TOLD],
            refused=(*total.refused, *done.refused)[:MOST_TOLD],
            waiting=total.waiting + done.waiting,
            reasons=(*total.reasons, *done.reasons)[:MOST_TOLD],
        )
        if progress is not None:
            progress(len(some))
    return total


def _find(performer: Performer, name: str) -> Id:
    ask = ShowDeployment(deployment=name)
    return performer.perform("deployment.show", ask, DeploymentView).deployment.id


def labels_in(performer: Performer, place: str, columns: Columns) -> Iterator[Label]:
    """Yield the labels of a CSV, Parquet or JSON lines file, or of a dataset version.

    Args:
        performer: Where datasets are.
        place: A path, or a ref such as ``dataset:orders@3``.
        columns: Which columns say what.

    Raises:
        InvalidInput: ``feedback.unreadable``, naming the row.
        NotFound: there is no such file or dataset.
    """
    if place.startswith(DATASET):
        version = performer.perform("data.show", ShowDataset(ref=place), DatasetVersion)
        yield from _labels_of(iter([read_table(performer.blobs, version)]), columns)
        return
    file = Path(place)
    if not file.is_file():
        raise NotFound("feedback.no_file", f"There is no file {place[:200]!r}.", hint=HINT)
    if file.suffix.lower() in {".jsonl", ".ndjson", ".json"}:
        yield from _lines(file, columns)
    else:
        yield from _labels_of(_tables(file), columns)


def _tables(file: Path) -> Iterator[pa.Table]:
    """Yield a file in pieces, so that a large one need not fit into memory."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if file.suffix.lower() in {".parquet", ".pq"}:
            for batch in parquet.ParquetFile(file).iter_batches(LABELS_A_CALL):
                yield pa.Table.from_batches([batch])
        else:
            # Keys such as 007 must stay what they are: no column is read as a number unasked.
            with csv.open_csv(file, convert_options=_as_text(file)) as reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(f"{file.name[:80]!r}: {str(error)[:200]}") from error


def _as_text(file: Path) -> object:
    import pyarrow as pa
    from pyarrow import csv

    with csv.open_csv(file) as reader:
        names = reader.schema.names
    return csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
    )


def _labels_of(tables: Iterator[pa.Table], columns: Columns) -> Iterator[Label]:
    row = 0
    for table in tables:
        wanted = [columns.key or columns.prediction, columns.value]
        missing = [name for name in wanted if name not in table.column_names]
        if columns.overridden in table.column_names and missing == [columns.value]:
            missing = []
        if missing:
            raise _unreadable(f"there is no column {missing[0][:80]!r}")
        named = [*wanted, columns.overridden, columns.at]
        kept = table.select([name for name in named if name in table.column_names])
        for plain in kept.to_pylist():
            row += 1
            yield _to_label(plain, columns, f"row {row}")


def _lines(file: Path, columns: Columns) -> Iterator[Label]:
    with file.open(encoding="utf-8") as stream:
        number = 0
        try:
            for line in stream:
                number += 1
                if line.strip():
                    plain = json.loads(line)
                    if not isinstance(plain, dict):
                        raise _unreadable(f"line {number} is no object")
                    yield _to_label(plain, columns, f"line {number}")
        except (ValueError, RecursionError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise _unreadable(f"line {number}: {error}") from error


def _to_label(plain: dict[str, object], columns: Columns, place: str) -> Label:
    name = plain.get(columns.key or columns.prediction)
    value = _to_value(plain.get(columns.value))
    told: dict[str, object] = {
        "key" if columns.key else "prediction": name if name is None else str(name),
        "value": value,
        "overridden": _is_yes(plain.get(columns.overridden)),
        "at": plain.get(columns.at) or None,
    }
    try:
        return msgspec.convert(told, Label)
    except msgspec.ValidationError as error:
        raise _unreadable(f"{place}: {error}") from error


def _to_value(value: object) -> object:
    """Return a value as it is meant: a text that is a number, as all of CSV is text, is one."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text or None


def _is_yes(value: object) -> bool:
    return value is True or str(value).strip().lower() in {"true", "1", "yes"}


def _unreadable(problem: str) -> InvalidInput:
    return InvalidInput("feedback.unreadable", f"The labels can't be read: {problem}.", hint=HINT)
