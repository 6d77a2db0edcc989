"""``python -m everloop``: the command line."""

from __future__ import annotations

from everloop.cli.main import run

if __name__ == "__main__":
    run()
