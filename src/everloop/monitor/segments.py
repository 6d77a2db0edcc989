"""Prediction rows as Parquet: typed columns to compute with, and each row's exact bytes to prove.

The column ``row`` holds the canonical JSON whose hash is a leaf of the segment's Merkle tree, so a
single prediction can be proven without rereading the others.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from everloop.core import merkle
from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest
from everloop.core.errors import IntegrityError, InvalidInput
from everloop.core.wire import PredictionRow

INPUT_PREFIX = "in."
_TEXT = ("id", "version", "arm", "status")
_OPTIONAL_TEXT = ("shadow_version", "shadow_status", "fallback_version")
_NUMBERS = ("share", "output", "fallback_output", "shadow_output")


def encode_rows(rows: Sequence[PredictionRow]) -> bytes:
    """Return the Parquet bytes of the rows, in their order."""
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(row, name) for row in rows], pa.string())
        for name in _TEXT + _OPTIONAL_TEXT
    }
    columns |= {
        name: pa.array([getattr(row, name) for row in rows], pa.float64()) for name in _NUMBERS
    }
    columns["at"] = pa.array([row.at for row in rows], pa.timestamp("us", tz="UTC"))
    columns["latency_us"] = pa.array([row.latency_us for row in rows], pa.int64())
    names = dict.fromkeys(name for row in rows for name in row.inputs)
    for name in names:
        columns[INPUT_PREFIX + name] = _input_column([row.inputs.get(name) for row in rows])
    columns["row"] = pa.array([canonical_json(row) for row in rows], pa.binary())
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def _input_column(values: list[object]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and float in kinds:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())  # type: ignore[arg-type]
    if len(kinds) <= 1:
        return pa.array(values)
    return pa.array([None if v is None else str(v) for v in values], pa.string())


def read_parquet(data: bytes) -> pa.Table:
    """Return a small table, read by this thread alone.

    Arrow's own threads gain nothing here, and a process that ends while they start is aborted.

    Raises:
        pyarrow.ArrowInvalid, OSError, KeyError: it is not Parquet.
    """
    source = pa.BufferReader(data)
    return pq.ParquetFile(source, pre_buffer=False).read(use_threads=False)


def read_segment(data: bytes) -> pa.Table:
    """Return the table of a segment.

    Raises:
        InvalidInput: ``segment.unreadable``.
    """
    try:
        return read_parquet(data)
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InvalidInput(
            "segment.unreadable",
            f"The segment is not Parquet: {error}.",
            hint="Seal the stretch of the log again.",
        ) from error


def inputs_of(table: pa.Table) -> pa.Table:
    """Return the inputs alone, under their own names."""
    names = [name for name in table.column_names if name.startswith(INPUT_PREFIX)]
    return table.select(names).rename_columns([name[len(INPUT_PREFIX) :] for name in names])


def rows_of(table: pa.Table) -> list[PredictionRow]:
    """Return the rows exactly as they were logged."""
    decoder = msgspec.json.Decoder(PredictionRow)
    return [decoder.decode(value) for value in table.column("row").to_pylist()]


def segment_root(table: pa.Table) -> Digest:
    """Return the Merkle root over the rows' bytes."""
    root = merkle.tree_root(table.column("row").to_pylist())
    return Digest(f"sha256:{root.hex()}")


class RowProof(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that a row belongs to a segment (RFC 9162 inclusion proof, hex)."""

    index: int
    size: int
    path: tuple[str, ...]
    root: Digest


def prove_row(table: pa.Table, index: int, expected: Digest) -> RowProof:
    """Return the proof of one row after checking the whole segment against its root.

    Raises:
        IntegrityError: ``segment.corrupt``.
    """
    leaves = table.column("row").to_pylist()
    if segment_root(table) != expected:
        raise IntegrityError(
            "segment.corrupt",
            "The rows of this segment do not hash to the root that was sealed.",
            hint="Restore the blob store from a backup and run `everloop audit verify`.",
        )
    nodes: dict[tuple[int, int], bytes] = {}

    def node(level: int, position: int) -> bytes:
        return nodes[level, position]

    for position, leaf in enumerate(leaves):
        for level, at, value in merkle.new_nodes(position, leaf, node):
            nodes[level, at] = value
    path = merkle.inclusion_proof(index, len(leaves), node)
    return RowProof(
        index=index, size=len(leaves), path=tuple(part.hex() for part in path), root=expected
    )
