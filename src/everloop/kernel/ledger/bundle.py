"""Writing an export bundle: the ledger and the records it explains, as plain files.

A bundle is a folder (or its zip) that stands alone: it carries its own verifier and says how to
use it. The writer takes what storage holds and judges nothing, because it also feeds the
verification of a store that may have been tampered with.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from everloop.core.errors import Conflict
from everloop.kernel.ledger.verify_standalone import FORMAT, SEPARATOR

VERIFIER_NAME: Final = "verify.py"
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)

_README: Final = """\
Everloop ledger bundle
======================
log      {origin}
entries  {size}
created  {created}

To verify it (Python 3.10 or newer, `pip install cryptography`):

    python verify.py . --vkey '{vkey}' --anchor FILE

Take verify.py and the key from a source other than this bundle: whoever can forge the one can
forge the others. The SHA-256 of the verify.py written here is
    {verifier}
FILE is a checkpoint that was kept outside the operator's power: in an exported card, by an
approver, by a witness, in a repository elsewhere. Without it, entries cut off the end are not
seen. The exit code is 0 when everything verifies, 1 when tampering was found (the entry is
named), 2 when the bundle cannot be read.

Files
-----
manifest.json      format, log, size, key, counts
entries.jsonl      one entry a line; "body" is the exact text that is hashed
payloads.jsonl     what each entry's salted digest covers; an erased one says so
checkpoint.txt     the signed head of the log (C2SP tlog-checkpoint in a signed note)
checkpoints.txt    the earlier heads, separated by lines of eight hyphens
consistency.json   RFC 9162 proofs between successive heads
leaves.txt         the stored leaf hashes, to say which entry was changed
records.jsonl      the current records, whose digests the log holds; a field
                   at its declared default is left out of the text
verify.py          the verifier: one file, standard library and `cryptography`

What it does not prove
----------------------
- A log proves what was written, not that it is true.
- Entries after the newest anchor can be dropped or rewritten by an operator who holds the key.
- Truncation is detected only against an anchor.
- An erased payload (salt and text deleted, as data protection law may ask) leaves its entry
  provable, and what it said unprovable.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """What the bundle says of the log itself.

    Attributes:
        origin: The log's name.
        vkey: Verifier key of the newest checkpoint.
        created: When the bundle was made, RFC 3339.
        size: Number of entries under the newest checkpoint.
        checkpoint: The newest checkpoint, as a signed note.
        earlier: Earlier checkpoints as signed notes, oldest first.
        earlier_vkeys: Keys that signed earlier checkpoints before a rotation.
    """

    origin: str
    vkey: str
    created: str
    size: int
    checkpoint: str
    earlier: Sequence[str] = ()
    earlier_vkeys: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ExportedEntry:
    """One ledger entry: its stored number and the exact canonical text of its body."""

    idx: int
    body: str


@dataclass(frozen=True, slots=True)
class ExportedPayload:
    """One payload row; salt (hex) and text are None after an erasure."""

    idx: int
    salt: str | None
    text: str | None


@dataclass(frozen=True, slots=True)
class ExportedRecord:
    """One current domain row and the canonical JSON whose digest the ledger holds."""

    kind: str
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class ExportedProof:
    """A consistency proof between two checkpoint sizes."""

    old: int
    new: int
    hashes: Sequence[bytes]


def write_bundle(
    folder: Path,
    *,
    head: LogHead,
    entries: Iterable[ExportedEntry],
    payloads: Iterable[ExportedPayload],
    records: Iterable[ExportedRecord],
    proofs: Iterable[ExportedProof] = (),
    leaves: Iterable[bytes] | None = None,
) -> Path:
    """Write the bundle into a new or empty folder, streaming, and return the folder.

    Args:
        folder: Where to write; made when missing.
        head: The log's name, key and checkpoints.
        entries: In the order of their numbers.
        payloads: In the order of their numbers.
        records: All rows that the ledger covers, in any order.
        proofs: Between each two successive checkpoints, the newest included.
        leaves: The stored level-0 tree nodes in order; with them a changed entry can be named.

    Raises:
        Conflict: ``ledger.bundle_exists`` when the folder has something in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Conflict(
            "ledger.bundle_exists",
            f"The folder {folder.name!r} is not empty.",
            hint="Export into a new folder.",
        )
    verifier = verifier_source()
    counts = {
        "entries": _write_lines(
            folder / "entries.jsonl", ({"idx": entry.idx, "body": entry.body} for entry in entries)
        ),
        "payloads": _write_lines(folder / "payloads.jsonl", map(_payload_row, payloads)),
        "records": _write_lines(
            folder / "records.jsonl",
            ({"kind": row.kind, "key": row.key, "text": row.text} for row in records),
        ),
        "checkpoints": len(head.earlier) + 1,
    }
    if leaves is not None:
        _write_leaves(folder / "leaves.txt", leaves)
    _write_text(folder / "checkpoint.txt", head.checkpoint)
    _write_text(folder / "checkpoints.txt", f"{SEPARATOR}\n".join(head.earlier))
    rows = [
        {"old": proof.old, "new": proof.new, "hashes": [node.hex() for node in proof.hashes]}
        for proof in proofs
    ]
    _write_text(folder / "consistency.json", json.dumps({"proofs": rows}, indent=1) + "\n")
    (folder / VERIFIER_NAME).write_bytes(verifier)
    digest = hashlib.sha256(verifier).hexdigest()
    _write_manifest(folder, head, counts, digest)
    _write_text(
        folder / "README.txt",
        _README.format(
            origin=head.origin,
            size=head.size,
            created=head.created,
            vkey=head.vkey,
            verifier=digest,
        ),
    )
    return folder


def zip_bundle(folder: Path, target: Path) -> Path:
    """Write the bundle's files into one zip, the same bytes for the same bundle each time.

    Raises:
        Conflict: ``ledger.bundle_exists`` when the target is there already.
    """
    try:
        with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for path in sorted(path for path in folder.iterdir() if path.is_file()):
                member = zipfile.ZipInfo(path.name, _ZIP_TIME)
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = 0o644 << 16
                with path.open("rb") as source, archive.open(member, "w", force_zip64=True) as sink:
                    while block := source.read(1 << 20):
                        sink.write(block)
    except FileExistsError as error:
        raise Conflict(
            "ledger.bundle_exists",
            f"{target.name!r} exists already.",
            hint="Give another name or remove the old file.",
        ) from error
    return target


def verifier_source() -> bytes:
    """Return the stand-alone verifier as it is copied into each bundle."""
    return resources.files(__package__).joinpath("verify_standalone.py").read_bytes()


def _payload_row(row: ExportedPayload) -> dict[str, object]:
    if row.salt is None and row.text is None:
        return {"idx": row.idx, "erased": True}
    return {"idx": row.idx, "salt": row.salt, "payload": row.text}


def _write_manifest(
    folder: Path, head: LogHead, counts: dict[str, int], verifier_digest: str
) -> None:
    manifest = {
        "format": FORMAT,
        "origin": head.origin,
        "size": head.size,
        "created": head.created,
        "vkey": head.vkey,
        "earlier_vkeys": list(head.earlier_vkeys),
        "counts": counts,
        "verifier": f"sha256:{verifier_digest}",
    }
    _write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def _write_lines(path: Path, rows: Iterable[dict[str, object]]) -> int:
    # ASCII escapes carry any text, also one that a tampered store holds and UTF-8 cannot.
    encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
    count = 0
    with path.open("w", encoding="ascii", newline="\n", buffering=1 << 20) as stream:
        for row in rows:
            stream.write(encode(row) + "\n")
            count += 1
    return count


def _write_leaves(path: Path, leaves: Iterable[bytes]) -> None:
    with path.open("w", encoding="ascii", newline="\n", buffering=1 << 20) as stream:
        stream.writelines(leaf.hex() + "\n" for leaf in leaves)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
