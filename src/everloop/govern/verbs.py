"""The changes of governance; importing them declares them."""

from __future__ import annotations

from everloop.govern.erasing import erase_payloads
from everloop.govern.exporting import export_ledger

__all__ = ["erase_payloads", "export_ledger"]
