"""The changes of governance; importing them declares them."""

from __future__ import annotations

from everloop.govern.collecting import collect_blobs
from everloop.govern.erasing import erase_payloads
from everloop.govern.exporting import export_ledger

__all__ = ["collect_blobs", "erase_payloads", "export_ledger"]
