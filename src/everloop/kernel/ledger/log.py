"""Appending to the ledger inside the transaction of the change itself.

An entry holds ids and digests only; what may be personal sits in the payload row beside it, under
a random salt, and can be erased while the tree stays valid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from everloop.core import merkle
from everloop.core.canonical import canonical_json
from everloop.core.clock import Instant, to_text
from everloop.core.digest import Digest
from everloop.core.errors import IntegrityError
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.ports import Signer, Transaction, where
from everloop.core.records import Record, record
from everloop.kernel.ledger.checkpoint import Checkpoint, sign_checkpoint

ENTRY_VERSION = 1
CHECKPOINT_EVERY = 64
LATEST = Id("latest")


@record(
    "ledger_entry",
    unique=(("index",), ("request",)),
    index=(("project", "index"), ("resource", "index")),
    covered=False,
)
class LedgerEntry(Record, frozen=True, kw_only=True):
    """One leaf of the tree. ``body`` is the canonical JSON that is hashed."""

    index: int
    body: str
    at: Instant
    actor: ActorId
    project: ProjectId
    action: str
    resource: str
    outcome: str
    request: str


@record("ledger_payload", covered=False)
class LedgerPayload(Record, frozen=True, kw_only=True):
    """What an entry's payload digest covers; erased when salt and text are None."""

    salt: str | None
    text: str | None


@record("ledger_ref", index=(("ref", "entry"),), covered=False)
class LedgerRef(Record, frozen=True, kw_only=True):
    """One thing that an entry names or changes, as ``kind:id``; an index and no evidence.

    Whoever finds an entry by it still reads what the entry says.
    """

    ref: str
    entry: int


@record("ledger_node", covered=False)
class LedgerNode(Record, frozen=True, kw_only=True):
    """The hash of one complete subtree; the id is ``level:index``."""

    hash: str


@record("ledger_checkpoint", index=(("size",),), covered=False)
class LedgerCheckpoint(Record, frozen=True, kw_only=True):
    """A signed tree head; the row ``latest`` moves along, the others stay."""

    size: int
    note: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One row changed by a verb; ``digest`` is of its new canonical form, None when deleted."""

    kind: str
    key: str
    op: str
    digest: Digest | None


class EntryDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be appended; the entry can be found by its refs and its changes."""

    at: Instant
    actor: ActorId
    on_behalf_of: ActorId | None
    project: ProjectId
    action: str
    resource: str
    outcome: str
    reason_code: str | None
    refs: tuple[str, ...]
    request: str
    policy: str
    payload: dict[str, object]
    changes: tuple[Change, ...] = ()


def size(tx: Transaction) -> int:
    """Return the number of entries."""
    last = tx.select(LedgerEntry, order="index", descending=True, limit=1)
    return last[0].index + 1 if last else 0


def append(
    tx: Transaction, draft: EntryDraft, *, salt: bytes, signer: Signer, origin: str
) -> LedgerEntry:
    """Append one entry, its payload, its tree nodes and a signed checkpoint.

    Must run inside the write transaction of the change that it records.

    Raises:
        IntegrityError: ``ledger.node_missing`` when stored tree nodes are gone.
    """
    last = tx.select(LedgerEntry, order="index", descending=True, limit=1)
    index = last[0].index + 1 if last else 0
    at = max(draft.at, last[0].at) if last else draft.at
    payload = canonical_json(draft.payload)
    body = _body(draft, index, at, hashlib.sha256(salt + payload).hexdigest())
    entry = LedgerEntry(
        id=entry_id(index),
        index=index,
        body=body.decode(),
        at=at,
        actor=draft.actor,
        project=draft.project,
        action=draft.action,
        resource=draft.resource,
        outcome=draft.outcome,
        request=draft.request,
    )
    tx.insert(entry)
    tx.insert(LedgerPayload(id=entry.id, salt=salt.hex(), text=payload.decode()))
    for number, ref in enumerate(named(draft.refs, draft.changes)):
        tx.insert(LedgerRef(id=Id(f"{entry.id}.{number}"), ref=ref, entry=index))
    fresh: dict[tuple[int, int], bytes] = {}

    def node(level: int, position: int) -> bytes:
        return fresh.get((level, position)) or stored_node(tx, level, position)

    for level, position, value in merkle.new_nodes(index, body, node):
        fresh[level, position] = value
        tx.insert(LedgerNode(id=node_id(level, position), hash=value.hex()))
    checkpoint = Checkpoint(origin, index + 1, merkle.root(index + 1, node))
    _keep(tx, checkpoint.size, sign_checkpoint(checkpoint, origin, signer.sign, signer.public_key))
    return entry


def named(refs: Iterable[str], changes: Iterable[Change]) -> list[str]:
    """Return what an entry names or changes, each once."""
    return list(dict.fromkeys([*refs, *(f"{change.kind}:{change.key}" for change in changes)]))


def _body(draft: EntryDraft, index: int, at: Instant, payload_digest: str) -> bytes:
    return canonical_json(
        {
            "v": ENTRY_VERSION,
            "idx": index,
            "ts": to_text(at),
            "actor": draft.actor,
            "on_behalf_of": draft.on_behalf_of,
            "action": draft.action,
            "resource": draft.resource,
            "outcome": draft.outcome,
            "reason_code": draft.reason_code,
            "refs": list(draft.refs),
            "payload_digest": f"sha256:{payload_digest}",
            "request_id": draft.request,
            "policy_id": draft.policy,
            "project": draft.project,
        }
    )


def _keep(tx: Transaction, tree_size: int, note: str) -> None:
    latest = tx.find(LedgerCheckpoint, LATEST)
    if latest is None:
        tx.insert(LedgerCheckpoint(id=LATEST, size=tree_size, note=note))
    else:
        tx.replace(msgspec.structs.replace(latest, size=tree_size, note=note))
    if tree_size % CHECKPOINT_EVERY == 0:
        tx.insert(LedgerCheckpoint(id=entry_id(tree_size), size=tree_size, note=note))


def stored_node(tx: Transaction, level: int, position: int) -> bytes:
    """Return a stored tree node.

    Raises:
        IntegrityError: ``ledger.node_missing``.
    """
    found = tx.find(LedgerNode, node_id(level, position))
    if found is None:
        raise IntegrityError(
            "ledger.node_missing",
            f"Ledger tree node {level}:{position} is gone from the store.",
            hint="Run `everloop audit verify` and restore the store from a backup.",
        )
    return bytes.fromhex(found.hash)


def entry_id(index: int) -> Id:
    """Return the row id of an entry."""
    return Id(f"{index:012d}")


def find_by_request(tx: Transaction, request: str) -> LedgerEntry | None:
    """Return the entry that a call with this request id left, or None."""
    found = tx.select(LedgerEntry, *where(request=request), limit=1)
    return found[0] if found else None


def node_id(level: int, position: int) -> Id:
    """Return the row id of a tree node."""
    return Id(f"{level}:{position}")
