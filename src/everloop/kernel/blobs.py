"""Permission to put and get bytes; the bytes themselves go past the verbs, under their digest."""

from __future__ import annotations

from typing import Annotated

import msgspec

from everloop.core.digest import parse_digest
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query

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
