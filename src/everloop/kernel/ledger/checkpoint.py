"""Signed checkpoints of the ledger, in the format that outside witnesses already read.

A checkpoint names the log, its size and its Merkle root (C2SP ``tlog-checkpoint``,
https://c2sp.org/tlog-checkpoint); it travels as a signed note with Ed25519 signatures (C2SP
``signed-note``, https://c2sp.org/signed-note). This module never sees a private key: the signer
comes in as a function from bytes to a signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from everloop.core.errors import IntegrityError, InvalidInput
from everloop.kernel.signing import is_signed

Sign: TypeAlias = Callable[[bytes], bytes]
"""Returns the 64-byte Ed25519 signature over the bytes."""

_ED25519: Final = b"\x01"
_KEY_BYTES: Final = 32
_ROOT_BYTES: Final = 32
_MAX_NOTE_CHARS: Final = 1_000_000
_MAX_SIGNATURES: Final = 100
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_KEY_NAME: Final = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")
_ORIGIN: Final = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
_SIGNATURE_LINE: Final = re.compile(r"— (\S+) ([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: its name, how many entries it has, and their Merkle root.

    Attributes:
        origin: The log's name; one line, unique to the log.
        size: Number of entries.
        root: RFC 6962 root hash over them, 32 bytes.
    """

    origin: str
    size: int
    root: bytes


class _Key(NamedTuple):
    name: str
    key_hash: bytes
    public_key: bytes


def render(checkpoint: Checkpoint) -> str:
    """Return the text that is signed: origin, size and root, one line each.

    Raises:
        InvalidInput: ``ledger.checkpoint_invalid`` when a field does not fit its line.
    """
    if _ORIGIN.fullmatch(checkpoint.origin) is None:
        raise _invalid(f"{checkpoint.origin[:80]!r} cannot name a log")
    if checkpoint.size < 0 or len(checkpoint.root) != _ROOT_BYTES:
        raise _invalid(f"size {checkpoint.size} or a root of {len(checkpoint.root)} bytes")
    root = base64.b64encode(checkpoint.root).decode("ascii")
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n"


def parse(text: str) -> Checkpoint:
    """Return the checkpoint in a note's text; extension lines after the root are left alone.

    Raises:
        IntegrityError: ``ledger.checkpoint_malformed``.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "":
        raise _malformed("it has fewer than three lines or no newline at its end")
    origin, size, encoded = lines[:3]
    if _ORIGIN.fullmatch(origin) is None:
        raise _malformed("its first line names no log")
    if _SIZE.fullmatch(size) is None:
        raise _malformed("its second line is no decimal size")
    root = _decode(encoded)
    if root is None or len(root) != _ROOT_BYTES:
        raise _malformed("its third line is no base64 SHA-256 root")
    return Checkpoint(origin=origin, size=int(size), root=root)


def verifier_key(name: str, public_key: bytes) -> str:
    """Return the key in its published form, ``name+hash+base64``, from the raw 32 bytes.

    Raises:
        InvalidInput: ``ledger.key_invalid``.
    """
    _require_key(name, public_key)
    encoded = base64.b64encode(_ED25519 + public_key).decode("ascii")
    return f"{name}+{_key_hash(name, public_key).hex()}+{encoded}"


def sign_note(text: str, name: str, sign: Sign, public_key: bytes) -> str:
    """Return the text as a signed note; the signature is checked before it is handed out.

    Raises:
        InvalidInput: the name, the key or the text cannot stand in a note.
        IntegrityError: ``ledger.signer_mismatch`` when ``sign`` belongs to another key.
    """
    _require_key(name, public_key)
    if not text.endswith("\n"):
        raise _invalid("a signed text must end with a newline")
    data = text.encode()
    signature = sign(data)
    if not is_signed(public_key, signature, data):
        raise IntegrityError(
            "ledger.signer_mismatch",
            f"The signer did not sign with the key {name!r}.",
            hint="Give the public key that belongs to the signer, or repair the signer.",
            context={"key": name},
        )
    token = base64.b64encode(_key_hash(name, public_key) + signature).decode("ascii")
    return f"{text}\n— {name} {token}\n"


def open_note(note: str, vkey: str) -> str:
    """Return the text of a note that the key has signed; other signatures are left alone.

    Raises:
        InvalidInput: ``ledger.key_invalid`` when ``vkey`` is no Ed25519 verifier key.
        IntegrityError: ``ledger.note_malformed``, ``ledger.note_not_signed`` (no signature by
            this key) or ``ledger.signature_invalid``.
    """
    key = _parse_vkey(vkey)
    text, signatures = _split_note(note)
    mine = [
        payload[4:]
        for name, payload in signatures
        if (name, payload[:4]) == (key.name, key.key_hash)
    ]
    if not mine:
        raise IntegrityError(
            "ledger.note_not_signed",
            f"The note carries no signature by the key {key.name!r} ({key.key_hash.hex()}).",
            hint="Use the verifier key of the log that made the note; compare it with your copy.",
            context={"key": key.name, "signers": [name for name, _ in signatures]},
        )
    if not all(is_signed(key.public_key, signature, text.encode()) for signature in mine):
        raise IntegrityError(
            "ledger.signature_invalid",
            f"The signature by the key {key.name!r} does not fit the note's text.",
            hint="The note was changed after signing: keep it, and find who had it last.",
            context={"key": key.name},
        )
    return text


def sign_checkpoint(checkpoint: Checkpoint, signer_name: str, sign: Sign, public_key: bytes) -> str:
    """Return the checkpoint as a signed note.

    Raises:
        InvalidInput: a field, the name or the key cannot stand in a note.
        IntegrityError: ``ledger.signer_mismatch`` when ``sign`` belongs to another key.
    """
    return sign_note(render(checkpoint), signer_name, sign, public_key)


def open_checkpoint(note: str, vkey: str) -> Checkpoint:
    """Return the checkpoint in a note that the key has signed.

    Raises:
        InvalidInput: ``ledger.key_invalid``.
        IntegrityError: the note is malformed, unsigned, badly signed or holds no checkpoint.
    """
    return parse(open_note(note, vkey))


def _split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    if len(note) > _MAX_NOTE_CHARS:
        raise _note_malformed("it is longer than a million characters")
    try:
        note.encode()
    except UnicodeEncodeError:
        raise _note_malformed("it is not UTF-8") from None
    head, blank, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    if not blank or lines[-1] != "" or len(lines) < 2:
        raise _note_malformed("it has no signatures after a blank line")
    if len(lines) - 1 > _MAX_SIGNATURES:
        raise _note_malformed(f"it has more than {_MAX_SIGNATURES} signatures")
    return head + "\n", [_parse_signature(line) for line in lines[:-1]]


def _parse_signature(line: str) -> tuple[str, bytes]:
    match = _SIGNATURE_LINE.fullmatch(line)
    payload = _decode(match[2]) if match else None
    if match is None or payload is None or len(payload) < 5:
        raise _note_malformed("a signature line is not '— name base64'")
    return match[1], payload


def _parse_vkey(vkey: str) -> _Key:
    # The base64 part may hold '+', the name and the hash cannot.
    name, _, rest = vkey.partition("+")
    key_hash, _, encoded = rest.partition("+")
    data = _decode(encoded)
    if data is None or data[:1] != _ED25519:
        raise _key_invalid(f"{vkey[:120]!r} is no Ed25519 verifier key")
    _require_key(name, data[1:])
    if _key_hash(name, data[1:]).hex() != key_hash:
        raise _key_invalid(f"the hash in the verifier key {name!r} does not fit the key")
    return _Key(name, bytes.fromhex(key_hash), data[1:])


def _require_key(name: str, public_key: bytes) -> None:
    if _KEY_NAME.fullmatch(name) is None:
        raise _key_invalid(f"{name[:80]!r} cannot name a key")
    if len(public_key) != _KEY_BYTES:
        raise _key_invalid(f"the public key has {len(public_key)} bytes, not {_KEY_BYTES}")


def _key_hash(name: str, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]


def _decode(encoded: str) -> bytes | None:
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    # One spelling only: spare padding or stray low bits would make two notes of one signature.
    return data if base64.b64encode(data).decode("ascii") == encoded else None


def _invalid(problem: str) -> InvalidInput:
    return InvalidInput(
        "ledger.checkpoint_invalid",
        f"No checkpoint can be made: {problem}.",
        hint="A checkpoint is a one-line origin, a size of 0 or more and a 32-byte root.",
    )


def _malformed(problem: str) -> IntegrityError:
    return IntegrityError(
        "ledger.checkpoint_malformed",
        f"The text is no checkpoint: {problem}.",
        hint="Give the checkpoint exactly as it was published, with all its lines.",
    )


def _note_malformed(problem: str) -> IntegrityError:
    return IntegrityError(
        "ledger.note_malformed",
        f"The text is no signed note: {problem}.",
        hint="Give the note exactly as it was published, with its blank line and signatures.",
    )


def _key_invalid(problem: str) -> InvalidInput:
    return InvalidInput(
        "ledger.key_invalid",
        f"The key cannot be used: {problem}.",
        hint="A verifier key looks like 'name+0123abcd+AbC...=', with an Ed25519 key.",
    )
