"""The verifier of devices says what RFC 8032 says, and what the library says of anything else."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from everloop.edge.device.ed25519 import is_signed, is_signed_slowly

# RFC 8032, section 7.1: public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970"
        "1cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613"
        "d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760"
        "984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_the_vectors_of_the_standard_hold(key: str, message: str, signature: str) -> None:
    given = bytes.fromhex(key), bytes.fromhex(signature), bytes.fromhex(message)

    assert is_signed_slowly(*given)
    assert is_signed(*given)


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_one_bit_off_does_not_hold(key: str, message: str, signature: str) -> None:
    public, signed, data = bytes.fromhex(key), bytes.fromhex(signature), bytes.fromhex(message)

    assert not is_signed_slowly(public, signed, data + b"x")
    for place in (0, 31, 32, 63):
        changed = bytearray(signed)
        changed[place] ^= 1
        assert not is_signed_slowly(public, bytes(changed), data)


def test_a_signature_has_one_form_only() -> None:
    key, message, signature = (bytes.fromhex(part) for part in VECTORS[1])
    scalar = int.from_bytes(signature[32:], "little") + ORDER

    assert not is_signed_slowly(key, signature[:32] + scalar.to_bytes(32, "little"), message)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_key_of_a_wrong_length_signs_nothing(length: int) -> None:
    assert not is_signed_slowly(bytes(length), bytes(64), b"")
    assert not is_signed_slowly(bytes(32), bytes(length if length != 64 else 63), b"")


def test_both_forms_agree_about_fresh_keys() -> None:
    for size in (0, 1, 200):
        key, data = Ed25519PrivateKey.generate(), os.urandom(size)
        public, signature = key.public_key().public_bytes_raw(), key.sign(data)

        assert is_signed_slowly(public, signature, data)
        assert not is_signed_slowly(os.urandom(32), signature, data)
