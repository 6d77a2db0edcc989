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
        file = pq.ParquetFile(io.BytesIO(blobs.get(digest)), thrift_container_size_limit=100_000)
        names = [str(name) for name in file.schema_arrow.names]
        rows = _parquet_rows(file, names[:MAX_COLUMNS], first)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        message = f"It cannot be read as Parquet: {str(error)[:200]}."
        raise Unreadable(message) from error
    total = file.metadata.num_rows
    return Table(
        columns=tuple(names[:MAX_COLUMNS]),
        rows=rows,
        first=first,
        total=total,
        more=first + len(rows) < total,
        columns_left_out=max(len(names) - MAX_COLUMNS, 0),
    )


def _parquet_rows(file: object, names: list[str], first: int) -> tuple[tuple[str | None, ...], ...]:
    """Return the rows of a page, decoding only the row groups that hold them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert isinstance(file, pq.ParquetFile)
    skipped, parts, left = 0, [], PAGE
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        begin = max(first - skipped, 0)
        skipped += group.num_rows
        if begin >= group.num_rows:
            continue
        if group.total_byte_size > MAX_DECODED_BYTES:
            message = "Its row groups are too large to be opened here; download it."
            raise Unreadable(message)
        part = file.read_row_group(number, columns=names).slice(begin, left)
        parts.append(part)
        left -= part.num_rows
        if left <= 0:
            break
    if not parts:
        return ()
    columns = [column.to_pylist() for column in pa.concat_tables(parts).columns]
    return tuple(tuple(_cell(value) for value in row) for row in zip(*columns, strict=True))


def _cell(value: object) -> str | None:
    if value is None:
        return None
    text = (
        value if isinstance(value, str) else repr(value) if isinstance(value, float) else str(value)
    )
    return text if len(text) <= MAX_CELL_CHARS else text[:MAX_CELL_CHARS] + "…"
