"""Proves that a version is what the ledger last said of it, before anybody trusts its bytes.

Digests alone do not show that two whole versions were exchanged in the database: each would still
fit its own bytes.
"""

from __future__ import annotations

from everloop.core.errors import IntegrityError
from everloop.core.records import Record, kind_of
from everloop.kernel.ledger.proving import Prover, Standing
from everloop.kernel.unit_of_work import View
from everloop.registry.model import AliasMove, ModelVersion

# What was erased can't be proven any more, and an erasure is a verb of its own with its reasons.
_TRUSTED = frozenset({Standing.PROVEN, Standing.ERASED})


def require_proven(view: View, version: ModelVersion, move: AliasMove | None = None) -> None:
    """Refuse a version, or the move of the alias that named it, that the ledger does not know so.

    Args:
        view: The store.
        version: The version.
        move: The move by which an alias came to name it; None when it was named otherwise.

    Raises:
        IntegrityError: ``model_version.changed``, or what is wrong with the ledger.
    """
    prover = Prover(view.tx, view.services.signers["ledger"].public_key)
    rows: list[Record] = [version] if move is None else [version, move]
    for row in rows:
        standing, entry = prover.standing(row)
        if standing not in _TRUSTED:
            raise IntegrityError(
                "model_version.changed",
                f"{version.name}@{version.version} can't be trusted: {standing.value} "
                f"({kind_of(row).name}).",
                hint="Somebody changed the database. `everloop audit verify` shows what else.",
                context={"version": version.id, "entry": entry},
            )
