"""Which stored bytes are needed: one walk over all kinds of record, and over lists of files.

A digest counts wherever it stands in a record, in a field of its own, in a struct, in JSON or in
the middle of a text; so a new kind or a new field can't be forgotten. Bytes that records name may
name more bytes, as a manifest names files: whatever looks like JSON is read and counts likewise,
but for fields that are known to hold bytes of users.

The ledger keeps nothing alive: what it says of deleted bytes stays true without them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from everloop.core.digest import CONTENT, Digest, digests_in
from everloop.core.errors import NotFound
from everloop.core.ports import BlobStore, Transaction
from everloop.core.records import Kind, declared_kinds
from everloop.kernel.holdings import ProjectBlobs

MOST_LISTING_BYTES = 64 << 20
"""Longer JSON is no list of files; a manifest of 10,000 files has 12 MB at most."""

_LEDGER = frozenset(
    {"ledger_entry", "ledger_payload", "ledger_ref", "ledger_node", "ledger_checkpoint"}
)
_OWN = frozenset({"condemned_blob", "held_blob"})
_REPEATED = frozenset({"run_field", "metric_summary"})
"""Kinds with many rows, whose texts are names and numbers or stand in the run itself as well."""

SILENT = _LEDGER | _OWN | _REPEATED
OPAQUE = frozenset(
    {
        ("artifact_entry", "digest"),
        ("audit_export", "bundle"),
        ("feedback_batch", "labels"),
        ("feedback_batch", "outcomes"),
        ("metric_chunk", "blob"),
        ("model_version", "examples"),
        ("model_version", "files"),
        ("prediction_segment", "blob"),
        ("prediction_segment", "labels"),
        ("step_run", "outputs"),
        ("waiting_feedback", "labels"),
    }
)
"""Fields whose bytes are those of a user or columns of numbers; they name no other bytes."""

Item = tuple[str, str]
"""A row as kind and id."""


def needed_blobs(
    tx: Transaction, blobs: BlobStore, *, without: Collection[Item] = frozenset()
) -> set[Digest]:
    """Return the digests of all bytes that records need, directly or through other bytes.

    Costs a walk over the rows of all kinds inside the database, and reads every list of files.

    Args:
        tx: One snapshot.
        blobs: Where the bytes lie.
        without: Rows that count as if they were gone, to see what would be freed.
    """
    if isinstance(blobs, ProjectBlobs):  # lists of other projects count as well
        blobs = blobs.whole
    needed: set[Digest] = set()
    to_read: set[Digest] = set()
    for kind, _, field, text in mentions(tx, declared_kinds().values(), without=without):
        found = digests_in(text)
        needed.update(found)
        if (kind, field) not in OPAQUE:
            to_read.update(found)
    read: set[Digest] = set()
    while to_read:
        digest = to_read.pop()
        read.add(digest)
        listed = listed_blobs(blobs, digest)
        needed.update(listed)
        # A list may name lists; what a list names as files is looked into once, and no more.
        to_read.update(listed - read)
    return needed


def mentions(
    tx: Transaction, kinds: Iterable[Kind], *, without: Collection[Item] = frozenset()
) -> Iterator[tuple[str, str, str, str]]:
    """Yield kind, id, field and text of everything that names bytes."""
    for kind in kinds:
        if kind.name in SILENT:
            continue
        for key, field, text in tx.mentions(kind.type, CONTENT):
            if (kind.name, key) not in without:
                yield kind.name, key, field, text


def listed_blobs(blobs: BlobStore, digest: Digest) -> set[Digest]:
    """Return the digests that stored bytes name, if they are JSON; else none."""
    size = blobs.size(digest)
    if size is None or not 0 < size <= MOST_LISTING_BYTES:
        return set()
    pieces = blobs.stream(digest)
    try:
        head = next(pieces, b"")
        if head[:1] not in {b"{", b"["}:
            return set()
        text = (head + b"".join(pieces)).decode("utf-8", "replace")
    except NotFound:  # deleted between the two looks
        return set()
    return set(digests_in(text))
