"""How much memory a process has."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Return what of a process is in memory; 0 for one that has ended and waits for its parent."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
