"""The command ``everloop-serve``: deployments or sealed bundles in processes of their own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from everloop.core.errors import EverloopError
from everloop.serve.environment import Found, discover


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; return the exit code."""
    try:
        found = discover(sys.argv[1:] if arguments is None else arguments, os.environ)
    except EverloopError as error:
        return _refuse(error, 2)
    missing = next((each for each in _places(found) if not each.is_dir()), None)
    if missing is not None:
        return _refuse(f"{missing} is no folder. `everloop up` makes it.", 2)
    # After the arguments: --help needs no server.
    from everloop.serve.process import run
    from everloop.serve.tokens import read_tokens

    try:
        if found.tokens_file is not None:
            read_tokens(found.tokens_file)  # before the workers, which would begin for ever
        if found.storage is None:
            run(found, _places(found))
        else:
            _run_fetched(found, found.storage)
    except OSError as error:
        return _refuse(f"{error}. Free the port or the disk, or use --port 0.", 1)
    except EverloopError as error:
        return _refuse(error, 1)
    return 0


def _run_fetched(found: Found, address: str) -> None:
    from everloop.serve.fetch import fetch_bundles
    from everloop.serve.process import run

    with tempfile.TemporaryDirectory(prefix="everloop-model-") as folder:
        run(found, (fetch_bundles(address, Path(folder)),))


def _places(found: Found) -> tuple[Path, ...]:
    return found.models if found.home is None else (found.home,)


def _refuse(problem: object, code: int) -> int:
    sys.stderr.write(f"everloop-serve: {problem}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
