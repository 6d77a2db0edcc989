"""The records of datasets and their immutable versions."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.records import Record, record
from everloop.data.schema import TableSchema

Origin = Annotated[str, Meta(min_length=3, max_length=100)]
DataFormat = Literal["parquet", "csv", "files"]


class SourceInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the data of a version came from.

    Attributes:
        kind: ``files``, ``table``, ``join`` or another short word.
        description: In words for a reader, such as the citation or the query.
        digest: Digest of the original bytes, where there was one original.
        origins: Records that the rows were made from, as ``kind:id``.
    """

    kind: Annotated[str, Meta(min_length=1, max_length=40)] = "files"
    description: Annotated[str, Meta(max_length=1_000)] = ""
    digest: Annotated[Digest, Meta(max_length=80)] | None = None
    origins: Annotated[tuple[Origin, ...], Meta(max_length=10_000)] = ()


@record("dataset", unique=(("project", "name"),))
class Dataset(Record, frozen=True, kw_only=True):
    """A name under which versions of data are kept."""

    project: ProjectId
    name: str
    created_at: Instant


@record(
    "dataset_version",
    unique=(("dataset", "number"),),
    index=(("project", "name", "number"), ("project", "created_at")),
)
class DatasetVersion(Record, frozen=True, kw_only=True):
    """An immutable snapshot of data.

    Attributes:
        dataset: The dataset it belongs to.
        name: The dataset's name.
        number: Counts the versions of the dataset from 1.
        root: Merkle root over the manifest.
        manifest: Blob of the manifest.
        format: How the files are read.
        rows: Rows of the table; None for files that are no table.
        size_bytes: All files together.
        schema: Columns of the table.
        profile: Blob of the profile, counted in the bins of ``reference``.
        reference: Blob of the reference frozen from this table.
        source: Where it came from.
        message: What the committer says.
    """

    project: ProjectId
    dataset: Id
    name: str
    number: int
    root: Digest
    manifest: Digest
    format: DataFormat
    rows: int | None
    size_bytes: int
    schema: TableSchema | None
    profile: Digest | None
    reference: Digest | None
    source: SourceInfo
    message: str
    created_at: Instant
    created_by: ActorId
