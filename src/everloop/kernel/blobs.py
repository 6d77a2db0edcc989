"""Permission to put and get bytes; the bytes themselves go past the verbs, under their digest.

Whatever other projects have put is not there (see ``kernel.holdings``).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from everloop.core.digest import parse_digest
from everloop.core.errors import NotFound
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query, verb

MAX_KEPT = 100_000

DigestText = Annotated[str, msgspec.Meta(max_length=80)]


class PutBlob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask whether bytes may be put."""

    digest: DigestText


class GetBlob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask whether bytes may be read."""

    digest: DigestText


class BlobState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether bytes are there, and how many."""

    digest: str
    size_bytes: int | None


@query("blob.put", permission="blob:write")
def may_put(ask: PutBlob, view: View) -> BlobState:
    """Tell a caller who may put bytes whether these are there already.

    Raises:
        InvalidInput: ``digest.invalid``.
    """
    return BlobState(
        digest=ask.digest, size_bytes=view.services.blobs.size(parse_digest(ask.digest))
    )


@query("blob.get", permission="blob:read")
def may_get(ask: GetBlob, view: View) -> BlobState:
    """Tell a caller who may read bytes whether they are there.

    Raises:
        InvalidInput: ``digest.invalid``.
    """
    return BlobState(
        digest=ask.digest, size_bytes=view.services.blobs.size(parse_digest(ask.digest))
    )


class KeepBlobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Name bytes that were just put."""

    digests: Annotated[tuple[DigestText, ...], msgspec.Meta(max_length=MAX_KEPT)]


class KeptBlobs(msgspec.Struct, frozen=True, kw_only=True):
    """How many bytes the project holds now that it was asked to keep."""

    count: int


@verb("blob.keep", permission="blob:write")
def keep_blobs(ask: KeepBlobs, work: Work) -> KeptBlobs:
    """Write down that the project has put bytes, for calls that other processes will answer.

    What names them in the same process writes that down by itself. No entry in the ledger: nothing
    has happened before a record needs the bytes.

    Raises:
        InvalidInput: ``digest.invalid``.
        NotFound: ``blob.not_found`` for bytes that the project has not put.
    """
    for text in ask.digests:
        digest = parse_digest(text)
        if work.services.blobs.size(digest) is None:
            raise NotFound(
                "blob.not_found", f"No bytes are stored under {digest}.", hint="Put them first."
            )
    return KeptBlobs(count=len(ask.digests))
