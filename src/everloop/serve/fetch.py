"""Fetches a bundle from object storage, where a platform names an address instead of a folder.

Vertex AI copies a model's files into a bucket of its own and says so in ``AIP_STORAGE_URI``. What
is fetched is trusted no more than what is mounted: it must be sealed like any bundle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from everloop.core.errors import InvalidInput, LimitExceeded, MissingExtra, Unavailable
from everloop.serve.bundle import DESCRIPTION

LARGEST_BYTES: Final = 16 << 30
MOST_FILES: Final = 10_000
PIECE_BYTES: Final = 8 << 20


def fetch_bundles(address: str, folder: Path) -> Path:
    """Copy everything under an address into a folder, and return the folder.

    Args:
        address: Such as ``gs://bucket/path``; ``s3://``, ``az://``, ``https://`` and ``file://``
            work too. Credentials come from the platform's usual variables and metadata server.
        folder: Made if need be.

    Raises:
        InvalidInput: ``serving.address_invalid``, or ``serving.model_missing`` when there is no
            bundle at the address.
        LimitExceeded: ``serving.too_large``.
        Unavailable: ``serving.storage`` when the storage does not answer or does not let us in.
        MissingExtra: obstore is not installed.
    """
    try:
        import obstore
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as missing:
        raise MissingExtra(
            "extra.missing",
            "Fetching a model needs the library obstore, which is not installed.",
            hint='Install it with: pip install "everloop[s3]"',
        ) from missing
    try:
        store: Any = from_url(address)
    except (ValueError, BaseError) as error:
        raise InvalidInput(
            "serving.address_invalid",
            f"{address[:200]!r} is no address of a model: {error}.",
            hint="Write it as gs://bucket/path or s3://bucket/path.",
        ) from error
    try:
        entries = [entry for page in obstore.list(store) for entry in page]
        _require_bundle(address, entries)
        for entry in entries:
            place = _confined(folder, entry["path"])
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as file:
                for piece in obstore.get(store, entry["path"]).stream(min_chunk_size=PIECE_BYTES):
                    file.write(piece)
    except BaseError as error:
        raise Unavailable(
            "serving.storage",
            f"{address[:200]!r} could not be fetched: {str(error)[:300]}.",
            hint="Check the address and what the service account may read.",
        ) from error
    return folder


def _require_bundle(address: str, entries: list[Any]) -> None:
    names = [entry["path"].rpartition("/")[2] for entry in entries]
    if DESCRIPTION not in names:
        raise InvalidInput(
            "serving.model_missing",
            f"There is no sealed bundle at {address[:200]!r}.",
            hint="`everloop export bundle` writes one; upload the folder.",
        )
    size = sum(entry["size"] for entry in entries)
    if size > LARGEST_BYTES or len(entries) > MOST_FILES:
        raise LimitExceeded(
            "serving.too_large",
            f"There are {len(entries):,} files of {size:,} bytes at {address[:200]!r}.",
            hint="Name the folder of one bundle.",
        )


def _confined(folder: Path, name: str) -> Path:
    place = folder / name
    if name.startswith("/") or ".." in name.split("/"):
        raise InvalidInput(
            "serving.address_invalid",
            f"The name {name[:80]!r} leads out of the folder.",
            hint="Upload the folder that `everloop export bundle` wrote.",
        )
    return place
