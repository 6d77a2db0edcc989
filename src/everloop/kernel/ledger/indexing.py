"""Whether what lists and look-ups read beside the entries says what the entries say.

Columns of an entry and the rows that find it by a ref are copies, made for speed. The proofs do
not rest on them; what people are shown does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import msgspec

from everloop.core.errors import IntegrityError
from everloop.core.ports import Transaction
from everloop.kernel.ledger import log
from everloop.kernel.ledger.export import entries, note_size
from everloop.kernel.ledger.proving import UNREADABLE, Body, Payload, column_problem


def find_index_problems(tx: Transaction) -> Iterator[str]:
    """Yield what differs between the entries and the copies of what they say."""
    stored: dict[int, set[str]] = defaultdict(set)
    try:
        for ref in tx.select(log.LedgerRef):
            stored[ref.entry].add(ref.ref)
    except UNREADABLE as error:
        yield f"The refs by which entries are found cannot be read: {error}"
    for position, entry in enumerate(entries(tx)):
        if entry.row is None:
            yield f"Entry {entry.index}: its row cannot be read."
            continue
        problem = column_problem(entry.row, position)
        if problem:
            yield problem
        found = stored.pop(entry.index, set())
        expected, is_whole = _expected(tx, entry.row)
        if expected - found or (is_whole and found - expected):
            wrong = ", ".join(sorted(expected ^ found)[:3])
            yield f"Entry {entry.index}: it cannot be found by what it names ({wrong})."
    for index in sorted(stored):
        yield f"Entry {index}: there are refs to it, but no such entry."
    yield from _checkpoint_problems(tx)


def _expected(tx: Transaction, entry: log.LedgerEntry) -> tuple[set[str], bool]:
    """Return what finds an entry, and whether that is all: an erased payload hides its changes."""
    try:
        refs = msgspec.json.decode(entry.body, type=Body).refs
        row = tx.find(log.LedgerPayload, entry.id)
        if row is None or row.text is None:
            return set(refs), False
        changes = msgspec.json.decode(row.text, type=Payload).changes
    except UNREADABLE:
        return set(), False  # the verifier names the entry itself
    return set(log.named(refs, changes)), True


def _checkpoint_problems(tx: Transaction) -> Iterator[str]:
    try:
        rows = tx.select(log.LedgerCheckpoint)
    except UNREADABLE as error:
        yield f"The checkpoints cannot be read: {error}"
        return
    for row in rows:
        try:
            stated = note_size(row.note)
        except IntegrityError as error:
            yield f"Checkpoint {row.id}: {error.message}"
            continue
        if stated != row.size or row.id not in (log.LATEST, log.entry_id(stated)):
            yield f"Checkpoint {row.id}: its note is about {stated} entries."
