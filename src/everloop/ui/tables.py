"""Tables in files of users, a page of rows at a time: CSV, Parquet, and JSON of columns and data.

What a hostile file can cost is bounded before anything is decoded.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Final

import msgspec

from everloop.core.digest import Digest
from everloop.core.errors import EverloopError
from everloop.core.ports import BlobStore

PAGE: Final = 100
MAX_COLUMNS: Final = 60
MAX_CELL_CHARS: Final = 300
MAX_CSV_BYTES: Final = 32 * 1024 * 1024
MAX_PARQUET_BYTES: Final = 64 * 1024 * 1024
MAX_DECODED_BYTES: Final = 256 * 1024 * 1024
MAX_VALUES: Final = 5_000_000


class Unreadable(Exception):
    """A file is no table, or too large to be looked at here; the text is for the reader."""


@dataclass(frozen=True, slots=True)
class Table:
    """One page of rows.

    Attributes:
        rows: All cells as texts, None for null.
        first: Number of the first row shown, from 0.
        total: How many rows there are, None when nobody counted.
        more: Whether rows follow.
        columns_left_out: How many columns do not fit.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    first: int
    total: int | None
    more: bool
    columns_left_out: int = 0


class SplitJson(msgspec.Struct, frozen=True):
    """A table as MLflow and pandas write it with orient="split"."""

    columns: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    data: tuple[tuple[object, ...], ...]


def to_offset(text: str | None) -> int:
    """Return the row that an address names, 0 for nonsense."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else 0


def read(blobs: BlobStore, digest: Digest, size: int, path: str, at: str) -> Table:
    """Return a page of a table in a file.

    Raises:
        Unreadable: it is no such table, or more than is read for a page.
    """
    try:
        if path.lower().endswith(".parquet"):
            return _read_parquet(blobs, digest, size, to_offset(at))
        tab = "\t" if path.lower().endswith(".tsv") else ","
        return _read_csv(blobs.stream(digest), tab, to_offset(at))
    except EverloopError as error:
        raise Unreadable(error.message) from error


def first_rows(table: Table, count: int) -> Table:
    """Return the table with its first rows alone."""
    return replace(table, rows=table.rows[:count], more=False)


def read_json(data: bytes) -> Table | None:
    """Return the table that a JSON text holds, None when it holds another thing."""
    try:
        found = msgspec.json.decode(data, type=SplitJson)
    except (msgspec.MsgspecError, RecursionError):  # as deep as a hostile file likes
        return None
    width = min(len(found.columns), MAX_COLUMNS)
    rows = tuple(tuple(_cell(value) for value in row[:width]) for row in found.data[:PAGE])
    return Table(
        columns=found.columns[:width],
        rows=rows,
        first=0,
        total=len(found.data),
        more=False,
        columns_left_out=len(found.columns) - width,
    )


def _read_csv(pieces: Iterator[bytes], delimiter: str, first: int) -> Table:
    reader = csv.reader(_lines(pieces), delimiter=delimiter)
    try:
        header = next(reader, [])
        found = list(islice(reader, first, first + PAGE + 1))
    except csv.Error as error:
        message = f"It cannot be read as a table: {error}."
        raise Unreadable(message) from error
    width = min(len(header), MAX_COLUMNS)
    rows = tuple(
        tuple(_cell(row[index]) if index < len(row) else None for index in range(width))
        for row in found[:PAGE]
    )
    more = len(found) > PAGE
    return Table(
        columns=tuple(header[:width]),
        rows=rows,
        first=first,
        total=None if more else first + len(rows),
        more=more,
        columns_left_out=len(header) - width,
    )


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Yield lines; a file that is too long ends in a refusal and not in memory."""
    rest, seen = b"", 0
    for piece in pieces:
        seen += len(piece)
        if seen > MAX_CSV_BYTES:
            message = "Rows that far into the file are not shown here; download it."
            raise Unreadable(message)
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").replace("\x00", "\ufffd") + "\n"
    if rest:
        yield rest.decode("utf-8", "replace").replace("\x00", "\ufffd")


def _read_parquet(blobs: BlobStore, digest: Digest, size: int, first: int) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if size > MAX_PARQUET_BYTES:
        message = "Parquet files of that size are not opened here; download it."
        raise Unreadable(message)
    try:
        bytes_ = blobs.get(digest)
        metadata = pq.ParquetFile(io.BytesIO(bytes_), thrift_container_size_limit=100_000).metadata
        fields = list(metadata.schema.to_arrow_schema())[:MAX_COLUMNS]
        # A text that stands in a million rows stands in the file once: so it does here.
        texts = [field.name for field in fields if _is_text(field.type)]
        file = pq.ParquetFile(io.BytesIO(bytes_), metadata=metadata, read_dictionary=texts)
        names = [str(name) for name in metadata.schema.to_arrow_schema().names]
        rows = _parquet_rows(file, names[:MAX_COLUMNS], first)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        message = f"It cannot be read as Parquet: {str(error)[:200]}."
        raise Unreadable(message) from error
    total = metadata.num_rows
    return Table(
        columns=tuple(names[:MAX_COLUMNS]),
        rows=rows,
        first=first,
        total=total,
        more=first + len(rows) < total,
        columns_left_out=max(len(names) - MAX_COLUMNS, 0),
    )


def _parquet_rows(file: object, names: list[str], first: int) -> tuple[tuple[str | None, ...], ...]:
    """Return the rows of a page, decoding a page at a time and only the row groups that hold it."""
    import pyarrow.parquet as pq

    assert isinstance(file, pq.ParquetFile)
    skipped, rows = 0, list[tuple[str | None, ...]]()
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        begin = max(first - skipped, 0)
        skipped += group.num_rows
        if begin >= group.num_rows:
            continue
        values = max((group.column(at).num_values for at in range(group.num_columns)), default=0)
        is_nested = values > group.num_rows
        if group.total_byte_size > MAX_DECODED_BYTES or begin > MAX_VALUES:
            message = "Its row groups are too large to be opened here; download it."
            raise Unreadable(message)
        if is_nested and values > MAX_VALUES:
            message = "Its lists are too long to be opened here; download it."
            raise Unreadable(message)
        for batch in file.iter_batches(batch_size=PAGE, row_groups=[number], columns=names):
            part = batch.slice(min(begin, batch.num_rows), PAGE - len(rows))
            begin = max(begin - batch.num_rows, 0)
            rows += [
                tuple(_cell(column[at].as_py()) for column in part.columns)
                for at in range(part.num_rows)
            ]
            if len(rows) >= PAGE:
                return tuple(rows)
    return tuple(rows)


def _is_text(kind: object) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _cell(value: object) -> str | None:
    if value is None:
        return None
    text = (
        value if isinstance(value, str) else repr(value) if isinstance(value, float) else str(value)
    )
    return text if len(text) <= MAX_CELL_CHARS else text[:MAX_CELL_CHARS] + "…"
