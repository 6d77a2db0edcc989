"""The peer, MLflow, in a virtual environment of its own.

It lies in a cache folder (``EVERLOOP_BENCH_CACHE``, else ``~/.cache/everloop-benchmarks``) and is
made once, by pip, from the registry that pip is set up for. Its versions do not touch ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

from measure import Options, tell
from processes import run_once

CACHE_VARIABLE = "EVERLOOP_BENCH_CACHE"
WANTED = ("mlflow>=3,<4", "lightgbm")
TASKS = Path(__file__).with_name("mlflow_tasks.py")


class Mlflow:
    """MLflow as installed in its own environment."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin"
        self.python = str(self._bin / "python")
        self.program = str(self._bin / "mlflow")
        spent, told = run_once(
            [self.python, "-c", "from importlib.metadata import version as v; print(v('mlflow'))"],
            folder=folder,
        )
        del spent
        self.name = f"MLflow {told.strip()}"

    @property
    def variables(self) -> dict[str, str]:
        """Environment in which its programs find each other."""
        return {"PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}"}

    def server(self, folder: Path, port: int) -> list[str]:
        """Return the command of its tracking server: one worker, SQLite in the folder.

        One worker, for with its default of four each answer on a kept connection waits 40 ms.
        """
        return [
            *(self.program, "server", "--workers", "1", "--host", "127.0.0.1"),
            *("--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ]

    def task(self, name: str, folder: Path, **given: str | int) -> dict[str, list[float]]:
        """Run one task of ``mlflow_tasks.py``; return the samples that it printed."""
        _, told = run_once(
            [self.python, str(TASKS), name, json.dumps(given)],
            folder=folder,
            variables=self.variables,
        )
        found: dict[str, list[float]] = json.loads(told.splitlines()[-1])
        return found


def find_mlflow(options: Options) -> Mlflow | None:
    """Return the peer, installed if need be; None when it is not wanted or cannot be had."""
    if not options.peer:
        return None
    cache = os.environ.get(CACHE_VARIABLE)
    folder = (Path(cache) if cache else Path.home() / ".cache" / "everloop-benchmarks") / "mlflow"
    try:
        if not (folder / "bin" / "mlflow").exists():
            _install(folder)
        return Mlflow(folder)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        tell(f"no peer: MLflow cannot be installed or started ({error})")
        return None


def _install(folder: Path) -> None:
    tell(f"installing {' and '.join(WANTED)} into {folder}, once")
    venv.create(folder, with_pip=True)
    subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *WANTED],
        check=True,
        stdout=sys.stderr,
    )
