"""Unmodified MLflow clients, each in an environment of its own, and a server of ours for them.

The environments lie in a cache folder (``EVERLOOP_TEST_CACHE``, else ``~/.cache/everloop-tests``);
`make parts` makes them once, with uv, from the registry that pip is set up for.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.parts.found import MLFLOW_LINES, mlflow_folder, mlflow_python
from tests.story.project import Project, make_project, wait_for

NEWEST = "3"
SCENARIOS = Path(__file__).parent
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, kw_only=True)
class MlflowServer:
    """Our control plane as a process, and a token for its clients."""

    url: str
    token: str
    project: Project

    def variables(self) -> dict[str, str]:
        """Return the environment that points a stock client here."""
        return QUIET | {"MLFLOW_TRACKING_URI": self.url, "MLFLOW_TRACKING_TOKEN": self.token}


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Run our control plane for the session."""
    project = make_project(tmp_path_factory.mktemp("mlflow"))
    token = project.json("token", "create", "mlflow")["secret"]
    with project.up("--port", "0"):
        yield MlflowServer(url=project.address(), token=token, project=project)


@pytest.fixture(scope="session", params=sorted(MLFLOW_LINES))
def mlflow_client(request: pytest.FixtureRequest) -> str:
    """Return the line of a client, such as ``2.22``; each test that asks runs with all of them."""
    line = str(request.param)
    assert mlflow_python(line) is not None, "a test that uses this fixture carries needs_mlflow"
    return line


def run_client(
    line: str,
    script: str,
    server: MlflowServer,
    *arguments: str,
    variables: dict[str, str] | None = None,
    timeout_s: float = 240,
) -> Any:
    """Run a script of this folder with a client's Python; return the JSON in its last line."""
    done = subprocess.run(
        command_of(line, SCENARIOS / script, *arguments),
        cwd=server.project.folder,
        env=client_environment(server) | (variables or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-6_000:] + done.stdout[-2_000:]
    return json.loads(done.stdout.splitlines()[-1])


def command_of(line: str, script: Path, *arguments: str) -> list[str]:
    """Return the command that runs a script with a client's Python."""
    python = mlflow_python(line)
    assert python is not None
    # -P: beside a script may lie a module that is named like the client's package.
    return [str(python), "-P", str(script), *arguments]


def client_environment(server: MlflowServer) -> dict[str, str]:
    """Return the environment in which a stock client finds the server, and nothing else of ours."""
    return _without_everloop() | server.variables()


@contextmanager
def their_server(line: str, folder: Path) -> Iterator[str]:
    """Run MLflow's own server with one worker and SQLite; give its address."""
    python = mlflow_python(line)
    assert python is not None
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        *(str(python), "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"),
        *("--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/theirs.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    paths = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_without_everloop() | QUIET | paths,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for(lambda: httpx.get(f"{url}/health").status_code == 200, "MLflow answers", 120)
            yield url
        finally:
            # Its workers are processes of their own, in the session that is only theirs.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _without_everloop() -> dict[str, str]:
    ours = ("EVERLOOP", "MLFLOW", "PYTEST")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def install_clients() -> None:
    """Make the environments that are missing; says what it does, and raises what uv says."""
    uv = Path(sys.executable).parent / "uv"
    for line, packages in MLFLOW_LINES.items():
        folder = mlflow_folder(line)
        if mlflow_python(line) is not None:
            continue
        print(f"parts: MLflow {line} into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            make = [str(uv), "venv", "--quiet", "--python", sys.executable, str(folder)]
            subprocess.run(make, check=True)
            python = str(folder / "bin" / "python")
            install = [
                str(uv),
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--python",
                python,
            ]
            subprocess.run([*install, *packages], check=True)
            (folder / "made").touch()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"parts: MLflow {line} could not be installed: {error}", file=sys.stderr)
