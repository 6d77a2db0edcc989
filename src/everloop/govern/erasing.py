"""Erasing what entries say while the log stays provable (crypto-shredding).

A payload is covered by a salted digest only. With salt and text gone the entry still proves that
something was done, by whom and when, and nobody can tell what it said. The changes it listed are
digests of records, not the records: they are said again by the erasing entry, so that every record
can still be proven. The store then rids its files of the old texts (`MetadataStore.scrub`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from everloop.core.errors import IntegrityError
from everloop.kernel.ledger import log
from everloop.kernel.ledger.proving import Payload, Prover, Restated, get_entry
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import Scope, verb

MOST_ENTRIES = 1_000
Number = Annotated[int, Meta(ge=0, lt=10**12)]


class ErasePayloads(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask to erase what entries say.

    Attributes:
        entries: Their numbers.
        ground: The lawful ground, such as the number of the request; no personal data.
    """

    entries: Annotated[tuple[Number, ...], Meta(min_length=1, max_length=MOST_ENTRIES)]
    ground: Annotated[str, Meta(min_length=3, max_length=500)]


class Erasure(Struct, frozen=True, kw_only=True):
    """What was erased; entries that were erased before are left out."""

    erased: tuple[int, ...]


@verb("payload.erase", permission="ledger:admin", scope=Scope.INSTANCE, erases=True)
def erase_payloads(ask: ErasePayloads, work: Work) -> Erasure:
    """Erase the payloads of ledger entries for a lawful request; the entries stay provable.

    Raises:
        NotFound: ``ledger.entry_not_found``.
        IntegrityError: an entry or its payload does not verify: look into that first.
    """
    prover = Prover(work.tx, work.services.signers["ledger"].public_key)
    restated: list[Restated] = []
    erased = []
    for number in sorted(set(ask.entries)):
        said = _erase(work, prover, number)
        if said is None:
            continue
        erased.append(number)
        restated += [Restated(entry=number, changes=said.changes), *said.restated]
    if erased:
        work.touch(*(f"entry:{number}" for number in erased))
        work.notes["restated"] = sorted(restated, key=lambda row: row.entry)
    return Erasure(erased=tuple(erased))


def _erase(work: Work, prover: Prover, number: int) -> Payload | None:
    """Erase one payload and return what it said; None when it was erased before."""
    get_entry(work.tx, number)
    said = prover.payload(number)
    if said is None:
        return None
    row = work.tx.find(log.LedgerPayload, log.entry_id(number))
    if row is None:
        raise IntegrityError(
            "ledger.payload_changed",
            f"The payload of ledger entry {number} is gone.",
            hint="Run `everloop audit verify`.",
        )
    work.replace(msgspec.structs.replace(row, salt=None, text=None))
    return said
