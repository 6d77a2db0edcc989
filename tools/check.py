"""Run every check that needs no server: style, types, import contracts, changelog fragments.

Runs them all, also after one has failed, so that one call tells everything; the exit status is
that of the whole. The report on sizes is printed and never fails.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("style", (str(BIN / "ruff"), "check", ".")),
    ("format", (str(BIN / "ruff"), "format", "--check", ".")),
    ("types", (str(BIN / "mypy"),)),
    ("imports", (str(BIN / "lint-imports"),)),
    ("changelog", (sys.executable, "tools/fragments.py")),
    ("sizes", (sys.executable, "tools/outliers.py")),
)


def main() -> int:
    """Run the checks and print a line for each; return 1 if any failed."""
    failed = [name for name, command in CHECKS if not _passes(name, command)]
    if failed:
        print(f"\ncheck: FAILED: {', '.join(failed)}")
        return 1
    print("\ncheck: all passed")
    return 0


def _passes(name: str, command: tuple[str, ...]) -> bool:
    print(f"== {name}", flush=True)
    started = time.perf_counter()
    result = subprocess.run(command, check=False, cwd=ROOT)
    took_s = time.perf_counter() - started
    print(f"== {name}: {'ok' if result.returncode == 0 else 'FAILED'} ({took_s:.1f} s)", flush=True)
    return result.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
