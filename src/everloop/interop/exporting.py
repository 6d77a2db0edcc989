"""Writes what a search finds as a flat table: Arrow in memory, or a Parquet or CSV file.

Whatever is nested becomes columns of its own: ``params.lr``, ``metrics.auc``, ``tags.team``. Which
columns there are is known only after the last row, so a file is written in two passes: rows go to
a temporary file first. Memory holds one page of rows at a time.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from everloop.core.canonical import canonical_json
from everloop.core.clock import to_text
from everloop.core.errors import EverloopError, InvalidInput
from everloop.kernel.performer import Performer
from everloop.kernel.verbs import find_verb
from everloop.track import columns
from everloop.track.points import ReadPoints, RunPoints

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["parquet", "csv"]
Value: TypeAlias = "bool | int | float | str | datetime | None"
Row = dict[str, Value]
ROWS_A_PAGE = 1_000
ROWS_A_BATCH = 5_000
POINTS_A_PAGE = 100_000
MOST_COLUMNS = 20_000
LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Listing:
    """A search whose answers can be exported; ``fixed`` is asked beside filter and order."""

    verb: str
    fixed: Mapping[str, object] = field(default_factory=dict)


LISTINGS: Mapping[str, Listing] = {
    "runs": Listing("run.search", {"fields": ("metrics",)}),
    "experiments": Listing("experiment.search"),
    "models": Listing("model.search"),
    "versions": Listing("version.search"),
    "datasets": Listing("dataset.search"),
    "deployments": Listing("deployment.search"),
    "releases": Listing("release.search"),
    "predictions": Listing("prediction.search"),
}


def found_rows(
    performer: Performer,
    what: str,
    *,
    filter: str = "",
    order: str = "",
    limit: int | None = None,
    also: Mapping[str, object] | None = None,
) -> Iterator[Row]:
    """Yield everything that a search finds as flat rows, page by page.

    Args:
        performer: Who asks.
        what: One of ``LISTINGS``.
        filter: Which rows; see the reference of filters.
        order: How they are sorted.
        limit: Rows at most; all when None.
        also: Further fields of the search, such as ``{"experiment": ("a",)}``.

    Raises:
        InvalidInput: ``export.unknown``, ``input.invalid``, or what the search refuses.
    """
    listing = LISTINGS.get(what)
    verb = find_verb(listing.verb) if listing else None
    if listing is None or verb is None:
        raise InvalidInput(
            "export.unknown",
            f"{what[:60]!r} can't be exported.",
            hint=f"Export one of {', '.join(LISTINGS)}.",
        )
    given = {"filter": filter, "order": order, **listing.fixed, **(also or {})}
    given = {name: value for name, value in given.items() if value not in ("", None)}
    after: str | None = None
    left = limit
    while left is None or left > 0:
        size = ROWS_A_PAGE if left is None else min(ROWS_A_PAGE, left)
        try:
            ask = msgspec.convert(given | {"limit": size, "after": after}, verb.ask)
        except msgspec.ValidationError as error:
            raise InvalidInput(
                "input.invalid", f"{listing.verb}: {error}.", hint="See the help of the search."
            ) from error
        page: Any = performer.perform(listing.verb, ask, verb.answer)
        for item in page.items:
            yield flat_row(item)
        after = page.next
        left = None if left is None else left - len(page.items)
        if after is None or not page.items:
            return


def flat_row(item: msgspec.Struct) -> Row:
    """Return a record as one flat row: nested names joined by dots, lists as JSON."""
    row: Row = {}
    _flatten(item, "", row)
    return row


def _flatten(value: object, name: str, row: Row) -> None:
    if isinstance(value, msgspec.Struct):
        for key in value.__struct_fields__:
            _flatten(getattr(value, key), f"{name}.{key}" if name else key, row)
    elif isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, f"{name}.{key}" if name else str(key), row)
    elif isinstance(value, list | tuple):
        row[name] = canonical_json(value).decode() if value else None
    elif name.startswith("metrics."):
        row[name] = float(value) if isinstance(value, str | int | float) else None
    elif value is None or isinstance(value, bool | int | float | datetime):
        row[name] = value
    elif isinstance(value, bytes):
        return
    else:
        row[name] = str.__str__(value) if isinstance(value, str) else str(value)


def metric_rows(
    performer: Performer, run: str, keys: Sequence[str]
) -> Iterator[tuple[str, columns.Columns]]:
    """Yield the points of a run's metrics, a page at a time, by time, then step.

    Raises:
        NotFound: ``run.not_found``.
    """
    for key in keys:
        offset: int | None = 0
        while offset is not None:
            ask = ReadPoints(run=run, key=key, offset=offset, limit=POINTS_A_PAGE)
            page = performer.perform("run.points", ask, RunPoints)
            points = columns.decode(page.data)
            if len(points.steps):
                yield key, points
            offset = page.next


def to_arrow(rows: Iterable[Row]) -> pa.Table:
    """Return rows as one Arrow table; missing values are null."""
    import pyarrow as pa

    kept = list(rows)
    kinds = Kinds()
    for row in kept:
        kinds.see(row)
    return pa.Table.from_pylist([kinds.fit(row) for row in kept], kinds.schema())


def export_rows(rows: Iterable[Row], path: Path, form: Format) -> int:
    """Write rows to a file that is there whole or not at all; return how many.

    Raises:
        InvalidInput: ``export.too_wide``.
        OSError: it can't be written.
    """
    kinds, count = Kinds(), 0
    with tempfile.TemporaryFile(prefix="everloop-") as spool:
        for row in rows:
            kinds.see(row)
            data = msgspec.msgpack.encode(row)
            spool.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
            count += 1
        spool.seek(0)
        _whole(path, lambda part: _write(_spooled(spool), kinds, part, form))
    return count


def export_points(points: Iterable[tuple[str, columns.Columns]], path: Path, form: Format) -> int:
    """Write points as rows of key, step, time and value; return how many.

    Raises:
        OSError: it can't be written.
    """
    counts = [0]

    def write(part: Path) -> None:
        import pyarrow as pa

        schema = pa.schema(
            [
                ("key", pa.string()),
                ("step", pa.int64()),
                ("time", pa.timestamp("us", tz="UTC")),
                ("value", pa.float64()),
            ]
        )
        with _sink(part, schema, form) as sink:
            for key, page in points:
                size = len(page.steps)
                counts[0] += size
                times = pa.array(page.times_us).cast(pa.timestamp("us", tz="UTC"))
                names = pa.array([key] * size)
                arrays = [names, pa.array(page.steps), times, pa.array(page.values)]
                sink.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))

    _whole(path, write)
    return counts[0]


class Kinds:
    """Which columns rows have, in the order of their first appearance, and of which type."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def see(self, row: Row) -> None:
        """Take note of a row's columns.

        Raises:
            InvalidInput: ``export.too_wide``.
        """
        for name, value in row.items():
            found, known = _kind(value), self._kinds.get(name)
            if known is None or known == "null":
                self._kinds[name] = found
            elif found not in {"null", known}:
                self._kinds[name] = "double" if {found, known} == {"integer", "double"} else "text"
        if len(self._kinds) > MOST_COLUMNS:
            raise InvalidInput(
                "export.too_wide",
                f"The rows have more than {MOST_COLUMNS:,} different columns.",
                hint="Export fewer at a time, by a filter.",
            )

    def fit(self, row: Row) -> Row:
        """Return a row with each value of its column's type."""
        return {name: _as(row.get(name), kind) for name, kind in self._kinds.items()}

    def schema(self) -> pa.Schema:
        """Return the columns as Arrow has them."""
        import pyarrow as pa

        types = {
            "boolean": pa.bool_(),
            "integer": pa.int64(),
            "double": pa.float64(),
            "instant": pa.timestamp("us", tz="UTC"),
        }
        return pa.schema(
            [(name, types.get(kind, pa.string())) for name, kind in self._kinds.items()]
        )


def _kind(value: Value) -> str:
    if value is None:
        return "null"
    for kind, types in (("boolean", bool), ("integer", int), ("double", float),
                        ("instant", datetime)):  # fmt: skip
        if isinstance(value, types):
            return kind
    return "text"


def _as(value: Value, kind: str) -> Value:
    if value is None:
        return None
    if kind == "double" and isinstance(value, int):
        return float(value)
    if kind == "instant" and isinstance(value, str):
        return datetime.fromisoformat(value)
    if kind == "text" and not isinstance(value, str):
        return to_text(value) if isinstance(value, datetime) else str(value)
    return value


def _spooled(spool: IO[bytes]) -> Iterator[Row]:
    while head := spool.read(LENGTH_BYTES):
        yield msgspec.msgpack.decode(spool.read(int.from_bytes(head, "big")))


def _write(rows: Iterator[Row], kinds: Kinds, part: Path, form: Format) -> None:
    import pyarrow as pa

    schema = kinds.schema()
    with _sink(part, schema, form) as sink:
        batch: list[Row] = []
        for row in rows:
            batch.append(kinds.fit(row))
            if len(batch) >= ROWS_A_BATCH:
                sink.write_batch(pa.RecordBatch.from_pylist(batch, schema))
                batch = []
        if batch or not schema.names:
            sink.write_batch(pa.RecordBatch.from_pylist(batch, schema))


def _sink(part: Path, schema: pa.Schema, form: Format) -> Any:
    if form == "csv":
        return _CsvSink(part, schema.names)
    import pyarrow.parquet as pq

    return pq.ParquetWriter(part, schema, compression="zstd")


class _CsvSink:
    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(names)

    def __enter__(self) -> _CsvSink:
        return self

    def __exit__(self, *details: object) -> None:
        self._file.close()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch; null is empty."""
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            self._writer.writerow([_cell(value) for value in row])


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return to_text(value)
    return repr(value) if isinstance(value, float) else value


def _whole(path: Path, write: Callable[[Path], None]) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        part.replace(path)
    except (OSError, EverloopError):
        part.unlink(missing_ok=True)
        raise
