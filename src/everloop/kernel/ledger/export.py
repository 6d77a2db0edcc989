"""Exporting the live ledger: what storage holds, as a bundle that stands alone.

The export judges nothing and stumbles over nothing: a row that somebody changed so that it cannot
be read any more is exported as unreadable, so that the verifier names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec

from everloop.core import merkle
from everloop.core.clock import Instant, to_text
from everloop.core.errors import IntegrityError
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, Transaction
from everloop.core.records import Kind, Record, canonical_record, declared_kinds
from everloop.kernel.ledger import bundle, log
from everloop.kernel.ledger.checkpoint import parse
from everloop.kernel.ledger.proving import UNREADABLE, ledger_key, newest_checkpoint

PAGE = 500
UNREADABLE_TEXT = "unreadable"
NO_HASH = bytes(merkle.HASH_BYTES)


def export_bundle(tx: Transaction, folder: Path, *, public_key: bytes, created: Instant) -> Path:
    """Write the whole ledger and the records it explains into a new folder.

    Raises:
        IntegrityError: ``ledger.checkpoint_missing`` or ``ledger.checkpoint_malformed``.
        Conflict: ``ledger.bundle_exists`` when the folder has something in it.
    """
    latest = newest_checkpoint(tx)
    if latest is None:
        raise IntegrityError(
            "ledger.checkpoint_missing",
            "The ledger has no signed head.",
            hint="A new instance has none before its first change; else restore a backup.",
        )
    size = note_size(latest.note)
    earlier = _earlier(tx, size)
    sizes = [*earlier, size]
    head = bundle.LogHead(
        origin=parse(latest.note.partition("\n\n")[0] + "\n").origin,
        vkey=ledger_key(latest.note, public_key),
        created=to_text(created),
        size=size,
        checkpoint=latest.note,
        earlier=list(earlier.values()),
    )
    return bundle.write_bundle(
        folder,
        head=head,
        entries=(bundle.ExportedEntry(row.index, row.body) for row in entries(tx)),
        payloads=_payloads(tx),
        records=_records(tx),
        proofs=_proofs(tx, sizes),
        leaves=_leaves(tx, size),
    )


def note_size(note: str) -> int:
    """Return the number of entries that a checkpoint covers.

    Raises:
        IntegrityError: ``ledger.checkpoint_malformed``.
    """
    return parse(note.partition("\n\n")[0] + "\n").size


class StoredEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as storage holds it; ``row`` is None when its columns cannot be read."""

    index: int
    body: str
    row: log.LedgerEntry | None


def entries(tx: Transaction) -> Iterator[StoredEntry]:
    """Yield all stored entries in the order of their numbers."""
    after: log.LedgerEntry | None = None
    while True:
        try:
            page = tx.select(log.LedgerEntry, order="index", limit=PAGE, after=after)
        except UNREADABLE:
            yield from _entries_one_by_one(tx, after.index + 1 if after else 0)
            return
        for row in page:
            yield StoredEntry(index=row.index, body=row.body, row=row)
        if len(page) < PAGE:
            return
        after = page[-1]


def _entries_one_by_one(tx: Transaction, first: int) -> Iterator[StoredEntry]:
    for index in range(first, first + tx.count(log.LedgerEntry)):
        try:
            row = tx.find(log.LedgerEntry, log.entry_id(index))
        except UNREADABLE:
            yield StoredEntry(index=index, body=UNREADABLE_TEXT, row=None)
            continue
        if row is not None:
            yield StoredEntry(index=row.index, body=row.body, row=row)


def _payloads(tx: Transaction) -> Iterator[bundle.ExportedPayload]:
    after: log.LedgerPayload | None = None
    while True:
        try:
            page = tx.select(log.LedgerPayload, limit=PAGE, after=after)
        except UNREADABLE:
            yield from _payloads_one_by_one(tx, int(after.id) + 1 if after else 0)
            return
        for row in page:
            index = int(row.id) if row.id.isdecimal() else -1
            yield bundle.ExportedPayload(index, row.salt, row.text)
        if len(page) < PAGE:
            return
        after = page[-1]


def _payloads_one_by_one(tx: Transaction, first: int) -> Iterator[bundle.ExportedPayload]:
    for index in range(first, first + tx.count(log.LedgerPayload)):
        try:
            row = tx.find(log.LedgerPayload, log.entry_id(index))
        except UNREADABLE:
            yield bundle.ExportedPayload(index, "", UNREADABLE_TEXT)
            continue
        if row is not None:
            yield bundle.ExportedPayload(index, row.salt, row.text)


def _records(tx: Transaction) -> Iterator[bundle.ExportedRecord]:
    for kind in declared_kinds().values():
        if kind.covered:
            yield from _records_of(tx, kind)


def _records_of(tx: Transaction, kind: Kind) -> Iterator[bundle.ExportedRecord]:
    after: Record | None = None
    while True:
        try:
            page = tx.select(kind.type, limit=PAGE, after=after)
        except UNREADABLE:
            yield from _records_by_key(tx, kind, after.id if after else "")
            return
        for row in page:
            yield bundle.ExportedRecord(kind.name, row.id, canonical_record(row).decode())
        if len(page) < PAGE:
            return
        after = page[-1]


def _records_by_key(tx: Transaction, kind: Kind, after: str) -> Iterator[bundle.ExportedRecord]:
    """Read the rows that the ledger knows one at a time: some of them cannot be read."""
    for key in _logged_keys(tx, kind.name):
        if key <= after:
            continue
        try:
            row = tx.find(kind.type, Id(key))
        except UNREADABLE:
            yield bundle.ExportedRecord(kind.name, key, UNREADABLE_TEXT)
            continue
        if row is not None:
            yield bundle.ExportedRecord(kind.name, key, canonical_record(row).decode())


def _logged_keys(tx: Transaction, kind: str) -> list[str]:
    mine = Condition("ref", Compare.PREFIX, f"{kind}:")
    return sorted({row.ref.partition(":")[2] for row in tx.select(log.LedgerRef, mine)})


def _earlier(tx: Transaction, size: int) -> dict[int, str]:
    """Return the numbered checkpoints before the newest, by the size that they state."""
    found: dict[int, str] = {}
    try:
        rows = tx.select(log.LedgerCheckpoint, order="size")
    except UNREADABLE:
        return found  # the index problems name them; the entries themselves are checked anyway
    for row in rows:
        if row.id == log.LATEST:
            continue
        try:
            stated = note_size(row.note)
        except IntegrityError:
            stated = row.size  # exported as it is, for the verifier to refuse
        if stated != size:
            found[stated] = row.note
    return dict(sorted(found.items()))


def _proofs(tx: Transaction, sizes: list[int]) -> Iterator[bundle.ExportedProof]:
    for old, new in pairwise(sizes):
        try:
            hashes = merkle.consistency_proof(old, new, lambda *at: log.stored_node(tx, *at))
        except UNREADABLE:
            continue  # a node is gone: the entries themselves are checked instead
        yield bundle.ExportedProof(old, new, hashes)


def _leaves(tx: Transaction, size: int) -> Iterator[bytes]:
    prefix = Condition("id", Compare.PREFIX, "0:")
    try:
        stored = {row.id: row.hash for row in tx.select(log.LedgerNode, prefix)}
    except UNREADABLE:
        stored = None
    for index in range(size):
        key = log.node_id(0, index)
        try:
            leaf = log.stored_node(tx, 0, index) if stored is None else bytes.fromhex(stored[key])
        except (*UNREADABLE, KeyError):
            leaf = NO_HASH
        yield leaf if len(leaf) == merkle.HASH_BYTES else NO_HASH
