"""Reads a dataset version's files as one Arrow table.

Parquet and CSV (also gzipped) come from strangers: whatever the reader cannot make sense of is an
input error, and what unpacks to more than the limit is refused before it fills the memory.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from everloop.core.errors import InvalidInput, LimitExceeded
from everloop.core.manifest import FileEntry
from everloop.core.ports import BlobStore
from everloop.data.manifest import load_manifest
from everloop.data.model import DataFormat, DatasetVersion

MOST_TABLE_BYTES: Final = 4 << 30
_GZIP_WINDOW: Final = zlib.MAX_WBITS | 16
_PIECE: Final = 1 << 22


def detect_format(paths: Iterable[str]) -> DataFormat:
    """Say how files of these names are read: as one table if all are of one tabular kind."""
    kinds = {_kind(path) for path in paths}
    return kinds.pop() if len(kinds) == 1 else "files"


def read_table(
    blobs: BlobStore, version: DatasetVersion, columns: Sequence[str] | None = None
) -> pa.Table:
    """Return the rows of a version, all columns or some, in the order of its files' paths.

    Raises:
        InvalidInput: ``data.not_a_table``, ``data.unreadable`` or ``data.column_unknown``.
        IntegrityError: the manifest or the bytes do not verify.
    """
    manifest = load_manifest(blobs, version.manifest, version.root)
    return read_files(blobs, manifest.files, version.format, columns)


def read_files(
    blobs: BlobStore,
    files: Sequence[FileEntry],
    data_format: DataFormat,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Return files of equal columns as one table.

    Raises:
        InvalidInput: ``data.not_a_table``, ``data.unreadable``, ``data.schemas_differ`` or
            ``data.column_unknown``.
        LimitExceeded: ``data.too_large``.
    """
    if data_format == "files":
        raise InvalidInput(
            "data.not_a_table",
            "This dataset version holds files that are no table.",
            hint="Commit Parquet or CSV files only to read them as a table.",
        )
    _require_size(sum(entry.size_bytes for entry in files))
    tables = [_read_one(entry.path, blobs.get(entry.digest), data_format) for entry in files]
    table = _concatenate(tables, [entry.path for entry in files])
    if columns is None:
        return table
    unknown = sorted(set(columns) - set(table.column_names))
    if unknown:
        raise InvalidInput(
            "data.column_unknown",
            f"There is no column {unknown[0][:80]!r}.",
            hint=f"The columns are: {', '.join(table.column_names[:30])}.",
        )
    return table.select(list(columns))


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as Parquet bytes, the same for the same table and library version."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _kind(path: str) -> DataFormat:
    lower = path.lower()
    if lower.endswith((".parquet", ".pq")):
        return "parquet"
    return "csv" if lower.endswith((".csv", ".csv.gz")) else "files"


def _read_one(path: str, data: bytes, data_format: DataFormat) -> pa.Table:
    try:
        if data_format == "parquet":
            source = pq.ParquetFile(pa.BufferReader(data))
            meta = source.metadata
            _require_size(
                sum(meta.row_group(n).total_byte_size for n in range(meta.num_row_groups))
            )
            table = _read_batches(source)
        else:
            plain = _unpack(data) if path.lower().endswith(".gz") else data
            table = pa_csv.read_csv(pa.BufferReader(plain))
        # The readers check lengths, not text: names and strings may still be broken UTF-8.
        table.validate(full=True)
        names = list(table.column_names)
    except (pa.ArrowException, zlib.error, OSError, ValueError, KeyError) as error:
        if isinstance(error, LimitExceeded | InvalidInput):
            raise
        raise InvalidInput(
            "data.unreadable",
            f"{path[:80]!r} is not readable as {data_format}: {_first_line(error)}",
            hint="Check that the file opens elsewhere and has the ending of its real format.",
        ) from error
    if len(set(names)) != len(names):
        raise InvalidInput(
            "data.duplicate_column",
            f"{path[:80]!r} has two columns of one name.",
            hint="Rename columns so that each name occurs once.",
        )
    return table


def _read_batches(source: pq.ParquetFile) -> pa.Table:
    """Read piece by piece: what the footer says of the size may be a lie."""
    batches, total = [], 0
    for batch in source.iter_batches():
        total += batch.nbytes
        _require_size(total)
        batches.append(batch)
    return pa.Table.from_batches(batches, schema=source.schema_arrow)


def _unpack(data: bytes) -> bytes:
    """Unpack gzip, members one after the other, never holding more than the limit."""
    pieces: list[bytes] = []
    total, rest = 0, data
    while rest:
        member = zlib.decompressobj(_GZIP_WINDOW)
        while rest and not member.eof:
            piece = member.decompress(rest, _PIECE)
            rest = member.unconsumed_tail
            total += len(piece)
            _require_size(total)
            pieces.append(piece)
        if not member.eof:
            raise ValueError("the gzip stream ends too early")
        rest = member.unused_data
    return b"".join(pieces)


def _concatenate(tables: list[pa.Table], paths: list[str]) -> pa.Table:
    first = tables[0]
    for table, path in zip(tables[1:], paths[1:], strict=True):
        if table.column_names != first.column_names:
            raise _differ(paths[0], path)
    try:
        # Numbers of one column may be read as int64 in one CSV file and as float64 in the next.
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowException, ValueError) as error:
        raise _differ(paths[0], paths[-1]) from error


def _differ(one: str, other: str) -> InvalidInput:
    return InvalidInput(
        "data.schemas_differ",
        f"{one[:80]!r} and {other[:80]!r} do not have the same columns.",
        hint="Commit files of one table, with equal columns in equal order.",
    )


def _require_size(size_bytes: int) -> None:
    if size_bytes > MOST_TABLE_BYTES:
        raise LimitExceeded(
            "data.too_large",
            f"The table has more than {MOST_TABLE_BYTES >> 30} GiB unpacked.",
            hint="Commit it in smaller datasets, such as one for each month.",
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
