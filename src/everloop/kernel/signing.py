"""Ed25519 signatures (RFC 8032) behind the Signer port."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class Ed25519Signer:
    """A signer over 32 private bytes that it keeps to itself."""

    def __init__(self, name: str, private_bytes: bytes) -> None:
        self._name = name
        self._key = Ed25519PrivateKey.from_private_bytes(private_bytes)

    @property
    def name(self) -> str:
        """Key name."""
        return self._name

    @property
    def public_key(self) -> bytes:
        """The 32 raw bytes of the public key."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature."""
        return self._key.sign(data)


def is_signed(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Tell whether the signature over the data is by the holder of the key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
