"""Digests that say their algorithm: ``blake3:<hex>`` for content, ``sha256:<hex>`` for trust."""

from __future__ import annotations

import hashlib
import re
from typing import Final, NewType

from blake3 import blake3

from everloop.core.canonical import canonical_json
from everloop.core.errors import InvalidInput

Digest = NewType("Digest", str)

CONTENT: Final = "blake3:"
"""What the name of stored bytes begins with."""

_NAMED: Final = re.compile(CONTENT + "[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"(?:blake3|sha256):[0-9a-f]{64}")


def content_digest(data: bytes) -> Digest:
    """Return the BLAKE3 digest under which the bytes are stored."""
    return Digest("blake3:" + blake3(data).hexdigest())


def sha256_digest(data: bytes) -> Digest:
    """Return the SHA-256 digest used by the ledger and by signatures."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def value_digest(tag: str, value: object) -> Digest:
    """Return the BLAKE3 digest of a value's canonical form, behind a tag.

    The tag keeps values of different kinds apart even when their JSON is the same.

    Raises:
        InvalidInput: the value has no canonical form.
    """
    return Digest("blake3:" + blake3(tag.encode() + b"\x00" + canonical_json(value)).hexdigest())


def record_digest(canonical: bytes) -> Digest:
    """Return the SHA-256 digest of a record's canonical bytes, as the ledger names it."""
    return sha256_digest(canonical)


def digests_in(text: str) -> list[Digest]:
    """Return every content digest that a text names, wherever it stands in it."""
    return [Digest(found) for found in _NAMED.findall(text)]


def parse_digest(text: str) -> Digest:
    """Return the text as a digest.

    Raises:
        InvalidInput: ``digest.invalid``.
    """
    if _DIGEST.fullmatch(text) is None:
        raise InvalidInput(
            "digest.invalid",
            f"{text[:80]!r} is not a digest.",
            hint="A digest is 'blake3:' or 'sha256:' and 64 lower-case hex digits.",
        )
    return Digest(text)


def require_digest(found: Digest, expected: Digest | None) -> Digest:
    """Return the digest of what came if it is the expected one.

    Raises:
        InvalidInput: ``blob.wrong_digest``.
    """
    if expected is not None and found != expected:
        raise InvalidInput(
            "blob.wrong_digest",
            f"The bytes sent have the digest {found}.",
            hint="Send the bytes that the address names.",
        )
    return found
