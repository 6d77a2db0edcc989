"""The slow part of sealing: read the rows, check them, count them, hash them."""

from __future__ import annotations

from collections import Counter

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from everloop.core.clock import Instant
from everloop.core.digest import Digest, parse_digest
from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.data.model import DatasetVersion
from everloop.data.profile import Profile, Reference, profile_table
from everloop.kernel.unit_of_work import Desk, View
from everloop.monitor.model import VersionRows
from everloop.monitor.segments import (
    inputs_of,
    kept_rows,
    keys_of,
    read_segment,
    rows_of,
    segment_root,
)
from everloop.registry.model import ModelVersion


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of a segment turned out to be."""

    rows: int
    first_id: Id
    last_id: Id
    first_at: Instant
    last_at: Instant
    root: Digest
    reference: Digest | None
    profile: Digest | None
    versions: tuple[VersionRows, ...]
    keys: dict[str, Id]


def prepare(blob: Digest, champion: Id | None, desk: Desk) -> Ready:
    """Read and profile the rows of a segment.

    Raises:
        InvalidInput: ``segment.unreadable`` or ``segment.empty``.
        NotFound: the bytes were never put.
    """
    table = read_segment(desk.services.blobs.get(parse_digest(blob)))
    rows = rows_of(table)
    if not rows:
        raise InvalidInput("segment.empty", "The segment has no rows.", hint="Seal rows, or none.")
    with desk.read() as view:
        reference = reference_of(view, champion)
    ids = sorted(row.id for row in rows)
    times = [row.at for row in rows]
    counted = Counter(row.version for row in rows)
    return Ready(
        rows=len(rows),
        first_id=ids[0],
        last_id=ids[-1],
        first_at=min(times),
        last_at=max(times),
        root=segment_root(table),
        reference=reference,
        profile=None if reference is None else _put_profile(desk, table, reference),
        versions=tuple(VersionRows(version=v, rows=n) for v, n in sorted(counted.items())),
        keys=keys_of(rows),
    )


def reference_of(view: View, champion: Id | None) -> Digest | None:
    """Return the reference frozen from the data that a version was trained on, or None."""
    version = None if champion is None else view.find(ModelVersion, champion)
    if version is None or version.dataset_version is None:
        return None
    trained_on = view.find(DatasetVersion, version.dataset_version)
    return None if trained_on is None else trained_on.reference


def read_profile(view_blobs: bytes) -> Profile:
    """Return a stored profile."""
    return msgspec.json.decode(view_blobs, type=Profile)


def _put_profile(desk: Desk, table: pa.Table, reference: Digest) -> Digest:
    fixed = msgspec.json.decode(desk.services.blobs.get(reference), type=Reference)
    inputs = inputs_of(kept_rows(table))
    known = [name for name in inputs.column_names if name in fixed.columns]
    profile = profile_table(_as_reference(inputs.select(known), fixed), fixed)
    return desk.services.blobs.put(msgspec.json.encode(profile))


def _as_reference(table: pa.Table, fixed: Reference) -> pa.Table:
    """Read all-null columns as numbers: a window without a value has no type of its own."""
    del fixed
    for position, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            column = pc.cast(table.column(position), pa.float64())
            table = table.set_column(position, field.name, column)
    return table
