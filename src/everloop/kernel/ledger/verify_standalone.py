#!/usr/bin/env python3
"""Verify an exported ledger bundle: python verify.py BUNDLE [--vkey KEY] [--anchor FILE] [--json].

This one file is the whole verifier. It needs Python 3.10 or newer and the `cryptography` package
and imports nothing of the product, so that an auditor can read it in one sitting and run it on a
machine that has never seen the product. It is one file on purpose, whatever its length.

What it checks, naming the entry at fault: every entry's form and number; the RFC 6962 Merkle root
against the signed checkpoint; every earlier checkpoint and every anchor as a prefix of the log;
the consistency proofs; every payload against its salted digest; and the current records against
the last digest that the log holds for each.

Exit codes: 0 everything verifies, 1 tampering found, 2 the input cannot be used.
"""

from __future__ import annotations

import abc
import argparse
import base64
import binascii
import contextlib
import hashlib
import json
import lzma
import re
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "everloop-ledger-bundle/1"
SEPARATOR = "--------"
MAX_LINE_BYTES = 64 << 20
MAX_FILE_BYTES = 256 << 20
NAMED_PER_CODE = 20
REQUIRED = frozenset(
    {"v", "idx", "ts", "actor", "on_behalf_of", "action", "resource", "outcome", "reason_code",
     "refs", "payload_digest", "request_id", "policy_id", "project"}
)  # fmt: skip
OUTCOMES = {"ok": 1, "denied": 2, "failed": 3}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SIZE = re.compile(r"0|[1-9][0-9]{0,17}")
ENTRY_REF = re.compile(r"(?:entry|ledger|ledger_entry):0*([0-9]{1,18})")
SIGNATURE_LINE = re.compile(r"— (\S+) ([A-Za-z0-9+/]+={0,2})")
NO_HASH = bytes(32)


class UnusableBundle(Exception):
    """The input is no bundle that can be verified; the text says why."""


@dataclass(frozen=True)
class Finding:
    """One thing that does not verify; `index` is the entry and `record` the row at fault."""

    code: str
    message: str
    index: int | None = None
    record: str | None = None


@dataclass
class Report:
    """The outcome of a verification; `findings` is empty exactly when nothing was tampered with.

    At most 20 findings of each code are named; `totals` has the full number of each.
    """

    origin: str = ""
    size: int = 0
    root: str = ""
    key_source: str = "manifest"
    findings: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    figures: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no tampering was found."""
        return not self.findings

    @property
    def exit_code(self) -> int:
        """0 when everything verifies, else 1."""
        return 0 if self.ok else 1

    @property
    def first_bad_entry(self) -> int | None:
        """The lowest entry at fault; for a log in order, the entry of the lowest bad record."""
        in_log = [f.index for f in self.findings if f.index is not None and f.record is None]
        of_records = [f.index for f in self.findings if f.index is not None]
        return min(in_log or of_records, default=None)

    def bad(
        self, code: str, message: str, index: int | None = None, record: str | None = None
    ) -> None:
        """Note a finding."""
        self._note(self.findings, Finding(code, message, index, record))

    def warn(self, code: str, message: str, index: int | None = None) -> None:
        """Note something an auditor should know, which is no proof of tampering."""
        self._note(self.warnings, Finding(code, message, index))

    def _note(self, notes: list[Finding], finding: Finding) -> None:
        self.totals[finding.code] = self.totals.get(finding.code, 0) + 1
        if self.totals[finding.code] <= NAMED_PER_CODE:
            notes.append(finding)

    def to_json(self) -> str:
        """Return the report as JSON."""
        first = {"ok": self.ok, "first_bad_entry": self.first_bad_entry}
        return json.dumps({**first, **asdict(self)}, indent=1)

    def to_text(self) -> str:
        """Return the report for people."""
        lines = [f"log {_show(self.origin)}, {self.size} entries, root {self.root}"]
        lines += [f"  {name.replace('_', ' ')}: {n}" for name, n in self.figures.items()]
        for title, notes in (("warning", self.warnings), ("TAMPERED", self.findings)):
            lines += [f"{title} [{note.code}] {note.message}" for note in notes]
        for code, total in self.totals.items():
            if total > NAMED_PER_CODE:
                lines.append(f"  ... {total - NAMED_PER_CODE} more [{code}]")
        first = self.first_bad_entry
        where = "" if first is None else f" The first entry at fault is {first}."
        lines.append("OK: everything verifies." if self.ok else f"TAMPERING FOUND.{where}")
        return "\n".join(lines) + "\n"


class Key(NamedTuple):
    """An Ed25519 verifier key of a signed note."""

    name: str
    key_hash: bytes
    public_key: bytes


class Head(NamedTuple):
    """A checkpoint: the log's name, size and root."""

    origin: str
    size: int
    root: bytes


class LastWrite(NamedTuple):
    """The last change that the log holds for one record."""

    entry: int
    op: str
    digest: str | None


# --- the way in ---------------------------------------------------------------------------------


def verify_bundle(
    path: str | Path,
    vkey: str | Sequence[str] | None = None,
    anchor: str | Path | None = None,
) -> Report:
    """Verify the bundle in a folder or zip file and return what was found.

    Args:
        path: The folder or the `.zip`.
        vkey: The log's verifier key (or several, after a rotation) from a source outside the
            bundle. Without it the bundle's own key is used, which proves less.
        anchor: A file with one or more checkpoints that were kept outside the operator's power.

    Raises:
        UnusableBundle: the input is no bundle, or a given key or anchor cannot be read.
    """
    try:
        with contextlib.closing(_open_source(Path(path))) as source:
            return _Verification(source, vkey, anchor).run()
    except (
        OSError, EOFError, MemoryError, NotImplementedError, RuntimeError, ValueError,
        lzma.LZMAError, struct.error, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise UnusableBundle(f"cannot read {_show(str(path))}: {_show(str(error))}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="verify.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("bundle", help="the exported folder or .zip")
    parser.add_argument("--vkey", action="append", help="the log's key, from outside the bundle")
    parser.add_argument("--anchor", help="file with checkpoints kept outside the operator's power")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    try:
        report = verify_bundle(options.bundle, options.vkey, options.anchor)
    except UnusableBundle as error:
        if options.json:
            sys.stdout.write(json.dumps({"ok": False, "unusable": str(error)}) + "\n")
        sys.stderr.write(f"UNUSABLE: {error}\n")
        return 2
    sys.stdout.write(report.to_json() + "\n" if options.json else report.to_text())
    return report.exit_code


class _Verification:
    """One pass over one bundle."""

    def __init__(
        self,
        source: _Source,
        vkey: str | Sequence[str] | None,
        anchor: str | Path | None,
    ) -> None:
        self.source = source
        self.report = Report()
        self.manifest = _read_manifest(source)
        self.keys, self.old_keys = self._choose_keys([vkey] if isinstance(vkey, str) else vkey)
        self.anchor = anchor
        self.entries = _Entries()
        self.last_writes: dict[tuple[str, str], LastWrite] = {}
        self.erased: list[int] = []

    def run(self) -> Report:
        """Do all checks, from the entries outwards."""
        self.entries.read(self.source, self.report)
        head = self._read_head()
        earlier = self._read_earlier()
        anchors = self._read_anchors()
        known = [*earlier, *anchors, *([head] if head else [])]
        roots = _prefix_roots(self.entries.hashes, {known_head.size for known_head in known})
        self._check_tree(head, known, roots)
        self._check_earlier(earlier, roots)
        self._check_anchors(anchors, roots, head)
        self._check_proofs([*earlier, *([head] if head else [])])
        self._check_payloads()
        self._check_records()
        self._check_counts()
        return self.report

    # --- keys and checkpoints -------------------------------------------------------------------

    def _choose_keys(self, given: Sequence[str] | None) -> tuple[list[Key], list[Key]]:
        earlier = self.manifest.get("earlier_vkeys")
        old = [_parse_vkey(text) for text in earlier] if isinstance(earlier, list) else []
        old_keys = [key for key in old if key]
        if given:
            self.report.key_source = "given"
            keys = [_parse_vkey(text) for text in given]
            if None in keys:
                raise UnusableBundle("--vkey is no Ed25519 verifier key (name+hash+base64)")
            return [key for key in keys if key], old_keys
        self.report.warn(
            "key.from_bundle",
            "The key comes from the bundle itself: whoever rewrote the whole log could have put "
            "it there. Give the log's key, kept elsewhere, with --vkey.",
        )
        key = _parse_vkey(self.manifest.get("vkey"))
        if key is None:
            self.report.bad("manifest.vkey", "The manifest holds no Ed25519 verifier key.")
        return [key] if key else [], old_keys

    def _read_head(self) -> Head | None:
        note = self.source.read("checkpoint.txt")
        if note is None:
            raise UnusableBundle("checkpoint.txt is missing")
        head = self._open(note, "checkpoint", self.keys)
        if head is None:
            return None
        self.report.origin, self.report.size = _show(head.origin), head.size
        self.report.root = head.root.hex()
        if (self.manifest.get("origin"), self.manifest.get("size")) != (head.origin, head.size):
            self.report.bad("manifest.head", "The manifest names another log or size than the "
                            "checkpoint.")  # fmt: skip
        return head

    def _read_earlier(self) -> list[Head]:
        notes = _split_notes(self.source.read("checkpoints.txt") or b"")
        keys = [*self.keys, *self.old_keys]
        opened = [self._open(note, "earlier checkpoint", keys) for note in notes]
        self.report.figures["earlier_checkpoints"] = len(notes)
        return sorted((head for head in opened if head), key=lambda head: head.size)

    def _read_anchors(self) -> list[Head]:
        if self.anchor is None:
            self.report.warn(
                "anchor.none",
                "No anchor was given: entries dropped from the end, with a new checkpoint signed "
                "by the log's own key, cannot be seen. Give a checkpoint kept elsewhere.",
            )
            return []
        notes = _split_notes(_read_plain(Path(self.anchor)))
        heads = [self._open_anchor(note) for note in notes]
        if not heads:
            raise UnusableBundle("the anchor file holds no checkpoint")
        self.report.figures["anchors"] = len(heads)
        return heads

    def _open_anchor(self, note: bytes) -> Head:
        text = _decode_text(note)
        if "\n\n" in text:
            opened = _open_note(text, [*self.keys, *self.old_keys])
            if isinstance(opened, Head):
                return opened
            head = _parse_head(text.rpartition("\n\n")[0] + "\n")
            if head is not None:
                self.report.bad("anchor.other_key", "The anchor was not signed by the key used "
                                f"here ({opened}).")  # fmt: skip
        else:
            head = _parse_head(text if text.endswith("\n") else text + "\n")
        if head is None:
            raise UnusableBundle("the anchor file holds no readable checkpoint")
        return head

    def _open(self, note: bytes, what: str, keys: list[Key]) -> Head | None:
        opened = _open_note(_decode_text(note), keys)
        if isinstance(opened, Head):
            return opened
        self.report.bad("checkpoint.invalid", f"The {what} does not verify: {opened}.")
        # An unproven head still helps to say which entries it disagrees with.
        return _parse_head(_decode_text(note).rpartition("\n\n")[0] + "\n")

    # --- the tree -------------------------------------------------------------------------------

    def _check_tree(self, head: Head | None, known: list[Head], roots: dict[int, bytes]) -> None:
        leaves = _read_leaves(self.source)
        if head is None:
            return
        count = self.entries.count
        if roots.get(head.size) == head.root and count == head.size:
            self._check_stored_leaves(leaves)
            self.entries.report_misnumbered(self.report)
            return
        self.report.bad(
            "root.mismatch",
            f"The {count} entries do not give the checkpoint's root over {head.size}.",
        )
        if leaves is not None:
            proven = _proven_prefix(leaves, known)
            if proven == head.size:
                _Comparison(self.entries, leaves, proven, self.report).run()
                return
            self.report.bad(
                "leaves.unproven",
                f"The stored leaf hashes do not give the checkpoint's root either; only the "
                f"first {proven} of them are proven.",
            )
        _narrow_down(self.entries, leaves, (head, known, roots), self.report)

    def _check_stored_leaves(self, leaves: bytes | None) -> None:
        hashes = self.entries.hashes
        if leaves is None or leaves == hashes:
            return
        index = _first_difference(leaves, hashes)
        self.report.bad(
            "leaves.differ",
            f"The stored leaf hash of entry {index} is not the hash of its body; the signed root "
            "fits the body, so the tree's table was changed.",
            index,
        )

    def _check_earlier(self, earlier: list[Head], roots: dict[int, bytes]) -> None:
        for head in earlier:
            if roots.get(head.size) != head.root:
                self.report.bad(
                    "checkpoint.not_a_prefix",
                    f"The earlier checkpoint over {head.size} entries does not fit the log: an "
                    f"entry below {head.size} was changed, or entries are gone.",
                )

    def _check_anchors(
        self, anchors: list[Head], roots: dict[int, bytes], head: Head | None
    ) -> None:
        count = self.entries.count
        for anchor in anchors:
            if head is not None and anchor.origin != head.origin:
                self.report.bad("anchor.other_log", f"The anchor is of the log "
                                f"{_show(anchor.origin)}.")  # fmt: skip
            elif anchor.size > count:
                self.report.bad(
                    "anchor.truncated",
                    f"The anchor proves {anchor.size} entries and the bundle has {count}: entries "
                    f"{count} to {anchor.size - 1} were cut off.",
                    count,
                )
            elif roots.get(anchor.size) != anchor.root:
                fits = [a.size for a in anchors if roots.get(a.size) == a.root]
                low = max((size for size in fits if size < anchor.size), default=0)
                self.report.bad(
                    "anchor.mismatch",
                    f"The log was rewritten: an entry from {low} to {anchor.size - 1} is not what "
                    "it was when the anchor was made.",
                    low,
                )

    def _check_proofs(self, heads: list[Head]) -> None:
        proofs = _read_proofs(self.source)
        roots = {head.size: head.root for head in heads}
        sizes = sorted(roots)
        for old, new in pairwise(sizes):
            proof = proofs.get((old, new))
            if proof is None:
                self.report.warn("proof.missing", f"No consistency proof from {old} to {new}; "
                                 "the entries themselves were checked instead.")  # fmt: skip
            elif not verify_consistency(old, new, roots[old], roots[new], proof):
                self.report.bad(
                    "proof.invalid",
                    f"The consistency proof from {old} to {new} entries does not verify.",
                )

    # --- payloads -------------------------------------------------------------------------------

    def _check_payloads(self) -> None:
        seen = bytearray(self.entries.count)
        changes = with_changes = rows = 0
        for number, line in enumerate(self.source.lines("payloads.jsonl")):
            rows += 1
            row = _parse_line(line)
            index = row.get("idx") if row else None
            if row is None or type(index) is not int:
                self.report.bad("payload.unreadable", f"Line {number + 1} of payloads.jsonl is "
                                "no payload.", number)  # fmt: skip
                continue
            position = self.entries.position_of(index)
            if position is None:
                self.report.bad("payload.no_entry", f"There is a payload for entry {index}, which "
                                "the log does not have.", index)  # fmt: skip
                continue
            if seen[position]:
                self.report.bad("payload.duplicate", f"Entry {index} has a second payload.", index)
            seen[position] = 1
            n = self._check_payload(row, index, position)
            changes, with_changes = changes + n, with_changes + (n > 0)
        for position in _zeros(seen):
            index = self.entries.number_at(position)
            if self.entries.position_of(index) != position:
                continue  # A second entry of that number; it is named as inserted already.
            self.report.bad("payload.missing", f"The payload of entry {index} is gone and not "
                            "marked as erased.", index)  # fmt: skip
        self._warn_of_erasures()
        self.report.figures.update(
            payloads=rows, erased_payloads=len(self.erased), state_changes=changes,
            entries_with_state_changes=with_changes,
            entries_without_state_changes=self.entries.count - with_changes,
        )  # fmt: skip

    def _check_payload(self, row: dict[str, object], index: int, position: int) -> int:
        if row.get("erased") is True:
            self.erased.append(index)
            return 0
        salt, text = row.get("salt"), row.get("payload")
        digest = _salted_digest(salt, text)
        if digest is None:
            self._unreadable(index)
            return 0
        if digest != self.entries.payload_digest(position):
            self.report.bad("payload.changed", f"The payload of entry {index} is not the one that "
                            "was logged.", index)  # fmt: skip
        return self._replay(str(text), index, position)

    def _replay(self, text: str, index: int, position: int) -> int:
        payload = _decode_object(text, _LINE_DECODER)
        changes = payload.get("changes", []) if payload is not None else None
        if payload is None or not isinstance(changes, list):
            self._unreadable(index)
            return 0
        if changes and self.entries.outcomes[position] > OUTCOMES["ok"]:
            self.report.warn(
                "entry.refused_but_changed",
                f"Entry {index} was refused or failed, and yet it lists changes.",
                index,
            )
        self._apply(changes, index)
        return len(changes) + self._replay_restated(payload.get("restated", []), index)

    def _replay_restated(self, restated: object, index: int) -> int:
        """Replay the changes that an erasure carries over from the payload it erased."""
        count = 0
        for row in restated if isinstance(restated, list) else [None]:
            number = row.get("entry") if isinstance(row, dict) else None
            changes = row.get("changes") if isinstance(row, dict) else None
            if not isinstance(number, int) or number >= index or not isinstance(changes, list):
                self._unreadable(index)
                continue
            self.entries.erasures.add(number)
            self._apply(changes, number)
            count += len(changes)
        return count

    def _apply(self, changes: list[object], index: int) -> None:
        for change in changes:
            write = _parse_change(change, index)
            if write is None:
                self._unreadable(index)
                continue
            before = self.last_writes.get(write[0])
            if before is None or before.entry <= index:
                self.last_writes[write[0]] = write[1]

    def _unreadable(self, index: int) -> None:
        self.report.bad(
            "payload.unreadable", f"The payload of entry {index} is not in the log's form.", index
        )

    def _warn_of_erasures(self) -> None:
        for index in (n for n in self.erased if n not in self.entries.erasures):
            self.report.warn("payload.erased_unrecorded", f"The payload of entry {index} was "
                             "erased, and no later entry records the erasure.", index)  # fmt: skip

    # --- records --------------------------------------------------------------------------------

    def _check_records(self) -> None:
        seen: set[tuple[str, str]] = set()
        rows = proven = 0
        for number, line in enumerate(self.source.lines("records.jsonl")):
            rows += 1
            row = _parse_line(line) or {}
            kind, key, text = row.get("kind"), row.get("key"), row.get("text")
            if not (isinstance(kind, str) and isinstance(key, str) and isinstance(text, str)):
                self.report.bad("record.unreadable", f"Line {number + 1} of records.jsonl is no "
                                "record.")  # fmt: skip
                continue
            if (kind, key) in seen:
                name = _name_record(kind, key)
                self.report.bad("record.duplicate", f"Record {name} is there twice.", None, name)
            seen.add((kind, key))
            proven += self._check_record((kind, key), text)
        for record, last in self.last_writes.items():
            if record not in seen and last.op != "delete":
                self._blame("record.missing", record, last, "is gone without a logged deletion")
        self.report.figures.update(records=rows, records_proven_by_the_log=proven)

    def _check_record(self, record: tuple[str, str], text: str) -> int:
        last = self.last_writes.get(record)
        if last is None:
            self._blame("record.unlogged", record, last, "has no entry in the log")
        elif last.op == "delete":
            self._blame("record.not_deleted", record, last, "is there though the log deletes it")
        elif last.digest != _record_digest(text):
            self._blame("record.changed", record, last, "was changed outside the log")
        else:
            return 1
        return 0

    def _blame(
        self, code: str, record: tuple[str, str], last: LastWrite | None, problem: str
    ) -> None:
        name = _name_record(*record)
        index = last.entry if last else None
        by = "" if last is None else f"; entry {index} wrote it last"
        self.report.bad(code, f"Record {name} {problem}{by}.", index, name)

    def _check_counts(self) -> None:
        counts = self.manifest.get("counts")
        figures = self.report.figures
        found = {
            "entries": self.entries.count,
            "payloads": figures["payloads"],
            "records": figures["records"],
            "checkpoints": figures["earlier_checkpoints"] + 1,
        }
        figures["entries"] = self.entries.count
        for name, count in found.items():
            if not isinstance(counts, dict) or counts.get(name) != count:
                self.report.bad("manifest.counts", f"The manifest counts other {name} than the "
                                f"{count} in the bundle.")  # fmt: skip


# --- entries ------------------------------------------------------------------------------------


class _Entries:
    """The entries in flat arrays: 65 bytes each, so that half a million stay small."""

    def __init__(self) -> None:
        self.hashes = bytearray()
        self.digests = bytearray()
        self.outcomes = bytearray()
        self.erasures: set[int] = set()
        # Position -> number claimed in the body (None: unreadable); only where they differ.
        self.claims: dict[int, int | None] = {}
        self._positions: dict[int, int] | None = None

    @property
    def count(self) -> int:
        return len(self.outcomes)

    def read(self, source: _Source, report: Report) -> None:
        previous = ""
        for position, line in enumerate(source.lines("entries.jsonl")):
            row = _parse_line(line)
            body = row.get("body") if row else None
            data = _encode(body) if isinstance(body, str) else None
            if row is None or data is None or len(row) != 2:
                report.bad("entry.unreadable", f"Line {position + 1} of entries.jsonl is no "
                           "entry.", position)  # fmt: skip
                self._add(position, None, NO_HASH, NO_HASH, 0)
                continue
            hashed = hashlib.sha256(b"\x00" + data).digest()
            previous = self._read_body(position, row, hashed, report, previous)

    def _read_body(
        self,
        position: int,
        row: dict[str, object],
        hashed: bytes,
        report: Report,
        previous: str,
    ) -> str:
        body = _decode_object(str(row["body"]), _BODY_DECODER)
        problem = _body_problem(body)
        if body is None or problem is not None:
            report.bad("entry.malformed", f"The body at position {position} {problem}.", position)
            self._add(position, None, hashed, NO_HASH, 0)
            return previous
        number, stamp = body["idx"], str(body["ts"])
        claimed = number if isinstance(number, int) else None
        if row.get("idx") != claimed:
            report.bad("entry.misnumbered", f"Line {position + 1} of entries.jsonl is labelled "
                       "with another number than its body.", position)  # fmt: skip
        if stamp < previous:
            report.warn("entry.time_went_back", f"Entry {position} is dated before the one "
                        "ahead of it.", position)  # fmt: skip
        digest = bytes.fromhex(str(body["payload_digest"])[7:])
        self._add(position, claimed, hashed, digest, OUTCOMES[str(body["outcome"])])
        if "eras" in str(body["action"]):
            self._note_erasures(body["refs"], position)
        return stamp

    def _add(
        self, position: int, claimed: int | None, hashed: bytes, digest: bytes, outcome: int
    ) -> None:
        self.hashes += hashed
        self.digests += digest
        self.outcomes.append(outcome)
        if claimed != position:
            self.claims[position] = claimed

    def _note_erasures(self, refs: object, position: int) -> None:
        for ref in refs if isinstance(refs, list) else []:
            match = ENTRY_REF.fullmatch(ref) if isinstance(ref, str) else None
            if match and int(match[1]) < position:
                self.erasures.add(int(match[1]))

    def number_at(self, position: int) -> int:
        claimed = self.claims.get(position, position)
        return position if claimed is None else claimed

    def position_of(self, index: int) -> int | None:
        if not self.claims:
            return index if 0 <= index < self.count else None
        if self._positions is None:
            self._positions = {}
            for position in range(self.count):
                self._positions.setdefault(self.number_at(position), position)
        return self._positions.get(index)

    def hash_at(self, position: int) -> bytes:
        return bytes(self.hashes[32 * position : 32 * position + 32])

    def payload_digest(self, position: int) -> bytes:
        return bytes(self.digests[32 * position : 32 * position + 32])

    def report_misnumbered(self, report: Report) -> None:
        for position, claimed in self.claims.items():
            if claimed is not None:
                report.bad("entry.misnumbered", f"The entry at position {position} calls itself "
                           f"{claimed}.", position)  # fmt: skip


def _body_problem(body: dict[str, object] | None) -> str | None:
    if body is None:
        return "is no JSON object with each key once"
    if not body.keys() >= REQUIRED:
        return "lacks a field"
    if body["v"] != 1:
        return "has a version that this verifier does not know"
    if type(body["idx"]) is not int or body["idx"] < 0:
        return "has no number"
    stamp, digest, outcome = body["ts"], body["payload_digest"], body["outcome"]
    if not isinstance(stamp, str) or TIMESTAMP.fullmatch(stamp) is None:
        return "has no timestamp in UTC with microseconds"
    if not isinstance(digest, str) or DIGEST.fullmatch(digest) is None:
        return "has no payload digest"
    if not isinstance(outcome, str) or outcome not in OUTCOMES:
        return "has no outcome"
    return None


# --- where it went wrong ------------------------------------------------------------------------


class _Comparison:
    """Names what happened to the entries, by the leaf hashes that the checkpoint proves."""

    def __init__(self, entries: _Entries, leaves: bytes, size: int, report: Report) -> None:
        self.entries = entries
        self.report = report
        self.size = size
        self.where = {leaves[32 * i : 32 * i + 32]: i for i in range(size)}

    def run(self) -> None:
        order, foreign = self._match()
        missing = set(range(self.size)) - set(order)
        foreign = self._pair(foreign, missing, by_number=True)
        foreign = self._pair(foreign, missing, by_number=False)
        for position in foreign:
            self.report.bad("entry.inserted", f"The entry at position {position} was inserted: "
                            "the checkpoint does not cover it.", position)  # fmt: skip
        self._name_missing(missing)
        self._name_reordered(order)

    def _match(self) -> tuple[list[int], list[int]]:
        order: list[int] = []
        foreign: list[int] = []
        seen: set[int] = set()
        for position in range(self.entries.count):
            index = self.where.get(self.entries.hash_at(position))
            if index is None or index in seen:
                foreign.append(position)
            else:
                seen.add(index)
                order.append(index)
        return order, foreign

    def _pair(self, foreign: list[int], missing: set[int], *, by_number: bool) -> list[int]:
        left = []
        for position in foreign:
            index = self.entries.claims.get(position, position) if by_number else position
            if index in missing and index is not None:
                missing.remove(index)
                self.report.bad("entry.changed", f"Entry {index} was changed: its body is not the "
                                "one that was logged.", index)  # fmt: skip
            else:
                left.append(position)
        return left

    def _name_missing(self, missing: set[int]) -> None:
        end = self.size
        while end - 1 in missing:
            end -= 1
        if end < self.size:
            self.report.bad("entry.truncated", f"Entries {end} to {self.size - 1} were cut off "
                            "the end.", end)  # fmt: skip
        for index in sorted(index for index in missing if index < end):
            self.report.bad("entry.deleted", f"Entry {index} was deleted.", index)

    def _name_reordered(self, order: list[int]) -> None:
        for index, found in zip(sorted(order), order, strict=True):
            if index != found:
                self.report.bad("entry.reordered", f"Entries were reordered: entry {found} stands "
                                f"in the place of entry {index}.", index)  # fmt: skip


def _narrow_down(
    entries: _Entries,
    leaves: bytes | None,
    heads: tuple[Head, list[Head], dict[int, bytes]],
    report: Report,
) -> None:
    head, known, roots = heads
    good = [h.size for h in known if roots.get(h.size) == h.root]
    bad = [h.size for h in known if roots.get(h.size) != h.root]
    low, high = max(good, default=0), min(bad, default=max(head.size, entries.count))
    if leaves is not None and leaves != entries.hashes:
        index = _first_difference(leaves, entries.hashes)
        report.bad("entry.changed", f"Entry {index} is the first that disagrees with its stored "
                   "leaf hash.", index)  # fmt: skip
    named = _read_numbers(entries, head.size, report)
    if not named:
        low = low if low < high else 0
        report.bad(
            "entry.changed",
            f"At least one entry from {low} to {max(high - 1, low)} was changed; the numbers are "
            "in order, and no proven leaf hashes narrow it down further.",
            low,
        )


def _read_numbers(entries: _Entries, size: int, report: Report) -> bool:
    """Tell deletion, insertion, reordering and truncation by the numbers in the bodies."""
    named = False
    seen: set[int] = set()
    expected = 0
    for position in range(entries.count):
        number = entries.number_at(position)
        if number in seen:
            report.bad("entry.inserted", f"Number {number} is there twice, again at position "
                       f"{position}.", position)  # fmt: skip
        elif number < expected:
            report.bad("entry.reordered", f"Entry {number} stands at position {position}, after "
                       "later ones.", number)  # fmt: skip
        elif number > expected:
            gap = str(expected) if number == expected + 1 else f"{expected} to {number - 1}"
            report.bad("entry.deleted", f"Entry {gap} is missing before position {position}, "
                       "or was moved.", expected)  # fmt: skip
        named = named or number != expected
        seen.add(number)
        expected = max(expected, number + 1)
    if expected < size:
        report.bad("entry.truncated", f"Entries {expected} to {size - 1} were cut off the end.",
                   expected)  # fmt: skip
    elif expected > size:
        report.bad("entry.inserted", f"Entries {size} to {expected - 1} are not covered by the "
                   "checkpoint.", size)  # fmt: skip
    return named or expected != size


def _proven_prefix(leaves: bytes, known: list[Head]) -> int:
    roots = _prefix_roots(leaves, {head.size for head in known})
    return max((head.size for head in known if roots.get(head.size) == head.root), default=0)


def _first_difference(left: bytes | bytearray, right: bytes | bytearray) -> int:
    shorter = min(len(left), len(right))
    low, high = 0, shorter // 32
    while low < high:
        middle = (low + high + 1) // 2
        if left[: 32 * middle] == right[: 32 * middle]:
            low = middle
        else:
            high = middle - 1
    return low


# --- the tree (RFC 9162 section 2.1) ------------------------------------------------------------


def _prefix_roots(hashes: bytes | bytearray, sizes: set[int]) -> dict[int, bytes]:
    count = len(hashes) // 32
    wanted = {size for size in sizes if size <= count}
    roots = {0: hashlib.sha256(b"").digest()} if 0 in wanted else {}
    peaks: list[bytes] = []
    for position in range(max(wanted, default=0)):
        node = bytes(hashes[32 * position : 32 * position + 32])
        carry = position
        while carry & 1:
            node = _node_hash(peaks.pop(), node)
            carry >>= 1
        peaks.append(node)
        if position + 1 in wanted:
            root = peaks[-1]
            for left in reversed(peaks[:-1]):
                root = _node_hash(left, root)
            roots[position + 1] = root
    return roots


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Say whether the proof shows the old tree as a prefix of the new (RFC 9162 2.1.4.2)."""
    if not 0 <= old < new or any(len(node) != 32 for node in proof):
        return False
    if old == 0:
        return not proof and old_root == hashlib.sha256(b"").digest()
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_node = new_node = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old_node, new_node = _node_hash(sibling, old_node), _node_hash(sibling, new_node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_node = _node_hash(new_node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and (old_node, new_node) == (old_root, new_root)


# --- signed notes and checkpoints (C2SP) --------------------------------------------------------


def _open_note(note: str, keys: list[Key]) -> Head | str:
    text, blank, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    if not blank or len(lines) < 2 or lines[-1] != "" or len(lines) > 101:
        return "it is no signed note"
    text += "\n"
    signed = False
    for line in lines[:-1]:
        match = SIGNATURE_LINE.fullmatch(line)
        payload = _unbase64(match[2]) if match else None
        if match is None or payload is None:
            return "it has a malformed signature line"
        for key in keys:
            if (key.name, key.key_hash) == (match[1], payload[:4]):
                try:
                    public = Ed25519PublicKey.from_public_bytes(key.public_key)
                    public.verify(payload[4:], text.encode())
                except (InvalidSignature, ValueError):
                    return f"the signature by {_show(key.name)} does not fit its text"
                signed = True
    if not signed:
        return "it carries no signature by the key"
    return _parse_head(text) or "its text is no checkpoint"


def _parse_head(text: str) -> Head | None:
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or SIZE.fullmatch(lines[1]) is None:
        return None
    root = _unbase64(lines[2])
    return Head(lines[0], int(lines[1]), root) if root and len(root) == 32 else None


def _parse_vkey(text: object) -> Key | None:
    if not isinstance(text, str):
        return None
    name, _, rest = text.partition("+")
    key_hash, _, encoded = rest.partition("+")
    data, named = _unbase64(encoded), _encode(name)
    if not named or data is None or len(data) != 33 or data[:1] != b"\x01":
        return None
    expected = hashlib.sha256(named + b"\n" + data).digest()[:4]
    return Key(name, expected, data[1:]) if expected.hex() == key_hash else None


def _split_notes(data: bytes) -> list[bytes]:
    notes = re.split(rb"(?m)^" + SEPARATOR.encode() + rb"\n", data)
    return [note for note in notes if note.strip()]


def _unbase64(encoded: str) -> bytes | None:
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode("ascii") == encoded else None


# --- reading ------------------------------------------------------------------------------------


class _Source(abc.ABC):
    """The files of a bundle by name."""

    @abc.abstractmethod
    def open(self, name: str) -> IO[bytes] | None:
        """Return a file for reading, or None when the bundle has none of that name."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the bundle."""

    def lines(self, name: str) -> Iterator[bytes]:
        stream = self.open(name)
        if stream is None:
            raise UnusableBundle(f"{name} is missing")
        with stream:
            while line := stream.readline(MAX_LINE_BYTES):
                if len(line) == MAX_LINE_BYTES:
                    raise UnusableBundle(f"{name} has a line of more than {MAX_LINE_BYTES} bytes")
                yield line

    def read(self, name: str) -> bytes | None:
        stream = self.open(name)
        if stream is None:
            return None
        with stream:
            data = stream.read(MAX_FILE_BYTES)
        if len(data) == MAX_FILE_BYTES:
            raise UnusableBundle(f"{name} is larger than {MAX_FILE_BYTES} bytes")
        return data


class _FolderSource(_Source):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str) -> IO[bytes] | None:
        path = self.folder / name
        if not path.exists():
            return None
        _require_regular(path)
        return path.open("rb", buffering=1 << 20)

    def close(self) -> None:
        """Let go of nothing: each file was closed by its reader."""


class _ZipSource(_Source):
    def __init__(self, path: Path) -> None:
        self.archive = zipfile.ZipFile(path)
        names = self.archive.namelist()
        manifests = [name for name in names if name.split("/")[-1] == "manifest.json"]
        if len(manifests) != 1 or len(set(names)) != len(names):
            self.archive.close()
            raise UnusableBundle("the zip file does not hold exactly one bundle")
        self.names = frozenset(names)
        self.prefix = manifests[0][: -len("manifest.json")]

    def open(self, name: str) -> IO[bytes] | None:
        if self.prefix + name not in self.names:
            return None
        return self.archive.open(self.prefix + name)

    def close(self) -> None:
        self.archive.close()


def _open_source(path: Path) -> _Source:
    if path.is_dir():
        return _FolderSource(path)
    if not path.exists():
        raise UnusableBundle(f"{_show(str(path))} does not exist")
    _require_regular(path)
    return _ZipSource(path)


def _require_regular(path: Path) -> None:
    # A pipe or a device in the place of a file would hang the verifier.
    if not stat.S_ISREG(path.stat().st_mode):
        raise UnusableBundle(f"{_show(str(path))} is no regular file")


def _read_plain(path: Path) -> bytes:
    if not path.exists():
        raise UnusableBundle(f"{_show(str(path))} does not exist")
    _require_regular(path)
    with path.open("rb") as stream:
        return stream.read(MAX_FILE_BYTES)


def _read_manifest(source: _Source) -> dict[str, object]:
    data = source.read("manifest.json")
    if data is None:
        raise UnusableBundle("manifest.json is missing: this is no ledger bundle")
    manifest = _parse_object(data)
    if manifest is None:
        raise UnusableBundle("manifest.json is no JSON object")
    if manifest.get("format") != FORMAT:
        raise UnusableBundle(f"the bundle's format is not {FORMAT}: take the verifier that fits it")
    return manifest


def _read_leaves(source: _Source) -> bytes | None:
    data = source.read("leaves.txt")
    if data is None:
        return None
    leaves = bytearray()
    for line in data.split(b"\n")[:-1]:
        try:
            leaf = bytes.fromhex(line.decode("ascii"))
        except ValueError:
            leaf = NO_HASH
        leaves += leaf if len(leaf) == 32 else NO_HASH
    return bytes(leaves)


def _read_proofs(source: _Source) -> dict[tuple[int, int], list[bytes]]:
    data = source.read("consistency.json")
    rows = (_parse_object(data) or {}).get("proofs") if data is not None else None
    proofs = {}
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            continue
        old, new, hashes = row.get("old"), row.get("new"), row.get("hashes")
        if type(old) is int and type(new) is int and isinstance(hashes, list):
            proofs[old, new] = [_unhex(value) for value in hashes]
    return proofs


def _unhex(value: object) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""


def _parse_object(data: str | bytes) -> dict[str, object] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _parse_line(line: bytes) -> dict[str, object] | None:
    try:
        return _decode_object(line.decode().removesuffix("\n"), _LINE_DECODER)
    except UnicodeDecodeError:
        return None


def _decode_object(text: str, decoder: json.JSONDecoder) -> dict[str, object] | None:
    try:
        value, end = decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return value if end == len(text) and isinstance(value, dict) else None


def _refuse_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is there twice")
    return value


# One decoder for all lines: json.loads guesses encodings and builds a new one each time.
_LINE_DECODER = json.JSONDecoder()
# A key given twice would let two readers see two different entries.
_BODY_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_twins)


def _parse_change(value: object, index: int) -> tuple[tuple[str, str], LastWrite] | None:
    if not isinstance(value, dict):
        return None
    kind, key, op, digest = (value.get(name) for name in ("kind", "key", "op", "digest"))
    if not (isinstance(kind, str) and isinstance(key, str) and isinstance(op, str)):
        return None
    if op not in ("insert", "replace", "delete") or not isinstance(digest, (str, type(None))):
        return None
    return (kind, key), LastWrite(index, op, digest)


def _salted_digest(salt: object, text: object) -> bytes | None:
    if not isinstance(salt, str) or not isinstance(text, str):
        return None
    try:
        return hashlib.sha256(bytes.fromhex(salt) + text.encode()).digest()
    except ValueError:
        return None


def _record_digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _encode(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def _decode_text(data: bytes) -> str:
    # An undecodable byte becomes U+FFFD, which no signature covers: the note then fails.
    return data.decode("utf-8", "replace")


def _name_record(kind: str, key: str) -> str:
    return _show(f"{kind}:{key}")


def _show(text: str) -> str:
    """Return hostile text as printable ASCII of bounded length, safe for a terminal."""
    short = text if len(text) <= 200 else text[:200] + "..."
    return ascii(short)[1:-1]


def _zeros(flags: bytearray) -> Iterator[int]:
    position = flags.find(0)
    while position >= 0:
        yield position
        position = flags.find(0, position + 1)


if __name__ == "__main__":
    sys.exit(main())
