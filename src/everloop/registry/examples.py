"""Example rows kept with a version, as a small Parquet blob."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from everloop.core.digest import Digest
from everloop.core.errors import InvalidInput, LimitExceeded
from everloop.core.ports import BlobStore
from everloop.registry.signature import Signature

if TYPE_CHECKING:
    import pyarrow as pa

MOST_EXAMPLES: Final = 256
_MOST_ROWS: Final = 10_000
_MOST_BYTES: Final = 64 << 20


def store_examples(blobs: BlobStore, signature: Signature, table: pa.Table) -> Digest:
    """Store up to 256 rows, spread evenly over the table, with the signature's columns only."""
    import pyarrow.parquet as pq

    step = max(1, -(-table.num_rows // MOST_EXAMPLES))
    names = [field.name for field in signature.inputs]
    sample = table.select(names).take(list(range(0, table.num_rows, step)))
    sink = io.BytesIO()
    pq.write_table(sample, sink, compression="zstd")
    return blobs.put(sink.getvalue())


def read_examples(blobs: BlobStore, digest: Digest) -> pa.Table:
    """Return stored example rows.

    Raises:
        InvalidInput: ``model.examples_unreadable``.
        LimitExceeded: ``model.examples_too_large``.
        NotFound: ``blob.not_found``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = blobs.get(digest)
    try:
        source = pq.ParquetFile(pa.BufferReader(data))
        meta = source.metadata
        unpacked = sum(meta.row_group(n).total_byte_size for n in range(meta.num_row_groups))
        if meta.num_rows > _MOST_ROWS or unpacked > _MOST_BYTES:
            raise LimitExceeded(
                "model.examples_too_large",
                f"There are {meta.num_rows} example rows of {unpacked >> 20} MiB.",
                hint=f"A few hundred rows do; at most {_MOST_ROWS}.",
            )
        table = source.read()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInput(
            "model.examples_unreadable",
            f"The example rows are no Parquet table: {str(error)[:200]}",
            hint="Store them with everloop's store_examples.",
        ) from error
    return table
