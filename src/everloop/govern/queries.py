"""The questions of governance; importing them declares them."""

from __future__ import annotations

from everloop.govern.audit import list_entries, show_entry
from everloop.govern.cards import show_card
from everloop.govern.collecting import show_garbage
from everloop.govern.exporting import show_head, verify_ledger
from everloop.govern.lineage import show_lineage
from everloop.govern.trash import list_trash, plan_purge

__all__ = [
    "list_entries",
    "list_trash",
    "plan_purge",
    "show_card",
    "show_entry",
    "show_garbage",
    "show_head",
    "show_lineage",
    "verify_ledger",
]
