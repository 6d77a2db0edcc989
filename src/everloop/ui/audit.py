"""The ledger: its entries with filters, one entry with its payload and proof, and verification."""

from __future__ import annotations

import json

from starlette.responses import Response

from everloop.core.errors import InvalidInput
from everloop.govern.audit import EntryList, EntryView
from everloop.govern.exporting import LedgerVerdict
from everloop.ui.visit import Visit

_DIGITS = 12


def show_list(visit: Visit) -> Response:
    """Show the entries that a filter lets through."""
    return visit.show("audit.html", verdict=None, **_listing(visit))


def show_entry(visit: Visit) -> Response:
    """Show one entry: what was done, what it changed, and its proof."""
    index = visit.path("index")
    if not index.isascii() or not index.isdigit() or len(index) > _DIGITS:
        raise InvalidInput(
            "ledger.index_invalid",
            "A ledger entry has a number.",
            hint="Choose an entry from the list.",
        )
    entry = visit.get("audit.show", EntryView, index=int(index))
    body, payload = _read(entry.body), _read(entry.payload)
    changes = payload.pop("changes", [])
    return visit.show(
        "entry.html",
        entry=entry,
        line=entry.line,
        body=body,
        changes=changes if isinstance(changes, list) else [],
        payload=json.dumps(payload, indent=2, sort_keys=True, ensure_ascii=False)
        if payload
        else None,
    )


def verify(visit: Visit) -> Response:
    """Verify the whole ledger now and say what was found."""
    verdict = visit.get("audit.verify", LedgerVerdict)
    return visit.show("audit.html", verdict=verdict, **_listing(visit))


def _read(text: str | None) -> dict[str, object]:
    """Return stored JSON; empty where somebody erased it or tampered with it."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _listing(visit: Visit) -> dict[str, object]:
    chosen = {name: visit.param(name) for name in ("action", "actor", "resource", "outcome")}
    whole = visit.param("whole") == "yes"
    found = visit.query(
        "audit.list", EntryList, limit=100, after=visit.param("after"), whole=whole, **chosen
    )
    return {"entries": found, "chosen": chosen, "whole": whole}
