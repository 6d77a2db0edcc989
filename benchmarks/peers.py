"""The peers, each in a virtual environment of its own: MLflow, and for some questions others.

Each lies in a cache folder (``EVERLOOP_BENCH_CACHE``, else ``~/.cache/everloop-benchmarks``) and is
made once, by pip, from the registry that pip is set up for. Their versions do not touch ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from measure import Options, tell
from processes import run_once

CACHE_VARIABLE = "EVERLOOP_BENCH_CACHE"
WANTED = ("mlflow>=3,<4", "lightgbm")
Samples = dict[str, list[float]]
P = TypeVar("P", bound="Peer")
# No peer may talk to its maker or wait for a network.
QUIET = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "AIM_UI_TELEMETRY_ENABLED": "0",
    "GIT_PYTHON_REFRESH": "quiet",
}
TASKS = Path(__file__).with_name("mlflow_tasks.py")


class Peer:
    """A peer as installed in its own environment."""

    def __init__(self, folder: Path, title: str, package: str) -> None:
        self._bin = folder / "bin"
        self.python = str(self._bin / "python")
        asked = f"from importlib.metadata import version as v; print(v({package!r}))"
        _, told = run_once([self.python, "-c", asked], folder=folder)
        self.name = f"{title} {told.strip()}"

    @property
    def variables(self) -> dict[str, str]:
        """Environment in which its programs find each other."""
        return {"PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}"}

    def ask(self, script: Path, name: str, folder: Path, **given: object) -> Samples:
        """Run one task of a script in this environment; return the samples that it printed."""
        _, told = run_once(
            [self.python, str(script), name, json.dumps(given)],
            folder=folder,
            variables=self.variables | QUIET,
        )
        found: Samples = json.loads(told.splitlines()[-1])
        return found


class Mlflow(Peer):
    """MLflow as installed in its own environment."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "MLflow", "mlflow")
        self.program = str(self._bin / "mlflow")

    def server(self, folder: Path, port: int) -> list[str]:
        """Return the command of its tracking server: one worker, SQLite in the folder.

        One worker, for with its default of four each answer on a kept connection waits 40 ms.
        """
        return [
            *(self.program, "server", "--workers", "1", "--host", "127.0.0.1"),
            *("--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ]

    def task(self, name: str, folder: Path, **given: str | int) -> Samples:
        """Run one task of ``mlflow_tasks.py``; return the samples that it printed."""
        return self.ask(TASKS, name, folder, **given)


def find_mlflow(options: Options) -> Mlflow | None:
    """Return the peer, installed if need be; None when it is not wanted or cannot be had."""
    return _find(options, "MLflow", _cache() / "mlflow", WANTED, Mlflow)


def find_peer(options: Options, title: str, package: str) -> Peer | None:
    """Return a further peer, installed if need be; None, loudly, when it cannot be had."""
    folder = _cache() / package
    return _find(options, title, folder, (package,), lambda at: Peer(at, title, package))


def find_environment(
    options: Options, name: str, package: str, wanted: Sequence[str]
) -> Peer | None:
    """Return a peer whose environment holds several packages, named by one of them."""
    titles = {"litserve": "LitServe", "bentoml": "BentoML", "mlserver": "MLServer"}
    title = titles.get(package, package)
    return _find(options, title, _cache() / name, wanted, lambda at: Peer(at, title, package))


def _find(
    options: Options, title: str, folder: Path, wanted: Sequence[str], open_at: Callable[[Path], P]
) -> P | None:
    if not options.peer:
        return None
    problems = (OSError, RuntimeError, subprocess.CalledProcessError)
    with suppress(*problems):
        return open_at(folder)
    try:  # not there, or an installation that was cut short
        _install(folder, wanted)
        return open_at(folder)
    except problems as error:
        tell(f"LEFT OUT: {title} cannot be installed or started ({error})")
        return None


def _cache() -> Path:
    cache = os.environ.get(CACHE_VARIABLE)
    return Path(cache) if cache else Path.home() / ".cache" / "everloop-benchmarks"


def _install(folder: Path, wanted: Sequence[str]) -> None:
    tell(f"installing {' and '.join(wanted)} into {folder}, once")
    venv.create(folder, with_pip=True, clear=True)
    subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted],
        check=True,
        stdout=sys.stderr,
    )
