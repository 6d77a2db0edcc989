"""The command ``everloop-serve``: one deployment in a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a folder until told to stop; return the exit code."""
    asked = _parser().parse_args(arguments)
    if not asked.folder.is_dir():
        sys.stderr.write(f"everloop-serve: {asked.folder} is no folder. `everloop up` makes it.\n")
        return 2
    # After the arguments: --help needs no server.
    from everloop.core.errors import EverloopError
    from everloop.serve.server import run

    try:
        run(asked.folder, host=asked.host, port=asked.port, key=asked.public_key)
    except OSError as error:
        sys.stderr.write(f"everloop-serve: {error}. Free the port or the disk, or use --port 0.\n")
        return 1
    except EverloopError as error:
        sys.stderr.write(f"everloop-serve: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="everloop-serve", description="Answer prediction requests for one deployment."
    )
    parser.add_argument("--folder", type=Path, required=True, help="the deployment's folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--public-key", help="hex of the only key whose bundles are accepted")
    return parser


if __name__ == "__main__":
    sys.exit(main())
