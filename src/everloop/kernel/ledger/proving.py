"""Reading the ledger back with proof: entries, what they say, and the last word on a row.

Nothing here trusts a stored row by itself. An entry counts when its body hashes to a leaf under the
signed checkpoint, a payload when it has the digest in the entry's body, and a domain row when its
digest is the one that its last proven change names.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from functools import cached_property

import msgspec

from everloop.core import merkle
from everloop.core.clock import to_text
from everloop.core.errors import EverloopError, IntegrityError, NotFound
from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, Transaction, where
from everloop.core.records import Record, digest_of, kind_of
from everloop.kernel.ledger import log
from everloop.kernel.ledger.checkpoint import Checkpoint, open_checkpoint, parse, verifier_key

UNREADABLE = (EverloopError, msgspec.MsgspecError, TypeError, ValueError)
"""What reading a row raises that somebody changed behind the store's back."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an entry that is hashed into the tree."""

    idx: int
    ts: str
    actor: str
    project: str
    action: str
    resource: str
    outcome: str
    refs: tuple[str, ...]
    payload_digest: str
    request_id: str


class Restated(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of an erased payload, said again by the entry that erased it."""

    entry: int
    changes: tuple[log.Change, ...]


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """What a payload says, as far as proofs and lists need it.

    Attributes:
        decision: What evidence decided in this call, such as ``promoted``.
    """

    changes: tuple[log.Change, ...] = ()
    reason: str | None = None
    decision: str | None = None
    restated: tuple[Restated, ...] = ()


class Standing(StrEnum):
    """Whether a row is what the ledger last said about it."""

    PROVEN = "proven"
    UNLOGGED = "the ledger never heard of it"
    CHANGED = "it was changed outside the ledger"
    DELETED = "the ledger says that it was deleted"
    ERASED = "what the ledger said about it was erased"


class EntryProof(msgspec.Struct, frozen=True, kw_only=True):
    """That an entry is in the log: the path from its leaf to the signed root."""

    leaf: bytes
    path: tuple[bytes, ...]
    root: bytes
    size: int
    note: str


def newest_checkpoint(tx: Transaction) -> log.LedgerCheckpoint | None:
    """Return the newest signed head; None for an empty log."""
    latest = tx.find(log.LedgerCheckpoint, log.LATEST)
    if latest is not None:
        return latest
    found = tx.select(log.LedgerCheckpoint, order="size", descending=True, limit=1)
    return found[0] if found else None


def ledger_key(note: str, public_key: bytes) -> str:
    """Return the verifier key of the log that a note names.

    Raises:
        IntegrityError: ``ledger.checkpoint_malformed``.
        InvalidInput: ``ledger.key_invalid``.
    """
    return verifier_key(parse(note.partition("\n\n")[0] + "\n").origin, public_key)


def get_entry(tx: Transaction, index: int) -> log.LedgerEntry:
    """Return an entry by its number.

    Raises:
        NotFound: ``ledger.entry_not_found``.
    """
    found = tx.find(log.LedgerEntry, log.entry_id(index))
    if found is None:
        raise NotFound(
            "ledger.entry_not_found",
            f"The ledger has no entry {index}.",
            hint="List the entries with `everloop audit list`.",
        )
    return found


def entries_about(tx: Transaction, ref: str, *, limit: int, before: int | None = None) -> list[int]:
    """Return the numbers of the newest entries that name or change a thing, newest first."""
    older = () if before is None else (Condition("entry", Compare.LT, before),)
    rows = tx.select(
        log.LedgerRef, *where(ref=ref), *older, order="entry", descending=True, limit=limit
    )
    return [row.entry for row in rows]


class Prover:
    """Proves entries and rows within one snapshot; remembers what it has proven."""

    def __init__(self, tx: Transaction, public_key: bytes) -> None:
        self._tx = tx
        self._public_key = public_key
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._payloads: dict[int, Payload | None] = {}
        self._entries: dict[int, log.LedgerEntry] = {}
        self._proven: set[int] = set()

    @cached_property
    def note(self) -> str:
        """The newest checkpoint as a signed note.

        Raises:
            IntegrityError: ``ledger.checkpoint_missing``.
        """
        latest = newest_checkpoint(self._tx)
        if latest is None:
            raise IntegrityError(
                "ledger.checkpoint_missing",
                "The ledger has no checkpoint.",
                hint="Restore the store from a backup.",
            )
        return latest.note

    @cached_property
    def head(self) -> Checkpoint:
        """The newest checkpoint, once its signature by this instance's key is verified.

        Raises:
            IntegrityError: it is missing, or does not verify.
        """
        return open_checkpoint(self.note, ledger_key(self.note, self._public_key))

    def entry(self, index: int) -> log.LedgerEntry:
        """Return an entry, read once.

        Raises:
            NotFound: ``ledger.entry_not_found``.
        """
        if index not in self._entries:
            self._entries[index] = get_entry(self._tx, index)
        return self._entries[index]

    def prove(self, index: int) -> EntryProof:
        """Return the proof that an entry's body is in the log.

        Raises:
            NotFound: ``ledger.entry_not_found``.
            IntegrityError: ``ledger.entry_unproven`` or ``ledger.node_missing``.
        """
        entry, head = self.entry(index), self.head
        leaf = merkle.leaf_hash(entry.body.encode())
        try:
            path = merkle.inclusion_proof(index, head.size, self._node)
        except ValueError as error:
            raise _unproven(index, str(error)) from error
        if not merkle.verify_inclusion(index, head.size, leaf, path, head.root):
            raise _unproven(index, "its body does not hash to the signed root")
        if not _fits(entry, index):
            raise _unproven(index, "its columns do not say what its body says")
        self._proven.add(index)
        return EntryProof(
            leaf=leaf, path=tuple(path), root=head.root, size=head.size, note=self.note
        )

    def payload(self, index: int) -> Payload | None:
        """Return what a proven entry says; None when it was erased.

        Raises:
            NotFound: ``ledger.entry_not_found``.
            IntegrityError: ``ledger.entry_unproven`` or ``ledger.payload_changed``.
        """
        if index not in self._payloads:
            if index not in self._proven:
                self.prove(index)
            self._payloads[index] = self._read_payload(index)
        return self._payloads[index]

    def standing(self, row: Record) -> tuple[Standing, int | None]:
        """Tell whether a row is what its last change says, and which entry that was.

        Raises:
            IntegrityError: the entry that changed it last does not verify.
        """
        kind, before = kind_of(row).name, None
        while True:
            found = entries_about(self._tx, f"{kind}:{row.id}", limit=8, before=before)
            for index in found:
                payload = self.payload(index)
                if payload is None:
                    return self._standing_of_erased(row, index), index
                changes = [c for c in payload.changes if (c.kind, c.key) == (kind, row.id)]
                if changes:
                    return _judge(row, changes[-1]), index
            if not found:
                return Standing.UNLOGGED, None
            before = found[-1]

    def _standing_of_erased(self, row: Record, index: int) -> Standing:
        """Look for the row's change where the erasure said it again."""
        for erasure in entries_about(self._tx, f"entry:{index}", limit=8):
            payload = self.payload(erasure)
            if payload is None:
                return self._standing_of_erased(row, erasure)
            for restated in payload.restated:
                same = [
                    change
                    for change in restated.changes
                    if (change.kind, change.key) == (kind_of(row).name, row.id)
                ]
                if same and restated.entry <= index:
                    return _judge(row, same[-1])
        return Standing.ERASED

    def _read_payload(self, index: int) -> Payload | None:
        entry = self.entry(index)
        row = self._tx.find(log.LedgerPayload, entry.id)
        if row is None:
            raise _payload_changed(index, "is gone")
        if row.salt is None or row.text is None:
            return None
        expected = msgspec.json.decode(entry.body, type=Body).payload_digest
        try:
            salted = hashlib.sha256(bytes.fromhex(row.salt) + row.text.encode()).hexdigest()
            if f"sha256:{salted}" != expected:
                raise _payload_changed(index, "is not the one that was logged")
            return msgspec.json.decode(row.text, type=Payload)
        except (ValueError, msgspec.MsgspecError) as error:
            raise _payload_changed(index, "cannot be read") from error

    def _node(self, level: int, position: int) -> bytes:
        key = (level, position)
        if key not in self._nodes:
            self._nodes[key] = log.stored_node(self._tx, level, position)
        return self._nodes[key]


def _judge(row: Record, change: log.Change) -> Standing:
    if change.op == "delete":
        return Standing.DELETED
    return Standing.PROVEN if change.digest == digest_of(row) else Standing.CHANGED


def column_problem(entry: log.LedgerEntry, index: int) -> str | None:
    """Say how an entry's columns, which lists show, differ from its body, which is proven."""
    return None if _fits(entry, index) else f"Entry {index}: its columns are not those of its body."


def _fits(entry: log.LedgerEntry, index: int) -> bool:
    try:
        body = msgspec.json.decode(entry.body, type=Body)
    except msgspec.MsgspecError:
        return False
    columns = (
        entry.revision,
        entry.index,
        entry.id,
        to_text(entry.at),
        entry.actor,
        entry.project,
        entry.action,
        entry.resource,
        entry.outcome,
        entry.request,
    )
    return columns == (
        0,
        index,
        Id(log.entry_id(index)),
        body.ts,
        body.actor,
        body.project,
        body.action,
        body.resource,
        body.outcome,
        body.request_id,
    )


def _unproven(index: int, why: str) -> IntegrityError:
    return IntegrityError(
        "ledger.entry_unproven",
        f"Ledger entry {index} does not verify: {why}.",
        hint="Somebody changed the database. Run `everloop audit verify`.",
        context={"entry": index},
    )


def _payload_changed(index: int, why: str) -> IntegrityError:
    return IntegrityError(
        "ledger.payload_changed",
        f"The payload of ledger entry {index} {why}.",
        hint="Somebody changed the database. Run `everloop audit verify`.",
        context={"entry": index},
    )
