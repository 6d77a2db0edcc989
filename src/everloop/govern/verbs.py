"""The changes of governance; importing them declares them."""

from __future__ import annotations

from everloop.govern.collecting import collect_blobs, compact_store
from everloop.govern.erasing import erase_payloads
from everloop.govern.exporting import export_ledger
from everloop.govern.trash import purge_trash

__all__ = ["collect_blobs", "compact_store", "erase_payloads", "export_ledger", "purge_trash"]
