"""Stores manifests as blobs and reads them back, checked against the root they must have."""

from __future__ import annotations

import msgspec

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest
from everloop.core.errors import IntegrityError, InvalidInput, NotFound
from everloop.core.manifest import FileEntry, Manifest, make_manifest, manifest_root
from everloop.core.ports import BlobStore


def store_manifest(blobs: BlobStore, manifest: Manifest) -> Digest:
    """Store a manifest's canonical JSON and return its digest."""
    return blobs.put(canonical_json(manifest))


def load_manifest(blobs: BlobStore, digest: Digest, root: Digest) -> Manifest:
    """Read a manifest and verify that its Merkle root is the one recorded.

    Raises:
        NotFound: ``blob.not_found``.
        IntegrityError: ``data.manifest_mismatch``.
    """
    try:
        stored = msgspec.json.decode(blobs.get(digest), type=Manifest)
        manifest = make_manifest(stored.files)
    except (msgspec.DecodeError, InvalidInput) as error:
        raise _mismatch(root, str(error)) from error
    if manifest_root(manifest) != root:
        raise _mismatch(root, "the files give another root")
    return manifest


def require_files(blobs: BlobStore, files: tuple[FileEntry, ...]) -> None:
    """Let pass only files whose bytes are stored with the stated size.

    Raises:
        NotFound: ``blob.not_found`` for bytes that were never uploaded.
        InvalidInput: ``file.size_mismatch``.
    """
    for entry in files:
        size = blobs.size(entry.digest)
        if size is None:
            raise NotFound(
                "blob.not_found",
                f"The bytes of {entry.path[:80]!r} are not stored.",
                hint="Upload the file's bytes first, then name its digest.",
            )
        if size != entry.size_bytes:
            raise InvalidInput(
                "file.size_mismatch",
                f"{entry.path[:80]!r} has {size} bytes, not {entry.size_bytes}.",
                hint="State the size of the bytes that were uploaded.",
            )


def _mismatch(root: Digest, why: str) -> IntegrityError:
    return IntegrityError(
        "data.manifest_mismatch",
        f"The stored manifest does not belong to the version with root {root}: {why[:200]}.",
        hint="Restore the blob store from a backup and run `everloop audit verify`.",
    )
