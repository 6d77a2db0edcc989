"""Bytes that are about to be collected as garbage, and how a record that names them saves them.

Bytes that no record names are first condemned, by a row of their own, and deleted later. Whoever
writes a record that names condemned bytes lifts the sentence in the same transaction; so whatever
is deleted was named by nothing, and whatever is named stays. A row outlives its bytes for a while:
a call that looked for the bytes before they went is told that they are gone.
"""

from __future__ import annotations

from enum import StrEnum

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.errors import NotFound
from everloop.core.ids import Id
from everloop.core.ports import BlobStore, Transaction
from everloop.core.records import Record, record


class Sentence(StrEnum):
    """How far the collection of some bytes has come.

    CONDEMNED bytes were named by nothing before the row was written, CONFIRMED ones were not named
    after that either; DELETED ones are gone.
    """

    CONDEMNED = "condemned"
    CONFIRMED = "confirmed"
    DELETED = "deleted"


@record("condemned_blob", index=(("stage", "id"),), covered=False)
class CondemnedBlob(Record, frozen=True, kw_only=True):
    """Bytes that nothing names; the id is their digest.

    Attributes:
        at: When the row was written, or when the bytes were deleted.
    """

    stage: Sentence
    size_bytes: int
    at: Instant


def has_condemned(tx: Transaction) -> bool:
    """Tell whether any bytes are condemned or were deleted lately."""
    return bool(tx.select(CondemnedBlob, limit=1))


def rescue(tx: Transaction, blobs: BlobStore, digest: Digest) -> None:
    """Lift the sentence over bytes that a record names from now on.

    Raises:
        NotFound: ``blob.not_found`` when they are gone already.
    """
    row = tx.find(CondemnedBlob, Id(digest))
    if row is None:
        return
    if blobs.size(digest) is None:
        raise NotFound(
            "blob.not_found",
            f"The bytes under {digest} were deleted because nothing named them.",
            hint="Put them again, then repeat the call.",
        )
    tx.delete(row)
